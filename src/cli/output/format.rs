//! The formats in which results are printed.

use clap::ValueEnum;

/// The format of results on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Heading, full DataFrame and summary, for people
    Table,
    /// One JSON object per line, for programs
    Ndjson,
}
