//! The message client: a session without I/O, and a blocking client built on it.

pub mod client;
pub mod session;
pub mod tls;
pub mod transport;
