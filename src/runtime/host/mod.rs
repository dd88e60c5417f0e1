//! What the host allows and has: listeners, cores, signals, standard streams, the file of users.

pub(crate) mod auth_file;
mod control_groups;
pub(crate) mod cores;
pub(crate) mod finding;
#[cfg(feature = "aggregate")]
pub(crate) mod findings;
pub(crate) mod listener;
pub(crate) mod memory_limit;
pub(crate) mod proc_files;
pub(crate) mod reserve;
mod ring_check;
pub(crate) mod signals;
pub(crate) mod stdio;
#[cfg(feature = "aggregate")]
pub(crate) mod threads;
pub(crate) mod trim;
