//! The sending side, beside `runtime` and never importing it: what `demo`, `send`, `load`, tests
//! and benchmarks share. Shares no decoding and no aggregating code with the engine, so that what
//! it expects is a second opinion.
//!
//! * [`load`]: many message connections at once
//! * [`messages`]: the message client
//! * [`records`]: streams out
//! * [`verify`]: what must come back

pub mod load;
pub mod messages;
pub mod records;
pub mod verify;

pub use messages::client::{MessageClient, MessageError};
