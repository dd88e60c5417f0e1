//! Files that are whole or not there, whatever happens meanwhile: knows no format, and holds
//! nothing up where one cannot be written but counts it.
//!
//! A file is written under a hidden name, synced, renamed, and its directory synced. Who sees the
//! name sees the whole file, also after the power was cut. What a killed process leaves is a hidden
//! file that nobody takes for a result.

use crate::config::{Config, FILE_COMPLAINTS, NODE_NAME_BYTES_MAX};
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

/// Bytes that are written to a file at a time.
const WRITE_BYTES: usize = 64 << 10;

/// A directory that files are written to.
#[derive(Clone, Debug)]
pub(crate) struct FileDirectory {
    path: PathBuf,
}

impl FileDirectory {
    /// The directory that `option` names, once a file could be made there. `run` is a name that no
    /// other run has.
    ///
    /// # Errors
    /// Where nothing can be written there: why, and what must be so.
    pub(crate) fn open(option: &str, path: &Path, run: &str) -> Result<Self, String> {
        let directory = FileDirectory { path: path.to_owned() };
        // Dropping it removes it.
        directory.begin(run).map_err(|error| {
            let path = path.display();
            format!(
                "cannot write to {option} {path}: {error}; it must be a directory that exists and \
                 that this user may write to"
            )
        })?;
        Ok(directory)
    }

    /// Its path, as it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file that will be called `name`, or something else where [`UnfinishedFile::finish`] says
    /// so.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn begin(&self, name: &str) -> io::Result<UnfinishedFile> {
        let hidden = self.path.join(format!(".{name}.tmp"));
        let file = OpenOptions::new().write(true).create_new(true).open(&hidden)?;
        Ok(UnfinishedFile { file, hidden: Some(hidden) })
    }

    /// Writes a whole file; gives its path.
    ///
    /// # Errors
    /// Those of `write` and of the system; there is no such file then, and nothing of it is left.
    pub(crate) fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let unfinished = self.begin(name)?;
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &unfinished.file);
        let written = write(&mut out).and_then(|()| out.flush());
        // Dropping it would try again to write what could not be written.
        let _ = out.into_parts();
        written?;
        unfinished.finish(name)
    }
}

/// A file under its hidden name. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct UnfinishedFile {
    file: File,
    /// `None` once it has its own name.
    hidden: Option<PathBuf>,
}

impl UnfinishedFile {
    /// Gives the file its name when all of it is on the disk; gives its path.
    ///
    /// # Errors
    /// Those of the system; the file is gone then.
    pub(crate) fn finish(mut self, name: &str) -> io::Result<PathBuf> {
        let hidden = self.hidden.as_deref().expect("it has no other name yet");
        let path = hidden.with_file_name(name);
        self.file.sync_all()?;
        fs::rename(hidden, &path)?;
        // From here on it is this that an error must remove.
        self.hidden = Some(path.clone());
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        self.hidden = None;
        Ok(path)
    }
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if let Some(path) = &self.hidden {
            // Half a file is of no use to anybody; what matters is why it is half.
            let _ = fs::remove_file(path);
        }
    }
}

/// Has the names in a directory written to the disk. Some network file systems know no such thing
/// and write names at once.
fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// A moment as names of files have it, such as `20261120T200201.123456Z`: in the order of time,
/// and nothing in it that a shell or another system would mind.
pub(crate) fn moment(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string().replace(['-', ':'], "")
}

/// What this engine is called in the names of files: as asked for, else as the host is.
pub(crate) fn node_name(config: &Config) -> String {
    let of_host = || node_name_of(&rustix::system::uname().nodename().to_string_lossy());
    config.node.clone().unwrap_or_else(of_host)
}

/// The name of a host with nothing in it that a node's name may not have.
fn node_name_of(host: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = host.chars().map(|c| if allowed(c) { c } else { '_' });
    let name: String = name.take(NODE_NAME_BYTES_MAX).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

/// The files of one kind that there should be and are not.
#[derive(Debug, Default)]
pub struct MissingFiles {
    count: AtomicU64,
    first_cause: OnceLock<String>,
    complaints: Mutex<Complaints>,
}

impl MissingFiles {
    /// One more. Where the log may say so, gives how many it did not say since the last.
    pub fn add(&self, cause: impl Display, now: Instant) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.first_cause.get_or_init(|| cause.to_string());
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).allow(now)
    }

    /// How many, and why the first of them; nothing where there are none.
    pub fn summary(&self) -> Option<(u64, &str)> {
        let count = self.count.load(Ordering::Relaxed);
        self.first_cause.get().map(|cause| (count, cause.as_str()))
    }
}

/// One line in each [`FILE_COMPLAINTS`], and how many there were beside it: a disk that is full
/// must not be filled with lines about it.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unlisted: u64,
}

impl Complaints {
    /// Whether a line may be written, and then how many were not since the last.
    fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < FILE_COMPLAINTS) {
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
    use crate::config::is_node_name;
    use std::time::Duration;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        assert!(names(directory.path()).is_empty(), "the probe is gone");
        let path = files
            .write("a.txt", |out| {
                out.write_all(b"half")?;
                assert_eq!(names(directory.path()), [".a.txt.tmp"]);
                out.write_all(b" and half")
            })
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "half and half");
        assert_eq!(
            (names(directory.path()), path),
            (vec!["a.txt".to_owned()], files.path().join("a.txt"))
        );
    }

    #[test]
    fn a_file_may_get_another_name_at_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        let mut file = files.begin("a").unwrap();
        file.write_all(b"x").unwrap();
        file.finish("b").unwrap();
        assert_eq!(names(directory.path()), ["b"]);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        let refused = files.write("a", |out| {
            out.write_all(&[0; 3 * WRITE_BYTES])?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(refused.unwrap_err().to_string(), "no more");
        drop(files.begin("b").unwrap());
        assert!(names(directory.path()).is_empty());
        // Its name is taken by a directory: the file can be written and not be renamed.
        fs::create_dir(directory.path().join("c")).unwrap();
        files.write("c", |_| Ok(())).unwrap_err();
        assert_eq!(names(directory.path()), ["c"]);
        fs::remove_dir(directory.path().join("c")).unwrap();
        fs::remove_dir(directory.path()).unwrap();
        let gone = files.write("d", |_| Ok(())).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, cause) in [
            (directory.path().join("gone"), "No such file"),
            (file, "Not a directory"),
            (PathBuf::from("/proc"), "cannot write to --x /proc: "),
        ] {
            let error = FileDirectory::open("--x", &path, "run").unwrap_err();
            assert!(error.contains(cause) && error.contains("must be a directory"), "{error}");
        }
    }

    #[test]
    fn moments_are_utc_and_sort_as_text() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_169_700_000_042);
        assert_eq!(moment(at), "20261120T101500.000042Z");
        assert_eq!(moment(at + Duration::from_nanos(999)), "20261120T101500.000042Z");
    }

    #[test]
    fn a_node_is_called_as_asked_for_or_as_its_host() {
        let named = Config { node: Some("edge-7".to_owned()), ..Config::default() };
        assert_eq!(node_name(&named), "edge-7");
        assert!(is_node_name(&node_name(&Config::default())));
        assert_eq!(node_name_of("node-1.lan"), "node-1.lan");
        assert_eq!(node_name_of("a/b c\u{e9}\0"), "a_b_c__");
        assert_eq!(node_name_of(""), "host");
        assert_eq!(node_name_of(&"x".repeat(65)), "x".repeat(64));
    }

    #[test]
    fn missing_files_are_counted_and_listed_once_a_while() {
        let (missing, start) = (MissingFiles::default(), Instant::now());
        assert_eq!(missing.summary(), None);
        assert_eq!(missing.add("the first", start), Some(0));
        let within = start + FILE_COMPLAINTS - Duration::from_millis(1);
        assert_eq!([missing.add("", start), missing.add("", within)], [None, None]);
        assert_eq!(missing.add("", start + FILE_COMPLAINTS), Some(2));
        assert_eq!(missing.add("", start + 2 * FILE_COMPLAINTS), Some(0));
        assert_eq!(missing.summary(), Some((5, "the first")));
    }
}
