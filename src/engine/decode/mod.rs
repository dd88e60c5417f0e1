//! Runs of records to keys and values, one loop a field. Keeps no groups.

pub mod decoder;
pub mod intern;
pub mod text_cache;
pub mod texts;
