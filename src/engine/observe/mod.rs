//! Counters, snapshots of them, and their Prometheus text.

pub mod counters;
pub mod metrics;
pub mod snapshot;
