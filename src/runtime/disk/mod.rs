//! How results reach the disk: `std::fs`. With the feature `simulated-disk`, the same names lead to
//! a simulated disk where a path is below its root, and to the system everywhere else.

#[cfg(not(feature = "simulated-disk"))]
pub(crate) use std::fs;
#[cfg(not(feature = "simulated-disk"))]
pub(crate) use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

#[cfg(feature = "simulated-disk")]
pub(crate) mod faults;
#[cfg(feature = "simulated-disk")]
pub(crate) mod fs;
#[cfg(feature = "simulated-disk")]
pub(crate) mod simulated;
#[cfg(feature = "simulated-disk")]
mod tree;

#[cfg(feature = "simulated-disk")]
pub(crate) use fs::{FileExt, FileTypeExt, MetadataExt};
