//! What every connection has: a slot, deadlines, and an entry in its worker's counts and timer; and
//! what becomes of panics.

pub(crate) mod accepted;
pub(crate) mod caught;
pub(crate) mod deadlines;
pub(crate) mod defects;
pub(crate) mod line_budget;
pub(crate) mod presence;
pub(crate) mod quota;
pub(crate) mod slots;
