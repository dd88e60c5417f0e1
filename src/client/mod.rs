//! Clients of an engine: the message client, senders of record streams, load generation, and the
//! check of results. `demo`, `send`, `replay`, `load`, the tests and the benchmarks are built on
//! them.
//!
//! Imports nothing from `runtime`, and shares no decoding or aggregation code with the engine, so
//! the results it expects are a second opinion.
//!
//! * [`messages`]: the message client
//! * [`records`]: generating, pacing, sending and replaying record streams
//! * [`verify`]: computing the expected results and comparing them with the engine's
//! * [`load`]: load from many message connections at once

pub mod load;
pub mod messages;
pub mod records;
pub mod verify;

pub use messages::client::{MessageClient, MessageError};
