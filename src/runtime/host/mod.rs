//! What the host allows: listeners, cores, signals, standard streams.

pub(crate) mod cores;
pub(crate) mod findings;
pub(crate) mod listener;
pub(crate) mod signals;
pub(crate) mod stdio;
