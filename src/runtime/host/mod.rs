//! What the host allows: listeners, cores, signals, standard streams.

pub mod cores;
pub mod findings;
pub mod listener;
pub mod signals;
pub mod stdio;
