//! Options of `serve` for result files and captures. Checks single values only.

use super::heading;
use super::size::size;
use crate::config::{Config, FileFormat, OutputColumn};
use clap::ValueEnum;
use std::path::PathBuf;

/// Result files and captures.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = heading::RESULTS)]
pub(crate) struct OutputOptions {
    /// Directory for result files: one per record stream, written before the result is printed
    #[arg(long, env = "RINGEST_OUTPUT", value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Format of the result files
    #[arg(
        long,
        env = "RINGEST_OUTPUT_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = FileFormatOption::Parquet,
        requires = "output",
        hide_short_help = true
    )]
    pub output_format: FileFormatOption,
    /// Columns about the stream to add to each result file, before the others
    ///
    /// They appear in the order given. Parquet and Arrow files have these facts in their metadata
    /// anyway.
    #[arg(
        long,
        env = "RINGEST_OUTPUT_COLUMNS",
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        requires = "output",
        hide_short_help = true
    )]
    pub output_columns: Vec<OutputColumnOption>,
    /// Name of this engine in file names: 1 to 64 letters, digits, `.`, `_` or `-`
    ///
    /// Without it, the host name is used.
    #[arg(long, env = "RINGEST_NODE", value_name = "NAME", hide_short_help = true)]
    pub node: Option<String>,
    /// Directory for the raw bytes of each record stream, which `ringest replay` can send again
    #[arg(
        long,
        env = "RINGEST_CAPTURE",
        value_name = "DIR",
        help_heading = heading::CAPTURES_AND_PARTIALS,
        hide_short_help = true
    )]
    pub capture: Option<PathBuf>,
    /// Total size of all captures of this process; capturing stops there [1 to 1EiB]
    #[arg(
        long,
        env = "RINGEST_CAPTURE_BYTES_LIMIT",
        value_name = "SIZE",
        default_value = "1GiB",
        value_parser = size::<u64>,
        requires = "capture",
        help_heading = heading::CAPTURES_AND_PARTIALS,
        hide_short_help = true
    )]
    pub capture_bytes_limit: u64,
}

/// The format of a result file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormatOption {
    /// Apache Parquet, compressed
    Parquet,
    /// Arrow IPC file
    Arrow,
    /// Comma-separated values with a header line
    Csv,
    /// One JSON object per group and line
    Ndjson,
}

impl From<FileFormatOption> for FileFormat {
    fn from(format: FileFormatOption) -> Self {
        match format {
            FileFormatOption::Parquet => FileFormat::Parquet,
            FileFormatOption::Arrow => FileFormat::Arrow,
            FileFormatOption::Csv => FileFormat::Csv,
            FileFormatOption::Ndjson => FileFormat::Ndjson,
        }
    }
}

/// A column about the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputColumnOption {
    /// Number of the connection, u64
    Connection,
    /// Address of the sender, text
    Peer,
    /// `complete`, `incomplete` or `rejected`, text
    Status,
}

impl From<OutputColumnOption> for OutputColumn {
    fn from(column: OutputColumnOption) -> Self {
        match column {
            OutputColumnOption::Connection => OutputColumn::Connection,
            OutputColumnOption::Peer => OutputColumn::Peer,
            OutputColumnOption::Status => OutputColumn::Status,
        }
    }
}

impl OutputOptions {
    /// A configuration with these options.
    pub(crate) fn apply(&self, config: Config) -> Config {
        Config {
            output: self.output.clone(),
            output_format: self.output_format.into(),
            output_columns: self.output_columns.iter().map(|&column| column.into()).collect(),
            node: self.node.clone(),
            capture: self.capture.clone(),
            capture_bytes_limit: self.capture_bytes_limit,
            ..config
        }
    }
}
