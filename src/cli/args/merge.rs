//! Options of `ringest merge`.

use super::output::FileFormatOption;
use crate::cli::output::format::Format;
use crate::config::FileFormat;
use std::path::{Path, PathBuf};

/// Options of `ringest merge`.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeOptions {
    /// Directories written by `serve --partials`, from any number of engines, all with one schema
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,
    /// Keys to group by, separated by commas; without it, all keys of the schema
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    pub by: Option<Vec<String>>,
    /// Leave out streams that did not end complete, and those of which files are missing
    ///
    /// For senders that send a whole stream again after a failure: what broke off does not count,
    /// and what came whole counts once.
    #[arg(long)]
    pub complete_only: bool,
    /// Merge without files that are damaged, and say which these are; the exit code is 1
    #[arg(long)]
    pub skip_damaged: bool,
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// File to write the result to as well; an existing file is replaced
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Format of that file; without it, the end of the name decides: .parquet, .arrow, .csv or
    /// .ndjson
    #[arg(long, value_enum, requires = "output")]
    pub output_format: Option<FileFormatOption>,
}

impl MergeOptions {
    /// The file to write and its format.
    ///
    /// # Errors
    /// If the format is not known, or is not that of the name.
    pub(crate) fn output(&self) -> Result<Option<(&Path, FileFormat)>, String> {
        let Some(path) = &self.output else { return Ok(None) };
        let shown = path.display();
        let end = path.extension().map(|end| end.to_string_lossy().to_ascii_lowercase());
        let of_end = end.and_then(|end| FileFormat::ALL.into_iter().find(|f| f.extension() == end));
        let format = match (of_end, self.output_format.map(FileFormat::from)) {
            (Some(end), Some(chosen)) if end != chosen => {
                let (end, chosen) = (end.extension(), chosen.extension());
                return Err(format!(
                    "--output {shown} ends in .{end}, but --output-format is {chosen}; rename the \
                     file, or leave --output-format out"
                ));
            }
            (of_end, chosen) => chosen.or(of_end),
        };
        format.map(|format| Some((path.as_path(), format))).ok_or_else(|| {
            format!(
                "--output {shown} does not end in .parquet, .arrow, .csv or .ndjson; rename the \
                 file, or choose its format with --output-format"
            )
        })
    }
}
