//! The sans-IO protocol core: performs no I/O, reads no clock and allocates nothing per record.
//! Bytes come in as arguments, values come out; whoever owns the socket is somewhere else.
//!
//! * [`window`]: the cursors of a receive window
//! * [`schema`]: where the fields of a record stand
//! * [`record`]: packets to runs of whole records, the end record, reasons for refusal
//! * [`text`]: the padding of a text field, and how its bytes are shown
//! * [`limiter`]: whether one more message may pass

#![forbid(unsafe_code)]

pub mod limiter;
pub mod record;
pub mod schema;
pub mod text;
pub mod window;
