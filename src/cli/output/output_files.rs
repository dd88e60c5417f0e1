//! A directory that gets a file with the result of each record stream: encodes none itself, and a
//! file that cannot be written holds nothing up and is counted.

use crate::config::{Config, FileFormat, OutputColumn};
use crate::engine::aggregate::AddedColumn;
use crate::engine::observe::counters::WorkerTally;
use crate::engine::stream::received::{Reason, Received, Status};
use crate::runtime::results::report::Report;
use crate::runtime::results::whole_file::{FileDirectory, MissingFiles, moment, node_name};
use crate::wire::schema::Schema;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The files of one run.
#[derive(Debug)]
pub(crate) struct OutputFiles {
    directory: FileDirectory,
    format: FileFormat,
    columns: Vec<OutputColumn>,
    node: String,
    missing: Arc<MissingFiles>,
}

/// Where the result of a stream is; or why it is in no file. Neither for a connection that had no
/// slot.
pub(crate) type ResultFile = Option<Result<PathBuf, String>>;

impl OutputFiles {
    /// Files as `config` asks for them; none where it does not.
    ///
    /// # Errors
    /// Where nothing can be written there, or an added column has the name of another one: why, and
    /// what must be so.
    pub(crate) fn open(config: &Config, schema: &Schema) -> Result<Option<Self>, String> {
        let Some(path) = &config.output else { return Ok(None) };
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
        let node = node_name(config);
        let run = format!("{}-{node}-{}", moment(SystemTime::now()), std::process::id());
        let directory = FileDirectory::open("--output", path, &run)?;
        let (format, missing) = (config.output_format, Arc::default());
        Ok(Some(OutputFiles { directory, format, columns, node, missing }))
    }

    /// What will be known of files that could not be written.
    pub(crate) fn missing(&self) -> &Arc<MissingFiles> {
        &self.missing
    }

    /// Writes the file of a stream; it is on the disk when this returns.
    pub(crate) fn add(&mut self, report: &Report, tally: &WorkerTally) -> ResultFile {
        let received = &report.received;
        // Nothing of it was read, and anybody could fill a directory so.
        if received.reason == Some(Reason::ConnectionsLimit) {
            return None;
        }
        let (name, metadata) = (self.name(received), self.metadata(report));
        let added: Vec<AddedColumn> =
            self.columns.iter().map(|&column| added_column(column, received)).collect();
        let grouped = report.grouped.with_first(&added);
        let written =
            self.directory.write(&name, |out| grouped.write_to(self.format, out, &metadata));
        match &written {
            Ok(_) => tally.result_files_written.add(1),
            Err(error) => {
                tally.result_files_failed.add(1);
                let (connection, directory) =
                    (received.connection, self.directory.path().display());
                let cause = format_args!("{error} of {directory}");
                if let Some(unlisted) = self.missing.add(cause, Instant::now()) {
                    tracing::error!(
                        connection, unlisted, %directory, "cannot write a result: {error}"
                    );
                }
            }
        }
        Some(written.map_err(|error| error.to_string()))
    }

    /// Moment of the first byte, node, process, connection; and whether it is all that was meant
    /// to come.
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

    /// What a file says of its result beside the columns.
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
            ("started", started),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| (format!("ringest.{key}"), value))
        .into()
    }
}

/// A column about a stream.
fn added_column(column: OutputColumn, received: &Received) -> AddedColumn {
    let name = column.name();
    match column {
        OutputColumn::Connection => AddedColumn::Number(name, received.connection),
        OutputColumn::Peer => AddedColumn::Text(name, received.peer.to_string()),
        OutputColumn::Status => AddedColumn::Text(name, received.status().as_str().to_owned()),
    }
}

/// What is to be said of missing files once the run is over; nothing where there are none.
pub(crate) fn summary(missing: &MissingFiles) -> Option<String> {
    let (count, cause) = missing.summary()?;
    Some(format!(
        "{count} results could not be written to a file (--output), the first: {cause}; all were \
         printed. The directory must stay, with space left"
    ))
}
