//! The names of `std::fs` that results use, over a simulated disk for paths below its root and over
//! the system for all others. Each does what its namesake does.

use super::simulated::{DiskFacts, DiskHandle, DiskPath, OpenHow, disk_of};
use std::ffi::OsString;
use std::fs::{self as system, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    FileExt as SystemFile, FileTypeExt as SystemFileType, MetadataExt as SystemMetadata,
    PermissionsExt,
};
use std::path::{Path, PathBuf};

pub(crate) use std::fs::TryLockError;

/// `std::fs::File`.
#[derive(Debug)]
pub(crate) struct File(Where<system::File, DiskHandle>);

/// Something of the system, or of a simulated disk.
#[derive(Clone, Debug)]
enum Where<S, D> {
    System(S),
    Simulated(D),
}

use Where::{Simulated, System};

impl File {
    pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        Ok(File(match disk_of(path) {
            Some(disk) => Simulated(disk.open(OpenHow::default())?),
            None => System(system::File::open(path)?),
        }))
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        match &self.0 {
            System(file) => file.sync_all(),
            Simulated(file) => file.sync(),
        }
    }

    pub(crate) fn set_len(&self, bytes: u64) -> io::Result<()> {
        match &self.0 {
            System(file) => file.set_len(bytes),
            Simulated(file) => file.set_length(bytes),
        }
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata(match &self.0 {
            System(file) => System(file.metadata()?),
            Simulated(file) => Simulated(file.facts()?),
        }))
    }

    pub(crate) fn try_lock(&self) -> Result<(), TryLockError> {
        match &self.0 {
            System(file) => file.try_lock(),
            Simulated(file) => file.try_lock(),
        }
    }
}

/// `std::os::unix::fs::FileExt`, as far as it is used.
pub(crate) trait FileExt {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl FileExt for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.0 {
            System(file) => SystemFile::read_at(file, bytes, offset),
            Simulated(file) => file.read_at(bytes, offset),
        }
    }
}

impl From<OwnedFd> for File {
    fn from(descriptor: OwnedFd) -> Self {
        File(System(descriptor.into()))
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            System(file) => (&*file).write(bytes),
            Simulated(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `std::fs::OpenOptions`, as far as it is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenOptions(OpenHow);

impl OpenOptions {
    pub(crate) fn new() -> Self {
        OpenOptions::default()
    }

    pub(crate) fn write(&mut self, yes: bool) -> &mut Self {
        self.0.write = yes;
        self
    }

    pub(crate) fn append(&mut self, yes: bool) -> &mut Self {
        (self.0.append, self.0.write) = (yes, yes);
        self
    }

    pub(crate) fn create(&mut self, yes: bool) -> &mut Self {
        self.0.create = yes;
        self
    }

    pub(crate) fn create_new(&mut self, yes: bool) -> &mut Self {
        (self.0.exclusive, self.0.create) = (yes, yes);
        self
    }

    pub(crate) fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (path, OpenHow { write, append, create, exclusive }) = (path.as_ref(), self.0);
        if let Some(disk) = disk_of(path) {
            return Ok(File(Simulated(disk.open(self.0)?)));
        }
        let mut options = system::OpenOptions::new();
        options.write(write).append(append).create(create).create_new(exclusive);
        Ok(File(System(options.open(path)?)))
    }
}

/// `std::fs::Metadata`.
#[derive(Clone, Debug)]
pub(crate) struct Metadata(Where<system::Metadata, DiskFacts>);

/// `std::fs::FileType`.
#[derive(Clone, Debug)]
pub(crate) struct FileType(Where<system::FileType, DiskFacts>);

impl Metadata {
    pub(crate) fn is_file(&self) -> bool {
        match &self.0 {
            System(metadata) => metadata.is_file(),
            Simulated(facts) => facts.is_file,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match &self.0 {
            System(metadata) => metadata.len(),
            Simulated(facts) => facts.bytes,
        }
    }

    pub(crate) fn permissions(&self) -> Permissions {
        match &self.0 {
            System(metadata) => metadata.permissions(),
            Simulated(facts) => Permissions::from_mode(facts.mode),
        }
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType(match &self.0 {
            System(metadata) => System(metadata.file_type()),
            Simulated(facts) => Simulated(*facts),
        })
    }
}

/// `std::os::unix::fs::MetadataExt`, as far as it is used.
pub(crate) trait MetadataExt {
    fn dev(&self) -> u64;
    fn ino(&self) -> u64;
    fn nlink(&self) -> u64;
}

impl MetadataExt for Metadata {
    fn dev(&self) -> u64 {
        match &self.0 {
            System(metadata) => SystemMetadata::dev(metadata),
            Simulated(facts) => facts.id.0,
        }
    }

    fn ino(&self) -> u64 {
        match &self.0 {
            System(metadata) => SystemMetadata::ino(metadata),
            Simulated(facts) => facts.id.1,
        }
    }

    fn nlink(&self) -> u64 {
        match &self.0 {
            System(metadata) => SystemMetadata::nlink(metadata),
            Simulated(facts) => facts.links,
        }
    }
}

impl FileType {
    pub(crate) fn is_dir(&self) -> bool {
        match &self.0 {
            System(kind) => kind.is_dir(),
            Simulated(facts) => !facts.is_file,
        }
    }
}

/// `std::os::unix::fs::FileTypeExt`: a simulated disk has no such files.
pub(crate) trait FileTypeExt {
    fn is_fifo(&self) -> bool;
    fn is_char_device(&self) -> bool;
    fn is_block_device(&self) -> bool;
}

impl FileTypeExt for FileType {
    fn is_fifo(&self) -> bool {
        matches!(&self.0, System(kind) if SystemFileType::is_fifo(kind))
    }

    fn is_char_device(&self) -> bool {
        matches!(&self.0, System(kind) if SystemFileType::is_char_device(kind))
    }

    fn is_block_device(&self) -> bool {
        matches!(&self.0, System(kind) if SystemFileType::is_block_device(kind))
    }
}

/// A name found in a directory.
#[derive(Debug)]
pub(crate) struct DirEntry(OsString);

impl DirEntry {
    pub(crate) fn file_name(&self) -> OsString {
        self.0.clone()
    }
}

pub(crate) fn read_dir(path: &Path) -> io::Result<std::vec::IntoIter<io::Result<DirEntry>>> {
    let names: Vec<io::Result<DirEntry>> = match disk_of(path) {
        Some(disk) => disk.list()?.iter().filter_map(|path| entry(path)).map(Ok).collect(),
        None => system::read_dir(path)?
            .map(|entry| entry.map(|entry| DirEntry(entry.file_name())))
            .collect(),
    };
    Ok(names.into_iter())
}

fn entry(path: &Path) -> Option<DirEntry> {
    path.file_name().map(|name| DirEntry(name.to_owned()))
}

pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    disk_of(path).map_or_else(|| system::read(path), |disk| disk.read())
}

pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")
    })
}

pub(crate) fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    Ok(Metadata(match disk_of(path) {
        Some(disk) => Simulated(disk.facts()?),
        None => System(system::metadata(path)?),
    }))
}

pub(crate) fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    Ok(Metadata(match disk_of(path) {
        Some(disk) => Simulated(disk.facts()?),
        None => System(system::symlink_metadata(path)?),
    }))
}

pub(crate) fn canonicalize(path: &Path) -> io::Result<PathBuf> {
    match disk_of(path) {
        Some(disk) => disk.facts().map(|_| path.to_owned()),
        None => system::canonicalize(path),
    }
}

pub(crate) fn set_permissions(path: &Path, permissions: Permissions) -> io::Result<()> {
    match disk_of(path) {
        Some(disk) => disk.set_mode(permissions.mode()),
        None => system::set_permissions(path, permissions),
    }
}

pub(crate) fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    disk_of(path).map_or_else(|| system::remove_file(path), |disk| disk.remove())
}

pub(crate) fn hard_link(old: &Path, new: &Path) -> io::Result<()> {
    match both(old, new) {
        Some((old, new)) => old.link(&new),
        None => system::hard_link(old, new),
    }
}

pub(crate) fn rename(old: &Path, new: &Path) -> io::Result<()> {
    match both(old, new) {
        Some((old, new)) => old.rename(&new),
        None => system::rename(old, new),
    }
}

fn both(old: &Path, new: &Path) -> Option<(DiskPath, DiskPath)> {
    Some((disk_of(old)?, disk_of(new)?))
}
