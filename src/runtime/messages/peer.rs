//! The sending side of one message connection: gives the kernel what it accepts at once, and queues
//! the rest. Does not read, and does not interpret what it sends.
//!
//! A sender never waits for a receiver: what the kernel does not accept goes to the outbox, and a
//! task that lives only while the outbox is not empty writes it. A receiver that does not read is
//! cut when its outbox is full or a write makes no progress.

use crate::config::{
    MESSAGE_IDLE_BYTES, OWED_BYTES, OWED_READS, RECEIVER_QUEUE_BYTES, REPLIES_WAITING_BYTES,
};
use crate::engine::memory::account::{MemoryShare, ShareOwner};
use crate::engine::memory::held::HeldBytes;
use crate::engine::messages::outbox::{Broadcasts, Outbox, Overflow};
use crate::engine::observe::counters::TallyWriter;
use crate::engine::stream::latency::SmallLatency;
use crate::runtime::clock;
use crate::runtime::connection::caught::caught;
use crate::runtime::connection::deadlines::{Control, DeadlineCut};
use crate::runtime::failpoint::failpoint;
use crate::runtime::ring::{self, TcpStream, is_cancelled, send_now, writable};
use crate::runtime::tls::session::Tls;
use crate::runtime::worker::Worker;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The most pieces that one system call sends.
const SLICES: usize = 64;

/// How many buffers for replies are kept for reuse, and the largest size that is kept.
const SPARE_SCRATCHES: usize = 8;
const SPARE_SCRATCH_BYTES: usize = 256 << 10;

/// The clients of one worker, and what is needed to send to them.
pub(crate) struct Peers {
    worker: Rc<Worker>,
    /// In no particular order.
    peers: RefCell<Vec<Rc<Peer>>>,
    scratches: RefCell<Vec<Vec<u8>>>,
}

impl Peers {
    /// No clients yet, with capacity for the most that there may be.
    pub(crate) fn new(worker: Rc<Worker>) -> Rc<Self> {
        let connections = worker.config.max_connections;
        Rc::new(Peers {
            worker,
            peers: RefCell::new(Vec::with_capacity(connections)),
            scratches: RefCell::new(Vec::with_capacity(SPARE_SCRATCHES)),
        })
    }

    /// An empty buffer for bytes to send, reused if possible.
    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Returns such a buffer.
    pub(crate) fn put_scratch(&self, mut scratch: Vec<u8>) {
        let mut spare = self.scratches.borrow_mut();
        if spare.len() < SPARE_SCRATCHES && scratch.capacity() <= SPARE_SCRATCH_BYTES {
            scratch.clear();
            spare.push(scratch);
        }
    }

    /// Appends all clients to `list`.
    pub(crate) fn list(&self, list: &mut Vec<Rc<Peer>>) {
        list.extend(self.peers.borrow().iter().cloned());
    }

    fn remember(&self, peer: &Rc<Peer>) {
        let mut peers = self.peers.borrow_mut();
        peer.place.set(peers.len());
        peers.push(Rc::clone(peer));
    }

    /// Removes a client.
    pub(crate) fn forget(&self, peer: &Peer) {
        let mut peers = self.peers.borrow_mut();
        let place = peer.place.get();
        peers.swap_remove(place);
        if let Some(moved) = peers.get(place) {
            moved.place.set(place);
        }
    }

    /// Cuts the client with the most bytes waiting, if those are more than `bytes`; returns whether
    /// there was one.
    fn cut_slowest(&self, bytes: usize) -> bool {
        let peers = self.peers.borrow();
        let slowest = peers.iter().max_by_key(|peer| peer.waiting_bytes());
        let Some(slowest) = slowest.filter(|peer| peer.waiting_bytes() > bytes) else {
            return false;
        };
        tracing::debug!(connection = slowest.number, "cut: it has the most bytes waiting");
        slowest.give_up_as(DeadlineCut::SlowConsumer);
        true
    }
}

/// Replies that have not been sent, and when their messages were received in full.
struct Owed {
    /// The connection's count of sent bytes at which the replies have been sent.
    at: u64,
    taken_over: Instant,
    replies: u32,
}

const _: () = assert!(size_of::<Owed>() <= OWED_BYTES);

/// One connected client, as seen by those who send to it.
pub(crate) struct Peer {
    number: u64,
    /// Its index in the worker's list of clients.
    place: Cell<usize>,
    stream: Rc<TcpStream>,
    /// The connection's deadlines.
    pub control: Rc<Control>,
    /// The connection's TLS, if it has one; boxed because it is large.
    pub tls: Option<Box<RefCell<Tls>>>,
    outbox: RefCell<Outbox>,
    /// Whether a task is writing the outbox.
    writing: Cell<bool>,
    /// Whether nothing more can be written.
    broken: Cell<bool>,
    receives: Cell<bool>,
    bytes_sent: Cell<u64>,
    owed: RefCell<VecDeque<Owed>>,
    latency: RefCell<SmallLatency>,
    /// Notified when the kernel accepts bytes, and when writing ends.
    progress: Notify,
    /// The client's share of the engine's memory, and what it takes when it is quiet.
    memory: ShareOwner,
    _quiet: HeldBytes,
    shared: Rc<Peers>,
}

impl Peer {
    /// The sending side of connection `number`, listed until it is [forgotten](Peers::forget).
    pub(crate) fn new(
        number: u64,
        stream: Rc<TcpStream>,
        control: Rc<Control>,
        tls: Option<Tls>,
        shared: Rc<Peers>,
    ) -> Rc<Self> {
        let worker = &shared.worker;
        let budget = Arc::clone(&worker.counters.queued[worker.index]);
        let memory = worker.counters.memory.join();
        control.watch_memory(memory.share());
        let mut quiet = HeldBytes::of(memory.share());
        quiet.set(MESSAGE_IDLE_BYTES);
        let outbox = Outbox::new(RECEIVER_QUEUE_BYTES, budget).count_in(memory.share());
        let peer = Rc::new(Peer {
            number,
            place: Cell::new(usize::MAX),
            stream,
            control,
            tls: tls.map(|tls| Box::new(RefCell::new(tls))),
            outbox: RefCell::new(outbox),
            writing: Cell::new(false),
            broken: Cell::new(false),
            receives: Cell::new(false),
            bytes_sent: Cell::new(0),
            owed: RefCell::new(VecDeque::new()),
            latency: RefCell::new(SmallLatency::default()),
            progress: Notify::new(),
            memory,
            _quiet: quiet,
            shared,
        });
        peer.shared.remember(&peer);
        peer
    }

    /// The client's share of the engine's memory.
    pub(crate) fn share(&self) -> &Arc<MemoryShare> {
        self.memory.share()
    }

    /// All clients of its worker.
    pub(crate) fn peers(&self) -> &Rc<Peers> {
        &self.shared
    }

    /// Number of the connection.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Sets whether it receives the broadcasts of others.
    pub(crate) fn set_receives(&self, receives: bool) {
        self.receives.set(receives);
    }

    /// Latency of the messages answered so far.
    pub(crate) fn latency(&self) -> SmallLatency {
        self.latency.borrow().clone()
    }

    /// Bytes that the kernel has not accepted.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outbox.borrow().waiting_bytes()
    }

    fn tally(&self) -> &TallyWriter {
        self.shared.worker.tally()
    }

    fn write_timeout(&self) -> Duration {
        self.shared.worker.config.write_timeout
    }

    /// Sends `replies` replies to messages that were received in full at `taken_over`.
    pub(crate) fn send(self: &Rc<Self>, bytes: &[u8], taken_over: Instant, replies: u32) {
        if bytes.is_empty() || self.broken.get() {
            return;
        }
        self.seal(bytes);
        // What could not be sent has no latency.
        if replies == 0 || self.broken.get() {
            return;
        }
        let waiting = self.waiting_bytes();
        if waiting == 0 {
            self.record(taken_over, replies);
        } else {
            let at = self.bytes_sent.get() + waiting as u64;
            self.owed.borrow_mut().push_back(Owed { at, taken_over, replies });
        }
    }

    /// Sends bytes, encrypted if the connection is.
    fn seal(self: &Rc<Self>, bytes: &[u8]) {
        let Some(tls) = &self.tls else { return self.send_sealed(bytes) };
        let mut sealed = self.shared.take_scratch();
        match tls.borrow_mut().encrypt(bytes, &mut sealed) {
            Ok(()) => self.send_sealed(&sealed),
            Err(error) => {
                tracing::debug!(connection = self.number, %error, "cannot encrypt");
                self.give_up();
            }
        }
        self.shared.put_scratch(sealed);
    }

    /// Sends bytes as they are: plaintext without TLS, or TLS records.
    pub(crate) fn send_sealed(self: &Rc<Self>, bytes: &[u8]) {
        if bytes.is_empty() || self.broken.get() {
            return;
        }
        let sent = match self.outbox.borrow().is_empty() {
            true => send_now(&self.stream, &[IoSlice::new(bytes)]),
            false => Ok(0),
        };
        match sent {
            Ok(sent) => {
                self.count_sent(sent);
                self.let_wait(|outbox| outbox.push(&bytes[sent..]));
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Passes on the broadcasts of others.
    pub(crate) fn deliver(self: &Rc<Self>, pieces: &[Broadcasts]) {
        if !self.receives.get() || self.broken.get() {
            return;
        }
        let others = || pieces.iter().filter(|piece| piece.from != self.number);
        let messages: u64 = others().map(|piece| u64::from(piece.messages)).sum();
        if messages == 0 {
            return;
        }
        if self.tls.is_some() {
            others().for_each(|piece| self.seal(&piece.frames));
        } else {
            self.deliver_plain(others);
        }
        // What could not be sent was not delivered.
        if !self.broken.get() {
            self.tally().add(|tally| &tally.deliveries, messages);
        }
    }

    /// Sends the pieces as they are, with one system call if the kernel accepts them.
    fn deliver_plain<'a, I: Iterator<Item = &'a Broadcasts>>(
        self: &Rc<Self>,
        others: impl Fn() -> I,
    ) {
        let mut sent = 0;
        if self.outbox.borrow().is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(others()) {
                *slice = IoSlice::new(&piece.frames);
                count += 1;
            }
            sent = match send_now(&self.stream, &slices[..count]) {
                Ok(sent) => sent,
                Err(error) => return self.fail(&error),
            };
            self.count_sent(sent);
        }
        for piece in others() {
            let skip = sent.min(piece.frames.len());
            sent -= skip;
            if skip < piece.frames.len() {
                self.let_wait(|outbox| outbox.push_shared(&piece.frames, skip));
            }
        }
    }

    fn count_sent(&self, bytes: usize) {
        self.tally().add(|tally| &tally.bytes_sent, bytes as u64);
        self.bytes_sent.set(self.bytes_sent.get() + bytes as u64);
    }

    fn record(&self, taken_over: Instant, replies: u32) {
        let latency = clock::since(taken_over);
        self.latency.borrow_mut().record(latency, replies);
        self.shared.worker.message_latency.borrow_mut().record(latency, u64::from(replies));
    }

    /// Queues bytes, and ensures that a task writes them.
    fn let_wait(self: &Rc<Self>, push: impl Fn(&mut Outbox) -> Result<(), Overflow>) {
        if self.share().is_condemned() {
            // What comes until the next tick would only add to it.
            return self.give_up_as(DeadlineCut::Memory);
        }
        while !self.broken.get() {
            let pushed = push(&mut self.outbox.borrow_mut());
            match pushed {
                Ok(()) => break,
                // Clients that read must not suffer from those that do not.
                Err(Overflow::All { .. }) if self.shared.cut_slowest(self.waiting_bytes()) => {}
                Err(overflow) => {
                    tracing::debug!(connection = self.number, "does not read: {overflow}");
                    return self.give_up_as(DeadlineCut::SlowConsumer);
                }
            }
        }
        if !self.outbox.borrow().is_empty() && !self.writing.replace(true) {
            self.control.arm_write(Some(clock::now() + self.write_timeout()));
            ring::spawn(Rc::clone(self).write_alone());
        }
    }

    /// The task that writes the outbox. A panic ends only this connection.
    async fn write_alone(self: Rc<Self>) {
        if let Err(panic) = caught(self.write_on()).await {
            let connection = self.number;
            tracing::error!(connection, "its writing {panic}: this is a bug, please report it");
            self.give_up_as(DeadlineCut::Defect);
        }
    }

    /// Writes the outbox, as fast as the receiver reads.
    async fn write_on(&self) {
        while !self.broken.get() && !self.outbox.borrow().is_empty() {
            failpoint("outbox");
            match writable(&self.stream).await {
                Ok(()) => self.write_some(),
                // The connection's read was meant: what is queued is still written.
                Err(error) if is_cancelled(&error) => {}
                Err(error) => {
                    self.fail(&error);
                    break;
                }
            }
        }
        self.control.arm_write(None);
        self.writing.set(false);
        self.progress.notify_waiters();
    }

    fn write_some(&self) {
        loop {
            let mut outbox = self.outbox.borrow_mut();
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = outbox.slices(&mut slices);
            if count == 0 || self.broken.get() {
                return;
            }
            let sent = match send_now(&self.stream, &slices[..count]) {
                Ok(0) => return,
                Ok(sent) => sent,
                Err(error) => {
                    drop(outbox);
                    return self.fail(&error);
                }
            };
            outbox.advance(sent);
            drop(outbox);
            self.count_sent(sent);
            self.control.arm_write(Some(clock::now() + self.write_timeout()));
            self.settle_owed();
            self.progress.notify_waiters();
        }
    }

    /// Records the latency of the replies that have now been sent.
    fn settle_owed(&self) {
        let mut owed = self.owed.borrow_mut();
        while let Some(first) = owed.pop_front_if(|first| first.at <= self.bytes_sent.get()) {
            self.record(first.taken_over, first.replies);
        }
    }

    /// Whether the replies to another read may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting_bytes() <= REPLIES_WAITING_BYTES && self.owed.borrow().len() < OWED_READS
    }

    /// Waits until there is room, nothing more can be written, or the connection is cut.
    pub(crate) async fn wait_for_room(&self) {
        while !self.has_room() && !self.broken.get() && self.control.cut().is_none() {
            tokio::select! {
                biased;
                () = self.progress.notified() => {}
                () = self.control.ended() => {}
            }
        }
    }

    /// Waits until everything is written or cannot be. A receiver that takes longer than
    /// `--write-timeout` for its last bytes is cut, even if it is making progress.
    pub(crate) async fn finish_writing(&self) {
        let written = async {
            while self.waiting_bytes() > 0 && !self.broken.get() {
                self.progress.notified().await;
            }
        };
        if clock::timeout(self.write_timeout(), written).await.is_err() {
            self.give_up_as(DeadlineCut::SlowConsumer);
        }
    }

    /// Gives up what waits for a client that holds too much; nothing more can be written then.
    /// Returns false if nothing waited, so that a last word may be sent.
    pub(crate) fn drop_waiting(&self) -> bool {
        if self.waiting_bytes() > 0 {
            self.give_up_as(DeadlineCut::Memory);
        }
        self.broken.get()
    }

    fn fail(&self, error: &io::Error) {
        tracing::debug!(connection = self.number, %error, "cannot write");
        self.give_up();
    }

    /// Writes nothing more, and ends the connection's read.
    fn give_up(&self) {
        self.give_up_as(DeadlineCut::Broken);
    }

    fn give_up_as(&self, cut: DeadlineCut) {
        self.broken.set(true);
        self.outbox.borrow_mut().clear();
        self.owed.borrow_mut().clear();
        // An earlier reason is kept over `Broken`; any other new reason replaces it.
        self.control
            .abort(self.control.cut().filter(|_| cut == DeadlineCut::Broken).unwrap_or(cut));
        self.progress.notify_waiters();
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
