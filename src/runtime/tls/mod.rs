//! TLS over owned buffers.

pub(crate) mod certs;
pub(crate) mod config;
pub(crate) mod session;
#[cfg(test)]
mod test_peer;
