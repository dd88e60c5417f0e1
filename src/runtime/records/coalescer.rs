//! Gathers the small reads of record connections into larger ones by raising the low-water marks of
//! their sockets, and bounds the delay that this causes. When to gather is decided in
//! [`engine::stream::coalesce`](crate::engine::stream::coalesce).
//!
//! A connection whose reads are gathered waits until its socket is readable, that is, until the
//! mark is reached, and then reads. One timer per worker watches all these waits. If one has lasted
//! for nearly `--coalesce-delay`, the timer lowers the mark, which completes the wait. So no wait
//! is ever cancelled; the end of the stream and the shutdown of its reading side
//! ([`crate::runtime::connection::deadlines`]) complete it as well.

use crate::config::{COALESCE_DUE, COALESCE_EARLY};
use crate::engine::stream::coalesce::Coalesce;
use crate::engine::stream::latency::SmallLatency;
use crate::runtime::clock;
use crate::runtime::failpoint::failpoint;
use crate::runtime::ring::{self, TcpStream};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The raised marks of one worker, and their timer.
pub(crate) struct Coalescer {
    delay: Duration,
    raised: RefCell<Vec<Rc<Mark>>>,
    /// Whether the timer is idle because no connection is waiting, and what wakes it.
    asleep: Cell<bool>,
    waiting: Notify,
}

/// The low-water mark of one socket.
struct Mark {
    stream: Rc<TcpStream>,
    raised: Cell<bool>,
    /// When the connection began to wait for the mark. `None` while it is not waiting, and once the
    /// timer has lowered the mark without finding any bytes.
    waiting_since: Cell<Option<Instant>>,
}

impl Mark {
    /// Makes the socket readable at the first byte.
    fn lower(&self) {
        self.raised.set(false);
        if let Err(error) = ring::set_receive_low_water(&self.stream, 1) {
            // Not known to happen if raising succeeded. Bytes may then be delayed.
            tracing::error!("cannot lower the low-water mark of a socket: {error}");
        }
    }

    /// Lowers the mark of a connection that has waited long enough. Bytes that arrive from now on
    /// are not delayed. If none had arrived, none were delayed, and the wait becomes an ordinary
    /// one.
    fn end_wait(&self) {
        self.lower();
        // Checked after lowering, so that a byte arriving in between counts as delayed.
        if ring::has_nothing_to_read(&self.stream) {
            self.waiting_since.set(None);
        }
    }
}

impl Coalescer {
    /// A coalescer without marks, for waits of at most `delay`.
    pub(crate) fn new(delay: Duration) -> Rc<Self> {
        Rc::new(Coalescer {
            delay,
            raised: RefCell::default(),
            asleep: Cell::new(false),
            waiting: Notify::new(),
        })
    }

    /// Lowers the marks of connections that have waited long enough, forever.
    pub(crate) async fn watch(&self) {
        let mut time = Box::default();
        loop {
            failpoint("coalescer");
            match self.look(clock::now()) {
                Some(rest) => time = ring::sleep(time, rest).await,
                None => {
                    self.asleep.set(true);
                    self.waiting.notified().await;
                    self.asleep.set(false);
                }
            }
        }
    }

    /// Lowers the marks that are due; returns the time until the next one is due, or `None` if no
    /// connection is waiting.
    fn look(&self, now: Instant) -> Option<Duration> {
        let waited = |mark: &Mark| {
            mark.waiting_since.get().map(|since| now.saturating_duration_since(since))
        };
        let mut raised = self.raised.borrow_mut();
        let due = self.delay.mul_f64(COALESCE_DUE);
        let oldest = raised.iter().filter_map(|mark| waited(mark)).max()?;
        if oldest < due {
            return Some(due - oldest);
        }
        let early = self.delay.mul_f64(COALESCE_EARLY);
        raised.retain(|mark| {
            let over = waited(mark).is_some_and(|waited| waited >= early);
            if over {
                mark.end_wait();
            }
            !over
        });
        let oldest = raised.iter().filter_map(|mark| waited(mark)).max()?;
        Some(due - oldest)
    }

    fn raise(&self, mark: &Rc<Mark>, bytes: usize) -> bool {
        if !mark.raised.get() && ring::set_receive_low_water(&mark.stream, bytes).is_ok() {
            mark.raised.set(true);
            self.raised.borrow_mut().push(Rc::clone(mark));
        }
        mark.raised.get()
    }

    /// Stops watching a mark.
    fn forget(&self, mark: &Rc<Mark>) {
        self.raised.borrow_mut().retain(|raised| !Rc::ptr_eq(raised, mark));
    }

    fn begin_wait(&self, mark: &Mark) {
        mark.waiting_since.set(Some(clock::now()));
        if self.asleep.get() {
            self.waiting.notify_one();
        }
    }
}

/// Gathers the reads of one connection.
pub(crate) struct Coalescing {
    shared: Rc<Coalescer>,
    rule: Coalesce,
    mark: Rc<Mark>,
    /// When the wait before the current read began; `None` if no byte can have been delayed.
    waited_since: Option<Instant>,
    waits: SmallLatency,
}

impl Coalescing {
    /// For a connection with a window of `window_bytes`; `None` if coalescing is off.
    pub(crate) fn new(
        shared: &Rc<Coalescer>,
        stream: &Rc<TcpStream>,
        window_bytes: usize,
    ) -> Option<Self> {
        let rule = Coalesce::new(shared.delay, window_bytes)?;
        // Every connection holds a reference. Reserving room for all of their marks means that
        // raising one does not allocate.
        shared.raised.borrow_mut().reserve(Rc::strong_count(shared));
        let mark = Mark {
            stream: Rc::clone(stream),
            raised: Cell::new(false),
            waiting_since: Cell::new(None),
        };
        Some(Coalescing {
            shared: Rc::clone(shared),
            rule,
            mark: Rc::new(mark),
            waited_since: None,
            waits: SmallLatency::with_room(),
        })
    }

    /// How much longer bytes may remain unread than without gathering.
    pub(crate) fn delay(&self) -> Duration {
        if self.rule.gathers() { self.shared.delay } else { Duration::ZERO }
    }

    /// If reads are gathered, waits until the next one is worthwhile; otherwise returns at once.
    /// The future must run to completion.
    pub(crate) async fn wait(&mut self) {
        if self.rule.gathers() {
            self.shared.begin_wait(&self.mark);
            // If the socket has an error, the read will report it.
            let _ = ring::readable(&self.mark.stream).await;
            self.waited_since = self.mark.waiting_since.take();
        }
    }

    /// Notes a read of `bytes` into a window that had room for `free`. Returns the longest that any
    /// of them can have been delayed; `None` if none was.
    pub(crate) fn handle_read(
        &mut self,
        bytes: usize,
        free: usize,
        now: Instant,
    ) -> Option<Duration> {
        let waited = self.waited_since.take().map(|since| now.saturating_duration_since(since));
        match waited {
            Some(waited) => self.waits.record(waited, 1),
            None if self.rule.gathers() => self.rule.handle_silence(),
            None => {}
        }
        self.rule.handle_read(bytes, free, now);
        if !self.rule.gathers() {
            if self.mark.raised.get() {
                self.shared.forget(&self.mark);
                self.mark.lower();
            }
        } else if !self.shared.raise(&self.mark, self.rule.mark_bytes()) {
            // The host forbids it: handle it like a wait that gathered nothing.
            self.rule.handle_silence();
        }
        waited
    }

    /// How long bytes can have been delayed: one value for each read that had delayed bytes.
    pub(crate) fn into_waits(mut self) -> SmallLatency {
        std::mem::take(&mut self.waits)
    }
}

impl Drop for Coalescing {
    fn drop(&mut self) {
        self.shared.forget(&self.mark);
    }
}

#[cfg(test)]
#[path = "coalescer_tests.rs"]
mod tests;
