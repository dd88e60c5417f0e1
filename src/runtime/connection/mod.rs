//! What every connection has: a slot, deadlines, a place in the list of those present.

pub mod accepted;
pub mod deadlines;
pub mod presence;
pub mod slots;
