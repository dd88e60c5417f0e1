//! What decoding and grouping share: a block of records, numbers, texts, and the paged hash table.
//! Knows no schema and no group.

pub mod block;
pub mod number;
pub mod paged;
pub mod text_tag;
pub mod zero_bytes;
