//! Writes files atomically: each is complete or absent, whatever happens. Knows no formats. Files
//! that cannot be written are counted.
//!
//! A file is written under a hidden name, synced and renamed; then its directory is synced. If the
//! final name exists, the file is complete, even after a power failure. A killed process leaves a
//! hidden file that cannot be mistaken for a result.

use crate::config::{Config, FILE_COMPLAINTS, NODE_NAME_BYTES_MAX};
use crate::runtime::disk::MetadataExt;
use crate::runtime::disk::fs::{self, File, OpenOptions};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

/// Bytes per write to a file.
const WRITE_BYTES: usize = 64 << 10;

/// A directory that files are written to.
#[derive(Clone, Debug)]
pub(crate) struct FileDirectory {
    path: PathBuf,
}

impl FileDirectory {
    /// The directory that `option` names, after checking that a file can be created in it. `run` is
    /// a name that no other run uses.
    ///
    /// # Errors
    /// If it is not writable: the cause and the remedy.
    pub(crate) fn open(option: &str, path: &Path, run: impl AsRef<OsStr>) -> Result<Self, String> {
        let directory = FileDirectory { path: path.to_owned() };
        // Dropping the file removes it. Each file's directory is opened as well, to be synced.
        let usable = directory.create(run.as_ref()).and_then(|_| File::open(path));
        usable.map_err(|error| {
            let path = path.display();
            format!(
                "cannot write to {option} {path}: {error}; it must be a directory that exists and \
                 that this user can read and write to"
            )
        })?;
        Ok(directory)
    }

    /// Its path, as given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file under a hidden name made from `name`; [`UnfinishedFile::finish`] gives it its
    /// final one.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn begin(&self, name: impl AsRef<OsStr>) -> io::Result<UnfinishedFile> {
        self.create(name.as_ref()).map_err(in_words)
    }

    fn create(&self, name: &OsStr) -> io::Result<UnfinishedFile> {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".tmp");
        let hidden = self.path.join(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&hidden)?;
        Ok(UnfinishedFile { file, hidden: Some(hidden) })
    }

    /// Writes a whole file with a new name; returns its path.
    ///
    /// # Errors
    /// Those of `write` and of the system; no trace of the file is left then.
    pub(crate) fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let unfinished = self.begin(name)?;
        write_buffered(&unfinished.file, write)?;
        unfinished.finish(name)
    }

    /// Writes a whole file and replaces one that has this name. Until then it has a hidden name
    /// made from `own`, which no other process uses: a killed one leaves its file behind.
    ///
    /// # Errors
    /// Those of `write` and of the system; an old file is unchanged then, unless the error says
    /// otherwise.
    pub(super) fn replace(
        &self,
        name: &OsStr,
        own: &OsStr,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let unfinished = self.begin(own)?;
        write_buffered(&unfinished.file, write)?;
        unfinished.replace(name)
    }
}

/// Has `write` write to a file through a buffer.
///
/// # Errors
/// Those of `write` and of the system.
pub(super) fn write_buffered(
    file: &File,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
    let written = write(&mut out).and_then(|()| out.flush());
    // Dropping it would retry the failed write.
    let _ = out.into_parts();
    written.map_err(in_words)
}

/// An error of writing a file with what it means and what to do, where the system's text does not
/// say that. Other errors stay as they are.
pub(crate) fn in_words(error: io::Error) -> io::Error {
    let Some(code) = error.raw_os_error() else { return error };
    let words = match error.kind() {
        _ if code == libc::EIO => "the disk fails; look for its cause in the kernel's log (dmesg)",
        _ if code == libc::EMFILE => {
            "this process has too many open files; raise the limit (ulimit -n, LimitNOFILE)"
        }
        _ if code == libc::ENFILE => "the host has too many open files; raise fs.file-max",
        io::ErrorKind::StorageFull => "the disk is full; make room",
        io::ErrorKind::QuotaExceeded => "this user's disk quota is used up; make room or raise it",
        io::ErrorKind::FileTooLarge => {
            "the file exceeds this process's limit of file sizes (ulimit -f, LimitFSIZE); raise it"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; remount it",
        io::ErrorKind::NotFound => "the directory no longer exists; create it again",
        io::ErrorKind::PermissionDenied => {
            "this user may no longer write to the directory; check its owner and permissions"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{words} (os error {code})"))
}

/// A file under its hidden name. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct UnfinishedFile {
    file: File,
    /// `None` once it has its own name.
    hidden: Option<PathBuf>,
}

impl UnfinishedFile {
    /// Syncs the file and gives it the name `name`, which no other file may have; returns its path.
    ///
    /// # Errors
    /// The system's error; the file is removed then.
    pub(crate) fn finish(mut self, name: impl AsRef<OsStr>) -> io::Result<PathBuf> {
        let (hidden, directory) = self.sync()?;
        let path = hidden.with_file_name(name.as_ref());
        give_new_name(&hidden, &path).map_err(in_words)?;
        // From here on, an error must remove the file under its new name.
        self.hidden = Some(path.clone());
        sync_names(&directory).map_err(in_words)?;
        self.hidden = None;
        Ok(path)
    }

    /// The same, but replaces a file that has that name, and keeps its permissions.
    ///
    /// # Errors
    /// The system's error. The new file is removed then, unless it has already replaced the old
    /// one, which the error says.
    fn replace(mut self, name: &OsStr) -> io::Result<()> {
        let (hidden, directory) = self.sync()?;
        let path = hidden.with_file_name(name);
        if let Ok(old) = fs::metadata(&path) {
            fs::set_permissions(&hidden, old.permissions()).map_err(in_words)?;
        }
        fs::rename(&hidden, &path).map_err(in_words)?;
        // The old file is gone: removing this one would leave none.
        self.hidden = None;
        sync_names(&directory).map_err(|error| {
            let words = "the new file is in place, but a power failure may undo that";
            io::Error::new(error.kind(), format!("{words}: {}", in_words(error)))
        })
    }

    /// Syncs the file; returns its hidden path and its directory. The directory is opened before
    /// the file gets its name, so that only syncing it can fail afterwards.
    fn sync(&self) -> io::Result<(PathBuf, File)> {
        let hidden = self.hidden.clone().expect("the file still has its hidden name");
        self.file.sync_all().map_err(in_words)?;
        let directory = File::open(hidden.parent().unwrap_or(Path::new("."))).map_err(in_words)?;
        Ok((hidden, directory))
    }
}

/// Renames a file to a name that no other file has. Names are unique as long as each engine that
/// shares a directory has its own node name; where two have the same, the first file must survive.
fn give_new_name(hidden: &Path, path: &Path) -> io::Result<()> {
    // Unlike a rename, a link fails if the name is taken.
    match fs::hard_link(hidden, path) {
        // If removing fails, the file has its name nevertheless.
        Ok(()) => {
            let _ = fs::remove_file(hidden);
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Over a network the name may be taken by this very file, if a reply was lost.
            if fs::metadata(hidden)?.nlink() < 2 {
                return Err(name_taken());
            }
            let _ = fs::remove_file(hidden);
            return Ok(());
        }
        // Some file systems have no links.
        Err(_) => {}
    }
    match fs::symlink_metadata(path) {
        Ok(_) => Err(name_taken()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(hidden, path),
        // A file that cannot be seen may be there all the same.
        Err(error) => Err(error),
    }
}

fn name_taken() -> io::Error {
    let words = "a file of this name already exists; engines that share a directory need \
                 different names (--node)";
    io::Error::new(io::ErrorKind::AlreadyExists, words)
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(in_words)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        if let Some(path) = &self.hidden {
            // If removing fails too, the error that led here is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

/// Syncs the names in a directory. Some network file systems do not support that, and write names
/// at once.
pub(crate) fn sync_names(directory: &File) -> io::Result<()> {
    match directory.sync_all() {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Refuses a directory whose path results cannot name: they are text, and a path may be any bytes.
///
/// # Errors
/// The cause and the remedy.
pub(crate) fn check_named(option: &str, path: &Path) -> Result<(), String> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(format!(
            "{option} {}: the path is not UTF-8, so results could not name the files in it; give \
             a directory whose path is UTF-8",
            path.display()
        )),
    }
}

/// A time for file names, such as `20261120T200201.123456Z`. It sorts chronologically, and its
/// characters are safe in shells and on other systems.
pub(crate) fn moment(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string().replace(['-', ':'], "")
}

/// This engine's name in file names: the configured one, or else the host's.
pub(crate) fn node_name(config: &Config) -> String {
    let of_host = || node_name_of(&rustix::system::uname().nodename().to_string_lossy());
    config.node.clone().unwrap_or_else(of_host)
}

/// The host's name with the characters replaced that a node name may not contain.
fn node_name_of(host: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = host.chars().map(|c| if allowed(c) { c } else { '_' });
    let name: String = name.take(NODE_NAME_BYTES_MAX).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

/// Counts the files of one kind that could not be written.
#[derive(Debug, Default)]
pub struct MissingFiles {
    count: AtomicU64,
    first_cause: OnceLock<String>,
    complaints: Mutex<Complaints>,
}

impl MissingFiles {
    /// Counts one more. Returns `None` if it must not be logged, and otherwise how many were not
    /// logged since the last log line.
    pub fn add(&self, cause: impl Display, now: Instant) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.first_cause.get_or_init(|| cause.to_string());
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).allow(now)
    }

    /// How many there are, and the cause of the first; `None` if there are none.
    pub fn summary(&self) -> Option<(u64, &str)> {
        let count = self.count.load(Ordering::Relaxed);
        self.first_cause.get().map(|cause| (count, cause.as_str()))
    }
}

/// Allows one log line per [`FILE_COMPLAINTS`] and counts the others: a full disk must not fill up
/// with lines about it.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unlisted: u64,
}

impl Complaints {
    /// How many lines were suppressed since the last one; `None` if this one must be as well.
    fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now - last < FILE_COMPLAINTS) {
            self.unlisted += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unlisted))
    }
}

/// The names of the files in a directory, hidden ones included, in order.
#[cfg(test)]
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::is_node_name;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        assert!(names(directory.path()).is_empty(), "the probe was not removed");
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
    fn a_file_may_be_finished_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        let mut file = files.begin("a").unwrap();
        file.write_all(b"x").unwrap();
        file.finish("b").unwrap();
        assert_eq!(names(directory.path()), ["b"]);
    }

    /// Two engines with the same node name and process number may make the same name.
    #[test]
    fn a_file_never_takes_the_place_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        files.write("a", |out| out.write_all(b"first")).unwrap();
        let taken = files.write("a", |out| out.write_all(b"second")).unwrap_err();
        assert!(taken.to_string().contains("--node"), "{taken}");
        assert_eq!(fs::read(directory.path().join("a")).unwrap(), b"first");
        assert_eq!(names(directory.path()), ["a"]);
    }

    #[test]
    fn a_path_that_results_cannot_name_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(OsStr::from_bytes(b"/tmp/z\xfcrich"));
        let said = check_named("--output", path).unwrap_err();
        assert!(said.contains("--output") && said.contains("not UTF-8"), "{said}");
        check_named("--output", Path::new("/tmp/zürich")).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = FileDirectory::open("--x", directory.path(), "run").unwrap();
        let refused = files.write("a", |out| {
            out.write_all(&[0; 3 * WRITE_BYTES])?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(refused.unwrap_err().to_string(), "no more");
        drop(files.begin("b").unwrap());
        assert!(names(directory.path()).is_empty());
        // A directory has that name: the file can be written but not renamed.
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
    fn times_are_utc_and_sort_as_text() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_169_700_000_042);
        assert_eq!(moment(at), "20261120T101500.000042Z");
        assert_eq!(moment(at + Duration::from_nanos(999)), "20261120T101500.000042Z");
    }

    #[test]
    fn a_node_has_its_configured_name_or_its_hosts() {
        let named = Config { node: Some("edge-7".to_owned()), ..Config::default() };
        assert_eq!(node_name(&named), "edge-7");
        assert!(is_node_name(&node_name(&Config::default())));
        assert_eq!(node_name_of("node-1.lan"), "node-1.lan");
        assert_eq!(node_name_of("a/b c\u{e9}\0"), "a_b_c__");
        assert_eq!(node_name_of(""), "host");
        assert_eq!(node_name_of(&"x".repeat(65)), "x".repeat(64));
    }

    #[test]
    fn missing_files_are_counted_and_only_logged_at_intervals() {
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
