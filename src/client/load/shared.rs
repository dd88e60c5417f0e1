//! What the threads of a load run share, and how far it is. Opens no connection.

use super::flow::Flow;
use super::settings::{LoadError, Settings};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What a run has come to so far, for others to look at, and how they stop it.
#[derive(Debug, Default)]
pub struct LoadProgress {
    pub(crate) connected: AtomicU64,
    pub(crate) answers: AtomicU64,
    pub(crate) running: AtomicBool,
    pub(crate) stopped: AtomicBool,
}

impl LoadProgress {
    /// Connections made so far.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Answers and deliveries so far, those of the warm-up included.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether all connections have been made, so that the warm-up or the measurement is on.
    pub fn running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Ends the run early; what was measured so far is its outcome.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// What the threads of a run share. Times are nanoseconds since `epoch`.
pub(crate) struct Shared<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) progress: &'a LoadProgress,
    pub(crate) epoch: Instant,
    /// Threads whose connections are all made or have failed.
    pub(crate) ready: AtomicUsize,
    /// When sending begins: when all threads are ready.
    pub(crate) start: OnceLock<u64>,
    /// When the measurement ends; earlier than planned if the run is stopped.
    pub(crate) end: AtomicU64,
    pub(crate) aborted: AtomicBool,
    pub(crate) error: Mutex<Option<LoadError>>,
    pub(crate) flow: Flow,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(settings: &'a Settings, progress: &'a LoadProgress) -> Self {
        Shared {
            settings,
            progress,
            epoch: Instant::now(),
            ready: AtomicUsize::new(0),
            start: OnceLock::new(),
            end: AtomicU64::new(u64::MAX),
            aborted: AtomicBool::new(false),
            error: Mutex::new(None),
            flow: Flow::default(),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }

    /// Called once by each thread, when its connections stand; the last one starts the run.
    pub(crate) fn thread_is_ready(&self) {
        if self.ready.fetch_add(1, Ordering::AcqRel) + 1 == self.settings.threads {
            if self.progress.connected() == 0 {
                return self.aborted.store(true, Ordering::Relaxed);
            }
            let start = self.now();
            let Settings { warm_up, duration, .. } = self.settings;
            let end = start.saturating_add(nanoseconds(*warm_up + *duration));
            self.end.store(end, Ordering::Relaxed);
            self.start.get_or_init(|| start);
            self.progress.running.store(true, Ordering::Relaxed);
        }
    }

    /// When the measurement begins, where sending has begun.
    pub(crate) fn begin(&self) -> Option<u64> {
        self.start.get().map(|start| start + nanoseconds(self.settings.warm_up))
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Looks whether somebody wants the run to end now.
    pub(crate) fn heed_stop(&self, now: u64) {
        if self.progress.stopped() {
            self.end.fetch_min(now, Ordering::Relaxed);
        }
    }

    /// Whether the run is not to begin.
    pub(crate) fn cancelled(&self) -> bool {
        self.progress.stopped() || self.aborted.load(Ordering::Relaxed)
    }

    pub(crate) fn abort(&self, error: LoadError) {
        self.error.lock().expect("no panic").get_or_insert(error);
        self.aborted.store(true, Ordering::Relaxed);
        self.progress.stop();
    }

    pub(crate) fn measured(&self) -> Duration {
        let nanoseconds = self.begin().map_or(0, |begin| self.end().saturating_sub(begin));
        Duration::from_nanos(nanoseconds)
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
