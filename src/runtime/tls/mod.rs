//! TLS over owned buffers.

pub(crate) mod config;
mod resumption;
pub(crate) mod session;
mod subject;
#[cfg(test)]
pub(crate) mod test_certs;
#[cfg(test)]
pub(crate) mod test_peer;
