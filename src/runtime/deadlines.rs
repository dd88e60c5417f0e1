//! Ends reads whose time is up: never drops a read and judges no data.
//!
//! A read under way must not be dropped, since the kernel may still write to its buffer. So a
//! deadline does not race against the read: a timer looks at all connections of the worker every
//! [`TICK`], and where a deadline has passed it shuts the socket's reading side down, which
//! completes the read.

use crate::config::TICK;
use crate::engine::report::Reason;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::watch;
use tokio_uring::net::TcpStream;

/// Until when a connection may go on, and what is said when it does not.
pub struct Control {
    stream: Rc<TcpStream>,
    deadline: Cell<Option<(Instant, Reason)>>,
    cut: Cell<Option<Reason>>,
}

impl Control {
    /// The connection's next read ends at `at` for `reason`.
    pub fn arm(&self, at: Instant, reason: Reason) {
        self.deadline.set(Some((at, reason)));
    }

    /// The connection does not wait for its peer.
    pub fn disarm(&self) {
        self.deadline.set(None);
    }

    /// Why the connection was cut, if it was.
    pub fn cut(&self) -> Option<Reason> {
        self.cut.get()
    }

    fn end(&self, reason: Reason) {
        if self.cut.get().is_none() {
            self.cut.set(Some(reason));
            // Fails only where the peer is gone, which completes the read as well.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
    }
}

/// The connections of one worker.
#[derive(Default)]
pub struct Deadlines {
    controls: RefCell<HashMap<u64, Rc<Control>>>,
}

impl Deadlines {
    /// Watches over a connection until [`remove`](Self::remove).
    pub fn add(&self, connection: u64, stream: &Rc<TcpStream>) -> Rc<Control> {
        let control = Rc::new(Control {
            stream: Rc::clone(stream),
            deadline: Cell::new(None),
            cut: Cell::new(None),
        });
        self.controls.borrow_mut().insert(connection, Rc::clone(&control));
        control
    }

    /// Forgets a connection, and with it the hold on its socket.
    pub fn remove(&self, connection: u64) {
        self.controls.borrow_mut().remove(&connection);
    }

    /// Ends what is over, every [`TICK`], for ever. `drain` holds the moment at which every
    /// connection ends, once there is one.
    pub async fn watch(&self, drain: watch::Receiver<Option<Instant>>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let all_end = drain.borrow().is_some_and(|end| end <= now);
            for control in self.controls.borrow().values() {
                match control.deadline.get() {
                    _ if all_end => control.end(Reason::Shutdown),
                    Some((at, reason)) if at <= now => control.end(reason),
                    _ => {}
                }
            }
        }
    }
}
