//! Ends reads whose time is up: never drops a read and judges no data.
//!
//! A read under way must not be dropped, since the kernel may still write to its buffer. So a
//! deadline does not race against the read: a timer looks at all connections of the worker every
//! [`TICK`], and where a deadline has passed it shuts the socket down, which completes the read.

use crate::config::TICK;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::{Notify, watch};
use tokio_uring::net::TcpStream;

/// Why the engine ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadlineCut {
    /// The peer was silent between packets or frames.
    Idle,
    /// The peer did not finish what it had begun.
    Unfinished,
    /// The peer did not authenticate.
    Unauthenticated,
    /// The peer did not finish its TLS handshake.
    Handshake,
    /// The peer did not close when everything had been said.
    Linger,
    /// The peer did not read what it was sent.
    SlowConsumer,
    /// Writing to the peer failed.
    Broken,
    /// The engine stops.
    Shutdown,
}

/// Until when a connection may go on, and what is said when it does not.
pub(crate) struct Control {
    stream: Rc<TcpStream>,
    deadline: Cell<Option<(Instant, DeadlineCut)>>,
    write_deadline: Cell<Option<Instant>>,
    /// Whether the connection ends at once when the engine begins to stop.
    dispensable: Cell<bool>,
    cut: Cell<Option<DeadlineCut>>,
    ended: Notify,
}

impl Control {
    /// The connection's next read ends at `at` for `reason`.
    pub(crate) fn arm(&self, at: Instant, reason: DeadlineCut) {
        self.deadline.set(Some((at, reason)));
    }

    /// The connection does not wait for its peer.
    pub(crate) fn disarm(&self) {
        self.deadline.set(None);
    }

    /// The connection ends at `at` unless its peer reads; `None` where nothing waits for it.
    pub(crate) fn arm_write(&self, at: Option<Instant>) {
        self.write_deadline.set(at);
    }

    /// Whether the connection has nothing to finish when the engine begins to stop.
    pub(crate) fn set_dispensable(&self, dispensable: bool) {
        self.dispensable.set(dispensable);
    }

    /// Why the connection was cut, if it was.
    pub(crate) fn cut(&self) -> Option<DeadlineCut> {
        self.cut.get()
    }

    /// Waits until the connection is cut.
    pub(crate) async fn ended(&self) {
        while self.cut.get().is_none() {
            self.ended.notified().await;
        }
    }

    /// Ends the connection, unless it has been ended before: nothing more is read, what waits for
    /// it may still be written.
    pub(crate) fn end(&self, reason: DeadlineCut) {
        if self.cut.get().is_none() {
            self.cut.set(Some(reason));
            // Fails only where the peer is gone, which completes the read as well.
            let _ = self.stream.shutdown(Shutdown::Read);
            self.ended.notify_waiters();
        }
    }

    /// Ends the connection in both directions, also one that has been ended before and waits for
    /// its last words to be written.
    pub(crate) fn abort(&self, reason: DeadlineCut) {
        self.cut.set(Some(reason));
        let _ = self.stream.shutdown(Shutdown::Both);
        self.ended.notify_waiters();
        self.write_deadline.set(None);
    }

    fn look(&self, now: Instant, draining: bool, all_end: bool) {
        match self.write_deadline.get() {
            Some(at) if at <= now => return self.abort(DeadlineCut::SlowConsumer),
            Some(_) if all_end => return self.abort(DeadlineCut::Shutdown),
            _ => {}
        }
        if all_end || (draining && self.dispensable.get()) {
            self.end(DeadlineCut::Shutdown);
        } else if let Some((at, reason)) = self.deadline.get()
            && at <= now
        {
            match reason {
                // It may be TLS's own words that the peer does not read.
                DeadlineCut::Handshake => self.abort(reason),
                _ => self.end(reason),
            }
        }
    }
}

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Deadlines {
    controls: RefCell<HashMap<u64, Rc<Control>>>,
}

impl Deadlines {
    /// Watches over a connection until [`remove`](Self::remove).
    pub(crate) fn add(&self, connection: u64, stream: &Rc<TcpStream>) -> Rc<Control> {
        let control = Rc::new(Control {
            stream: Rc::clone(stream),
            deadline: Cell::new(None),
            write_deadline: Cell::new(None),
            dispensable: Cell::new(false),
            cut: Cell::new(None),
            ended: Notify::new(),
        });
        self.controls.borrow_mut().insert(connection, Rc::clone(&control));
        control
    }

    /// Forgets a connection, and with it the hold on its socket.
    pub(crate) fn remove(&self, connection: u64) {
        self.controls.borrow_mut().remove(&connection);
    }

    /// Ends what is over, every [`TICK`], for ever, and calls `each_tick`. `drain` holds the moment
    /// at which every connection ends, once there is one.
    pub(crate) async fn watch(
        &self,
        drain: watch::Receiver<Option<Instant>>,
        each_tick: impl Fn(),
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            each_tick();
            let now = Instant::now();
            let end = *drain.borrow();
            let all_end = end.is_some_and(|end| end <= now);
            for control in self.controls.borrow().values() {
                control.look(now, end.is_some(), all_end);
            }
        }
    }
}
