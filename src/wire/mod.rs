//! The sans-IO protocol core: performs no I/O, reads no clock and allocates nothing per record.
//! Bytes come in as arguments, values come out; whoever owns the socket is somewhere else.
//!
//! * [`records`]: packets of records in a receive window
//! * [`messages`]: frames, payloads, and one peer's session
//! * [`schema`]: what a record is
//! * [`text`]: the padding of a text field, and how its bytes are shown

#![forbid(unsafe_code)]

pub(crate) mod messages;
pub(crate) mod records;
pub mod schema;
pub(crate) mod text;
