#!/usr/bin/env bash
# Prints how much of src/ the unit and end-to-end tests cover, measured by cargo-llvm-cov:
# `bash .ci/coverage.sh`.
#
# The measurement needs the LLVM tools of the toolchain's own version (`rustup component add
# llvm-tools`). If they are not installed and cannot be fetched, a line says so and the step counts
# as passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VERSION=0.9.1
readonly TARGET="${CARGO_TARGET_DIR:-target}"
readonly TOOLS="$TARGET/tools"

skip() {
    echo "COVERAGE SKIPPED: $1"
    exit 0
}

# The directory of the toolchain's LLVM tools, if it has them.
llvm_tools() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    local directory
    directory=$(rustc --print sysroot)/lib/rustlib/$host/bin
    [[ -x $directory/llvm-profdata && -x $directory/llvm-cov ]]
}

llvm_tools || rustup component add llvm-tools >/dev/null 2>&1 || true
llvm_tools || skip "this toolchain has no llvm-profdata and llvm-cov, and they cannot be fetched"

if [[ $("$TOOLS/bin/cargo-llvm-cov" llvm-cov --version 2>/dev/null) != "cargo-llvm-cov $VERSION" ]]; then
    cargo install --locked --debug --root "$TOOLS" --target-dir "$TOOLS/build" \
        "cargo-llvm-cov@$VERSION" || skip "cargo-llvm-cov cannot be installed"
    rm -rf "$TOOLS/build"
fi
# In a separate directory, since instrumented code is compiled with other flags. Left out are the
# tests that count allocations or read documents. Engines that tests kill, or forbid large files,
# leave profiles cut short, which the merge passes over. A measurement that fails is reported and
# fails nothing: the tests themselves have run before.
log=$TARGET/coverage.log
if PATH="$TOOLS/bin:$PATH" CARGO_TARGET_DIR="$TARGET/coverage" timeout 1800 cargo llvm-cov \
    --summary-only --failure-mode all \
    --lib --test records --test messages --test results --test host >"$log" 2>&1; then
    # Columns 8 to 10 of the summary: lines, those not run, and the share of those that were.
    awk '/^TOTAL/ { printf "%s of lines covered (%d of %d)\n", $10, $8 - $9, $8 }' "$log"
else
    tail -n 20 "$log"
    echo "COVERAGE NOT MEASURED: see the lines above"
fi
