//! Decodes runs of records to keys and values, one loop per field. Stores no groups.

pub(crate) mod decoder;
pub(crate) mod intern;
pub(crate) mod text_cache;
pub(crate) mod texts;
