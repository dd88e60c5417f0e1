//! What the message connections of one worker share: serves none of them.

use super::deadlines::Deadlines;
use super::gate::Gate;
use super::hub::Hub;
use super::peer::Peer;
use super::record_stream::Streams;
use super::ring::Buffers;
use crate::engine::latency::Latency;
use crate::wire::session::Policy;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Outboxes that are kept for the next reply, and the largest that is.
const SPARE_OUTBOXES: usize = 8;
const SPARE_OUTBOX_BYTES: usize = 256 << 10;

/// What the message connections of one worker share.
pub struct Messages {
    /// What record streams share, those within DATA among them.
    pub streams: Rc<Streams>,
    /// The worker's registered windows.
    pub buffers: Rc<Buffers>,
    /// The worker's timer.
    pub deadlines: Rc<Deadlines>,
    /// The rules of every session.
    pub policy: Arc<Policy>,
    /// Who is let in.
    pub gate: Arc<Gate>,
    /// The way to the clients of all workers.
    pub hub: Hub,
    /// The clients of this worker, in no order.
    pub peers: RefCell<Vec<Rc<Peer>>>,
    /// Latencies since the last tick.
    pub latency: RefCell<Latency>,
    outboxes: RefCell<Vec<Vec<u8>>>,
}

impl Messages {
    /// With a place for every client that there may be.
    pub fn new(
        streams: Rc<Streams>,
        buffers: Rc<Buffers>,
        deadlines: Rc<Deadlines>,
        policy: Arc<Policy>,
        gate: Arc<Gate>,
        hub: Hub,
    ) -> Rc<Self> {
        let connections = streams.config.max_connections;
        Rc::new(Messages {
            streams,
            buffers,
            deadlines,
            policy,
            gate,
            hub,
            peers: RefCell::new(Vec::with_capacity(connections)),
            latency: RefCell::new(Latency::default()),
            outboxes: RefCell::new(Vec::with_capacity(SPARE_OUTBOXES)),
        })
    }

    /// Memory for replies, empty, used before where there is some.
    pub fn take_outbox(&self) -> Vec<u8> {
        self.outboxes.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back.
    pub fn put_outbox(&self, mut outbox: Vec<u8>) {
        let mut spare = self.outboxes.borrow_mut();
        if spare.len() < SPARE_OUTBOXES && outbox.capacity() <= SPARE_OUTBOX_BYTES {
            outbox.clear();
            spare.push(outbox);
        }
    }

    /// A client that is there from now on.
    pub fn remember(&self, peer: &Rc<Peer>) {
        let mut peers = self.peers.borrow_mut();
        peer.place().set(peers.len());
        peers.push(Rc::clone(peer));
    }

    /// A client that is not there any more.
    pub fn forget(&self, peer: &Peer) {
        let mut peers = self.peers.borrow_mut();
        let place = peer.place().get();
        peers.swap_remove(place);
        if let Some(moved) = peers.get(place) {
            moved.place().set(place);
        }
    }

    /// Cuts the client for whom the most waits, where that is more than `bytes`; false where none
    /// is so slow.
    pub fn cut_slowest(&self, bytes: usize) -> bool {
        let peers = self.peers.borrow();
        let slowest = peers.iter().max_by_key(|peer| peer.waiting_bytes());
        let Some(slowest) = slowest.filter(|peer| peer.waiting_bytes() > bytes) else {
            return false;
        };
        tracing::debug!(connection = slowest.number(), "cut: the most bytes wait for it");
        slowest.cut();
        true
    }

    /// What the worker's timer does at each tick.
    pub fn each_tick(&self) {
        let mut latency = self.latency.borrow_mut();
        if !latency.is_empty() {
            self.streams.tally().merge_message_latency(&mut latency);
        }
    }
}
