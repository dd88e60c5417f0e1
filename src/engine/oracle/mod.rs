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

use crate::wire::schema::Kind;

/// Every numeric type.
pub(crate) const NUMBERS: [Kind; 11] = [
    Kind::U8,
    Kind::U16,
    Kind::U32,
    Kind::U64,
    Kind::I8,
    Kind::I16,
    Kind::I32,
    Kind::I64,
    Kind::F32,
    Kind::F64,
    Kind::Bool,
];
