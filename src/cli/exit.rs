//! Exit codes of the program; decides none.

/// Everything went well.
pub(crate) const EXIT_OK: u8 = 0;
/// The work was done and came out wrong: a connection not complete, a difference, lost output.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The host cannot run the engine as asked.
pub(crate) const EXIT_HOST: u8 = 3;
