#![no_main]
//! The target `ndjson`; its body is in `src/internals/fuzz/`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringest::internals::fuzz::run("ndjson", data));
