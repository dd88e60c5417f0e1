//! What ends an engine that nobody has asked to stop: a thread or a task that panicked, or that can
//! do its work no longer. The first is remembered; each stops the engine.

use super::caught::caught_now;
use crate::runtime::clock;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Shared by all threads of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Defects {
    first: Arc<OnceLock<String>>,
    drain: watch::Sender<Option<Instant>>,
    drain_timeout: Duration,
}

impl Defects {
    /// None so far. After one, running streams may continue for `drain_timeout`.
    pub(crate) fn new(drain: watch::Sender<Option<Instant>>, drain_timeout: Duration) -> Self {
        Defects { first: Arc::default(), drain, drain_timeout }
    }

    /// Defects of a thread without an engine.
    pub(crate) fn alone() -> Self {
        Defects::new(watch::channel(None).0, Duration::ZERO)
    }

    /// Logs a defect and stops the engine. If it was to stop earlier anyway, that stays.
    pub(crate) fn report(&self, defect: String) {
        tracing::error!("{defect}; the engine stops");
        let end = clock::now() + self.drain_timeout;
        self.drain.send_modify(|at| *at = Some(at.map_or(end, |at| at.min(end))));
        // Only the first is the cause; it has the line at the end.
        let _ = self.first.set(defect);
    }

    /// Logs that a thread panicked, and stops the engine.
    pub(crate) fn report_thread(&self, name: &str, panic: &str) {
        self.report(format!("the thread {name} {panic}; this is a bug"));
    }

    /// The first one.
    pub(crate) fn first(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }

    /// Starts a thread whose panic is a defect; it returns `None` then.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<Option<T>>> {
        let (defects, thread) = (self.clone(), name.to_owned());
        thread::Builder::new().name(name.to_owned()).spawn(move || match caught_now(run) {
            Ok(value) => Some(value),
            Err(panic) => {
                defects.report_thread(&thread, &panic);
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_stops_the_engine() {
        let (drain, drained) = watch::channel(None);
        let defects = Defects::new(drain.clone(), Duration::from_secs(10));
        assert_eq!(defects.spawn("fine", || 5).unwrap().join().unwrap(), Some(5));
        assert_eq!((defects.first(), *drained.borrow()), (None, None));
        let sick = || -> u8 { panic!("no more") };
        assert_eq!(defects.spawn("sick", sick).unwrap().join().unwrap(), None);
        assert_eq!(defects.first(), Some("the thread sick panicked: no more; this is a bug"));
        let end = drained.borrow().unwrap();
        // A later defect is neither the cause nor a reason to wait longer.
        defects.report("another".to_owned());
        assert_eq!(*drained.borrow(), Some(end));
        assert!(defects.first().unwrap().contains("no more"));
        // Nor is one while the engine is stopping already; but a far end comes nearer.
        let soon = Instant::now();
        drain.send_replace(Some(soon));
        defects.report("a third".to_owned());
        assert_eq!(*drained.borrow(), Some(soon));
        drain.send_replace(Some(end + Duration::from_secs(100)));
        defects.report("a fourth".to_owned());
        assert!(drained.borrow().unwrap() < end + Duration::from_secs(100));
    }
}
