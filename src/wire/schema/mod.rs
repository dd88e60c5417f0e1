//! Schemas: the fields of a record, the framing of packets and the aggregates of the result.
//! Decodes no bytes.
//!
//! * [`model`]: the types
//! * `columns`: what results and partials of a schema consist of
//! * [`toml`], [`notation`]: the two written forms

pub(crate) mod columns;
pub mod complaint;
pub mod model;
pub mod notation;
mod rules;
mod to_toml;
pub mod toml;
pub mod words;

pub use columns::RESERVED_NAMES;
pub use model::*;
pub use rules::{At, Broken};
