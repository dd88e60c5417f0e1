//! One record stream: from received bytes to groups, its latency, and its status and reason.

pub(crate) mod coalesce;
pub(crate) mod intake;
pub(crate) mod latency;
pub(crate) mod received;
#[cfg(test)]
mod stream_tests;
