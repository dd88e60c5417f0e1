//! Counters, snapshots of them, and their Prometheus text.

pub(crate) mod counters;
pub(crate) mod metrics;
pub(crate) mod snapshot;
