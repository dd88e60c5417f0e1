//! What decoding and grouping share: a block of records, numbers, texts, and the paged hash table.
//! Knows no schema and no group.

pub(crate) mod block;
pub(crate) mod number;
pub(crate) mod paged;
pub(crate) mod text_tag;
pub(crate) mod zero_bytes;
