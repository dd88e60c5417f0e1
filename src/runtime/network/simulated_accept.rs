//! Listeners and new connections of a simulation: the twin of what the kernel has.

use super::simulated::{LineQuality, PeerEnd, new_line};
use crate::runtime::world::note;
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

pub(crate) use super::simulated::SimulatedSocket as NewSocket;
pub(crate) use {SimulatedListener as BoundListener, SimulatedListener as Listener};

#[derive(Debug, Default)]
struct AcceptQueue {
    queue: VecDeque<(NewSocket, SocketAddr)>,
    /// Errors that accepting meets before the next connection.
    faults: VecDeque<i32>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Place {
    waiting: Mutex<AcceptQueue>,
    changed: Notify,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, AcceptQueue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener of the world. Dropping it resets the connections that wait.
#[derive(Debug)]
pub(crate) struct SimulatedListener(Arc<Place>);

/// Where peers connect to a listener.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Place>);

/// A listener, and where peers connect to it.
pub(crate) fn new_listener() -> (SimulatedListener, Dialer) {
    let place = Arc::<Place>::default();
    (SimulatedListener(Arc::clone(&place)), Dialer(place))
}

impl Dialer {
    /// Connects; `None` if nobody listens any more.
    pub fn connect(&self, address: SocketAddr, quality: LineQuality) -> Option<PeerEnd> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return None;
        }
        note(format_args!("{address} connects"));
        let (socket, end) = new_line(address, quality);
        waiting.queue.push_back((socket, address));
        drop(waiting);
        self.0.changed.notify_waiters();
        Some(end)
    }

    /// Makes accepting fail with this system error before the next connection.
    pub fn fail(&self, system_error: i32) {
        self.0.lock().faults.push_back(system_error);
        self.0.changed.notify_waiters();
    }
}

impl SimulatedListener {
    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(crate) fn from_std(listener: SimulatedListener) -> io::Result<Self> {
        Ok(listener)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as tokio's")]
    pub(crate) fn into_std(self) -> io::Result<Self> {
        Ok(self)
    }
}

impl Drop for SimulatedListener {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.closed = true;
        let queue = std::mem::take(&mut waiting.queue);
        drop(waiting);
        for (socket, _) in queue {
            socket.reset_at_close();
        }
    }
}

/// Sockets of the system have no place in a simulation.
pub(crate) fn bound(_listener: std::net::TcpListener) -> BoundListener {
    panic!("a build with the feature `simulation` serves no real sockets");
}

/// Waits for a connection.
pub(crate) async fn accept(listener: &Listener) -> io::Result<(NewSocket, SocketAddr)> {
    loop {
        let mut changed = std::pin::pin!(listener.0.changed.notified());
        changed.as_mut().enable();
        match accept_waiting(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => changed.await,
            accepted => return accepted,
        }
    }
}

/// A connection that waits in the queue of a listener.
pub(crate) fn accept_waiting(listener: &BoundListener) -> io::Result<(NewSocket, SocketAddr)> {
    let mut waiting = listener.0.lock();
    if let Some(system_error) = waiting.faults.pop_front() {
        return Err(io::Error::from_raw_os_error(system_error));
    }
    let accepted = waiting.queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
    note(format_args!("{} accepted", accepted.1));
    Ok(accepted)
}

/// How long ago a connection was established.
pub(crate) fn age(socket: &NewSocket) -> Duration {
    socket.age()
}

/// Whether the peer has closed or reset the connection, and had sent nothing.
pub(crate) fn closed_empty(socket: &NewSocket) -> bool {
    socket.is_closed_empty()
}

/// Makes closing a reset.
pub(crate) fn reset_at_close(socket: &NewSocket) {
    socket.reset_at_close();
}

/// Sends a few bytes and the end of the stream.
pub(crate) fn say_last(socket: &NewSocket, bytes: &[u8]) {
    let _ = socket.send_now(bytes);
    let _ = socket.shutdown(Shutdown::Write);
}

/// Reads and discards until the peer closes.
pub(crate) async fn drop_all(socket: NewSocket) -> io::Result<()> {
    while !socket.read(512).await?.is_empty() {}
    Ok(())
}

/// Starts a task of the acceptor.
pub(crate) fn spawn_accepting(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}
