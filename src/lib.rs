//! ringest takes fixed-width binary record streams over TCP, on Linux, through io_uring, and gives
//! back one exact grouped DataFrame for each connection, with its time, its rate and its latency.
//!
//! The engine is a program: `ringest serve`. This library is what other Rust programs need to talk
//! to it:
//!
//! * [`client`]: the message client, senders of record streams, load generation
//! * [`schema`]: what a record is, read from TOML or from Python's struct notation
//! * [`protocol`]: frames of the message protocol and their payloads
//!
//! ```no_run
//! use ringest::client::MessageClient;
//! use std::time::Duration;
//!
//! let mut client = MessageClient::connect("localhost", 5000, Duration::from_secs(5), None)?;
//! println!("the server is {:?} away", client.ping()?);
//! assert_eq!(client.echo(b"hello")?, b"hello");
//! client.close()?;
//! # Ok::<(), ringest::client::MessageError>(())
//! ```
//!
//! # Layers
//!
//! Imports point down only; `tests/layers` checks it. `main` and `cli` (command line, output
//! formats) stand on `runtime` (sockets, clocks, threads, rings) and [`client`]; those on `engine`
//! (decoding, grouping, reports), `wire` (both protocols without I/O) and `config` (every limit).
//! docs/internals/architecture.md follows one packet through them.

#![warn(missing_docs, unreachable_pub)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

mod cli;
pub mod client;
mod config;
mod engine;
#[doc(hidden)]
pub mod internals;
mod runtime;
mod wire;

#[doc(hidden)]
pub use cli::run;
pub use wire::schema;

/// Frames of the message protocol and what they carry, as bytes: opens no socket.
pub mod protocol {
    pub use crate::wire::messages::{frame, payload};
}
