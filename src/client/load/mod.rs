//! Load on a message server: many connections on few threads, closed loop or open loop, and what
//! became of each message. Prints nothing, reads no argument, starts no server.
//!
//! * Closed loop: each connection keeps so many messages in flight. It finds out how much a server
//!   can do. A latency runs from the send to the answer; a server that stalls is sent less.
//! * Open loop: messages are sent by a schedule that does not wait for answers. It finds out how
//!   long users wait at a given rate. A latency runs from the moment at which the message was due,
//!   so a stall counts for every message that it delays, sent or not.
//!
//! Parts: [`tally`] counts, [`schedule`] says when messages are due, `timer` waits for that,
//! `traffic` makes and checks messages, `flow` counts broadcasts on their way, `peer` is one
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
