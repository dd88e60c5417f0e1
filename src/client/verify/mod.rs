//! Checks results: reads the engine's, computes the expected ones and compares them.

pub mod double_double;
pub mod expected;
pub mod results;
pub mod tally;
