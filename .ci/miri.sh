#!/usr/bin/env bash
# Runs the unit tests of unsafe code under Miri, which finds undefined behaviour: `bash .ci/miri.sh`.
#
# Miri comes with nightly toolchains only (`rustup component add --toolchain nightly miri rust-src`).
# Where none is installed, a line says so in capitals and the step counts as passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The modules whose tests run: those with unsafe code. The layers test compares them, and the files
# below, with the code: every file of src/ with unsafe code is in one of the two lists.
readonly MODULES=(
    engine::blocks
    engine::decode
    engine::groups
)

# Files that Miri cannot run, each with its reason.
readonly LEFT_OUT=(
    src/runtime/ring/operations.rs     # system calls that Miri does not know: io_uring
    src/runtime/ring/setup.rs          # the same
    src/runtime/network/age.rs         # system calls that Miri does not know: TCP_INFO
    src/runtime/ring/low_water.rs      # the same: SO_RCVLOWAT
    src/runtime/host/stdio.rs          # runs before main
    src/runtime/host/trim.rs           # the C library's allocator, which Miri has none of
    src/engine/aggregate/row_groups.rs # Polars, which takes hours
    src/engine/aggregate/pool.rs       # the same
    src/cli/commands/serve.rs          # starts the engine
)

skip() {
    echo "MIRI SKIPPED: $1"
    echo "left out: ${MODULES[*]}"
    exit 0
}

# What is not there is not to be fetched.
export RUSTUP_AUTO_INSTALL=0
command -v rustup >/dev/null || skip "there is no rustup, hence no nightly toolchain"
cargo +nightly --version >/dev/null 2>&1 || skip "no nightly toolchain is installed"
cargo +nightly miri --version >/dev/null 2>&1 || skip "the nightly toolchain has no miri"

echo "not run, see .ci/miri.sh: ${LEFT_OUT[*]}"
# Miri is some hundred times slower, so properties are tried a few times. They ask for the time and
# read their own directory, which Miri allows only where it is told to.
MIRIFLAGS="-Zmiri-disable-isolation" PROPTEST_CASES=4 \
    cargo +nightly miri test --lib -- "${MODULES[@]}"
