//! Record streams end to end: right ones, wrong ones, senders, schemas.

mod admission;
mod bad_input;
mod coalescing;
#[path = "../common/mod.rs"]
mod common;
mod flood;
mod memory;
mod other_size;
mod replay;
mod schemas;
mod sender;
mod streams;
mod tls;
