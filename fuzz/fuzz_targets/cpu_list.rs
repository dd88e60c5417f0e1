#![no_main]
//! The target `cpu_list`; its body is in `src/internals/fuzz/`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringest::internals::fuzz::run("cpu_list", data));
