//! The sans-IO protocol core: performs no I/O, reads no clock and allocates nothing per record.
//! Bytes come in as arguments, values come out; whoever owns the socket is somewhere else.
//!
//! * [`window`]: the cursors of a receive window
//! * [`schema`]: where the fields of a record stand
//! * [`record`]: packets to runs of whole records, the end record, reasons for refusal
//! * [`frame`], [`message`]: frames of the message protocol and what they carry
//! * [`fault`]: why a message connection ends badly
//! * [`session`]: one peer of the message protocol; [`limiter`]: whether one more message may pass
//! * [`text`]: the padding of a text field, and how its bytes are shown

#![forbid(unsafe_code)]

pub mod fault;
pub mod frame;
pub mod limiter;
pub mod message;
pub mod record;
pub mod schema;
pub mod session;
pub mod text;
pub mod window;
