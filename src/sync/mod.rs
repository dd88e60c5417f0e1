//! The atomics, the lock and the shared pointer of code whose threads a model checks. In the
//! program they are std's own; in unit tests they are those of `modelled`, which loom can
//! schedule. Imports nothing.

#[cfg(test)]
pub(crate) mod modelled;

#[cfg(test)]
pub(crate) use modelled::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, interleave};
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
#[cfg(not(test))]
pub(crate) use std::sync::{Arc, Mutex};

/// Stands before an operation on one of tokio's primitives: in a model, other threads may run here.
/// loom does not know these primitives, which have models of their own, and takes each operation as
/// one step. Does nothing in the program.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn interleave() {}
