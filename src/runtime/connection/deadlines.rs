//! Ends reads and writes that have passed their deadline. Never drops a read, never inspects data.
//!
//! A read in flight must not be dropped, because the kernel may still write to its buffer. So a
//! deadline does not race against the read. Instead, a timer checks all connections of the worker
//! every [`TICK`] and makes the kernel complete the read of each one whose deadline has passed: it
//! cancels the read, or shuts the socket down for reading.
//!
//! A connection is cut at the second look that finds it overdue. In between, its task has run: if
//! the whole thread was held up, or has more to do than it can, that is not its peer's fault.
//!
//! A socket that is shut down in both directions is reset by the next byte of its peer, and the
//! reset discards what the peer has not read. So a connection that says goodbye is never shut down
//! for reading before its time to linger is over.

use crate::config::TICK;
use crate::engine::memory::account::MemoryShare;
use crate::runtime::clock;
use crate::runtime::ring::TcpStream;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Why the engine ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadlineCut {
    /// The peer was silent between packets or frames.
    Idle,
    /// The peer did not finish a packet or frame.
    Unfinished,
    /// The peer did not authenticate.
    Unauthenticated,
    /// The peer did not finish its TLS handshake.
    Handshake,
    /// The peer did not close its side at the end.
    Linger,
    /// The peer did not read what it was sent.
    SlowConsumer,
    /// Memory was short, and the connection held the most.
    Memory,
    /// Writing to the peer failed.
    Broken,
    /// A task of the connection panicked.
    Defect,
    /// The engine is stopping.
    Shutdown,
}

/// What the deadlines need to do with a socket.
#[derive(Clone, Copy)]
pub(crate) struct SocketReads {
    /// Completes the reads that are under way. A read that begins later need not notice, so the
    /// connection checks [`Control::cut`] before each read.
    pub end: fn(&Rc<TcpStream>),
    /// Whether no bytes have arrived that nobody has read.
    pub nothing_waits: fn(&TcpStream) -> bool,
}

/// The deadlines of a connection, and why it was cut once one has passed.
pub(crate) struct Control {
    stream: Rc<TcpStream>,
    reads: SocketReads,
    deadline: Cell<Option<(Instant, DeadlineCut)>>,
    write_deadline: Cell<Option<Instant>>,
    /// Until when the connection waits for its peer to close.
    linger_deadline: Cell<Option<Instant>>,
    /// Whether the connection ends as soon as the engine starts draining.
    dispensable: Cell<bool>,
    /// Whether the last look found the connection overdue.
    overdue: Cell<bool>,
    cut: Cell<Option<DeadlineCut>>,
    ended: Notify,
    /// The share of memory with which the connection ends.
    memory: OnceCell<Arc<MemoryShare>>,
}

impl Control {
    /// Sets the deadline of the next read, and why the connection is cut when it passes. There is
    /// none if bytes were late that have arrived: then the engine is late to read them, not their
    /// peer to send them. With each byte a packet or frame comes closer to its end.
    pub(crate) fn arm(&self, at: Instant, reason: DeadlineCut) {
        let awaits_bytes = matches!(reason, DeadlineCut::Unfinished | DeadlineCut::Idle);
        let arrived =
            self.overdue.get() && awaits_bytes && !(self.reads.nothing_waits)(&self.stream);
        self.deadline.set((!arrived).then_some((at, reason)));
    }

    /// Removes the read deadline, and returns it: the connection is not waiting for its peer.
    pub(crate) fn disarm(&self) -> Option<(Instant, DeadlineCut)> {
        self.deadline.take()
    }

    /// Sets a deadline that was [removed](Self::disarm) while a read was in flight, later by the
    /// time that the engine spent meanwhile.
    pub(crate) fn rearm(&self, removed: Option<(Instant, DeadlineCut)>, spent: Duration) {
        self.deadline.set(removed.map(|(at, reason)| (at + spent, reason)));
    }

    /// Sets the time by which the peer must have read; `None` if no write is pending.
    pub(crate) fn arm_write(&self, at: Option<Instant>) {
        self.write_deadline.set(at);
    }

    /// The connection has ended, and now waits for its peer to close: until then at the longest,
    /// or until the engine ends all connections, bytes may still be read.
    pub(crate) fn linger(&self, until: Instant) {
        self.disarm();
        self.linger_deadline.set(Some(until));
    }

    /// Sets whether the connection may end as soon as the engine starts draining.
    pub(crate) fn set_dispensable(&self, dispensable: bool) {
        self.dispensable.set(dispensable);
    }

    /// Ends the connection once this share is condemned.
    pub(crate) fn watch_memory(&self, share: &Arc<MemoryShare>) {
        // Each connection has one share.
        let _ = self.memory.set(Arc::clone(share));
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

    /// Ends the connection unless it has already ended: nothing more is read, but pending output
    /// may still be written.
    pub(crate) fn end(&self, reason: DeadlineCut) {
        if self.cut.get().is_none() {
            self.cut.set(Some(reason));
            (self.reads.end)(&self.stream);
            self.ended.notify_waiters();
        }
    }

    /// Ends the connection in both directions, even if it has already ended and is writing its last
    /// bytes.
    pub(crate) fn abort(&self, reason: DeadlineCut) {
        self.cut.set(Some(reason));
        let _ = self.stream.shutdown(Shutdown::Both);
        self.ended.notify_waiters();
        self.write_deadline.set(None);
    }

    fn look(&self, now: Instant, draining: bool, all_end: bool) {
        if let Some(at) = self.linger_deadline.get() {
            if all_end || at <= now {
                self.abort(DeadlineCut::Linger);
            }
            return;
        }
        let late = |at: Instant| at <= now && self.overdue.get();
        let passed = self.write_deadline.get().is_some_and(|at| at <= now)
            || self.deadline.get().is_some_and(|(at, _)| at <= now);
        match self.write_deadline.get() {
            Some(at) if late(at) => return self.abort(DeadlineCut::SlowConsumer),
            Some(_) if all_end => return self.abort(DeadlineCut::Shutdown),
            _ => {}
        }
        if all_end || (draining && self.dispensable.get()) {
            self.end(DeadlineCut::Shutdown);
        } else if self.memory.get().is_some_and(|share| share.is_condemned()) {
            self.end(DeadlineCut::Memory);
        } else if let Some((at, reason)) = self.deadline.get()
            && late(at)
        {
            match reason {
                // The peer may be the one not reading: what blocks may be a write of the handshake.
                DeadlineCut::Handshake => self.abort(reason),
                _ => self.end(reason),
            }
        }
        self.overdue.set(passed);
    }
}

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Deadlines {
    /// In the order of the connections' numbers, so that a run can be repeated.
    controls: RefCell<BTreeMap<u64, Rc<Control>>>,
}

impl Deadlines {
    /// Watches a connection until [`remove`](Self::remove).
    pub(crate) fn add(
        &self,
        connection: u64,
        stream: &Rc<TcpStream>,
        reads: SocketReads,
    ) -> Rc<Control> {
        let control = Rc::new(Control {
            stream: Rc::clone(stream),
            reads,
            deadline: Cell::new(None),
            write_deadline: Cell::new(None),
            linger_deadline: Cell::new(None),
            dispensable: Cell::new(false),
            overdue: Cell::new(false),
            cut: Cell::new(None),
            ended: Notify::new(),
            memory: OnceCell::new(),
        });
        self.controls.borrow_mut().insert(connection, Rc::clone(&control));
        control
    }

    /// Stops watching a connection and releases its socket.
    pub(crate) fn remove(&self, connection: u64) {
        self.controls.borrow_mut().remove(&connection);
    }

    /// Every [`TICK`], forever: calls `each_tick` and ends the connections that are overdue.
    /// `drain` holds the time at which every connection ends, once the engine is draining.
    pub(crate) async fn watch(
        &self,
        drain: watch::Receiver<Option<Instant>>,
        each_tick: impl Fn(),
    ) {
        loop {
            each_tick();
            self.look(clock::now(), *drain.borrow());
            clock::sleep(TICK).await;
        }
    }

    /// Ends the connections that are overdue at `now`; all of them, if that is after `end`.
    pub(crate) fn look(&self, now: Instant, end: Option<Instant>) {
        let all_end = end.is_some_and(|end| end <= now);
        for control in self.controls.borrow().values() {
            control.look(now, end.is_some(), all_end);
        }
    }
}
