//! Checks results: reads the engine's, computes the expected ones and compares them.

pub(crate) mod exact;
pub mod expected;
pub mod results;
pub mod tally;
