//! ringest takes fixed-width binary record streams over TCP, on Linux, through io_uring, and gives
//! back one exact grouped DataFrame a connection together with its time, its rate and its latency.
//!
//! # Layers
//!
//! Imports only go down; a test (`tests/layers.rs`) holds it.
//!
//! | layer | what it does | what it does not do |
//! | --- | --- | --- |
//! | `main` | exit code of the chosen command | anything else |
//! | [`cli`] | flags and environment to one validated configuration; output formats | sockets |
//! | [`runtime`] | sockets, clocks, threads, rings | decide what bytes mean |
//! | [`client`] | the record sender; stands beside `runtime` | import it |
//! | [`engine`] | columns, interning, aggregation, latency, reports | sockets, async |
//! | [`wire`] | receive window, packets, fields | I/O, clocks, unsafe code |
//! | [`config`] | every limit, named, and the memory they imply | import anything |
//!
//! docs/internals/architecture.md follows one packet through them.

#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod cli;
pub mod client;
pub mod config;
pub mod engine;
pub mod runtime;
pub mod wire;
