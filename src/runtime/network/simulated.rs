//! Connections in memory, as a kernel and a network would have them: bytes travel in pieces of any
//! size and arrive later, windows fill up, and either side may half-close, close or reset. The
//! seed decides sizes and delays. Knows no engine.
//!
//! Each connection has two lanes, to the engine and to the peer. A piece is on its way until its
//! arrival; then it waits in the lane's window until it is read. Whoever waits for a change of the
//! connection is notified, and looks again at the next arrival.

use crate::runtime::world::{self, VirtualSleep, dice, note};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How a connection behaves; the world chooses it for each.
#[derive(Clone, Copy, Debug)]
pub struct LineQuality {
    /// The largest piece that arrives at once.
    pub piece_bytes: usize,
    /// The longest delay of a piece.
    pub delay: Duration,
    /// Bytes that the engine's side takes before the peer must wait.
    pub window_to_engine: usize,
    /// Bytes that the peer's side takes before the engine must wait.
    pub window_to_peer: usize,
    /// How late a worker turns to a completed operation, at most.
    pub completion_delay: Duration,
}

/// What a lane brings.
#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
struct LineDirection {
    flight: VecDeque<(Duration, Segment)>,
    arrived: VecDeque<u8>,
    flight_bytes: usize,
    window: usize,
    ended: bool,
    /// Whether its writer has ended it.
    finished: bool,
    /// A reset that its reader has not been told of.
    reset: bool,
    /// Whether its reader has been told.
    reset_told: bool,
    /// Whether its reader has shut it down.
    reader_shut: bool,
    /// Whether its reader has closed the connection.
    reader_gone: bool,
}

impl LineDirection {
    fn room(&self) -> usize {
        self.window.saturating_sub(self.flight_bytes + self.arrived.len())
    }

    fn send(&mut self, quality: &LineQuality, piece: Segment) {
        let last = self.flight.back().map_or(Duration::ZERO, |&(at, _)| at);
        let delay = quality.delay.as_micros() as u64;
        // Most pieces of a burst arrive together.
        let delay = dice(|dice| if dice.u8(..4) == 0 { dice.u64(0..=delay) } else { delay / 8 });
        let at = last.max(world::now() + Duration::from_micros(delay));
        self.flight.push_back((at, piece));
    }

    fn send_bytes(&mut self, quality: &LineQuality, bytes: &[u8]) {
        self.flight_bytes += bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            // A long send does not become thousands of pieces, which would only take time.
            let most = rest.len().min(quality.piece_bytes.max(bytes.len() / 256));
            let size = dice(|dice| if dice.bool() { most } else { dice.usize(1..=most) });
            self.send(quality, Segment::Bytes(rest[..size].to_vec()));
            rest = &rest[size..];
        }
    }

    /// Takes in what has arrived; true if something came for a reader that is gone.
    fn settle(&mut self) -> bool {
        let mut unwanted = false;
        while self.flight.front().is_some_and(|&(at, _)| at <= world::now()) {
            match self.flight.pop_front() {
                Some((_, Segment::Bytes(bytes))) => {
                    self.flight_bytes -= bytes.len();
                    unwanted |= self.reader_gone;
                    if !self.reader_gone && !self.reset {
                        self.arrived.extend(bytes);
                    }
                }
                Some((_, Segment::End)) => self.ended = true,
                Some((_, Segment::Reset)) => {
                    self.reset = true;
                    // Not every system keeps what has not been read.
                    if dice(|dice| dice.bool()) {
                        self.arrived.clear();
                    }
                }
                None => {}
            }
        }
        unwanted
    }

    /// Takes bytes that have arrived; `None` if there is nothing to tell yet.
    fn take(&mut self, most: usize) -> Option<io::Result<Vec<u8>>> {
        let bytes = self.arrived.len().min(most);
        if bytes > 0 {
            return Some(Ok(self.arrived.drain(..bytes).collect()));
        }
        if self.reset && !self.reset_told {
            self.reset_told = true;
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        (self.ended || self.reset || self.reader_shut).then(|| Ok(Vec::new()))
    }

    fn over(&self) -> bool {
        self.ended || self.reset || self.reader_shut
    }
}

/// Both lanes of a connection.
#[derive(Debug)]
struct Line {
    quality: LineQuality,
    to_engine: LineDirection,
    to_peer: LineDirection,
    /// How often the engine has cancelled its operations.
    cancels: u64,
    /// Bytes at which the engine's side is readable.
    low_water: usize,
    /// Whether the engine's side resets when it closes.
    reset_at_close: bool,
    established: Duration,
    /// All bytes that the engine has read.
    read_by_engine: Vec<u8>,
    engine_closed: bool,
}

#[derive(Debug)]
struct SharedLine {
    line: Mutex<Line>,
    changed: Notify,
    peer: SocketAddr,
}

impl SharedLine {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line as it is now.
    fn now(&self) -> MutexGuard<'_, Line> {
        let mut line = self.lock();
        line.settle();
        line
    }

    /// Waits until `look` finds something.
    async fn wait<T>(&self, mut look: impl FnMut(&mut Line) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let next = {
                let mut line = self.now();
                if let Some(found) = look(&mut line) {
                    return found;
                }
                line.next_arrival()
            };
            match next {
                None => changed.await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = VirtualSleep::until(at) => {}
                    }
                }
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Line) -> T) -> T {
        let changed = change(&mut self.now());
        self.changed.notify_waiters();
        changed
    }
}

impl Line {
    fn settle(&mut self) {
        if self.to_engine.settle() {
            self.to_peer.send(&self.quality, Segment::Reset);
        }
        if self.to_peer.settle() {
            self.to_engine.send(&self.quality, Segment::Reset);
        }
    }

    fn next_arrival(&self) -> Option<Duration> {
        let first = |lane: &LineDirection| lane.flight.front().map(|&(at, _)| at);
        match (first(&self.to_engine), first(&self.to_peer)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Closes the sending side of one end.
    fn finish(lane: &mut LineDirection, quality: &LineQuality) {
        if !lane.finished {
            lane.finished = true;
            lane.send(quality, Segment::End);
        }
    }

    fn close_engine(&mut self) {
        self.engine_closed = true;
        self.to_engine.reader_gone = true;
        if self.reset_at_close || !self.to_engine.arrived.is_empty() {
            self.to_peer.flight.clear();
            self.to_peer.flight_bytes = 0;
            self.to_peer.send(&self.quality, Segment::Reset);
        } else {
            Self::finish(&mut self.to_peer, &self.quality);
        }
    }

    fn reset_by_peer(&mut self) {
        self.to_peer.reader_gone = true;
        self.to_engine.finished = true;
        self.to_engine.send(&self.quality, Segment::Reset);
    }
}

/// The engine's end of a connection.
#[derive(Debug)]
pub struct SimulatedSocket(Arc<SharedLine>);

/// The peer's end of a connection; dropping it closes the connection.
#[derive(Debug)]
pub struct PeerEnd(Arc<SharedLine>);

/// What became of a connection, for those who judge the engine.
#[derive(Clone, Debug)]
pub struct LineWitness(Arc<SharedLine>);

/// A connection from `peer`.
pub(crate) fn new_line(peer: SocketAddr, quality: LineQuality) -> (SimulatedSocket, PeerEnd) {
    let line = Line {
        to_engine: LineDirection { window: quality.window_to_engine, ..LineDirection::default() },
        to_peer: LineDirection { window: quality.window_to_peer, ..LineDirection::default() },
        quality,
        cancels: 0,
        low_water: 1,
        reset_at_close: false,
        established: world::now(),
        read_by_engine: Vec::new(),
        engine_closed: false,
    };
    let shared = Arc::new(SharedLine { line: Mutex::new(line), changed: Notify::new(), peer });
    (SimulatedSocket(Arc::clone(&shared)), PeerEnd(shared))
}

impl LineWitness {
    /// All bytes that the engine has read.
    pub fn read_by_engine(&self) -> Vec<u8> {
        self.0.lock().read_by_engine.clone()
    }

    /// Whether the engine has closed its end.
    pub fn is_closed_by_engine(&self) -> bool {
        self.0.lock().engine_closed
    }
}

impl PeerEnd {
    /// What is seen of the connection from outside.
    pub fn witness(&self) -> LineWitness {
        LineWitness(Arc::clone(&self.0))
    }

    /// Sends all bytes; waits while the engine's window is full.
    ///
    /// # Errors
    /// If the connection is reset.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = self.0.wait(|line| {
                if line.to_peer.reset || line.to_engine.finished {
                    return Some(Err(io::ErrorKind::BrokenPipe.into()));
                }
                let room = line.to_engine.room().min(rest.len());
                (room > 0).then(|| {
                    line.to_engine.send_bytes(&line.quality, &rest[..room]);
                    Ok::<usize, io::Error>(room)
                })
            });
            let sent = sent.await?;
            self.0.changed.notify_waiters();
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Receives; an empty vector is the end of the stream.
    ///
    /// # Errors
    /// If the connection is reset.
    pub async fn receive(&self, most: usize) -> io::Result<Vec<u8>> {
        let received = self.0.wait(|line| line.to_peer.take(most)).await;
        self.0.changed.notify_waiters();
        received
    }

    /// Ends its own direction.
    pub fn finish(&self) {
        self.0.change(|line| Line::finish(&mut line.to_engine, &line.quality));
    }

    /// Resets the connection.
    pub fn reset(&self) {
        self.0.change(Line::reset_by_peer);
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.peer
    }
}

impl Drop for PeerEnd {
    fn drop(&mut self) {
        self.0.change(|line| {
            if line.to_engine.finished && line.to_peer.reader_gone {
                return;
            }
            if line.to_peer.arrived.is_empty() {
                Line::finish(&mut line.to_engine, &line.quality);
                line.to_peer.reader_gone = true;
            } else {
                line.reset_by_peer();
            }
        });
    }
}

/// Operations under way end as if each had failed with ECANCELED.
fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::CANCELED.raw_os_error())
}

impl SimulatedSocket {
    /// The same socket: here a worker needs no other form of it.
    pub(crate) fn from_std(socket: SimulatedSocket) -> Self {
        socket
    }

    /// Nothing: all operations wait.
    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(crate) fn set_nonblocking(&self, _nonblocking: bool) -> io::Result<()> {
        Ok(())
    }

    /// Nothing: bytes are never held back.
    #[expect(clippy::unnecessary_wraps, reason = "as the system's")]
    pub(crate) fn set_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        Ok(())
    }

    /// Shuts down one direction or both.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        note(format_args!("{} shut down by the engine: {how:?}", self.0.peer));
        self.0.change(|line| {
            if line.to_engine.reset {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if how != Shutdown::Write {
                line.to_engine.reader_shut = true;
            }
            if how != Shutdown::Read {
                Line::finish(&mut line.to_peer, &line.quality);
            }
            Ok(())
        })
    }

    /// Writes all bytes, and gives them back.
    pub(crate) async fn write_all(&self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.send_now(&bytes[sent..]) {
                Err(error) => return (Err(error), bytes),
                Ok(0) => {
                    if let Err(error) = self.writable().await {
                        return (Err(error), bytes);
                    }
                }
                Ok(more) => sent += more,
            }
        }
        (Ok(()), bytes)
    }

    /// Reads at most `most` bytes.
    pub(crate) async fn read(&self, most: usize) -> io::Result<Vec<u8>> {
        let cancels = self.0.lock().cancels;
        let read = self.0.wait(|line| {
            let read = line.to_engine.take(most);
            if let Some(Ok(bytes)) = &read {
                line.read_by_engine.extend_from_slice(bytes);
            }
            match read {
                None if line.cancels > cancels => Some(Err(cancelled())),
                read => read,
            }
        });
        let read = read.await;
        self.0.changed.notify_waiters();
        match &read {
            Ok(bytes) => note(format_args!("{} {} bytes read", self.0.peer, bytes.len())),
            Err(error) => note(format_args!("{} read fails: {:?}", self.0.peer, error.kind())),
        }
        self.complete().await;
        read
    }

    /// The worker may have other things to do before it turns to a completion.
    async fn complete(&self) {
        let longest = self.0.lock().quality.completion_delay.as_micros() as u64;
        if longest > 0 && dice(|dice| dice.bool()) {
            VirtualSleep::of(Duration::from_micros(dice(|dice| dice.u64(0..=longest)))).await;
        }
    }

    /// Gives as many bytes to the network as it takes.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.change(|line| {
            if line.to_engine.reset || line.to_peer.finished {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut room = line.to_peer.room().min(bytes.len());
            if room > 1 && dice(|dice| dice.u8(..8) == 0) {
                room = dice(|dice| dice.usize(1..=room));
            }
            line.to_peer.send_bytes(&line.quality, &bytes[..room]);
            Ok(room)
        })
    }

    /// Waits until there is something to read, as much as the low-water mark says.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        let cancels = self.0.lock().cancels;
        let ready = self.0.wait(|line| {
            let lane = &line.to_engine;
            let mark = line.low_water.min(lane.window / 2).max(1);
            match lane.over() || lane.arrived.len() >= mark {
                true => Some(Ok(())),
                false => (line.cancels > cancels).then(|| Err(cancelled())),
            }
        });
        let ready = ready.await;
        self.complete().await;
        ready
    }

    /// Waits until the network takes bytes.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        let cancels = self.0.lock().cancels;
        let ready = self.0.wait(|line| {
            let lane = &line.to_peer;
            let ready = lane.finished || line.to_engine.reset || 3 * lane.room() >= lane.window;
            match ready {
                true => Some(Ok(())),
                false => (line.cancels > cancels).then(|| Err(cancelled())),
            }
        });
        let ready = ready.await;
        self.complete().await;
        ready
    }

    /// Ends the operations that are under way.
    pub(crate) fn cancel(&self) {
        note(format_args!("{} cancelled by the engine", self.0.peer));
        self.0.change(|line| line.cancels += 1);
    }

    /// Bytes that could be read.
    pub(crate) fn unread(&self) -> usize {
        self.0.now().to_engine.arrived.len()
    }

    /// Sets the low-water mark.
    pub(crate) fn set_low_water(&self, bytes: usize) {
        self.0.change(|line| line.low_water = bytes);
    }

    /// Makes closing a reset.
    pub(crate) fn reset_at_close(&self) {
        self.0.change(|line| line.reset_at_close = true);
    }

    /// Whether the peer has closed or reset the connection, and had sent nothing.
    pub(crate) fn is_closed_empty(&self) -> bool {
        let line = self.0.now();
        line.to_engine.arrived.is_empty() && (line.to_engine.ended || line.to_engine.reset)
    }

    /// How long ago it was established.
    pub(crate) fn age(&self) -> Duration {
        world::now() - self.0.lock().established
    }
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        note(format_args!("{} closed by the engine", self.0.peer));
        self.0.change(Line::close_engine);
    }
}
