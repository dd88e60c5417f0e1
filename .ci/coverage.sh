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
    cargo install --locked --root "$TOOLS" "cargo-llvm-cov@$VERSION"
fi
# In a separate directory, since instrumented code is compiled with other flags.
PATH="$TOOLS/bin:$PATH" CARGO_TARGET_DIR="$TARGET/coverage" \
    cargo llvm-cov --summary-only | tail -n 3
