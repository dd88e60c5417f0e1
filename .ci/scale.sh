#!/usr/bin/env bash
# Checks the merges of partials with DuckDB and Spark: `bash .ci/scale.sh BINARY [PYTEST OPTION…]`.
#
# DuckDB and Spark, from PyPI, merge partials of random records and of real engines, one of which is
# killed; every merge must give the result of the records themselves. To run a part:
# `-m 'not spark'` is quick, `-m 'not engine'` needs no BINARY, `-k killed` is a single test.
#
# Everything is kept in a virtual environment outside the clone. Checks that cannot run are skipped
# with a line that says SKIPPED.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source .ci/packages.sh

readonly BINARY=${1:?the ringest program}
readonly VENV=${HOME}/.cache/ringest/scale-venv
# A test waits at most 300 s for a merge; all of them take ten minutes and more on two cores.
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
    # Spark leaves the logs of its executors there.
    rm --recursive --force "$VENV"/lib/python*/site-packages/pyspark/work
}

# A virtual environment with DuckDB; returns 1 with the reason in skipped_because.
get_venv() {
    command -v python3 >/dev/null || install_packages python3 python3-venv || {
        skipped_because="there is no python3"
        return 1
    }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        skipped_because="the merges need Python 3.11 or later; this is $(python3 --version)"
        return 1
    }
    if ! "$VENV/bin/python" -c 'import duckdb, hdrh, pyarrow, pytest' 2>/dev/null; then
        # Debian packages venv separately from python3.
        make_venv || { install_packages python3-venv && make_venv; } || {
            skipped_because="python3 -m venv does not work here"
            return 1
        }
        pip_install 'duckdb>=1.1' hdrhistogram pyarrow pytest || {
            skipped_because="duckdb, hdrhistogram, pyarrow or pytest cannot be downloaded"
            return 1
        }
    fi
}

# Installs Spark, half a gigabyte, and Java for it.
get_spark() {
    command -v java >/dev/null || install_packages openjdk-17-jre-headless || {
        skipped_because="there is no Java, and Debian's openjdk-17-jre-headless cannot be installed"
        return 1
    }
    if ! "$VENV/bin/python" -c 'import pyspark' 2>/dev/null; then
        pip_install 'pyspark>=4,<5' || {
            skipped_because="pyspark cannot be downloaded"
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
