//! Options of `ringest merge`. Runs nothing.

use super::output::FileFormatOption;
use crate::cli::output::format::Format;
use std::path::PathBuf;

/// Options of `ringest merge`.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeOptions {
    /// Directories of `serve --partials`, of any nodes, all of one schema
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,
    /// Keys that make a group of the result; without this, all of the schema
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub by: Option<Vec<String>>,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// File that gets the result, too; one of the same name is replaced
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Format of that file
    #[arg(
        long,
        value_enum,
        default_value_t = FileFormatOption::Parquet,
        requires = "output"
    )]
    pub output_format: FileFormatOption,
}
