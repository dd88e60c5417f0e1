//! One record stream: from received bytes to groups, its latency, and its status and reason.

pub(crate) mod coalesce;
#[cfg(all(test, feature = "aggregate"))]
mod exact_tests;
pub(crate) mod intake;
pub(crate) mod latency;
pub(crate) mod received;
#[cfg(all(test, feature = "aggregate"))]
mod stream_tests;
