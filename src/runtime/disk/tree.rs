//! The names and files of a simulated disk, as the process sees them and as far as they are on the
//! disk. Knows what a crash may leave of the rest; decides nothing about when one happens.

use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// What a file system writes at a time: after a crash, each block of an unsynced write is there or
/// not.
const BLOCK_BYTES: usize = 4096;

pub(super) type NodeNumber = u64;

#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<NodeNumber, FileNode>,
    next: NodeNumber,
    /// Made by tests, and durable at once.
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, NodeNumber>,
    synced_names: BTreeMap<PathBuf, NodeNumber>,
    /// Changes to names since their directory was synced, in order.
    changes: Vec<NameChange>,
}

/// Names that change together: a rename takes one and gives one.
#[derive(Clone, Debug)]
struct NameChange {
    directory: PathBuf,
    sets: Vec<(PathBuf, Option<NodeNumber>)>,
}

/// A file without its names.
#[derive(Debug, Default)]
pub(super) struct FileNode {
    /// What a reader sees.
    pub written: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the file was synced, in order.
    pending: Vec<PendingWrite>,
    pub mode: u32,
    /// The handle that has locked it.
    pub locked_by: Option<u64>,
    pub handles: usize,
}

#[derive(Clone, Debug)]
enum PendingWrite {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl PendingWrite {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            PendingWrite::Bytes { at, bytes } => put(content, *at, bytes),
            PendingWrite::Length(bytes) => content.resize(*bytes, 0),
        }
    }
}

/// Puts bytes into a file; what lies between its end and them is zeros.
fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    content.resize(content.len().max(end), 0);
    content[at..end].copy_from_slice(bytes);
}

impl FileNode {
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.written, at, bytes);
        self.pending.push(PendingWrite::Bytes { at, bytes: bytes.to_vec() });
    }

    pub(super) fn set_length(&mut self, bytes: usize) {
        self.written.resize(bytes, 0);
        self.pending.push(PendingWrite::Length(bytes));
    }

    pub(super) fn sync(&mut self) {
        for write in self.pending.drain(..) {
            write.apply(&mut self.synced);
        }
    }

    /// A sync that failed: some of the writes are on the disk. The system forgets the others, so a
    /// later sync succeeds without them.
    pub(super) fn fail_sync(&mut self, random: &mut Rng) {
        for write in self.pending.drain(..) {
            if random.bool() {
                write.apply(&mut self.synced);
            }
        }
    }

    /// What is left after a power failure: by the seed the first writes in their order, or any
    /// blocks, with zeros where one is missing.
    fn lose_power(&mut self, random: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        let mut content = std::mem::take(&mut self.synced);
        if random.bool() {
            let kept = random.usize(..=pending.len());
            pending[..kept].iter().for_each(|write| write.apply(&mut content));
            if let Some(PendingWrite::Bytes { at, bytes }) = pending.get(kept) {
                put(&mut content, *at, &bytes[..random.usize(..=bytes.len())]);
            }
        } else {
            pending.iter().for_each(|write| keep_blocks(write, &mut content, random));
        }
        self.written = content.clone();
        self.synced = content;
    }
}

fn keep_blocks(write: &PendingWrite, content: &mut Vec<u8>, random: &mut Rng) {
    let PendingWrite::Bytes { at, bytes } = write else {
        if random.bool() {
            write.apply(content);
        }
        return;
    };
    let mut from = 0;
    while from < bytes.len() {
        let to = bytes.len().min((at + from) / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES - at);
        if random.bool() {
            put(content, at + from, &bytes[from..to]);
        }
        from = to;
    }
    // The length may have been written before the blocks.
    if random.u8(..4) == 0 {
        content.resize(content.len().max(at + bytes.len()), 0);
    }
}

impl Tree {
    pub(super) fn make_directory(&mut self, path: PathBuf) {
        self.directories.insert(path);
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }

    pub(super) fn find(&self, path: &Path) -> Option<NodeNumber> {
        self.names.get(path).copied()
    }

    pub(super) fn file(&mut self, number: NodeNumber) -> &mut FileNode {
        self.files.get_mut(&number).expect("a file that has a name or is open exists")
    }

    /// How many names a file has.
    pub(super) fn links(&self, number: NodeNumber) -> u64 {
        self.names.values().filter(|&&named| named == number).count() as u64
    }

    /// The paths below a directory, files only.
    pub(super) fn list(&self, directory: &Path) -> Vec<PathBuf> {
        let inside = |path: &&PathBuf| path.parent() == Some(directory);
        self.names.keys().filter(inside).cloned().collect()
    }

    /// Bytes of the files that have a name or are open.
    pub(super) fn bytes(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        let used = self.files.iter().filter(|(number, f)| f.handles > 0 || named.contains(number));
        used.map(|(_, file)| file.written.len() as u64).sum()
    }

    /// Makes an empty file with a name.
    ///
    /// # Errors
    /// If its directory does not exist.
    pub(super) fn create(&mut self, path: &Path) -> io::Result<NodeNumber> {
        self.parent(path)?;
        let number = self.next;
        self.next += 1;
        self.files.insert(number, FileNode { mode: 0o644, ..FileNode::default() });
        self.change(vec![(path.to_owned(), Some(number))])?;
        Ok(number)
    }

    /// Changes names together.
    ///
    /// # Errors
    /// If the directory does not exist.
    pub(super) fn change(&mut self, sets: Vec<(PathBuf, Option<NodeNumber>)>) -> io::Result<()> {
        let directory = self.parent(&sets[0].0)?;
        apply(&sets, &mut self.names);
        self.changes.push(NameChange { directory, sets });
        Ok(())
    }

    fn parent(&self, path: &Path) -> io::Result<PathBuf> {
        let parent = path.parent().filter(|parent| self.is_directory(parent));
        Ok(parent.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?.to_owned())
    }

    /// Writes the names of a directory to the disk.
    pub(super) fn sync_names(&mut self, directory: &Path) {
        for change in self.changes.extract_if(.., |change| change.directory == directory) {
            apply(&change.sets, &mut self.synced_names);
        }
        self.forget_unreachable();
    }

    /// A sync of a directory that failed: by the seed, the first changes are on the disk.
    pub(super) fn fail_sync_names(&mut self, directory: &Path, random: &mut Rng) {
        let of_it = |change: &&NameChange| change.directory == directory;
        let mut kept = random.usize(..=self.changes.iter().filter(of_it).count());
        let keeps = |change: &mut NameChange| {
            let keep = change.directory == directory && kept > 0;
            kept -= usize::from(keep);
            keep
        };
        for change in self.changes.extract_if(.., keeps) {
            apply(&change.sets, &mut self.synced_names);
        }
    }

    /// Removes a directory with all that is in it, at once and durably, as another program would.
    pub(super) fn remove_directory(&mut self, directory: &Path) {
        self.directories.remove(directory);
        self.changes.retain(|change| change.directory != directory);
        for names in [&mut self.names, &mut self.synced_names] {
            names.retain(|path, _| path.parent() != Some(directory));
        }
        self.forget_unreachable();
    }

    /// What a killed process leaves: all that it wrote.
    pub(super) fn kill(&mut self) {
        for file in self.files.values_mut() {
            file.locked_by = None;
            file.handles = 0;
        }
        self.forget_unreachable();
    }

    /// What a power failure leaves. Some file systems keep changes of names in their order, others
    /// any of them.
    pub(super) fn lose_power(&mut self, random: &mut Rng) {
        let changes = std::mem::take(&mut self.changes);
        let in_order = random.bool();
        let kept = random.usize(..=changes.len());
        for (at, change) in changes.iter().enumerate() {
            if if in_order { at < kept } else { random.bool() } {
                apply(&change.sets, &mut self.synced_names);
            }
        }
        self.names = self.synced_names.clone();
        self.files.values_mut().for_each(|file| file.lose_power(random));
        self.kill();
    }

    /// Forgets files that no handle has and that no crash can bring back.
    pub(super) fn forget_unreachable(&mut self) {
        let changed = self.changes.iter().flat_map(|change| &change.sets);
        let named = self.names.values().chain(self.synced_names.values()).copied();
        let reachable: BTreeSet<_> =
            changed.filter_map(|(_, number)| *number).chain(named).collect();
        self.files.retain(|number, file| file.handles > 0 || reachable.contains(number));
    }
}

fn apply(sets: &[(PathBuf, Option<NodeNumber>)], names: &mut BTreeMap<PathBuf, NodeNumber>) {
    for (path, number) in sets {
        match number {
            Some(number) => names.insert(path.clone(), *number),
            None => names.remove(path),
        };
    }
}
