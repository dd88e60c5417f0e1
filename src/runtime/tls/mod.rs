//! TLS over owned buffers.

pub mod certs;
pub mod config;
pub mod session;
#[cfg(test)]
mod test_peer;
