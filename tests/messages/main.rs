//! The message server and its client, end to end.

mod answers;
mod auth;
mod bad_input;
mod broadcast;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod crowds;
mod data;
mod limits;
mod load;
mod memory;
mod queue_limit;
mod tls;
mod tls_ends;
