#!/usr/bin/env bash
# The Python client: built as sdist and as wheel, installed from that wheel, and its own tests
# against the real server: `bash .ci/python.sh BINARY`.
#
# Everything is kept in a virtual environment outside of the clone. Where there is no Python 3.11,
# no venv or no pytest to be had, a line says so and the checks count as passed.
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
    build
    RINGEST_BIN=$(realpath "$BINARY") \
        "$VENV/bin/python" -m pytest --quiet -rs -p no:cacheprovider clients/python
}

# A virtual environment with what the checks need; returns 1 with the reason in skipped_because.
get_venv() {
    command -v python3 >/dev/null || install_packages python3 python3-venv || {
        skipped_because="there is no python3"
        return 1
    }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        skipped_because="the client needs Python 3.11, here is $(python3 --version)"
        return 1
    }
    if ! "$VENV/bin/python" -c 'import build, pytest' 2>/dev/null; then
        rm --recursive --force "$VENV"
        # Debian's python3 comes without what a venv needs.
        make_venv || { install_packages python3-venv && make_venv; } || {
            skipped_because="python3 -m venv does not work here"
            return 1
        }
        "$VENV/bin/pip" install --quiet --disable-pip-version-check build pytest || {
            skipped_because="pytest and build cannot be fetched"
            return 1
        }
    fi
}

make_venv() {
    rm --recursive --force "$VENV"
    mkdir --parents "$(dirname "$VENV")"
    python3 -m venv "$VENV" >/dev/null 2>&1
}

# A copy is built, so that nothing is left in the clone.
build() {
    cp --recursive clients/python "$scratch/source"
    "$VENV/bin/python" -m build --outdir "$scratch/dist" "$scratch/source" >"$scratch/log" 2>&1 || {
        tail --lines=20 "$scratch/log"
        return 1
    }
    (cd "$scratch/dist" && ls)
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall \
        "$scratch"/dist/ringest-*.whl
    # As a user has it: from the wheel, with its types, from another directory.
    (cd "$scratch" && "$VENV/bin/python" - <<'PYTHON'
import importlib.resources, ringest

assert importlib.resources.files(ringest).joinpath("py.typed").is_file(), "the wheel has no py.typed"
assert ringest.BinaryProtocolClient("localhost", 5000) is not None
PYTHON
    )
}

main
