//! One record stream from received bytes to groups, its latency, and what is reported about it.

pub mod coalesce;
pub mod intake;
pub mod latency;
pub mod received;
#[cfg(test)]
mod stream_tests;
