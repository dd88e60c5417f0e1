#!/usr/bin/env bash
# Filters result files, partials and merged results with the readers that users have:
# `bash .ci/readers.sh BINARY [READER…]`.
#
# readers/make.py makes files with NaN, infinities, nulls, -0.0 and numbers above i64's maximum, and
# readers/check.py compares what each reader finds in them with what it finds in memory. Readers, all
# by default: pyarrow-14, pyarrow-17, pyarrow-26 (each with pandas, and from 17 on with Polars),
# duckdb-1.4, duckdb-2.0, spark.
#
# Each has a virtual environment outside the clone. A reader that cannot be installed is skipped with
# a line that says SKIPPED; if only its version cannot, the next one is taken, and a line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source .ci/packages.sh

readonly BINARY=${1:?the ringest program}
readonly VENVS=${HOME}/.cache/ringest/readers
# That of scale.sh: Spark takes half a gigabyte.
readonly SPARK_VENV=${HOME}/.cache/ringest/scale-venv
readonly ALL=(pyarrow-14 pyarrow-17 pyarrow-26 duckdb-1.4 duckdb-2.0 spark)
# Later versions to look for if one cannot be installed.
readonly NEXT_VERSIONS=4

main() {
    command -v python3 >/dev/null || install_packages python3 python3-venv || {
        echo "READERS SKIPPED: there is no python3"
        exit 0
    }
    scratch=$(mktemp --directory)
    trap 'rm --recursive --force "$scratch"' EXIT
    python3 .ci/readers/make.py "$(realpath "$BINARY")" "$scratch"
    local readers=("${@:2}") reader python failed=()
    ((${#readers[@]})) || readers=("${ALL[@]}")
    for reader in "${readers[@]}"; do
        skipped_because= checked=()
        "get_${reader%%-*}" "${reader#*-}" || {
            echo "$reader SKIPPED: $skipped_because"
            continue
        }
        "$python" .ci/readers/check.py "$scratch" "${checked[@]}" || failed+=("$reader")
    done
    ((${#failed[@]} == 0)) || {
        echo "readers that do not find what is there: ${failed[*]}"
        exit 1
    }
}

# Each get_READER sets `python`, and `checked` if it is not for all readers there; or returns 1 with the
# reason in skipped_because.

# NumPy 2 and pandas 3 need a later pyarrow than 14, and Polars 2 a later one than 17.
get_pyarrow() {
    case $1 in
        14) get_venv pyarrow 14 'numpy<2' 'pandas<3' ;;
        17) get_venv pyarrow 17 'pandas<3' 'polars<2' ;;
        *) get_venv pyarrow "$1" pandas polars ;;
    esac
}

get_duckdb() {
    get_venv duckdb "$1"
}

get_spark() {
    python=$SPARK_VENV/bin/python checked=(spark)
    "$python" -c 'import pyspark' 2>/dev/null && command -v java >/dev/null || {
        skipped_because="there is no Spark; run .ci/scale.sh, which installs it, and Java"
        return 1
    }
}

# get_venv PACKAGE VERSION OTHERS…: an environment with this version of a package.
get_venv() {
    local package=$1 version=$2 venv=$VENVS/$1-$2 next
    python=$venv/bin/python
    "$python" -c "import $package" 2>/dev/null && return 0
    make_venv "$venv" || { install_packages python3-venv && make_venv "$venv"; } || {
        skipped_because="python3 -m venv does not work here"
        return 1
    }
    for ((next = 0; next <= NEXT_VERSIONS; next++)); do
        pip_install "$package==$(later "$version" "$next").*" "${@:3}" || continue
        ((next == 0)) || echo "$package $version cannot be installed for $(python3 --version):" \
            "$(later "$version" "$next") is taken instead"
        return 0
    done
    rm --recursive --force "$venv"
    skipped_because="neither $package $version nor the next $NEXT_VERSIONS versions can be installed"
    return 1
}

# later VERSION N: 14 and 2 give 16, 1.4 and 2 give 1.6.
later() {
    local last=${1##*.}
    printf '%s%d\n' "${1%"$last"}" "$((last + $2))"
}

pip_install() {
    # Only wheels: an old version would take long to build, if it can be built at all.
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "$@" 2>/dev/null
}

make_venv() {
    rm --recursive --force "$1"
    mkdir --parents "$(dirname "$1")"
    python3 -m venv "$1" >/dev/null 2>&1
}

main "$@"
