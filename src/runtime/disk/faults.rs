//! What goes wrong on a simulated disk, and when: drawn from a seed, or said by a test.

use fastrand::Rng;
use std::ops::Range;
use std::time::Duration;

/// A kind of call to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskCall {
    /// Opening a file that must not exist.
    Create,
    /// Opening anything else.
    Open,
    /// Writing to a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDirectory,
    /// Giving a file another name.
    Link,
    /// Changing a file's name.
    Rename,
    /// Removing a name.
    Remove,
    /// Asking for the facts about a path or an open file.
    Stat,
    /// Reading a file.
    Read,
    /// Listing a directory.
    List,
    /// Cutting a file.
    Truncate,
}

/// How a machine or a process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed. What it wrote is in the system's cache, though not on the disk.
    Kill,
    /// The power fails: only what was synced is there for certain.
    Power,
}

/// Calls of one kind that fail with a system error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingCalls {
    /// The kind.
    pub call: DiskCall,
    /// The error.
    pub code: i32,
    /// How many of a thousand fail.
    pub per_mille: u32,
}

/// What goes wrong on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Calls that fail, of those that may.
    pub failing: Vec<FailingCalls>,
    /// The calls that may fail, by number.
    pub failing_from_to: Range<u64>,
    /// A single call that fails, by number, with this error.
    pub failing_once: Option<(u64, i32)>,
    /// Whether a write may take a part of the bytes only.
    pub short_writes: bool,
    /// Bytes that fit, in all files together.
    pub bytes_limit: Option<u64>,
    /// Files and directories that can be open at a time.
    pub open_limit: Option<usize>,
    /// The most virtual time that a sync takes.
    pub sync_time_max: Duration,
    /// Whether a file can have two names. Some network and removable file systems lack that.
    pub links: bool,
    /// Whether a directory can be synced. Where it cannot, names are written at once.
    pub directory_sync: bool,
    /// Whether a file can be locked.
    pub locks: bool,
    /// The number of the call at which the crash happens.
    pub crash_at: Option<u64>,
    /// The crash.
    pub crash: Crash,
}

/// The errors that the kinds of calls are known to fail with.
const ERRORS: [(DiskCall, i32); 22] = [
    (DiskCall::Create, libc::ENOSPC),
    (DiskCall::Create, libc::EMFILE),
    (DiskCall::Create, libc::EIO),
    (DiskCall::Create, libc::EACCES),
    (DiskCall::Open, libc::EMFILE),
    (DiskCall::Open, libc::EACCES),
    (DiskCall::Write, libc::ENOSPC),
    (DiskCall::Write, libc::EDQUOT),
    (DiskCall::Write, libc::EIO),
    (DiskCall::Write, libc::EINTR),
    (DiskCall::Sync, libc::EIO),
    (DiskCall::Sync, libc::ENOSPC),
    (DiskCall::SyncDirectory, libc::EIO),
    (DiskCall::Link, libc::EIO),
    (DiskCall::Link, libc::ENOSPC),
    (DiskCall::Rename, libc::EIO),
    (DiskCall::Remove, libc::EIO),
    (DiskCall::Remove, libc::EROFS),
    (DiskCall::Stat, libc::EIO),
    (DiskCall::Read, libc::EIO),
    (DiskCall::List, libc::EIO),
    (DiskCall::Truncate, libc::EIO),
];

impl DiskFaults {
    /// A disk without faults.
    pub fn none() -> Self {
        DiskFaults {
            failing: Vec::new(),
            failing_from_to: 0..u64::MAX,
            failing_once: None,
            short_writes: false,
            bytes_limit: None,
            open_limit: None,
            sync_time_max: Duration::ZERO,
            links: true,
            directory_sync: true,
            locks: true,
            crash_at: None,
            crash: Crash::Power,
        }
    }

    /// Faults during a run that makes about this many calls. A third of the disks have none but
    /// the crash, so that what a crash alone does is seen as well.
    pub fn draw(random: &mut Rng, calls: u64, bytes: u64) -> Self {
        let mut faults = DiskFaults {
            short_writes: random.bool(),
            sync_time_max: Duration::from_millis(random.u64(0..2_000)),
            links: random.u8(..8) > 0,
            directory_sync: random.u8(..8) > 0,
            locks: random.u8(..8) > 0,
            crash_at: random.bool().then(|| random.u64(..calls.max(1))),
            crash: if random.u8(..4) == 0 { Crash::Kill } else { Crash::Power },
            ..DiskFaults::none()
        };
        if random.u8(..3) == 0 {
            return faults;
        }
        let begin = random.u64(..calls.max(1));
        faults.failing_from_to = begin..begin + random.u64(1..=calls.max(1));
        for _ in 0..random.usize(..4) {
            let (call, code) = ERRORS[random.usize(..ERRORS.len())];
            let per_mille = [30, 200, 1000][random.usize(..3)];
            faults.failing.push(FailingCalls { call, code, per_mille });
        }
        faults.bytes_limit = (random.u8(..4) == 0).then(|| random.u64(..bytes.max(1)));
        faults.open_limit = (random.u8(..8) == 0).then(|| random.usize(..4));
        faults
    }

    /// The error of a call, if it fails.
    pub(super) fn error(&self, random: &mut Rng, number: u64, call: DiskCall) -> Option<i32> {
        if let Some((_, code)) = self.failing_once.filter(|(at, _)| *at == number) {
            return Some(code);
        }
        if !self.failing_from_to.contains(&number) {
            return None;
        }
        let mut failing = self.failing.iter().filter(|failing| failing.call == call);
        let failed = failing.find(|failing| random.u32(..1000) < failing.per_mille);
        failed.map(|failing| failing.code)
    }
}
