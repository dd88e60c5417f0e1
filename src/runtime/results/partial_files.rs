//! Writes batches of streams to the partials directory, for a merge: names the files, writes them
//! atomically and counts those that fail. A failure here ends no stream.

use super::whole_file::{FileDirectory, MissingFiles, moment, node_name};
use crate::config::Config;
use crate::engine::aggregate::partial_file::{BatchFacts, Origin, PartialFileError, write_facts};
use crate::wire::schema::Schema;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The file in a partials directory that holds their schema.
pub(crate) const SCHEMA_FILE: &str = "schema.toml";
/// Suffix of the files with groups.
pub(crate) const GROUPS_ENDING: &str = ".groups.parquet";
/// Suffix of the files with the row about a batch.
pub(crate) const STREAM_ENDING: &str = ".stream.parquet";

/// The partials of one run.
#[derive(Debug)]
pub(crate) struct PartialFiles {
    directory: FileDirectory,
    node: String,
    /// The start of the run on both clocks; all times are derived from the monotonic one.
    started: (SystemTime, Instant),
    /// Shared, because it is reported after the engine has ended.
    missing: Arc<MissingFiles>,
}

/// The message about missing batches at the end of a run; `None` if none are missing.
pub(crate) fn summary(missing: &MissingFiles) -> Option<String> {
    let (count, cause) = missing.summary()?;
    Some(format!(
        "{count} batches of partials could not be written (--partials), the first: {cause}; this \
         engine's results are not affected, but merged ones will lack these batches. Keep the \
         directory in place, with free space"
    ))
}

/// Why a directory cannot be used for partials.
#[derive(Debug, thiserror::Error)]
pub enum PartialFilesError {
    /// It is not writable.
    #[error("{0}")]
    NotWritable(String),
    /// Its schema file cannot be read or written.
    #[error("cannot read or write {SCHEMA_FILE} in --partials {directory}: {error}")]
    Schema {
        /// The directory.
        directory: String,
        /// The system's error.
        error: io::Error,
    },
    /// It has partials of another schema.
    #[error(
        "{directory} has partials of another schema ({difference}); use a separate directory for \
         each schema, or remove the old partials and their {SCHEMA_FILE}"
    )]
    OtherSchema {
        /// The directory.
        directory: String,
        /// How it differs, or why it cannot be read.
        difference: String,
    },
}

impl PartialFiles {
    /// The partials of a run that starts now; `None` if `config` has no directory for them.
    ///
    /// # Errors
    /// If the directory is not writable or has partials of another schema.
    pub(crate) fn start(
        config: &Config,
        schema: &Schema,
    ) -> Result<Option<Arc<Self>>, PartialFilesError> {
        let Some(path) = &config.partials else { return Ok(None) };
        let now = (SystemTime::now(), Instant::now());
        Self::open(path, node_name(config), schema, now).map(|files| Some(Arc::new(files)))
    }

    fn open(
        path: &Path,
        node: String,
        schema: &Schema,
        started: (SystemTime, Instant),
    ) -> Result<Self, PartialFilesError> {
        let run = format!("{}-{node}-{}", moment(started.0), std::process::id());
        let directory = FileDirectory::open("--partials", path, &run)
            .map_err(PartialFilesError::NotWritable)?;
        let shown = || path.display().to_string();
        let there = schema_there(&directory, &run, schema)
            .map_err(|error| PartialFilesError::Schema { directory: shown(), error })?;
        let difference = match there.as_deref().map(Schema::from_toml) {
            Some(Ok(there)) => difference(&there, schema),
            Some(Err(complaint)) => Some(complaint.in_file(SCHEMA_FILE)),
            None => None,
        };
        if let Some(difference) = difference {
            return Err(PartialFilesError::OtherSchema { directory: shown(), difference });
        }
        Ok(PartialFiles { directory, node, started, missing: Arc::default() })
    }

    /// The record of batches that could not be written.
    pub(crate) fn missing(&self) -> &Arc<MissingFiles> {
        &self.missing
    }

    /// Identifies a batch, begun at `began`, of the stream with this number.
    pub(crate) fn origin(&self, number: u64, batch: u32, began: Instant) -> Origin {
        let (wall, clock) = self.started;
        let time = wall + began.saturating_duration_since(clock);
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Origin {
            node: self.node.clone(),
            connection: format!("{}-{}-{number}", moment(wall), std::process::id()),
            batch,
            time_us: i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Writes a batch: first its groups, then the row about it, so that the groups exist whenever
    /// the row does. Failures are counted and logged.
    pub(crate) fn write(
        &self,
        number: u64,
        origin: &Origin,
        facts: &BatchFacts,
        groups: impl FnOnce(&mut BufWriter<&File>) -> Result<(), PartialFileError>,
    ) {
        let (moment, node, process) = (moment(self.started.0), &self.node, std::process::id());
        let name = format!("{moment}-{node}-{process}-{number}-{:06}", origin.batch);
        let written = self
            .directory
            .write(&format!("{name}{GROUPS_ENDING}"), |out| Ok(groups(out)?))
            .and_then(|_| {
                let name = format!("{name}{STREAM_ENDING}");
                self.directory.write(&name, |out| Ok(write_facts(origin, facts, out)?))
            });
        if let Err(error) = written {
            self.add_missing(&name, &error);
        }
    }

    /// Counts a batch as missing because there are no groups to write, for the given cause.
    pub(crate) fn give_up(&self, number: u64, batch: u32, cause: &str) {
        self.add_missing(&format!("stream {number}, batch {batch}"), &io::Error::other(cause));
    }

    fn add_missing(&self, name: &str, error: &io::Error) {
        let directory = self.directory.path().display();
        let cause = format_args!("{error}, {name} of {directory}");
        if let Some(unlisted) = self.missing.add(cause, Instant::now()) {
            tracing::error!(name, unlisted, %directory, "cannot write partials: {error}");
        }
    }
}

/// The schema text found in a directory. `None` if there was none; this schema has then been
/// written.
fn schema_there(
    directory: &FileDirectory,
    run: &str,
    schema: &Schema,
) -> io::Result<Option<String>> {
    let path = directory.path().join(SCHEMA_FILE);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        there => return there.map(Some),
    }
    // Unlike a rename, a link fails if another process was faster.
    let own = directory.write(&format!(".{run}.{SCHEMA_FILE}"), |out| {
        out.write_all(schema.to_toml().as_bytes())
    })?;
    let linked = fs::hard_link(&own, &path);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&own)?;
            fs::read_to_string(&path).map(Some)
        }
        // A file system without links cannot detect two processes that start at the same time.
        Err(_) => fs::rename(&own, &path).map(|()| None),
        Ok(()) => fs::remove_file(&own).map(|()| None),
    }
}

/// The first line in which the TOML of two schemas differs; `None` if they are equal.
pub(crate) fn difference(there: &Schema, here: &Schema) -> Option<String> {
    if there == here {
        return None;
    }
    let (there, here) = (there.to_toml(), here.to_toml());
    let (mut there, mut here) = (there.lines(), here.lines());
    loop {
        let (left, right) = (there.next(), here.next());
        if left != right || left.is_none() {
            let line = |line: Option<&str>| line.unwrap_or("the end").trim().to_owned();
            return Some(format!("there `{}`, here `{}`", line(left), line(right)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::latency::Latency;
    use std::path::PathBuf;
    use std::time::Duration;

    const MOMENT: Duration = Duration::from_micros(1_795_204_921_123_456);

    fn open(directory: &Path, schema: &Schema) -> Result<PartialFiles, PartialFilesError> {
        let now = Instant::now();
        PartialFiles::open(directory, "node-1".to_owned(), schema, (UNIX_EPOCH + MOMENT, now))
    }

    fn facts() -> BatchFacts {
        let latency = Latency::default();
        BatchFacts { status: None, reason: None, records: 1, packets: 1, bytes: 271, latency }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_batch_is_two_files_named_by_run_stream_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), &Schema::built_in()).unwrap();
        let began = files.started.1 + Duration::from_millis(1500);
        let origin = files.origin(7, 2, began);
        let process = std::process::id();
        assert_eq!(origin.connection, format!("20261120T200201.123456Z-{process}-7"));
        assert_eq!((origin.node.as_str(), origin.batch), ("node-1", 2));
        assert_eq!(origin.time_us, 1_795_204_922_623_456);
        files.write(7, &origin, &facts(), |out| Ok(out.write_all(b"groups")?));
        let name = format!("20261120T200201.123456Z-node-1-{process}-7-000002");
        let expected = [".groups.parquet", ".stream.parquet"].map(|end| format!("{name}{end}"));
        assert_eq!(names(directory.path()), [&expected[..], &["schema.toml".to_owned()]].concat());
        assert_eq!(fs::read(directory.path().join(&expected[0])).unwrap(), b"groups");
        assert_eq!(summary(files.missing()), None);
    }

    #[test]
    fn a_directory_holds_partials_of_one_schema() {
        let directory = tempfile::tempdir().unwrap();
        let built_in = Schema::built_in();
        open(directory.path(), &built_in).unwrap();
        open(directory.path(), &built_in).unwrap();
        let path = directory.path().join(SCHEMA_FILE);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(Schema::from_toml(&text).unwrap(), *built_in);
        // Different text, same meaning.
        fs::write(&path, format!("# a comment\n{text}")).unwrap();
        open(directory.path(), &built_in).unwrap();
        for (there, cause) in [
            (text.replace("D:min", "D:max"), "there `aggregates = "),
            (text.replace("\"i8\"", "\"u8\""), "there `type = \"u8\"`, here `type = \"i8\"`"),
            ("name = 5".to_owned(), "schema.toml:1:8"),
        ] {
            fs::write(&path, there).unwrap();
            let error = open(directory.path(), &built_in).unwrap_err().to_string();
            assert!(error.contains(cause) && error.contains("a separate directory"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, cause) in [
            (directory.path().join("gone"), "No such file"),
            (file, "Not a directory"),
            (PathBuf::from("/proc"), "cannot write to --partials /proc: "),
        ] {
            let error = open(&path, &Schema::built_in()).unwrap_err().to_string();
            assert!(error.contains(cause) && error.contains("must be a directory"), "{error}");
        }
    }

    #[test]
    fn a_batch_that_cannot_be_written_is_counted_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let files = open(&inside, &Schema::built_in()).unwrap();
        let write = |number| {
            let origin = files.origin(number, 0, Instant::now());
            files.write(number, &origin, &facts(), |out| Ok(out.write_all(b"groups")?));
        };
        let broken = |_: &mut BufWriter<&File>| Err(io::Error::other("no groups").into());
        files.write(1, &files.origin(1, 0, Instant::now()), &facts(), broken);
        assert_eq!(names(&inside), [SCHEMA_FILE], "no partial file, and no row about it");
        fs::remove_dir_all(&inside).unwrap();
        (2..5).for_each(write);
        files.give_up(5, 1, "the aggregation panicked");
        let summary = summary(files.missing()).unwrap();
        assert!(summary.starts_with("5 batches of partials "), "{summary}");
        assert!(summary.contains("the first: no groups, 2026"), "{summary}");
        // Later batches are still tried: the directory may come back.
        fs::create_dir(&inside).unwrap();
        write(9);
        assert_eq!(names(&inside).len(), 2);
    }
}
