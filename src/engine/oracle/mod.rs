//! Slow reference implementations for tests. They share no code with what they check.

#[cfg(test)]
pub(crate) mod any;
pub(crate) mod cells;
pub(crate) mod exact;
#[cfg(all(test, feature = "aggregate"))]
mod naive;
#[cfg(all(test, feature = "aggregate"))]
pub(crate) mod streams;

#[cfg(test)]
pub(crate) use cells::*;
#[cfg(all(test, feature = "aggregate"))]
pub(crate) use naive::*;
