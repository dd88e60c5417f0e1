//! What every connection has: a slot, deadlines, a place in the list of those present.

pub(crate) mod accepted;
pub(crate) mod deadlines;
pub(crate) mod presence;
pub(crate) mod slots;
