//! The clocks that decide what connections do, and waits for a time: the system's, or the virtual
//! ones of a simulation. Nothing is stored.

#[cfg(feature = "simulation")]
mod simulated;
#[cfg(not(feature = "simulation"))]
mod system;

#[cfg(feature = "simulation")]
pub(crate) use simulated::*;
#[cfg(not(feature = "simulation"))]
pub(crate) use system::*;
