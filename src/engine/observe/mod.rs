//! Counters, their snapshots, and the Prometheus text.

pub(crate) mod counters;
pub(crate) mod metrics;
pub(crate) mod snapshot;
