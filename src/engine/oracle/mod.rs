//! Slow reference implementations for tests. They share no code with what they check.

pub(crate) mod any;
pub(crate) mod exact;
mod naive;
pub(crate) mod streams;

pub(crate) use naive::*;
