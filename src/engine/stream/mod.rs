//! One record stream from received bytes to groups, its latency, and what is reported about it.

pub(crate) mod coalesce;
pub(crate) mod intake;
pub(crate) mod latency;
pub(crate) mod received;
#[cfg(test)]
mod stream_tests;
