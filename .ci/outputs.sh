#!/usr/bin/env bash
# Reads result files with other programs: `bash .ci/outputs.sh BINARY`.
#
# pyarrow reads Parquet and Arrow, Python itself CSV and ndjson; types and values must be those that
# a few lines of Python compute from the same records. pyarrow is kept in a virtual environment
# outside the clone. If it cannot be installed, the checks are skipped with a line that says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source .ci/packages.sh

readonly BINARY=${1:?the ringest program}
readonly VENV=${HOME}/.cache/ringest/outputs-venv

main() {
    get_venv || {
        echo "RESULT FILE CHECKS SKIPPED: $skipped_because"
        exit 0
    }
    "$VENV/bin/python" .ci/outputs.py "$(realpath "$BINARY")"
}

# A virtual environment with pyarrow; returns 1 with the reason in skipped_because.
get_venv() {
    "$VENV/bin/python" -c 'import pyarrow' 2>/dev/null && return 0
    command -v python3 >/dev/null || install_packages python3 python3-venv || {
        skipped_because="there is no python3"
        return 1
    }
    # Debian packages venv separately from python3.
    make_venv || { install_packages python3-venv && make_venv; } || {
        skipped_because="python3 -m venv does not work here"
        return 1
    }
    "$VENV/bin/pip" install --quiet --disable-pip-version-check pyarrow || {
        skipped_because="pyarrow cannot be downloaded"
        return 1
    }
}

make_venv() {
    rm --recursive --force "$VENV"
    mkdir --parents "$(dirname "$VENV")"
    python3 -m venv "$VENV" >/dev/null 2>&1
}

main
