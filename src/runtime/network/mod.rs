//! Listeners, and connections that no worker has yet: the kernel's, or the ones in memory of a
//! simulation. Reads and writes on a worker are in [`ring`](crate::runtime::ring).

#[cfg(not(feature = "simulation"))]
mod age;
#[cfg(not(feature = "simulation"))]
mod kernel;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
#[cfg(feature = "simulation")]
pub(crate) mod simulated_accept;

use std::time::Duration;

/// The kernel counts the [`age`](age()) of a connection in ticks of up to this.
pub(crate) const AGE_TICK: Duration = Duration::from_millis(10);

#[cfg(not(feature = "simulation"))]
pub(crate) use kernel::*;
#[cfg(feature = "simulation")]
pub(crate) use simulated_accept::*;
