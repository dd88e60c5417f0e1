//! Options of `serve` about files of results and about captures: checks single values, combines
//! none.

use crate::config::{Config, FileFormat, OutputColumn};
use bytesize::ByteSize;
use clap::ValueEnum;
use std::path::PathBuf;

/// Files of results, and captures.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputOptions {
    /// Directory that gets a file with the result of each record stream, written before the result
    /// is printed
    #[arg(long, env = "RINGEST_OUTPUT", value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Format of those files
    #[arg(
        long,
        env = "RINGEST_OUTPUT_FORMAT",
        value_enum,
        default_value_t = FileFormatOption::Parquet,
        requires = "output"
    )]
    pub output_format: FileFormatOption,
    /// Columns about the stream that come first in each file, in this order. Parquet and Arrow files
    /// have these facts in their metadata anyway
    #[arg(
        long,
        env = "RINGEST_OUTPUT_COLUMNS",
        value_name = "LIST",
        value_enum,
        value_delimiter = ',',
        requires = "output"
    )]
    pub output_columns: Vec<OutputColumnOption>,
    /// What this engine is called in the names of files: 1 to 64 letters, digits, `.`, `_` and `-`.
    /// Without this, the name of the host
    #[arg(long, env = "RINGEST_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Directory that gets the raw bytes of each record stream, for `replay`
    #[arg(long, env = "RINGEST_CAPTURE", value_name = "DIR")]
    pub capture: Option<PathBuf>,
    /// Bytes of all captures of this process together; no more is captured then [1 to 1EiB]
    #[arg(
        long,
        env = "RINGEST_CAPTURE_BYTES_LIMIT",
        value_name = "SIZE",
        default_value = "1GiB",
        value_parser = bytes,
        requires = "capture"
    )]
    pub capture_bytes_limit: u64,
}

/// The format of a file with a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormatOption {
    /// Apache Parquet, compressed
    Parquet,
    /// Arrow's IPC file format
    Arrow,
    /// Comma-separated values with a line of names
    Csv,
    /// One JSON object a group
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

fn bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}; write e.g. 64KiB"))?;
    Ok(size.as_u64())
}
