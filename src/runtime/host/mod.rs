//! What the host allows and has: listeners, cores, signals, standard streams, the file of users.

pub(crate) mod auth_file;
pub(crate) mod cores;
pub(crate) mod findings;
pub(crate) mod listener;
pub(crate) mod signals;
pub(crate) mod stdio;
