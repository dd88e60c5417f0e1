//! The sending side, beside `runtime` and never importing it: what `demo`, `send`, `load`, tests
//! and benchmarks share. Shares no decoding and no aggregating code with the engine, so that what
//! it expects is a second opinion.
//!
//! * [`generate`]: records of a seeded stream, of any schema
//! * [`block`]: packets of them, made once and sent many times, and the groups that they must give
//! * [`pace`]: when writes are due, where records are sent at a rate
//! * [`sender`]: one connection that sends them
//! * [`replay`]: sends captured streams again
//! * [`expected`]: compares groups with groups
//! * [`results`]: reads the engine's ndjson
//! * [`messages`]: the message protocol's client side, without I/O
//! * [`message_client`]: a blocking client of it
//! * [`load`]: many connections at once, and what became of each message
//! * [`transport`]: bytes over a non-blocking socket, with TLS or without
//! * [`tls`]: what TLS needs, from files

pub mod block;
mod double_double;
pub mod expected;
pub mod generate;
mod keys;
pub mod load;
pub mod message_client;
pub mod messages;
pub mod pace;
pub mod replay;
pub mod results;
pub mod sender;
mod tally;
pub mod tls;
pub mod transport;

pub use message_client::{MessageClient, MessageError};
