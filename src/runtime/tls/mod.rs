//! TLS over owned buffers.

pub(crate) mod config;
mod resumption;
pub(crate) mod session;
mod subject;
#[cfg(any(test, fuzzing))]
pub(crate) mod test_certs;
#[cfg(any(test, fuzzing))]
pub(crate) mod test_peer;
