//! Finds packets of records in a receive window. Message frames and the fields of a record are
//! handled elsewhere.

pub(crate) mod packets;
pub(crate) mod window;
