//! Metrics, health and state over HTTP, on a separate thread.

pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod readiness;
pub(crate) mod site;
#[cfg(any(test, fuzzing))]
pub(crate) mod test_client;
