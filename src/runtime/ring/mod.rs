//! The io_uring of a worker: the only unsafe part of the runtime that talks to the kernel.

pub mod low_water;
pub mod operations;

pub use operations::*;
