//! Message connections and the broadcasts between them.

pub(crate) mod carried;
pub(crate) mod connection;
pub(crate) mod gate;
pub(crate) mod hub;
pub(crate) mod input;
pub(crate) mod peer;
pub(crate) mod shared;
pub(crate) mod stream_care;
