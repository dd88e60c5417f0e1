#![no_main]
//! The target `schema_toml`; its body is in `src/internals/fuzz/`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringest::internals::fuzz::run("schema_toml", data));
