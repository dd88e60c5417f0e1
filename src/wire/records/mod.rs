//! Packets of records in a receive window: no message frames, and no field of a record.

pub(crate) mod packets;
pub(crate) mod window;
