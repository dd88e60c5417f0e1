#!/usr/bin/env bash
# Merges of partials beyond one machine: `bash .ci/scale.sh BINARY [OPTION OF PYTEST…]`.
#
# DuckDB and Spark, from PyPI, merge partials of random records and those of real engines, one of
# which is killed; all must give what the records give. In parts: `-m 'not spark'` is quick,
# `-m 'not engine'` needs no BINARY that writes partials, `-k killed` is one test.
#
# Everything is kept in a virtual environment outside of the clone. What cannot be had is skipped
# with a line that says so, in capitals.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source .ci/packages.sh

readonly BINARY=${1:?the ringest program}
readonly VENV=${HOME}/.cache/ringest/scale-venv
# A test waits 300 s for a merge at most; all of them take two to four minutes on two cores.
readonly TIME_LIMIT_S=1500

main() {
    scratch=$(mktemp --directory)
    trap clean_up EXIT
    get_venv || {
        echo "SCALE-OUT CHECKS SKIPPED: $skipped_because"
        exit 0
    }
    get_spark || echo "SPARK CHECKS SKIPPED: $skipped_because"
    "$VENV/bin/python" -c 'import duckdb; print("DuckDB", duckdb.__version__)'
    RINGEST_BIN=$(realpath "$BINARY") TMPDIR=$scratch \
        timeout --kill-after=10 "$TIME_LIMIT_S" \
        "$VENV/bin/python" -m pytest --quiet -rs -p no:cacheprovider .ci/scale "$@"
}

clean_up() {
    rm --recursive --force "$scratch"
    # Spark keeps there what its executors said.
    rm --recursive --force "$VENV"/lib/python*/site-packages/pyspark/work
}

# A virtual environment with DuckDB; returns 1 with the reason in skipped_because.
get_venv() {
    command -v python3 >/dev/null || install_packages python3 python3-venv || {
        skipped_because="there is no python3"
        return 1
    }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        skipped_because="the merges need Python 3.11, here is $(python3 --version)"
        return 1
    }
    if ! "$VENV/bin/python" -c 'import duckdb, hdrh, pyarrow, pytest' 2>/dev/null; then
        # Debian's python3 comes without what a venv needs.
        make_venv || { install_packages python3-venv && make_venv; } || {
            skipped_because="python3 -m venv does not work here"
            return 1
        }
        pip_install 'duckdb>=1.1' hdrhistogram pyarrow pytest || {
            skipped_because="duckdb, hdrhistogram, pyarrow or pytest cannot be fetched"
            return 1
        }
    fi
}

# Spark, which has half a gigabyte, and Java for it.
get_spark() {
    command -v java >/dev/null || install_packages openjdk-17-jre-headless || {
        skipped_because="there is no Java, and Debian's openjdk-17-jre-headless cannot be installed"
        return 1
    }
    if ! "$VENV/bin/python" -c 'import pyspark' 2>/dev/null; then
        pip_install 'pyspark>=4,<5' || {
            skipped_because="pyspark cannot be fetched"
            return 1
        }
    fi
    "$VENV/bin/python" -c 'import pyspark; print("Spark", pyspark.__version__)'
}

pip_install() {
    "$VENV/bin/pip" install --quiet --disable-pip-version-check "$@"
}

make_venv() {
    rm --recursive --force "$VENV"
    mkdir --parents "$(dirname "$VENV")"
    python3 -m venv "$VENV" >/dev/null 2>&1
}

main "${@:2}"
