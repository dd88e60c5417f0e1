//! TLS over owned buffers.

pub(crate) mod config;
pub(crate) mod session;
#[cfg(test)]
mod test_certs;
#[cfg(test)]
mod test_peer;
