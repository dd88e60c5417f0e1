//! Puts load on a message server from many connections on few threads, and measures throughput and
//! latency. Parses no arguments and prints nothing.
//!
//! * Closed loop: each connection keeps a fixed number of messages in flight. This measures a
//!   server's capacity. Latency is measured from the send; a stalled server is sent less.
//! * Open loop: messages are sent on a schedule that does not wait for answers. This measures how
//!   long users wait at a given rate. Latency is measured from when a message was due, so a stall
//!   counts against every message it delays, sent or not.
//!
//! Parts: [`tally`] counts, [`schedule`] says when messages are due, `timer` waits until then,
//! `traffic` makes and checks messages, `flow` tracks outstanding broadcasts, `peer` is one
//! connection, `worker` one thread.

mod flow;
mod peer;
mod run;
pub mod schedule;
mod settings;
mod shared;
pub mod tally;
mod timer;
mod traffic;
mod worker;

pub use run::{LoadOutcome, run};
pub use settings::{IN_FLIGHT_BYTES_MAX, LoadError, Login, Settings, Traffic};
pub use shared::LoadProgress;
