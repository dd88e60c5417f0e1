//! A disk in memory that fails, fills up and loses power as its seed says. It takes no real time:
//! what a call would have taken is added up for the caller's clock.
//!
//! Files below [`SimulatedDisk::root`] are on it; [`super::fs`] leads there.

use super::faults::{Crash, DiskCall, DiskFaults};
use super::tree::{NodeNumber, Tree};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where all simulated disks are; nothing exists there on the system.
const MOUNTS: &str = "/simulated-disks";

static MOUNTED: Mutex<Mounts> = Mutex::new(Mounts { next: 0, disks: BTreeMap::new() });

struct Mounts {
    next: u64,
    disks: BTreeMap<PathBuf, Arc<Mutex<DiskState>>>,
}

/// A disk, until it is dropped.
#[derive(Debug)]
pub struct SimulatedDisk {
    root: PathBuf,
    state: Arc<Mutex<DiskState>>,
}

#[derive(Debug)]
struct DiskState {
    number: u64,
    random: Rng,
    faults: DiskFaults,
    tree: Tree,
    calls: u64,
    /// The calls that failed because the seed said so.
    failed: Vec<(u64, DiskCall, i32)>,
    /// Counts restarts: a handle of an earlier process has no effect.
    process: u64,
    down: bool,
    next_handle: u64,
    open: usize,
    waited: Duration,
}

/// The facts about a file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskFacts {
    pub is_file: bool,
    pub bytes: u64,
    pub links: u64,
    pub mode: u32,
    /// The disk's number, and the file's.
    pub id: (u64, u64),
}

fn system_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedDisk {
    /// An empty disk with a root directory.
    pub fn new(seed: u64, faults: DiskFaults) -> Self {
        let mut mounts = locked(&MOUNTED);
        mounts.next += 1;
        let number = mounts.next;
        let root = Path::new(MOUNTS).join(number.to_string());
        let mut tree = Tree::default();
        tree.make_directory(root.clone());
        let state = Arc::new(Mutex::new(DiskState {
            number,
            random: Rng::with_seed(seed),
            faults,
            tree,
            calls: 0,
            failed: Vec::new(),
            process: 0,
            down: false,
            next_handle: 0,
            open: 0,
            waited: Duration::ZERO,
        }));
        mounts.disks.insert(root.clone(), Arc::clone(&state));
        SimulatedDisk { root, state }
    }

    /// The path of its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a directory below the root, as the administrator does: it is durable at once.
    pub fn make_directory(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        locked(&self.state).tree.make_directory(path.clone());
        path
    }

    /// Removes a directory with all its files, durably.
    pub fn remove_directory(&self, path: &Path) {
        locked(&self.state).tree.remove_directory(path);
    }

    /// Writes a file that was there before, durably.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let mut state = locked(&self.state);
        let number = state.tree.create(path).expect("its directory exists");
        state.tree.file(number).write(0, content);
        state.tree.file(number).sync();
        state.tree.sync_names(path.parent().expect("a file has a directory"));
    }

    /// What a reader finds at a path, whatever the faults are.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = locked(&self.state);
        let number = state.tree.find(path)?;
        Some(state.tree.file(number).written.clone())
    }

    /// The names in a directory, sorted.
    pub fn names(&self, directory: &Path) -> Vec<String> {
        let paths = locked(&self.state).tree.list(directory);
        paths.iter().map(|path| name_of(path).to_string_lossy().into_owned()).collect()
    }

    /// How many calls were made so far.
    pub fn calls(&self) -> u64 {
        locked(&self.state).calls
    }

    /// The calls that failed because of the seed: number, kind and error.
    pub fn failed(&self) -> Vec<(u64, DiskCall, i32)> {
        locked(&self.state).failed.clone()
    }

    /// The virtual time that calls took since this was last asked.
    pub fn take_waited(&self) -> Duration {
        std::mem::take(&mut locked(&self.state).waited)
    }

    /// Whether a crash has happened since the last restart.
    pub fn is_down(&self) -> bool {
        locked(&self.state).down
    }

    /// Crashes now. Calls fail without effect until the restart, and those of open files for ever.
    pub fn crash(&self, crash: Crash) {
        locked(&self.state).crash(crash);
    }

    /// What a new process finds, with other faults.
    pub fn restart(&self, faults: DiskFaults) {
        let mut state = locked(&self.state);
        if !state.down {
            state.crash(Crash::Kill);
        }
        state.down = false;
        state.process += 1;
        state.faults = faults;
        state.calls = 0;
        state.failed.clear();
    }
}

impl Drop for SimulatedDisk {
    fn drop(&mut self) {
        locked(&MOUNTED).disks.remove(&self.root);
    }
}

fn name_of(path: &Path) -> &std::ffi::OsStr {
    path.file_name().expect("a file has a name")
}

impl DiskState {
    fn crash(&mut self, crash: Crash) {
        match crash {
            Crash::Kill => self.tree.kill(),
            Crash::Power => self.tree.lose_power(&mut self.random),
        }
        self.down = true;
        self.open = 0;
    }

    /// The begin of each call: fails if the disk is down, goes down, or if the seed says so.
    fn call(&mut self, call: DiskCall) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        if !self.down && self.faults.crash_at == Some(number) {
            self.crash(self.faults.crash);
        }
        if self.down {
            return Err(system_error(libc::EIO));
        }
        match self.faults.error(&mut self.random, number, call) {
            Some(code) => {
                self.failed.push((number, call, code));
                Err(system_error(code))
            }
            None => Ok(()),
        }
    }

    /// The same for calls that open something.
    fn open(&mut self, call: DiskCall) -> io::Result<()> {
        self.call(call)?;
        match self.faults.open_limit {
            Some(limit) if self.open >= limit => Err(system_error(libc::EMFILE)),
            _ => Ok(()),
        }
    }

    fn named(&self, path: &Path) -> io::Result<NodeNumber> {
        self.tree.find(path).ok_or_else(|| system_error(libc::ENOENT))
    }

    fn change(&mut self, sets: Vec<(PathBuf, Option<NodeNumber>)>) -> io::Result<()> {
        let directory = sets[0].0.parent().map(Path::to_owned).unwrap_or_default();
        self.tree.change(sets)?;
        if !self.faults.directory_sync {
            self.tree.sync_names(&directory);
        }
        Ok(())
    }

    fn facts(&mut self, number: NodeNumber) -> DiskFacts {
        let (links, id) = (self.tree.links(number), (self.number, number));
        let file = self.tree.file(number);
        DiskFacts { is_file: true, bytes: file.written.len() as u64, links, mode: file.mode, id }
    }
}

/// A disk, and a path on it.
#[derive(Clone, Debug)]
pub(super) struct DiskPath {
    state: Arc<Mutex<DiskState>>,
    path: PathBuf,
}

/// The disk that a path is on; `None` for paths of the system.
pub(super) fn disk_of(path: &Path) -> Option<DiskPath> {
    let below = path.strip_prefix(MOUNTS).ok()?;
    let root = Path::new(MOUNTS).join(below.components().next()?);
    let state = Arc::clone(locked(&MOUNTED).disks.get(&root)?);
    Some(DiskPath { state, path: path.to_owned() })
}

impl DiskPath {
    pub(super) fn open(&self, how: OpenHow) -> io::Result<DiskHandle> {
        let mut state = locked(&self.state);
        state.open(if how.exclusive { DiskCall::Create } else { DiskCall::Open })?;
        let number = match state.tree.find(&self.path) {
            Some(_) if how.exclusive => return Err(system_error(libc::EEXIST)),
            Some(number) => Some(number),
            None if how.create => {
                let number = state.tree.create(&self.path)?;
                if !state.faults.directory_sync {
                    let directory = self.path.parent().expect("a file has a directory");
                    state.tree.sync_names(directory);
                }
                Some(number)
            }
            // Opened to be synced.
            None if state.tree.is_directory(&self.path) && !how.write => None,
            None => return Err(system_error(libc::ENOENT)),
        };
        state.open += 1;
        state.next_handle += 1;
        let (handle, process) = (state.next_handle, state.process);
        let opened = match number {
            Some(number) => {
                state.tree.file(number).handles += 1;
                Opened::File(number)
            }
            None => Opened::Directory(self.path.clone()),
        };
        let state = Arc::clone(&self.state);
        Ok(DiskHandle { state, opened, handle, process, append: how.append, at: Mutex::new(0) })
    }

    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut state = locked(&self.state);
        state.open(DiskCall::Read)?;
        let number = state.named(&self.path)?;
        Ok(state.tree.file(number).written.clone())
    }

    pub(super) fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut state = locked(&self.state);
        state.open(DiskCall::List)?;
        match state.tree.is_directory(&self.path) {
            true => Ok(state.tree.list(&self.path)),
            false => Err(system_error(libc::ENOENT)),
        }
    }

    pub(super) fn facts(&self) -> io::Result<DiskFacts> {
        let mut state = locked(&self.state);
        state.call(DiskCall::Stat)?;
        if state.tree.is_directory(&self.path) {
            let id = (state.number, u64::MAX);
            return Ok(DiskFacts { is_file: false, bytes: 0, links: 1, mode: 0o755, id });
        }
        let number = state.named(&self.path)?;
        Ok(state.facts(number))
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.call(DiskCall::Stat)?;
        let number = state.named(&self.path)?;
        state.tree.file(number).mode = mode;
        Ok(())
    }

    pub(super) fn link(&self, new: &DiskPath) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.call(DiskCall::Link)?;
        if !state.faults.links {
            return Err(system_error(libc::EPERM));
        }
        let number = state.named(&self.path)?;
        if state.tree.find(&new.path).is_some() {
            return Err(system_error(libc::EEXIST));
        }
        state.change(vec![(new.path.clone(), Some(number))])
    }

    pub(super) fn rename(&self, new: &DiskPath) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.call(DiskCall::Rename)?;
        let number = state.named(&self.path)?;
        state.change(vec![(self.path.clone(), None), (new.path.clone(), Some(number))])
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.call(DiskCall::Remove)?;
        state.named(&self.path)?;
        state.change(vec![(self.path.clone(), None)])
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenHow {
    pub write: bool,
    pub append: bool,
    pub create: bool,
    pub exclusive: bool,
}

/// An open file or directory.
#[derive(Debug)]
pub(super) struct DiskHandle {
    state: Arc<Mutex<DiskState>>,
    opened: Opened,
    handle: u64,
    process: u64,
    append: bool,
    at: Mutex<usize>,
}

#[derive(Debug)]
enum Opened {
    File(NodeNumber),
    Directory(PathBuf),
}

impl DiskHandle {
    /// The state, for a call of this handle.
    fn call(&self, call: DiskCall) -> io::Result<MutexGuard<'_, DiskState>> {
        let mut state = locked(&self.state);
        if state.process != self.process {
            return Err(system_error(libc::EIO));
        }
        match state.call(call) {
            Ok(()) => Ok(state),
            Err(error) => {
                if !state.down {
                    self.fail(&mut state, call);
                }
                Err(error)
            }
        }
    }

    /// What a failed call has done all the same.
    fn fail(&self, state: &mut DiskState, call: DiskCall) {
        let DiskState { tree, random, .. } = state;
        match (&self.opened, call) {
            (Opened::File(number), DiskCall::Sync) => tree.file(*number).fail_sync(random),
            (Opened::Directory(path), DiskCall::SyncDirectory) => {
                tree.fail_sync_names(path, random);
            }
            _ => {}
        }
    }

    fn file(&self) -> io::Result<NodeNumber> {
        match self.opened {
            Opened::File(number) => Ok(number),
            Opened::Directory(_) => Err(system_error(libc::EISDIR)),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.call(DiskCall::Write)?;
        let number = self.file()?;
        let mut taken = bytes.len();
        if state.faults.short_writes && taken > 1 {
            taken = state.random.usize(1..=taken);
        }
        if let Some(limit) = state.faults.bytes_limit {
            let left = limit.saturating_sub(state.tree.bytes());
            taken = taken.min(usize::try_from(left).unwrap_or(usize::MAX));
            if taken == 0 && !bytes.is_empty() {
                return Err(system_error(libc::ENOSPC));
            }
        }
        let file = state.tree.file(number);
        let mut at = locked(&self.at);
        if self.append {
            *at = file.written.len();
        }
        file.write(*at, &bytes[..taken]);
        *at += taken;
        Ok(taken)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let directory = matches!(self.opened, Opened::Directory(_));
        let mut state =
            self.call(if directory { DiskCall::SyncDirectory } else { DiskCall::Sync })?;
        let longest = state.faults.sync_time_max;
        let took = longest.mul_f64(state.random.f64());
        state.waited += took;
        match &self.opened {
            Opened::File(number) => state.tree.file(*number).sync(),
            Opened::Directory(_) if !state.faults.directory_sync => {
                return Err(system_error(libc::EINVAL));
            }
            Opened::Directory(path) => state.tree.sync_names(path),
        }
        Ok(())
    }

    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.call(DiskCall::Read)?;
        let number = self.file()?;
        let written = &state.tree.file(number).written;
        let from = written.len().min(offset as usize);
        let read = bytes.len().min(written.len() - from);
        bytes[..read].copy_from_slice(&written[from..from + read]);
        Ok(read)
    }

    pub(super) fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.call(DiskCall::Truncate)?;
        let number = self.file()?;
        state.tree.file(number).set_length(bytes as usize);
        Ok(())
    }

    pub(super) fn facts(&self) -> io::Result<DiskFacts> {
        let mut state = self.call(DiskCall::Stat)?;
        let number = self.file()?;
        Ok(state.facts(number))
    }

    pub(super) fn try_lock(&self) -> Result<(), TryLockError> {
        let mut state = self.call(DiskCall::Stat).map_err(TryLockError::Error)?;
        let number = self.file().map_err(TryLockError::Error)?;
        if !state.faults.locks {
            return Err(TryLockError::Error(system_error(libc::ENOLCK)));
        }
        let file = state.tree.file(number);
        match file.locked_by {
            Some(other) if other != self.handle => Err(TryLockError::WouldBlock),
            _ => {
                file.locked_by = Some(self.handle);
                Ok(())
            }
        }
    }
}

impl Drop for DiskHandle {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        if state.process != self.process || state.down {
            return;
        }
        state.open -= 1;
        if let Opened::File(number) = self.opened {
            let file = state.tree.file(number);
            file.handles -= 1;
            if file.locked_by == Some(self.handle) {
                file.locked_by = None;
            }
            state.tree.forget_unreachable();
        }
    }
}

#[cfg(test)]
#[path = "simulated_tests.rs"]
mod tests;
