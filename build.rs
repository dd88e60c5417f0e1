//! Compresses the debug data of the release binary, which would otherwise be a fifth of it. Cargo
//! has no setting for that which leaves the dependencies alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // GNU ld, gold, lld and mold all know this option, and Rust's backtraces read zlib.
        println!("cargo::rustc-link-arg-bins=-Wl,--compress-debug-sections=zlib");
    }
}
