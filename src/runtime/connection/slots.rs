//! Limits connections and streams, and chooses the worker for each. Only counts; touches no socket.

use crate::engine::observe::counters::Protocol;
use crate::sync::{AtomicU64, AtomicUsize, interleave};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Slots for connections and record streams. The acceptor takes them, and so do message
/// connections that carry records; dropping a slot frees it. Whoever waits for one is served in
/// the order of arrival.
#[derive(Debug)]
pub(crate) struct Slots {
    connections: Arc<Semaphore>,
    streams: Arc<Semaphore>,
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
            connections: Arc::new(Semaphore::new(connections_limit)),
            streams: Arc::new(Semaphore::new(streams_limit)),
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
        let connection = try_acquire(&self.connections)?;
        let stream = match protocol {
            Protocol::Records => Some(self.take_stream()?),
            Protocol::Messages => None,
        };
        Some(self.assign(protocol, connection, stream))
    }

    /// The same, but waits until one is free.
    pub(crate) async fn admit(self: &Arc<Self>, protocol: Protocol) -> Slot {
        // A client that waits for a stream already has its connection. Everyone takes the two in
        // this order, so no two can wait for each other.
        let connection = acquire(&self.connections).await;
        let stream = match protocol {
            Protocol::Records => Some(self.admit_stream().await),
            Protocol::Messages => None,
        };
        self.assign(protocol, connection, stream)
    }

    /// A slot for a record stream within a connection; `None` if none is free.
    pub(crate) fn take_stream(&self) -> Option<StreamSlot> {
        Some(StreamSlot { _permit: try_acquire(&self.streams)? })
    }

    /// The same, but waits until one is free.
    pub(crate) async fn admit_stream(&self) -> StreamSlot {
        StreamSlot { _permit: acquire(&self.streams).await }
    }

    /// How many connections and streams would get a slot now.
    #[cfg(feature = "simulation")]
    pub(crate) fn free(&self) -> (usize, usize) {
        (self.connections.available_permits(), self.streams.available_permits())
    }

    fn assign(
        self: &Arc<Self>,
        protocol: Protocol,
        connection: OwnedSemaphorePermit,
        stream: Option<StreamSlot>,
    ) -> Slot {
        let load_of = |kind: usize, worker: usize| self.loads[kind][worker].load(Ordering::Relaxed);
        let kind = protocol as usize;
        let key = |&worker: &usize| (load_of(kind, worker), load_of(1 - kind, worker));
        let worker = (0..self.loads[kind].len()).min_by_key(key).unwrap_or(0);
        self.loads[kind][worker].fetch_add(1, Ordering::Relaxed);
        let slots = Arc::clone(self);
        Slot { slots, protocol, worker, _connection: connection, _stream: stream }
    }
}

fn try_acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    interleave();
    Arc::clone(semaphore).try_acquire_owned().ok()
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    interleave();
    Arc::clone(semaphore).acquire_owned().await.expect("the semaphore is never closed")
}

/// One connection's slot, freed on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    protocol: Protocol,
    worker: usize,
    _connection: OwnedSemaphorePermit,
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
    }
}

/// A record stream's slot, freed on drop.
#[derive(Debug)]
pub(crate) struct StreamSlot {
    _permit: OwnedSemaphorePermit,
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
#[path = "slots_models.rs"]
mod models;

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Messages, Records};
    use std::pin::pin;

    /// What a future gives without waiting.
    macro_rules! poll {
        ($future:expr) => {
            tokio::select! { biased; value = $future => Some(value), () = async {} => None }
        };
    }

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
        // A record connection that gets a connection's slot but no stream's gives it back.
        let streams = (slots.take_stream(), slots.take_stream());
        assert!(slots.take(Records).is_none());
        assert!(slots.take(Messages).is_some());
        drop(streams);
        assert!(slots.take(Records).is_some());
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_order() {
        let slots = Slots::new(2, 1, 1);
        let first = slots.take(Records).unwrap();
        let mut second = pin!(slots.admit(Records));
        let mut third = pin!(slots.admit_stream());
        assert!(poll!(&mut second).is_none() && poll!(&mut third).is_none());
        // It waits for a stream and has its connection meanwhile.
        assert!(slots.take(Messages).is_none());
        drop(first);
        assert!(poll!(&mut third).is_none() && slots.take_stream().is_none());
        let second = poll!(&mut second).unwrap();
        assert!(poll!(&mut third).is_none());
        drop(second);
        assert!(poll!(&mut third).is_some());
    }

    #[test]
    fn numbers_count_from_one() {
        let slots = Slots::new(1, 1, 1);
        assert_eq!((slots.next_number(), slots.next_number()), (1, 2));
    }
}
