//! Packets of records in a receive window: no message frames, and no field of a record.

pub mod packets;
pub mod window;
