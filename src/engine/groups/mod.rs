//! Where a group lives and how values fold into it. Reads no bytes of a record.

pub(crate) mod columns;
pub(crate) mod lanes;
pub(crate) mod plan;
pub(crate) mod table;
