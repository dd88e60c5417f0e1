//! The io_uring of a worker: all of the runtime's unsafe code for I/O.

pub(crate) mod low_water;
pub(crate) mod operations;

pub use operations::*;
