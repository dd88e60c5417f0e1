//! The sans-IO protocol core: performs no I/O, reads no clock and allocates nothing per record.
//! Bytes come in as arguments and values come out; the callers own the sockets.
//!
//! * [`records`]: packets of records in a receive window
//! * [`messages`]: frames, payloads and one peer's session
//! * [`schema`]: the layout of a record and of its results
//! * [`text`]: the padding of text fields, and escaping for display
//! * [`private_key`]: the kind of a private key, where TLS cannot use it

#![forbid(unsafe_code)]

pub(crate) mod messages;
pub(crate) mod private_key;
pub(crate) mod records;
pub mod schema;
pub(crate) mod text;
