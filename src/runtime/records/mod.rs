//! Record connections and the streams that they carry.

pub mod coalescer;
pub mod connection;
pub mod open_batch;
pub mod stream;
pub mod transport;
