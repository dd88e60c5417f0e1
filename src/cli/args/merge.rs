//! Options of `ringest merge`.

use super::output::FileFormatOption;
use crate::cli::output::format::Format;
use std::path::PathBuf;

/// Options of `ringest merge`.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeOptions {
    /// Directories written by `serve --partials`, from any number of engines, all with one schema
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,
    /// Keys to group by, separated by commas; without it, all keys of the schema
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub by: Option<Vec<String>>,
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// File to write the result to as well; an existing file is replaced
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
