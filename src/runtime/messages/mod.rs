//! Message connections and the broadcasts between them.

pub mod connection;
pub mod gate;
pub mod hub;
pub mod input;
pub mod peer;
pub mod shared;
