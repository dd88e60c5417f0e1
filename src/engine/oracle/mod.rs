//! What results must be, the slow way, for tests. Shares no code with what it checks.

pub(crate) mod any;
mod naive;
pub(crate) mod streams;

pub(crate) use naive::*;
