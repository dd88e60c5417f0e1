//! The io_uring of a worker: the only unsafe part of the runtime that talks to the kernel.

pub(crate) mod low_water;
pub(crate) mod operations;

pub use operations::*;
