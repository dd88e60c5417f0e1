//! The io_uring of a worker: all of the runtime's unsafe code for I/O. In a simulation, operations
//! on sockets are those of a network in memory instead.

mod buffers;
#[cfg(not(feature = "simulation"))]
mod low_water;
#[cfg(not(feature = "simulation"))]
mod operations;
mod setup;
#[cfg(feature = "simulation")]
mod simulated_operations;

pub use buffers::*;
#[cfg(not(feature = "simulation"))]
pub use operations::*;
pub use setup::*;
#[cfg(feature = "simulation")]
pub use simulated_operations::*;
