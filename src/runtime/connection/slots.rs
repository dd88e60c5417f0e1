//! Limits connections and streams, and chooses the worker for each. Only counts; touches no socket.

use crate::engine::observe::counters::Protocol;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots for connections and record streams. The acceptor takes them, and so do message
/// connections that carry records; dropping a slot frees it.
#[derive(Debug)]
pub(crate) struct Slots {
    connections_limit: usize,
    streams_limit: usize,
    connections: AtomicUsize,
    streams: AtomicUsize,
    /// Connections of each worker, by protocol: the number of idle clients must not decide where a
    /// few heavy streams go.
    loads: [Box<[AtomicUsize]>; 2],
    /// Connections and streams so far; each is identified by its number.
    numbers: AtomicU64,
}

impl Slots {
    /// Slots up to these limits, spread over `workers` workers.
    pub(crate) fn new(connections_limit: usize, streams_limit: usize, workers: usize) -> Arc<Self> {
        let loads = || (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Slots {
            connections_limit,
            streams_limit,
            connections: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            loads: [loads(), loads()],
            numbers: AtomicU64::new(0),
        })
    }

    /// The next connection's number, from 1.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A slot for a connection, on the worker with the fewest of its protocol; `None` if none is
    /// free. A record connection also takes a stream's slot.
    pub(crate) fn take(self: &Arc<Self>, protocol: Protocol) -> Option<Slot> {
        let stream = match protocol {
            Protocol::Records => Some(self.take_stream()?),
            Protocol::Messages => None,
        };
        if !take_one(&self.connections, self.connections_limit) {
            return None;
        }
        let load_of = |kind: usize, worker: usize| self.loads[kind][worker].load(Ordering::Relaxed);
        let kind = protocol as usize;
        let key = |&worker: &usize| (load_of(kind, worker), load_of(1 - kind, worker));
        let worker = (0..self.loads[kind].len()).min_by_key(key)?;
        self.loads[kind][worker].fetch_add(1, Ordering::Relaxed);
        Some(Slot { slots: Arc::clone(self), protocol, worker, _stream: stream })
    }

    /// A slot for a record stream within a connection; `None` if none is free.
    pub(crate) fn take_stream(self: &Arc<Self>) -> Option<StreamSlot> {
        take_one(&self.streams, self.streams_limit).then(|| StreamSlot { slots: Arc::clone(self) })
    }
}

fn take_one(taken: &AtomicUsize, limit: usize) -> bool {
    let add = |taken| (taken < limit).then_some(taken + 1);
    taken.try_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

/// One connection's slot, freed on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    protocol: Protocol,
    worker: usize,
    _stream: Option<StreamSlot>,
}

impl Slot {
    /// The worker that gets the connection.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// The slots it was taken from.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.loads[self.protocol as usize][self.worker].fetch_sub(1, Ordering::Relaxed);
        self.slots.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A record stream's slot, freed on drop.
#[derive(Debug)]
pub(crate) struct StreamSlot {
    slots: Arc<Slots>,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.slots.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a record stream holds until its result is printed.
#[derive(Debug)]
pub(crate) enum StreamHold {
    /// A separate connection.
    Connection(#[expect(dead_code, reason = "held for its drop")] Slot),
    /// A stream within a message connection.
    Stream(#[expect(dead_code, reason = "held for its drop")] StreamSlot),
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Messages, Records};

    #[test]
    fn each_goes_to_the_worker_with_the_fewest_of_its_kind() {
        let slots = Slots::new(20, 20, 3);
        let mut held: Vec<Slot> = (0..6).map(|_| slots.take(Records).unwrap()).collect();
        let mut workers: Vec<usize> = held.iter().map(Slot::worker).collect();
        workers.sort_unstable();
        assert_eq!(workers, [0, 0, 1, 1, 2, 2]);
        let message = slots.take(Messages).unwrap();
        held.retain(|slot| slot.worker() != 1);
        assert_eq!(slots.take(Records).map(|slot| slot.worker()), Some(1));
        let next = slots.take(Messages).unwrap();
        assert_ne!(next.worker(), message.worker());
    }

    #[test]
    fn the_limits_hold_at_their_edges() {
        let slots = Slots::new(3, 2, 2);
        let (first, second) = (slots.take(Records), slots.take(Records));
        assert!(first.is_some() && second.is_some());
        assert!(slots.take(Records).is_none() && slots.take_stream().is_none());
        let third = slots.take(Messages);
        assert!(third.is_some() && slots.take(Messages).is_none());
        drop(second);
        let stream = slots.take_stream();
        assert!(stream.is_some() && slots.take_stream().is_none());
        drop(stream);
        assert!(slots.take(Records).is_some());
        // A record connection that gets a stream's slot but no connection's gives it back.
        let fourth = slots.take(Messages);
        assert!(fourth.is_some() && slots.take(Records).is_none());
        assert!(slots.take_stream().is_some());
    }

    #[test]
    fn numbers_count_from_one() {
        let slots = Slots::new(1, 1, 1);
        assert_eq!((slots.next_number(), slots.next_number()), (1, 2));
    }
}
