//! Stores groups in a hash table and folds values into them.

pub(crate) mod columns;
pub(crate) mod lanes;
pub(crate) mod moments;
pub(crate) mod plan;
pub(crate) mod spills;
pub(crate) mod table;
