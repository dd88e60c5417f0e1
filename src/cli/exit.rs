//! Exit codes of the program.

/// Success.
pub(crate) const EXIT_OK: u8 = 0;
/// A result is incomplete or differs, or output was lost.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Wrong usage.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The host cannot run the engine as configured.
pub(crate) const EXIT_HOST: u8 = 3;
