//! Column sets to mergeable partials, partials to one result. The only room that names Polars.

mod encode;
mod grouped;
mod keys;
pub mod merge;
pub mod partial_file;
mod partials;
pub mod parts;
mod value;

#[cfg(test)]
pub use encode::tests::of_every_type;
pub use grouped::{GroupColumn, GroupRow, Grouped};
pub use partials::{AggregateError, BatchGroups, FinishedGroups, GroupAggregate, create_pool};
pub use value::Value;
