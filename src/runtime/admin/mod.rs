//! Metrics, health and state over HTTP, on a thread of their own.

pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod site;
