#!/usr/bin/env bash
# Proves that the simulation bites: `bash .ci/mutants.sh`. Each patch in tests/mutants/ brings back
# a fault that was mended once. It is applied to a copy of the tree, and the simulation must find it
# within as many seeds as a normal run has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SEEDS=1000

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Patches are applied there, whatever repository is around it.
export GIT_CEILING_DIRECTORIES="${copy%/*}"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"

# The dependencies are compiled; only this crate is built again, for each patch.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"

simulate() {
    (cd "$copy" && RINGEST_SIM_SEEDS=$SEEDS cargo test --quiet --features simulation \
        --test ringest-sim worlds_hold -- --nocapture) >"$copy/log" 2>&1
}

survivors=()
found=0
for patch in tests/mutants/*.patch; do
    begun=$SECONDS
    git -C "$copy" apply "$PWD/$patch" || {
        echo "$patch does not fit the code any more: make it bring its fault back again"
        exit 1
    }
    if simulate; then
        survivors+=("$patch")
    elif what=$(grep -m 1 -E '^seed [0-9]+ fails: ' "$copy/log"); then
        found=$((found + 1))
        printf '%s: %s (%d s)\n' "$patch" "$what" "$((SECONDS - begun))"
    else
        cat "$copy/log"
        echo "$patch: the copy does not build or run"
        exit 1
    fi
    git -C "$copy" apply --reverse "$PWD/$patch"
done
((${#survivors[@]} == 0)) || {
    echo "not found within $SEEDS seeds: ${survivors[*]}"
    exit 1
}
echo "$found mutants, each found within $SEEDS seeds"
