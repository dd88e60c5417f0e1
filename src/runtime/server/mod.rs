//! Starts the engine, accepts connections and assigns them to workers.

pub(crate) mod acceptor;
pub(crate) mod engine;
pub(crate) mod refusal;
#[cfg(feature = "simulation")]
pub(crate) mod simulated_engine;
pub(crate) mod worker;
