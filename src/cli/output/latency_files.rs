//! `serve --hgrm`: a file of packet latencies for each record stream. A file that cannot be written
//! is counted and reported; it delays nothing.

use super::hgrm::write_percentiles;
use crate::runtime::results::report::Report;
use crate::runtime::results::whole_file::{FileDirectory, MissingFiles, moment};
use crate::wire::text::counted;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// The files of one run.
#[derive(Debug)]
pub(crate) struct LatencyFiles {
    directory: FileDirectory,
    /// The start of each file name, unique to this run.
    run: String,
    missing: Arc<MissingFiles>,
}

impl LatencyFiles {
    /// Prepares files in `directory` for a run of `node` that began at `started`.
    ///
    /// # Errors
    /// Why nothing can be written there, and what to do.
    pub(crate) fn open(directory: &Path, node: &str, started: SystemTime) -> Result<Self, String> {
        let run = run_name(started, node, std::process::id());
        let directory = FileDirectory::open("--hgrm", directory, &run)?;
        Ok(LatencyFiles { directory, run, missing: Arc::default() })
    }

    /// The files that could not be written, counted as the run goes on.
    pub(crate) fn missing(&self) -> &Arc<MissingFiles> {
        &self.missing
    }

    /// Writes the file of a stream, unless it had no packets.
    pub(crate) fn add(&self, report: &Report) {
        let (connection, latency) = (report.received.connection, &report.received.latency);
        if latency.is_empty() {
            return;
        }
        let name = format!("{}-{connection}.hgrm", self.run);
        let written =
            self.directory.write(&name, |out| write_percentiles(latency.histogram(), out));
        let Err(error) = written else { return };
        let file = self.directory.path().join(name);
        let cause = format_args!("{}: {error}", file.display());
        if let Some(unlisted) = self.missing.add(cause, Instant::now()) {
            tracing::error!(connection, unlisted, "cannot write latencies: {cause}");
        }
    }
}

/// Describes, after the run, the files that could not be written, if any.
pub(crate) fn summary(missing: &MissingFiles) -> Option<String> {
    let (count, cause) = missing.summary()?;
    Some(format!(
        "{} could not be written (--hgrm); the first: {cause}. The results are \
         not affected. Check that the directory exists and has space",
        counted(count, "latency file")
    ))
}

/// Time, node and process. In containers all engines may have the same process number and start
/// within a second, so the time is as fine as in the names of results.
fn run_name(started: SystemTime, node: &str, process: u32) -> String {
    format!("{}-{node}-{process}", moment(started))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::aggregate::Grouped;
    use crate::engine::stream::received::Received;
    use crate::runtime::results::whole_file::names;
    use crate::wire::schema::Schema;
    use std::fs;
    use std::time::Duration;

    fn report(connection: u64, packets: u64) -> Report {
        let now = Instant::now();
        let mut received = Received::nothing(connection, "[::1]:9".parse().unwrap(), now);
        received.latency.record(Duration::from_micros(10), packets);
        Report { received, grouped: Grouped::empty(Schema::built_in()), aggregated: now }
    }

    #[test]
    fn a_run_is_named_by_moment_node_and_process() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_169_700_000_042);
        assert_eq!(run_name(moment, "node-1.lan", 42), "20261120T101500.000042Z-node-1.lan-42");
    }

    #[test]
    fn each_stream_with_packets_gets_a_file_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let files = LatencyFiles::open(directory.path(), "n", SystemTime::now()).unwrap();
        assert!(names(directory.path()).is_empty(), "the probe is gone");
        [report(1, 5), report(2, 0), report(30, 7)].iter().for_each(|report| files.add(report));
        let found = names(directory.path());
        let ends = ["-1.hgrm", "-30.hgrm"];
        assert!(found.iter().zip(ends).all(|(name, end)| name.ends_with(end)), "{found:?}");
        assert_eq!(found.len(), 2);
        assert_eq!(summary(files.missing()), None);
        let text = fs::read_to_string(directory.path().join(&found[1])).unwrap();
        assert!(text.contains("Total count    =            7]"), "{text}");
    }

    /// In containers: the same host name, the same process number, the same second.
    #[test]
    fn two_engines_that_start_within_a_second_keep_all_files() {
        let directory = tempfile::tempdir().unwrap();
        let started = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_169_700_000_042);
        // The same microsecond costs the second file, not the first.
        for (micros, lost) in [(0, false), (1, false), (1, true)] {
            let started = started + Duration::from_micros(micros);
            let files = LatencyFiles::open(directory.path(), "n", started).unwrap();
            files.add(&report(1, 5));
            assert_eq!(summary(files.missing()).is_some(), lost);
        }
        assert_eq!(names(directory.path()).len(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let files = LatencyFiles::open(&inside, "n", SystemTime::now()).unwrap();
        // A directory has its name, so the file can be written but not renamed.
        fs::create_dir(inside.join(format!("{}-4.hgrm", files.run))).unwrap();
        files.add(&report(4, 1));
        assert_eq!(names(&inside).len(), 1, "no half file");
        fs::remove_dir_all(&inside).unwrap();
        (5..8).for_each(|connection| files.add(&report(connection, 1)));
        let summary = summary(files.missing()).unwrap();
        let first = inside.join(format!("{}-4.hgrm", files.run));
        let expected = format!(
            "4 latency files could not be written (--hgrm); the first: {}: a file of this name \
             already exists",
            first.display()
        );
        assert!(summary.starts_with(&expected), "{summary}");
        // Later files are tried again, since the directory may come back.
        fs::create_dir(&inside).unwrap();
        files.add(&report(9, 1));
        assert_eq!(names(&inside).len(), 1);
    }
}
