//! Metrics, health and state over HTTP, on a thread of their own.

pub mod connection;
pub mod listener;
pub mod site;
