//! The forms in which a result is printed. Renders none.

use clap::ValueEnum;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A heading, the whole DataFrame and a summary, for people
    Table,
    /// One JSON object a line, for programs
    Ndjson,
}
