//! Writes a whole result to a path that a user gave. A regular file is replaced once the new one is
//! whole; a pipe or a character device is written into; anything else is refused.

use super::whole_file::{FileDirectory, moment, write_buffered};
use crate::runtime::disk::fs::{self, File, Metadata, OpenOptions};
use crate::runtime::disk::{FileTypeExt, MetadataExt};
use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A path that can be written to.
#[derive(Debug)]
pub(crate) enum OutputPath {
    /// A regular file, which may exist.
    File {
        /// Its directory.
        directory: FileDirectory,
        /// Its name.
        name: OsString,
        /// A name of this process alone, for the file while it is written.
        own: OsString,
    },
    /// A pipe or a character device.
    Stream(PathBuf),
}

impl OutputPath {
    /// The path that `option` names, after checking that it can be written to.
    ///
    /// # Errors
    /// The cause and the remedy.
    pub(crate) fn open(option: &str, path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let refused = |what| Err(format!("{option} {shown} is {what}; name a file"));
        // A link stays; the file that it leads to is written.
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {
                if is_stdout(&found) {
                    return Err(format!(
                        "{option} {shown} is the file that stdout goes to; name another"
                    ));
                }
                let target = fs::canonicalize(path)
                    .map_err(|error| format!("cannot write {option} {shown}: {error}"))?;
                Self::file(option, &target)
            }
            Ok(found) => match found.file_type() {
                kind if kind.is_fifo() || kind.is_char_device() => {
                    Ok(OutputPath::Stream(path.to_owned()))
                }
                kind if kind.is_dir() => refused("a directory"),
                kind if kind.is_block_device() => refused("a disk"),
                _ => refused("a socket"),
            },
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot write {option} {shown}: {error}"))
            }
            Err(_) if fs::symlink_metadata(path).is_ok() => {
                refused("a link to a file that does not exist")
            }
            Err(_) => Self::file(option, path),
        }
    }

    fn file(option: &str, path: &Path) -> Result<Self, String> {
        let name = path.file_name();
        let name = name.ok_or_else(|| format!("{option} {} names no file", path.display()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // In containers every process may have the same number.
        let mut own = name.to_owned();
        own.push(format!(".{}-{}", moment(SystemTime::now()), std::process::id()));
        let directory = FileDirectory::open(option, parent.unwrap_or(Path::new(".")), &own)?;
        Ok(OutputPath::File { directory, name: name.to_owned(), own })
    }

    /// Writes to it.
    ///
    /// # Errors
    /// Those of `write` and of the system; an existing file is unchanged then, unless the error
    /// says otherwise.
    pub(crate) fn write(
        &self,
        write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            OutputPath::File { directory, name, own } => directory.replace(name, own, write),
            OutputPath::Stream(path) => {
                write_buffered(&OpenOptions::new().write(true).open(path)?, write)
            }
        }
    }
}

/// Whether stdout writes to this file: replacing it would lose what stdout gets.
fn is_stdout(file: &Metadata) -> bool {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.and_then(|stdout| stdout.metadata());
    stdout.is_ok_and(|stdout| (stdout.dev(), stdout.ino()) == (file.dev(), file.ino()))
}

/// A device like /dev/null for tests: where it may be made, one of their own, since a test that
/// fails as root may replace it.
#[cfg(test)]
pub(crate) fn null_device(directory: &Path) -> PathBuf {
    let own = directory.join("null");
    let _ = std::process::Command::new("mknod").arg(&own).args(["c", "1", "3"]).output();
    let writable = OpenOptions::new().write(true).open(&own).is_ok();
    if writable { own } else { "/dev/null".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn write(path: &Path, text: &str) -> Result<(), String> {
        let path = OutputPath::open("--output", path)?;
        path.write(|out| out.write_all(text.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_regular_file_is_replaced_and_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("a"), directory.path().join("link"));
        write(&file, "first").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("a", &link).unwrap();
        write(&link, "second").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
        let broken = OutputPath::open("--output", &file).unwrap();
        broken.write(|_| Err(io::Error::other("no"))).unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
    }

    /// A killed process leaves a hidden file, and in containers the next one has its number.
    #[test]
    fn what_a_killed_process_left_is_not_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let left = [".a.tmp".to_owned(), format!(".a.{}.tmp", std::process::id())];
        for name in &left {
            fs::write(directory.path().join(name), "half").unwrap();
        }
        write(&directory.path().join("a"), "whole").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("a")).unwrap(), "whole");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    /// A device that is replaced by a file would be gone for every program.
    #[test]
    fn pipes_and_devices_are_written_into() {
        let directory = tempfile::tempdir().unwrap();
        let device = null_device(directory.path());
        let link = directory.path().join("link");
        symlink(&device, &link).unwrap();
        for path in [&device, &link] {
            write(path, "gone").unwrap();
            assert!(fs::metadata(path).unwrap().file_type().is_char_device());
        }
        let (mut reader, writer) = io::pipe().unwrap();
        use std::os::fd::AsRawFd;
        write(Path::new(&format!("/proc/self/fd/{}", writer.as_raw_fd())), "there").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "there");
    }

    #[test]
    fn what_is_no_file_is_refused_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        symlink("gone", path("link")).unwrap();
        for (name, said) in [
            ("directory", "is a directory; name a file"),
            ("socket", "is a socket; name a file"),
            ("link", "a link to a file that does not exist"),
            ("no/such", "No such file or directory"),
            ("directory/..", "is a directory"),
        ] {
            let error = write(&path(name), "x").unwrap_err();
            assert!(error.contains("--output") && error.contains(said), "{name}: {error}");
        }
        assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(path("socket")).unwrap().file_type().is_socket());
    }
}

#[cfg(test)]
#[cfg(feature = "simulated-disk")]
#[path = "output_path_disk_tests.rs"]
mod disk_tests;
