//! Starts the engine, accepts connections and deals them to workers.

pub mod acceptor;
pub mod engine;
pub mod refusal;
pub mod worker;
