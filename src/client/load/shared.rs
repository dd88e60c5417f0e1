//! The state that the threads of a load run share, and its progress. Opens no connection.

use super::flow::Flow;
use super::settings::{LoadError, Settings};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The progress of a run, to watch it and to stop it from another thread.
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

    /// Answers and deliveries so far, including those of the warm-up.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether the warm-up has begun: all connections are made or have failed.
    pub fn running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Ends the run early. Its outcome is what was measured until then.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// The state that the threads of a run share. Times are nanoseconds since `epoch`.
pub(crate) struct Shared<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) progress: &'a LoadProgress,
    pub(crate) epoch: Instant,
    /// Number of threads whose connections are all made or have failed.
    pub(crate) ready: AtomicUsize,
    /// When sending began, which is when all threads were ready.
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

    /// Called once by each thread when its connections are made; the last call starts the run.
    pub(crate) fn thread_is_ready(&self) {
        if self.ready.fetch_add(1, Ordering::AcqRel) + 1 == self.settings.threads {
            if self.progress.connected() == 0 {
                return self.aborted.store(true, Ordering::Relaxed);
            }
            let start = self.now();
            let Settings { warm_up, duration, .. } = self.settings;
            let end = start.saturating_add(nanoseconds(warm_up.saturating_add(*duration)));
            self.end.store(end, Ordering::Relaxed);
            self.start.get_or_init(|| start);
            self.progress.running.store(true, Ordering::Relaxed);
        }
    }

    /// When the measurement begins; `None` until sending has begun.
    pub(crate) fn begin(&self) -> Option<u64> {
        self.start.get().map(|start| start.saturating_add(nanoseconds(self.settings.warm_up)))
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Ends the measurement now if a stop was requested.
    pub(crate) fn heed_stop(&self, now: u64) {
        if self.progress.stopped() {
            self.end.fetch_min(now, Ordering::Relaxed);
        }
    }

    /// Whether the run was stopped or aborted.
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
