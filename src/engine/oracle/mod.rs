//! Slow reference implementations for tests. They share no code with what they check.

pub(crate) mod any;
mod naive;
pub(crate) mod streams;

pub(crate) use naive::*;
