//! Starts the engine, accepts connections and assigns them to workers.

pub(crate) mod acceptor;
pub(crate) mod engine;
pub(crate) mod refusal;
pub(crate) mod worker;
