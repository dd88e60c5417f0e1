//! `serve --output`: a file with the result of each record stream. A file that cannot be written is
//! counted and reported; the result is printed all the same.

use crate::config::{Config, FileFormat, OutputColumn};
use crate::engine::aggregate::AddedColumn;
use crate::engine::stream::received::{Reason, Received, Status};
use crate::runtime::results::report::{Report, ResultFile};
use crate::runtime::results::schema_file::{self, SchemaFileError};
use crate::runtime::results::whole_file::{
    FileDirectory, MissingFiles, check_named, moment, node_name,
};
use crate::wire::schema::Schema;
use crate::wire::text::counted;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The file in a directory of results that holds their schema. Hidden, so that programs that read
/// all files of a directory as one table pass over it.
const SCHEMA_FILE: &str = ".schema.toml";

/// The files of one run.
#[derive(Debug)]
pub(crate) struct OutputFiles {
    directory: FileDirectory,
    format: FileFormat,
    columns: Vec<OutputColumn>,
    node: String,
    missing: Arc<MissingFiles>,
}

impl OutputFiles {
    /// Prepares the files that `config` asks for, if any.
    ///
    /// # Errors
    /// Why nothing can be written there, or that an added column has the name of another one; and
    /// what to do.
    pub(crate) fn open(config: &Config, schema: &Schema) -> Result<Option<Self>, String> {
        let Some(path) = &config.output else { return Ok(None) };
        let columns = Self::columns(config, schema)?;
        let (directory, node, run) = Self::directory(config, path)?;
        claim(&directory, &run, schema)?;
        let (format, missing) = (config.output_format, Arc::default());
        Ok(Some(OutputFiles { directory, format, columns, node, missing }))
    }

    /// Whether [`open`](Self::open) would succeed. Leaves nothing behind.
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) fn check(config: &Config, schema: &Schema) -> Result<(), String> {
        let Some(path) = &config.output else { return Ok(()) };
        Self::columns(config, schema)?;
        let (directory, ..) = Self::directory(config, path)?;
        let checked = schema_file::check(&directory, SCHEMA_FILE, schema, schema_of_results);
        checked.map_err(|error| schema_error(&directory, error))
    }

    /// The directory, this node's name, and that of this run.
    fn directory(config: &Config, path: &Path) -> Result<(FileDirectory, String, String), String> {
        let node = node_name(config);
        let run = format!("{}-{node}-{}", moment(SystemTime::now()), std::process::id());
        check_named("--output", path)?;
        let directory = FileDirectory::open("--output", path, &run)?;
        Ok((directory, node, run))
    }

    /// The columns to add, none of which the results have already.
    fn columns(config: &Config, schema: &Schema) -> Result<Vec<OutputColumn>, String> {
        let columns = config.output_columns.clone();
        let names = schema.column_names();
        let taken = |column: &&OutputColumn| names.iter().any(|name| name == column.name());
        if let Some(column) = columns.iter().find(taken) {
            let name = column.name();
            return Err(format!(
                "--output-columns {name}: results of this schema already have a column \"{name}\"; \
                 rename the field, or leave {name} out"
            ));
        }
        Ok(columns)
    }

    /// The files that could not be written, counted as the run goes on.
    pub(crate) fn missing(&self) -> &Arc<MissingFiles> {
        &self.missing
    }

    /// Writes the file of a stream and syncs it to disk.
    pub(crate) fn add(&self, report: &Report) -> ResultFile {
        let received = &report.received;
        // Nothing of it was read, and anyone could fill the directory this way.
        if received.reason == Some(Reason::ConnectionsLimit) {
            return None;
        }
        let (name, metadata) = (self.name(received), self.metadata(report));
        let added: Vec<AddedColumn> =
            self.columns.iter().map(|&column| added_column(column, received)).collect();
        let grouped = report.grouped.with_first(&added);
        let written =
            self.directory.write(&name, |out| grouped.write_to(self.format, out, &metadata));
        if let Err(error) = &written {
            let (connection, file) = (received.connection, self.directory.path().join(name));
            let cause = format_args!("{}: {error}", file.display());
            if let Some(unlisted) = self.missing.add(cause, Instant::now()) {
                tracing::error!(connection, unlisted, "cannot write a result: {cause}");
            }
        }
        Some(written.map_err(|error| error.to_string()))
    }

    /// Time of the first byte, node, process, connection and, unless it is complete, status.
    fn name(&self, received: &Received) -> String {
        let (moment, node) = (moment(received.started), &self.node);
        let (process, connection) = (std::process::id(), received.connection);
        let status = match received.status() {
            Status::Complete => "",
            Status::Incomplete => ".incomplete",
            Status::Rejected => ".rejected",
        };
        let extension = self.format.extension();
        format!("{moment}-{node}-{process}-{connection}{status}.{extension}")
    }

    /// Facts about the result that are stored in the file's metadata.
    fn metadata(&self, report: &Report) -> Vec<(String, String)> {
        let received = &report.received;
        let reason = received.reason.map_or("", Reason::as_str);
        let started = humantime::format_rfc3339_micros(received.started).to_string();
        [
            ("connection", received.connection.to_string()),
            ("node", self.node.clone()),
            ("peer", received.peer.to_string()),
            ("status", received.status().as_str().to_owned()),
            ("reason", reason.to_owned()),
            ("records", received.counts.records.to_string()),
            ("schema", report.grouped.schema().name().to_owned()),
            ("schema_toml", report.grouped.schema().to_toml()),
            ("started", started),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (format!("ringest.{key}"), value))
        .into()
    }
}

/// Refuses a directory with results of another schema: whoever reads it as one table would mix
/// columns, or sums of different things.
fn claim(directory: &FileDirectory, run: &str, schema: &Schema) -> Result<(), String> {
    let claimed = schema_file::claim(directory, SCHEMA_FILE, run, schema, schema_of_results);
    claimed.map_err(|error| schema_error(directory, error))
}

/// The schema in the metadata of the results in a directory. The hidden file is the oldest, so
/// whoever deletes by age deletes it first.
fn schema_of_results(directory: &Path) -> io::Result<Option<Schema>> {
    schema_file::schema_of_files(directory, &[".parquet"])
}

fn schema_error(directory: &FileDirectory, error: SchemaFileError) -> String {
    let path = directory.path().display();
    match error {
        SchemaFileError::Io(error) => {
            format!("cannot read or write {SCHEMA_FILE} in --output {path}: {error}")
        }
        SchemaFileError::OtherSchema(difference) => format!(
            "--output {path} has results of another schema ({difference}); use a separate \
             directory for each schema, or remove the old results and their {SCHEMA_FILE}"
        ),
    }
}

/// The value of an added column for a stream.
fn added_column(column: OutputColumn, received: &Received) -> AddedColumn {
    let name = column.name();
    match column {
        OutputColumn::Connection => AddedColumn::Number(name, received.connection),
        OutputColumn::Peer => AddedColumn::Text(name, received.peer.to_string()),
        OutputColumn::Status => AddedColumn::Text(name, received.status().as_str().to_owned()),
    }
}

/// Describes, after the run, the files that could not be written, if any.
pub(crate) fn summary(missing: &MissingFiles) -> Option<String> {
    let (count, cause) = missing.summary()?;
    Some(format!(
        "{} could not be written (--output); the first: {cause}. The results \
         were printed. Check that the directory exists and has space",
        counted(count, "result file")
    ))
}
