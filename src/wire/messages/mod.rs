//! The message protocol without I/O: frames, payloads, one peer's session and its rate limits. The
//! records carried in DATA are decoded elsewhere.

pub(crate) mod fault;
pub mod frame;
pub(crate) mod limiter;
pub mod payload;
pub(crate) mod session;
