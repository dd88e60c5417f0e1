//! The message protocol without I/O: frames, payloads, one peer's session and its limits. Records in
//! DATA are decoded elsewhere.

pub mod fault;
pub mod frame;
pub mod limiter;
pub mod payload;
pub mod session;
