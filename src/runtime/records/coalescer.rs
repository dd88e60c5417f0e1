//! Gathers the small reads of record connections: raises and lowers the low-water marks of their
//! sockets, and bounds in time what that costs. Decides nothing (`engine::coalesce` does), reads no
//! socket and drops no wait.
//!
//! A connection whose reads are gathered waits until its socket is readable, which is when the mark
//! is reached, and then reads. One timer a worker looks after all of these waits. Where one has
//! lasted for nearly `--coalesce-delay`, it lowers the mark, which completes the wait; so no wait
//! is ever given up, and the end of the stream or of its reading side
//! ([`crate::runtime::connection::deadlines`]) completes it as well.

use crate::config::{COALESCE_DUE, COALESCE_EARLY};
use crate::engine::stream::coalesce::Coalesce;
use crate::engine::stream::latency::SmallLatency;
use crate::runtime::ring;
use crate::runtime::ring::low_water::set_receive_low_water;
use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_uring::net::TcpStream;

/// The raised marks of one worker, and their timer.
pub(crate) struct Coalescer {
    delay: Duration,
    raised: RefCell<Vec<Rc<Mark>>>,
    /// Whether the timer sleeps until somebody waits, and what wakes it then.
    asleep: Cell<bool>,
    somebody_waits: Notify,
}

/// The low-water mark of one socket.
struct Mark {
    stream: Rc<TcpStream>,
    raised: Cell<bool>,
    /// Since when the connection waits for the mark; `None` while it does something else, and from
    /// when the timer has found that nothing is there to be waited with.
    waiting_since: Cell<Option<Instant>>,
}

impl Mark {
    fn socket(&self) -> BorrowedFd<'_> {
        ring::socket(&self.stream)
    }

    /// Makes the socket readable at the first byte.
    fn lower(&self) {
        self.raised.set(false);
        if let Err(error) = set_receive_low_water(self.socket(), 1) {
            // Not known to happen where raising did not fail; bytes may wait for others then.
            tracing::error!("cannot lower the low-water mark of a socket: {error}");
        }
    }

    /// Lowers the mark of a connection that has waited long enough. What comes from now on does
    /// not wait; where nothing had come, nothing has waited, and the wait goes on as any other.
    fn end_wait(&self) {
        self.lower();
        // After lowering, so that a byte which comes in between counts as one that has waited.
        if rustix::io::ioctl_fionread(self.socket()).is_ok_and(|bytes| bytes == 0) {
            self.waiting_since.set(None);
        }
    }
}

impl Coalescer {
    /// Without marks, for waits of at most `delay`.
    pub(crate) fn new(delay: Duration) -> Rc<Self> {
        Rc::new(Coalescer {
            delay,
            raised: RefCell::default(),
            asleep: Cell::new(false),
            somebody_waits: Notify::new(),
        })
    }

    /// Lowers the marks of those who have waited long enough, for ever.
    pub(crate) async fn watch(&self) {
        let mut time = Box::default();
        loop {
            match self.look(Instant::now()) {
                Some(rest) => time = ring::sleep(time, rest).await,
                None => {
                    self.asleep.set(true);
                    self.somebody_waits.notified().await;
                    self.asleep.set(false);
                }
            }
        }
    }

    /// Lowers what is due; gives the time until the next one is, or `None` where nobody waits.
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
        if !mark.raised.get() && set_receive_low_water(mark.socket(), bytes).is_ok() {
            mark.raised.set(true);
            self.raised.borrow_mut().push(Rc::clone(mark));
        }
        mark.raised.get()
    }

    /// No longer looks after a mark.
    fn forget(&self, mark: &Rc<Mark>) {
        self.raised.borrow_mut().retain(|raised| !Rc::ptr_eq(raised, mark));
    }

    fn begin_wait(&self, mark: &Mark) {
        mark.waiting_since.set(Some(Instant::now()));
        if self.asleep.get() {
            self.somebody_waits.notify_one();
        }
    }
}

/// Gathers the reads of one connection.
pub(crate) struct Coalescing {
    shared: Rc<Coalescer>,
    rule: Coalesce,
    mark: Rc<Mark>,
    /// When the wait before the read under way began; `None` where no byte can have waited.
    waited_since: Option<Instant>,
    waits: SmallLatency,
}

impl Coalescing {
    /// For a connection with a window of `window_bytes`; `None` where it is switched off.
    pub(crate) fn new(
        shared: &Rc<Coalescer>,
        stream: &Rc<TcpStream>,
        window_bytes: usize,
    ) -> Option<Self> {
        let rule = Coalesce::new(shared.delay, window_bytes)?;
        // Room for the marks of all, each of whom holds a share, so that raising allocates nothing.
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

    /// How much longer than without gathering it may take until what has come is read.
    pub(crate) fn delay(&self) -> Duration {
        if self.rule.gathers() { self.shared.delay } else { Duration::ZERO }
    }

    /// Where reads are gathered, waits until the next one is worth it; else does nothing. The
    /// future must be run to its end.
    pub(crate) async fn wait(&mut self) {
        if self.rule.gathers() {
            self.shared.begin_wait(&self.mark);
            // Whatever is wrong with the socket, the read will say it.
            let _ = ring::readable(&self.mark.stream).await;
            self.waited_since = self.mark.waiting_since.take();
        }
    }

    /// A read took `bytes` into a window that had room for `free`. Gives how long any of them can
    /// have waited for the others; `None` where none of them did.
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
            // A host that forbids it: as if nothing had come of it.
            self.rule.handle_silence();
        }
        waited
    }

    /// How long bytes can have waited, one value for each read that waited with bytes.
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
