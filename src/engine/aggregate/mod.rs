//! Aggregates column sets into mergeable partials, and partials into one result. The only folder
//! that uses Polars.

mod column_types;
mod encode;
mod grouped;
mod keys;
pub(crate) mod merge;
mod merge_plan;
mod parquet_file;
pub(crate) mod partial_file;
pub(crate) mod partial_reader;
mod partials;
pub(crate) mod parts;
mod pool;
mod row_groups;
mod seal;
mod value;

#[cfg(test)]
pub(crate) use encode::tests::of_every_type;
pub use grouped::Grouped;
pub(crate) use grouped::{AddedColumn, GroupColumn, GroupRow};
pub use partials::GroupAggregate;
pub(crate) use partials::{AggregateError, BatchGroups, FinishedGroups};
pub use pool::create_pool;
pub(crate) use pool::{pool_threads, start_pool};
pub use value::Value;
