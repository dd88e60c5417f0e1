//! The building blocks that decoding and grouping share: blocks of records, numbers, hashes, text
//! tags and the paged hash table. They know nothing of schemas and groups.

pub(crate) mod block;
pub(crate) mod hash_keys;
pub(crate) mod number;
pub(crate) mod paged;
pub(crate) mod text_tag;
pub(crate) mod twofold;
pub(crate) mod zero_bytes;
