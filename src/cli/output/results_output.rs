//! Where printed results go: stdout, or the file of `serve --results`, which is opened again when
//! it has been moved away. Each result is in one file as a whole.

use super::format::Format;
use super::render::{StreamFiles, write_report};
use crate::runtime::disk::fs::{self, File, OpenOptions, TryLockError};
use crate::runtime::disk::{FileExt, MetadataExt};
use crate::runtime::results::report::Report;
use crate::runtime::results::whole_file::in_words;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes per write.
const WRITE_BYTES: usize = 64 << 10;

/// Where printed results go.
#[derive(Debug)]
pub(crate) enum ResultsOutput {
    /// Stdout.
    Stdout(BufWriter<Stdout>),
    /// A file.
    File(ResultsFile),
}

impl ResultsOutput {
    /// Stdout.
    pub(crate) fn stdout() -> Self {
        ResultsOutput::Stdout(BufWriter::with_capacity(WRITE_BYTES, io::stdout()))
    }

    /// Writes a whole result.
    ///
    /// # Errors
    /// The system's error. No later result may be written then.
    pub(crate) fn print(
        &mut self,
        format: Format,
        report: &Report,
        files: &StreamFiles,
    ) -> io::Result<()> {
        match self {
            ResultsOutput::Stdout(out) => {
                let written = write_report(format, report, files, out);
                if written.is_err() {
                    // Dropping the writer must not try to write the buffered rest again.
                    let broken = std::mem::replace(out, BufWriter::new(io::stdout()));
                    let _ = broken.into_parts();
                }
                written
            }
            ResultsOutput::File(file) => {
                file.append(|out| write_report(format, report, files, out))
            }
        }
    }
}

/// A file that results are appended to.
#[derive(Debug)]
pub(crate) struct ResultsFile {
    file: File,
    shared: Arc<ResultsPath>,
}

/// Opens the file again, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Reopener(Arc<ResultsPath>);

#[derive(Debug)]
struct ResultsPath {
    path: PathBuf,
    next: Mutex<NextResultsFile>,
}

#[derive(Debug)]
struct NextResultsFile {
    /// The file last opened, by device and number.
    id: (u64, u64),
    /// That file, until the next result is written.
    file: Option<File>,
}

impl ResultsFile {
    /// Opens the file for appending; makes it if there is none.
    ///
    /// # Errors
    /// The cause and the remedy.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let (file, id) = open(path)?;
        end_line(&file, path)?;
        let next = Mutex::new(NextResultsFile { id, file: None });
        Ok(ResultsFile { file, shared: Arc::new(ResultsPath { path: path.to_owned(), next }) })
    }

    /// Checks that it can be opened. Leaves no file where there was none.
    ///
    /// # Errors
    /// The cause and the remedy.
    pub(crate) fn check(path: &Path) -> Result<(), String> {
        let existed = fs::symlink_metadata(path).is_ok();
        open(path)?;
        if !existed {
            // It was made a moment ago, and is empty.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// A handle to open it again.
    pub(crate) fn reopener(&self) -> Reopener {
        Reopener(Arc::clone(&self.shared))
    }

    /// Appends to the file that was opened last. If that fails, removes what was written, so that
    /// the file ends with a whole result.
    fn append(
        &mut self,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(next) = self.shared.next().file.take() {
            self.file = next;
        }
        let before = self.file.metadata()?;
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &self.file);
        let written = write(&mut out);
        // Dropping it would retry a failed write.
        let _ = out.into_parts();
        if written.is_err() && before.is_file() {
            // The lock means that nobody else has appended. If this fails, too, the error that led
            // here is the one to report.
            let _ = self.file.set_len(before.len());
        }
        written.map_err(in_words)
    }
}

impl ResultsPath {
    fn next(&self) -> std::sync::MutexGuard<'_, NextResultsFile> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reopener {
    /// Opens the file again if it has been moved away or removed, and logs it: later results go to
    /// the new one. If it cannot be opened, results go on to the old one.
    pub(crate) fn reopen(&self) {
        let path = &self.0.path;
        let known = self.0.next().id;
        if fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == known) {
            return;
        }
        let opened = open(path).and_then(|(file, id)| end_line(&file, path).map(|()| (file, id)));
        match opened {
            Ok((file, id)) => {
                *self.0.next() = NextResultsFile { id, file: Some(file) };
                tracing::info!(results = %path.display(), "results file opened again");
            }
            Err(error) => tracing::error!("results go on to the old file: {error}"),
        }
    }
}

fn open(path: &Path) -> Result<(File, (u64, u64)), String> {
    let shown = path.display();
    let cannot = |error: io::Error| format!("cannot append to --results {shown}: {error}");
    let file = OpenOptions::new().append(true).create(true).open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if found.is_file() {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "--results {shown} is in use by another process, and results of both would \
                     mix; give each its own file"
                ));
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(_)) => {}
        }
    }
    Ok((file, (found.dev(), found.ino())))
}

/// Ends the last line of a file, where it is cut off because an engine was killed while it wrote.
/// Otherwise the first result of this one would continue it.
///
/// # Errors
/// The cause and the remedy.
fn end_line(mut file: &File, path: &Path) -> Result<(), String> {
    let bytes = file.metadata().map_or(0, |found| found.len());
    let mut last = [b'\n'];
    if bytes > 0 {
        // A device, or a file that may only be written, has to do without.
        let _ = File::open(path).and_then(|file| file.read_at(&mut last, bytes - 1));
    }
    if last == *b"\n" {
        return Ok(());
    }
    let shown = path.display();
    tracing::warn!(results = %shown, "the last result in the file is cut off by a kill");
    file.write_all(b"\n")
        .map_err(|error| format!("cannot append to --results {shown}: {}", in_words(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn append(file: &mut ResultsFile, text: &str) {
        file.append(|out| {
            out.write_all(text.as_bytes())?;
            out.flush()
        })
        .unwrap();
    }

    #[test]
    fn results_are_appended_and_go_to_a_new_file_once_the_old_one_is_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("results"), "before\n").unwrap();
        let mut file = ResultsFile::open(&path("results")).unwrap();
        append(&mut file, "1\n");
        // A copy that truncates leaves no hole, since each write goes to the end.
        fs::copy(path("results"), path("copied")).unwrap();
        fs::write(path("results"), "").unwrap();
        append(&mut file, "2\n");
        assert_eq!(fs::read_to_string(path("copied")).unwrap(), "before\n1\n");
        // Nothing was moved, so the file stays open.
        file.reopener().reopen();
        append(&mut file, "3\n");
        fs::rename(path("results"), path("moved")).unwrap();
        append(&mut file, "4\n");
        file.reopener().reopen();
        append(&mut file, "5\n");
        assert_eq!(fs::read_to_string(path("moved")).unwrap(), "2\n3\n4\n");
        assert_eq!(fs::read_to_string(path("results")).unwrap(), "5\n");
        // A file that cannot be opened costs nothing.
        fs::remove_file(path("results")).unwrap();
        fs::create_dir(path("results")).unwrap();
        file.reopener().reopen();
        append(&mut file, "6\n");
        fs::remove_dir(path("results")).unwrap();
        file.reopener().reopen();
        append(&mut file, "7\n");
        assert_eq!(fs::read_to_string(path("results")).unwrap(), "7\n");
    }

    /// As after a kill within a result: the next one must not continue it.
    #[test]
    fn a_result_that_was_cut_off_is_not_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results");
        fs::write(&path, "whole\n{\"cut").unwrap();
        ResultsFile::check(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n{\"cut", "a check changes nothing");
        append(&mut ResultsFile::open(&path).unwrap(), "next\n");
        append(&mut ResultsFile::open(&path).unwrap(), "last\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n{\"cut\nnext\nlast\n");
    }

    #[test]
    fn a_failed_result_leaves_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results");
        let mut file = ResultsFile::open(&path).unwrap();
        append(&mut file, "whole\n");
        let failed = file.append(|out| {
            out.write_all(&[b'x'; 3 * WRITE_BYTES])?;
            Err(io::Error::from_raw_os_error(28))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full; make room (os error 28)");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\n");
    }

    #[test]
    fn what_cannot_be_appended_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results");
        let _first = ResultsFile::open(&path).unwrap();
        let second = ResultsFile::open(&path).unwrap_err();
        assert!(second.contains("in use by another process"), "{second}");
        let error = ResultsFile::open(directory.path()).unwrap_err();
        assert!(error.starts_with("cannot append to --results "), "{error}");
        append(&mut ResultsFile::open(Path::new("/dev/null")).unwrap(), "gone");
    }
}
