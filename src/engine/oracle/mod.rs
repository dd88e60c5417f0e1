//! What results must be, the slow way, for tests. Shares no code with what it checks.

pub mod any;
mod naive;
pub mod streams;

pub use naive::*;
