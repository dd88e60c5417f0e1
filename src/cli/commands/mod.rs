//! The commands, one file each.

pub(crate) mod certs;
mod client_tls;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod gen_cert;
pub(crate) mod health;
pub(crate) mod load;
pub(crate) mod merge;
pub(crate) mod reference;
pub(crate) mod replay;
pub(crate) mod schema;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod token;
