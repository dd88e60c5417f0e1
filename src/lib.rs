//! ringest receives streams of fixed-width binary records over TCP, on Linux through io_uring, and
//! returns one exact grouped DataFrame per connection, with its time, throughput and latency.
//!
//! The engine is a program: `ringest serve`. This library is for Rust programs that talk to it:
//!
//! * [`client`]: the message client, senders of record streams, load generation
//! * [`schema`]: the layout of a record, from TOML or Python's struct notation
//! * [`protocol`]: frames of the message protocol and their payloads
//!
//! All of that is there without default features too, which leave out the engine and Polars and
//! with them most of the compile time.
//!
//! ```no_run
//! use ringest::client::MessageClient;
//! use std::time::Duration;
//!
//! let mut client = MessageClient::connect("localhost", 5000, Duration::from_secs(5), None)?;
//! println!("round trip: {:?}", client.ping()?);
//! assert_eq!(client.echo(b"hello")?, b"hello");
//! client.close()?;
//! # Ok::<(), ringest::client::MessageError>(())
//! ```
//!
//! # Layers
//!
//! Imports only point down, which `tests/layers` checks. At the top, `main` and `cli` (command
//! line, output formats) use `runtime` (sockets, clocks, threads, rings) and [`client`]; both use
//! `engine` (decoding, grouping, reports), `wire` (both protocols, without I/O) and `config` (every
//! limit). docs/internals/architecture.md follows a packet through the layers.

#![warn(missing_docs, unreachable_pub)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
// Without the engine, much of what it is made of has no other user.
#![cfg_attr(
    not(feature = "aggregate"),
    allow(dead_code, unreachable_pub, unused_imports, unfulfilled_lint_expectations)
)]

mod cli;
pub mod client;
mod config;
mod engine;
#[doc(hidden)]
pub mod internals;
mod runtime;
mod sync;
mod wire;

#[cfg(feature = "aggregate")]
#[doc(hidden)]
pub use cli::run;
pub use wire::schema;

/// Frames of the message protocol and their payloads, as bytes. No I/O.
pub mod protocol {
    pub use crate::wire::messages::{frame, payload};
}
