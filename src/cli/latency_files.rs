//! A directory that gets a file for each record stream: how long its packets took, as percentiles.
//! Measures nothing; a file that cannot be written holds nothing up and is counted.

use super::hgrm::write_percentiles;
use crate::config::LATENCY_FILE_COMPLAINTS;
use crate::engine::latency::Latency;
use crate::engine::report::Report;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

/// The files of one run.
#[derive(Debug)]
pub struct LatencyFiles {
    directory: PathBuf,
    /// What the name of each begins with: no other run has it.
    run: String,
    missing: Arc<Missing>,
    complaints: Complaints,
}

/// The files that there should be and are not.
#[derive(Debug, Default)]
pub struct Missing {
    count: AtomicU64,
    first_cause: OnceLock<String>,
}

impl Missing {
    /// What is to be said about them once the run is over; nothing where there are none.
    pub fn summary(&self) -> Option<String> {
        let count = self.count.load(Ordering::Relaxed);
        let cause = self.first_cause.get()?;
        Some(format!(
            "{count} latency files could not be written (--hgrm), the first: {cause}; the results \
             are not affected. The directory must stay, with space left"
        ))
    }
}

impl LatencyFiles {
    /// Files in `directory`, of a run that begins at `started`.
    ///
    /// # Errors
    /// Where nothing can be written there: why, and what must be so.
    pub fn open(directory: &Path, started: SystemTime) -> Result<Self, String> {
        let files = LatencyFiles {
            directory: directory.to_owned(),
            run: run_name(started, &host_name(), std::process::id()),
            missing: Arc::default(),
            complaints: Complaints::default(),
        };
        let probe = files.unfinished(&files.run);
        let writable = OpenOptions::new().write(true).create_new(true).open(&probe);
        writable.and_then(|_| fs::remove_file(&probe)).map_err(|error| {
            let directory = directory.display();
            format!(
                "cannot write to --hgrm {directory}: {error}; it must be a directory that exists \
                 and that this user may write to"
            )
        })?;
        Ok(files)
    }

    /// What will be known of files that could not be written.
    pub fn missing(&self) -> &Arc<Missing> {
        &self.missing
    }

    /// Writes the file of a stream; none for one without packets.
    pub fn add(&mut self, report: &Report) {
        let (connection, latency) = (report.received.connection, &report.received.latency);
        if latency.is_empty() {
            return;
        }
        let Err(error) = self.write(connection, latency) else { return };
        self.missing.count.fetch_add(1, Ordering::Relaxed);
        let cause = || format!("{} of {}", error, self.directory.display());
        self.missing.first_cause.get_or_init(cause);
        if let Some(unlisted) = self.complaints.allow(Instant::now()) {
            let directory = self.directory.display();
            tracing::error!(connection, unlisted, %directory, "cannot write latencies: {error}");
        }
    }

    /// The file has its name once it is whole.
    fn write(&self, connection: u64, latency: &Latency) -> io::Result<()> {
        let name = format!("{}-{connection}.hgrm", self.run);
        let unfinished = self.unfinished(&name);
        let file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        let written = write_percentiles(latency.histogram(), &mut BufWriter::new(file))
            .and_then(|()| fs::rename(&unfinished, self.directory.join(name)));
        if written.is_err() {
            // Half a file is of no use to anybody; what matters is why it is half.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Where a file is until it is whole: hidden, and with another ending.
    fn unfinished(&self, name: &str) -> PathBuf {
        self.directory.join(format!(".{name}.tmp"))
    }
}

/// Moment, host and process: two runs that write to one directory differ in one of them.
fn run_name(started: SystemTime, host: &str, process: u32) -> String {
    let moment = humantime::format_rfc3339_seconds(started).to_string().replace(['-', ':'], "");
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let host: String = host.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    let host = if host.is_empty() { "host" } else { &host };
    format!("{moment}-{host}-{process}")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// One line in each [`LATENCY_FILE_COMPLAINTS`], and how many there were beside it: a disk that is
/// full must not be filled with lines about it.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unlisted: u64,
}

impl Complaints {
    /// Whether a line may be written, and then how many were not since the last.
    fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < LATENCY_FILE_COMPLAINTS) {
            self.unlisted += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unlisted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::aggregate::Grouped;
    use crate::engine::report::Received;
    use std::time::Duration;

    fn report(connection: u64, packets: u64) -> Report {
        let now = Instant::now();
        let mut received = Received::nothing(connection, "[::1]:9".parse().unwrap(), now);
        received.latency.record(Duration::from_micros(10), packets);
        Report { received, grouped: Grouped::default(), aggregated: now }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_run_is_named_by_moment_host_and_process() {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_169_700);
        assert_eq!(run_name(moment, "node-1.lan", 42), "20261120T101500Z-node-1.lan-42");
        assert_eq!(run_name(moment, "a/b c\u{e9}\0", 1), "20261120T101500Z-a_b_c__-1");
        assert_eq!(run_name(moment, "", 1), "20261120T101500Z-host-1");
    }

    #[test]
    fn each_stream_with_packets_gets_a_file_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = LatencyFiles::open(directory.path(), SystemTime::now()).unwrap();
        assert!(names(directory.path()).is_empty(), "the probe is gone");
        [report(1, 5), report(2, 0), report(30, 7)].iter().for_each(|report| files.add(report));
        let found = names(directory.path());
        let ends = ["-1.hgrm", "-30.hgrm"];
        assert!(found.iter().zip(ends).all(|(name, end)| name.ends_with(end)), "{found:?}");
        assert_eq!(found.len(), 2);
        assert_eq!(files.missing().summary(), None);
        let text = fs::read_to_string(directory.path().join(&found[1])).unwrap();
        assert!(text.contains("Total count    =            7]"), "{text}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, cause) in [
            (directory.path().join("gone"), "No such file"),
            (file, "Not a directory"),
            (PathBuf::from("/proc"), "cannot write to --hgrm /proc: "),
        ] {
            let error = LatencyFiles::open(&path, SystemTime::now()).unwrap_err();
            assert!(error.contains(cause) && error.contains("must be a directory"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let mut files = LatencyFiles::open(&inside, SystemTime::now()).unwrap();
        // Its name is taken by a directory: the file can be written and not be renamed.
        fs::create_dir(inside.join(format!("{}-4.hgrm", files.run))).unwrap();
        files.add(&report(4, 1));
        assert_eq!(names(&inside).len(), 1, "no half file");
        fs::remove_dir_all(&inside).unwrap();
        (5..8).for_each(|connection| files.add(&report(connection, 1)));
        let summary = files.missing().summary().unwrap();
        assert!(summary.starts_with("4 latency files ") && summary.contains("directory"));
        // It is not given up: the directory may come back.
        fs::create_dir(&inside).unwrap();
        files.add(&report(9, 1));
        assert_eq!(names(&inside).len(), 1);
    }

    #[test]
    fn complaints_are_one_a_while() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.allow(start), Some(0));
        let within = start + LATENCY_FILE_COMPLAINTS - Duration::from_millis(1);
        assert_eq!([complaints.allow(start), complaints.allow(within)], [None, None]);
        assert_eq!(complaints.allow(start + LATENCY_FILE_COMPLAINTS), Some(2));
        assert_eq!(complaints.allow(start + 2 * LATENCY_FILE_COMPLAINTS), Some(0));
    }
}
