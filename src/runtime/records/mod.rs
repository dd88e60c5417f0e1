//! Record connections and the streams that they carry.

pub(crate) mod coalescer;
pub(crate) mod connection;
pub(crate) mod open_batch;
pub(crate) mod stream;
pub(crate) mod transport;
pub(crate) mod unreported;
