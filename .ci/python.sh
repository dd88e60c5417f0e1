#!/usr/bin/env bash
# Checks the JSON Schema against valid and invalid schemas, and the Python client: builds it as
# sdist and wheel, installs the wheel, runs its tests against the real server, and runs the example
# of docs/examples: `bash .ci/python.sh BINARY`.
#
# Everything is kept in a virtual environment outside the clone. Without Python 3.11, venv or pytest
# the checks are skipped with a line that says so; likewise those that need packages for Parquet
# results and the example.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source .ci/packages.sh

readonly BINARY=${1:?the ringest program}
readonly VENV=${HOME}/.cache/ringest/venv

main() {
    scratch=$(mktemp --directory)
    trap 'rm --recursive --force "$scratch"' EXIT
    get_venv || {
        echo "PYTHON CLIENT CHECKS SKIPPED: $skipped_because"
        exit 0
    }
    "$VENV/bin/python" --version
    "$VENV/bin/python" .ci/schema_json.py
    build
    get_results_packages || echo "RESULT FILES AND EXAMPLE SKIPPED: pyarrow and others cannot be downloaded"
    RINGEST_BIN=$(realpath "$BINARY") \
        "$VENV/bin/python" -m pytest --quiet -rs -p no:cacheprovider clients/python
    run_example
}

# A virtual environment with what the checks need; returns 1 with the reason in skipped_because.
get_venv() {
    command -v python3 >/dev/null || install_packages python3 python3-venv || {
        skipped_because="there is no python3"
        return 1
    }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        skipped_because="the client needs Python 3.11 or later; this is $(python3 --version)"
        return 1
    }
    if ! "$VENV/bin/python" -c 'import build, jsonschema, pytest' 2>/dev/null; then
        rm --recursive --force "$VENV"
        # Debian packages venv separately from python3.
        make_venv || { install_packages python3-venv && make_venv; } || {
            skipped_because="python3 -m venv does not work here"
            return 1
        }
        "$VENV/bin/pip" install --quiet --disable-pip-version-check build jsonschema pytest || {
            skipped_because="pytest, build and jsonschema cannot be downloaded"
            return 1
        }
    fi
}

# Tests that need a missing package skip themselves and say so.
get_results_packages() {
    "$VENV/bin/python" -c 'import matplotlib, numpy, pandas, pyarrow' 2>/dev/null \
        || "$VENV/bin/pip" install --quiet --disable-pip-version-check \
            matplotlib numpy pandas pyarrow
}

# Runs the example as a user would, from the installed wheel: engine, stream, Parquet, plot.
run_example() {
    "$VENV/bin/python" -c 'import matplotlib, pyarrow' 2>/dev/null || return 0
    RINGEST_BIN=$(realpath "$BINARY") MPLBACKEND=Agg PLOT=$scratch/plot.png \
        "$VENV/bin/python" docs/examples/accelerometer.py
    [[ $(head --bytes=4 "$scratch/plot.png" | tail --bytes=3) == PNG ]]
}

make_venv() {
    rm --recursive --force "$VENV"
    mkdir --parents "$(dirname "$VENV")"
    python3 -m venv "$VENV" >/dev/null 2>&1
}

# Builds a copy, so that no files are left in the clone.
build() {
    cp --recursive clients/python "$scratch/source"
    "$VENV/bin/python" -m build --outdir "$scratch/dist" "$scratch/source" >"$scratch/log" 2>&1 || {
        tail --lines=20 "$scratch/log"
        return 1
    }
    (cd "$scratch/dist" && ls)
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall \
        "$scratch"/dist/ringest-*.whl
    # Imported as by a user: from the wheel, with its types, in another directory.
    (cd "$scratch" && "$VENV/bin/python" - <<'PYTHON'
import importlib.resources, ringest

assert importlib.resources.files(ringest).joinpath("py.typed").is_file(), "the wheel has no py.typed"
assert ringest.BinaryProtocolClient("localhost", 5000) is not None
PYTHON
    )
}

main
