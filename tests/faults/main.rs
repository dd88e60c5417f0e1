//! Faults for real: engines that are killed, networks that cut, damage, double, lose and part, and
//! long runs of many peers. What takes long or needs a network namespace is ignored by default;
//! docs/CONTRIBUTING.md says how to run it, and docs/internals/reliability.md what came out.

#[path = "../common/mod.rs"]
mod common;
mod kills;
mod partition;
mod proxied;
mod proxied_tls;
mod soak;
mod storm;

/// A number that an environment variable may set.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")),
        Err(_) => default,
    }
}
