//! Batches of streams in the partials directory, for a merge: encodes them, names the files, writes
//! them atomically and counts those that fail. A failure here ends no stream.

use super::schema_file::{self, SchemaFileError};
use super::whole_file::{FileDirectory, MissingFiles, moment, node_name};
use crate::config::Config;
use crate::engine::aggregate::partial_file::{BatchFacts, Origin, PartialFileError, write_facts};
use crate::engine::observe::counters::PartialCounts;
use crate::runtime::disk::fs;
use crate::wire::schema::Schema;
use crate::wire::text::counted;
use std::fmt::Display;
use std::io::{self, Write};
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
    schema: Arc<Schema>,
    /// The start of the run, which is in all names.
    started: SystemTime,
    counts: Arc<PartialCounts>,
    /// Shared, because it is reported after the engine has ended.
    missing: Arc<MissingFiles>,
}

/// The contents of the two files of a batch.
#[derive(Debug)]
pub(crate) struct EncodedBatch {
    /// The name of both files, without their endings.
    pub name: String,
    groups: Vec<u8>,
    row: Vec<u8>,
}

impl EncodedBatch {
    /// How much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.len() + self.row.len()
    }

    #[cfg(test)]
    pub(crate) fn of(name: &str, groups: &[u8]) -> Self {
        EncodedBatch { name: name.to_owned(), groups: groups.to_vec(), row: b"row".to_vec() }
    }
}

/// The message about missing batches at the end of a run; `None` if none are missing.
pub(crate) fn summary(missing: &MissingFiles) -> Option<String> {
    let (count, cause) = missing.summary()?;
    Some(format!(
        "{} of partials could not be written (--partials); the first: {cause}. This \
         engine's results are not affected, but merged ones will lack them. Keep the \
         directory in place, with free space",
        counted(count, "batch")
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
        schema: &Arc<Schema>,
        counts: &Arc<PartialCounts>,
    ) -> Result<Option<Arc<Self>>, PartialFilesError> {
        let Some(path) = &config.partials else { return Ok(None) };
        let counts = Arc::clone(counts);
        let files = Self::open(path, node_name(config), schema, SystemTime::now(), counts)?;
        Ok(Some(Arc::new(files)))
    }

    /// Whether [`start`](Self::start) would succeed. Leaves nothing behind.
    ///
    /// # Errors
    /// Those of `start`.
    pub(crate) fn check(config: &Config, schema: &Schema) -> Result<(), PartialFilesError> {
        let Some(path) = &config.partials else { return Ok(()) };
        let run = format!("{}-{}", moment(SystemTime::now()), std::process::id());
        let directory = FileDirectory::open("--partials", path, &run)
            .map_err(PartialFilesError::NotWritable)?;
        let checked = schema_file::check(&directory, SCHEMA_FILE, schema, schema_of_partials);
        checked.map_err(|error| schema_error(path, error))
    }

    fn open(
        path: &Path,
        node: String,
        schema: &Arc<Schema>,
        started: SystemTime,
        counts: Arc<PartialCounts>,
    ) -> Result<Self, PartialFilesError> {
        let run = format!("{}-{node}-{}", moment(started), std::process::id());
        let directory = FileDirectory::open("--partials", path, &run)
            .map_err(PartialFilesError::NotWritable)?;
        let known = schema_of_partials;
        let claimed = schema_file::claim(&directory, SCHEMA_FILE, &run, schema, known);
        claimed.map_err(|error| schema_error(path, error))?;
        let schema = Arc::clone(schema);
        Ok(PartialFiles { directory, node, schema, started, counts, missing: Arc::default() })
    }

    /// The record of batches that could not be written.
    pub(crate) fn missing(&self) -> &Arc<MissingFiles> {
        &self.missing
    }

    /// Identifies a batch, begun at `began`, of the stream with this number.
    pub(crate) fn origin(&self, number: u64, batch: u32, began: SystemTime) -> Origin {
        let since_1970 = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        Origin {
            node: self.node.clone(),
            connection: format!("{}-{}-{number}", moment(self.started), std::process::id()),
            batch,
            time_us: i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// Encodes a batch of the stream with this number. A failure is counted and logged.
    ///
    /// # Errors
    /// Why it could not be encoded.
    pub(crate) fn encode(
        &self,
        number: u64,
        origin: &Origin,
        facts: &BatchFacts,
        groups: impl FnOnce(&mut Vec<u8>) -> Result<(), PartialFileError>,
    ) -> Result<EncodedBatch, String> {
        let (moment, node, process) = (moment(self.started), &self.node, std::process::id());
        let name = format!("{moment}-{node}-{process}-{number}-{:06}", origin.batch);
        let mut batch = EncodedBatch { name, groups: Vec::new(), row: Vec::new() };
        let encoded = groups(&mut batch.groups)
            .and_then(|()| write_facts(&self.schema, origin, facts, &mut batch.row));
        match encoded {
            Ok(()) => Ok(batch),
            Err(error) => {
                let error = io::Error::from(error);
                self.add_missing(&batch.name, &error);
                Err(error.to_string())
            }
        }
    }

    /// Writes a batch: first its groups, then the row about it, so that the groups exist whenever
    /// the row does. Failures are counted and logged.
    ///
    /// # Errors
    /// Why it could not be written.
    pub(crate) fn store(&self, batch: &EncodedBatch) -> Result<(), String> {
        let begun = Instant::now();
        let write = |ending, bytes: &[u8]| {
            self.directory.write(&format!("{}{ending}", batch.name), |out| out.write_all(bytes))
        };
        let written = write(GROUPS_ENDING, &batch.groups).and_then(|path| {
            let row = write(STREAM_ENDING, &batch.row);
            // The result calls the batch missing, so its groups must not be in a merge.
            row.inspect_err(|_| drop(fs::remove_file(path)))
        });
        self.counts.add_write_time(begun.elapsed());
        match written {
            Ok(_) => {
                self.counts.add_written();
                Ok(())
            }
            Err(error) => {
                self.add_missing(&batch.name, &error);
                Err(error.to_string())
            }
        }
    }

    /// What is counted of the partials.
    pub(crate) fn counts(&self) -> &PartialCounts {
        &self.counts
    }

    /// Counts a batch as missing because nothing of it can be written, for the given cause.
    pub(crate) fn give_up(&self, name: &str, cause: &str) {
        self.add_missing(name, &cause);
    }

    /// Counts and logs a batch, whose files begin with this name.
    fn add_missing(&self, name: &str, error: &dyn Display) {
        self.counts.add_failed();
        let files = self.directory.path().join(name);
        let cause = format_args!("{}: {error}", files.display());
        if let Some(unlisted) = self.missing.add(cause, Instant::now()) {
            tracing::error!(unlisted, "cannot write partials: {cause}");
        }
    }
}

fn schema_error(path: &Path, error: SchemaFileError) -> PartialFilesError {
    let directory = path.display().to_string();
    match error {
        SchemaFileError::Io(error) => PartialFilesError::Schema { directory, error },
        SchemaFileError::OtherSchema(difference) => {
            PartialFilesError::OtherSchema { directory, difference }
        }
    }
}

/// The schema in the metadata of the partials in a directory.
pub(crate) fn schema_of_partials(directory: &Path) -> io::Result<Option<Schema>> {
    schema_file::schema_of_files(directory, &[GROUPS_ENDING, STREAM_ENDING])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::latency::Latency;
    use crate::runtime::results::whole_file::names;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    const MOMENT: Duration = Duration::from_micros(1_795_204_921_123_456);

    fn open(directory: &Path, schema: &Arc<Schema>) -> Result<PartialFiles, PartialFilesError> {
        let (node, counts) = ("node-1".to_owned(), Arc::default());
        PartialFiles::open(directory, node, schema, UNIX_EPOCH + MOMENT, counts)
    }

    fn facts() -> BatchFacts {
        let latency = Latency::default();
        BatchFacts { status: None, reason: None, records: 1, packets: 1, bytes: 271, latency }
    }

    /// Encodes a batch with these groups, and stores it.
    fn write(files: &PartialFiles, number: u64, batch: u32, groups: &[u8]) -> Result<(), String> {
        let origin = files.origin(number, batch, SystemTime::now());
        let groups = |out: &mut Vec<u8>| Ok(out.write_all(groups)?);
        files.encode(number, &origin, &facts(), groups).and_then(|encoded| files.store(&encoded))
    }

    #[test]
    fn a_batch_is_two_files_named_by_run_stream_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), &Schema::built_in()).unwrap();
        let began = files.started + Duration::from_millis(1500);
        let origin = files.origin(7, 2, began);
        let process = std::process::id();
        assert_eq!(origin.connection, format!("20261120T200201.123456Z-{process}-7"));
        assert_eq!((origin.node.as_str(), origin.batch), ("node-1", 2));
        assert_eq!(origin.time_us, 1_795_204_922_623_456);
        write(&files, 7, 2, b"groups").unwrap();
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

    /// `schema.toml` is the oldest file, so whoever deletes by age deletes it first.
    #[test]
    fn a_directory_without_its_schema_file_has_the_schema_of_its_partials() {
        let directory = tempfile::tempdir().unwrap();
        let files = open(directory.path(), &Schema::built_in()).unwrap();
        write(&files, 1, 0, b"damaged").unwrap();
        fs::remove_file(directory.path().join(SCHEMA_FILE)).unwrap();
        let other = Schema::built_in().to_toml().replace("D:min", "D:max");
        let other = Arc::new(Schema::from_toml(&other).unwrap());
        let error = open(directory.path(), &other).unwrap_err().to_string();
        assert!(error.contains("D:min") && error.contains("another schema"), "{error}");
        open(directory.path(), &Schema::built_in()).unwrap();
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
        let broken = |_: &mut Vec<u8>| Err(io::Error::other("no groups").into());
        let origin = files.origin(1, 0, SystemTime::now());
        let failed = files.encode(1, &origin, &facts(), broken).unwrap_err();
        assert_eq!(failed, "no groups");
        assert_eq!(names(&inside), [SCHEMA_FILE], "no partial file, and no row about it");
        fs::remove_dir_all(&inside).unwrap();
        for number in 2..5 {
            let cause = write(&files, number, 0, b"groups").unwrap_err();
            assert!(
                cause.starts_with("the directory no longer exists; create it again"),
                "{cause}"
            );
        }
        files.give_up("stream 5, batch 1", "the aggregation panicked");
        let summary = summary(files.missing()).unwrap();
        assert!(summary.starts_with("5 batches of partials "), "{summary}");
        let first = format!("the first: {}/2026", inside.display());
        assert!(summary.contains(&first) && summary.contains("-000000: no groups."), "{summary}");
        // Later batches are still tried: the directory may come back.
        fs::create_dir(&inside).unwrap();
        write(&files, 9, 0, b"groups").unwrap();
        assert_eq!((files.counts.written(), files.counts.failed()), (1, 5));
        assert_eq!(names(&inside).len(), 2);
    }
}
