//! The message client: its session without I/O, and a blocking client over it.

pub mod client;
pub mod session;
pub mod tls;
pub mod transport;
