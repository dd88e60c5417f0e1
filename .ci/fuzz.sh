#!/usr/bin/env bash
# Fuzzes each target of fuzz/, or those named: `bash .ci/fuzz.sh [TARGET]...`. Each runs for
# RINGEST_FUZZ_SECONDS, 10 unless set, as many at a time as there are cores (RINGEST_FUZZ_JOBS).
# An input that makes one fail is left in the directory that the last lines name.
#
# Needs a C++ compiler, for libFuzzer, and a compiler that takes unstable flags: a nightly, or else
# the project's own release with RUSTC_BOOTSTRAP, which turns those flags on. Where either is
# missing, a line says so in capitals and the step counts as passed. The bodies of the targets also
# run as unit tests (`cargo test --lib fuzz::`), everywhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SECONDS_EACH="${RINGEST_FUZZ_SECONDS:-10}"
readonly JOBS="${RINGEST_FUZZ_JOBS:-$(nproc)}"
readonly WORK="${CARGO_TARGET_DIR:-target}/fuzz"
readonly INPUT_BYTES_MAX=8192
readonly INPUT_SECONDS_MAX=20
readonly MEMORY_MIB_MAX=2048

skip() {
    echo "FUZZING SKIPPED: $1"
    exit 0
}

# What cargo-fuzz passes as well: coverage, comparisons, and the address sanitizer.
coverage=(
    --cfg=fuzzing
    -Ccodegen-units=1
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Zsanitizer=address
)

# Sets `cargo` to a command whose compiler takes these flags.
choose_cargo() {
    # What is not there is not to be fetched.
    export RUSTUP_AUTO_INSTALL=0
    # Prints what it knows, and compiles nothing.
    local probe=(rustc --print=cfg "${coverage[@]}")
    if cargo +nightly --version >/dev/null 2>&1 \
        && RUSTUP_TOOLCHAIN=nightly "${probe[@]}" >/dev/null 2>&1; then
        cargo=(cargo +nightly)
        return
    fi
    export RUSTC_BOOTSTRAP=1
    "${probe[@]}" >/dev/null 2>&1 || skip "no compiler here takes the flags of a fuzzer"
    cargo=(cargo)
}

# Runs one target, and prints a line about it.
run_target() {
    local target=$1 found=$WORK/found/$1 log=$WORK/$1.log
    mkdir -p "$found" "$WORK/corpus/$target"
    if ! "$WORK/$HOST/release/$target" \
        -max_total_time="$SECONDS_EACH" -timeout="$INPUT_SECONDS_MAX" \
        -rss_limit_mb="$MEMORY_MIB_MAX" -max_len="$INPUT_BYTES_MAX" \
        -artifact_prefix="$found/" -print_final_stats=1 \
        "$WORK/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "$target FAILED: the input is in $found, and may be put into fuzz/corpus/$target"
        return 1
    fi
    awk -v target="$target" '
        / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
        /^stat::number_of_executed_units/ { runs = $2 }
        /^stat::average_exec_per_sec/ { rate = $2 }
        END { printf "%s: %d runs, %d a second, %d edges covered\n", target, runs, rate, edges }
    ' "$log"
}

command -v c++ >/dev/null || skip "libFuzzer needs a C++ compiler, and there is no c++"
command -v rustup >/dev/null || skip "there is no rustup"
choose_cargo
HOST=$(rustc -vV | sed -n 's/^host: //p')

# For a named target, so that build scripts and macros are compiled without these flags.
RUSTFLAGS="${coverage[*]}" "${cargo[@]}" build --manifest-path fuzz/Cargo.toml --release \
    --target "$HOST" --target-dir "$WORK" </dev/null

targets=("$@")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(basename --suffix .rs -a fuzz/fuzz_targets/*.rs)
fi
export -f run_target
export WORK HOST SECONDS_EACH INPUT_BYTES_MAX INPUT_SECONDS_MAX MEMORY_MIB_MAX
printf '%s\n' "${targets[@]}" | xargs -P "$JOBS" -I{} bash -euo pipefail -c 'run_target {}'
