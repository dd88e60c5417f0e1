#![no_main]
//! The target `auth_file`; its body is in `src/internals/fuzz/`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringest::internals::fuzz::run("auth_file", data));
