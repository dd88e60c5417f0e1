//! Where a group lives and how values fold into it. Reads no bytes of a record.

pub mod columns;
pub mod lanes;
pub mod plan;
pub mod table;
