//! What the engine has counted since its start, worker by worker: opens nothing, formats nothing
//! and reads no clock.
//!
//! Each [`WorkerTally`] has one writing thread, so counting is a load and a store and no locked
//! instruction; whoever reads may be a moment behind, and never sees a count go back.

use crate::config::queued_bytes_of_worker;
use crate::engine::messages::outbox::QueueBudget;
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::{Reason, Status};
use crate::wire::messages::fault::Fault;
use crate::wire::messages::frame::FrameType;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the tally's own thread may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the count, for values that are measured elsewhere.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The two kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Record streams.
    Records,
    /// The message protocol.
    Messages,
}

impl Protocol {
    /// Both.
    pub const ALL: [Protocol; 2] = [Protocol::Records, Protocol::Messages];

    /// The word that stands in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Records => "records",
            Protocol::Messages => "messages",
        }
    }
}

/// What one thread has counted. Arrays are in the order of the `ALL` of their type.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerTally {
    /// Connections taken over, by [`Protocol`].
    pub opened: [Count; 2],
    /// Connections that have ended, by [`Protocol`].
    pub closed: [Count; 2],
    /// Bytes received, by [`Protocol`], as they came from the socket.
    pub bytes_received: [Count; 2],
    /// Bytes handed to the kernel.
    pub bytes_sent: Count,
    /// Whole frames from clients, by [`FrameType`], refused ones included.
    pub messages: [Count; FrameType::ALL.len()],
    /// Broadcasts handed to a receiver, each receiver counted.
    pub deliveries: Count,
    /// DATA that carried no records.
    pub opaque_data: Count,
    /// Data records that became rows.
    pub records: Count,
    /// Whole packets of records.
    pub packets: Count,
    /// Reads of record connections that brought bytes.
    pub record_reads: Count,
    /// Those among them that waited to be worth it.
    pub coalesced_reads: Count,
    /// How long they waited together, in nanoseconds.
    pub coalesce_wait_ns: Count,
    /// Record streams that ended complete.
    pub streams_complete: Count,
    /// Record streams that ended otherwise, by [`Reason`].
    pub stream_reasons: [Count; Reason::ALL.len()],
    /// Results that were written to a file.
    pub result_files_written: Count,
    /// Results that should have been and could not.
    pub result_files_failed: Count,
    /// Raw bytes that are in captures.
    pub captured_bytes: Count,
    /// Captures that lack bytes, or are not there.
    pub captures_incomplete: Count,
    /// Message connections that ended badly, by [`Fault`].
    pub faults: [Count; Fault::ALL.len()],
    /// Messages refused by a rate limit.
    pub rate_limited: Count,
    /// Receivers cut because they did not read.
    pub slow_consumers: Count,
    /// Refused credentials, and messages that needed authentication.
    pub auth_failures: Count,
    /// Processor time of the thread so far, in nanoseconds.
    pub cpu_ns: Count,
    /// Latency of messages, from whole in the window until the reply was handed to the kernel.
    message_latency: Mutex<Latency>,
    /// Latency of packets of records, from whole in the window until their rows were there.
    packet_latency: Mutex<Latency>,
}

/// Adds what a thread has gathered by itself, and empties it.
fn merge(all: &Mutex<Latency>, gathered: &mut Latency) {
    if !gathered.is_empty() {
        all.lock().unwrap_or_else(PoisonError::into_inner).merge(gathered);
        gathered.clear();
    }
}

impl WorkerTally {
    /// Adds latencies of messages that the thread has gathered by itself, and empties them.
    pub fn merge_message_latency(&self, gathered: &mut Latency) {
        merge(&self.message_latency, gathered);
    }

    /// Adds latencies of packets that the thread has gathered by itself, and empties them.
    pub fn merge_packet_latency(&self, gathered: &mut Latency) {
        merge(&self.packet_latency, gathered);
    }

    /// One more message connection that ended badly.
    pub fn count_fault(&self, fault: Fault) {
        self.faults[fault as usize].add(1);
    }

    /// One more record stream that ended.
    pub fn count_stream(&self, reason: Option<Reason>) {
        match reason.filter(|reason| reason.status() != Status::Complete) {
            None => self.streams_complete.add(1),
            Some(reason) => self.stream_reasons[reason as usize].add(1),
        }
    }
}

/// Everything that is counted: a tally for each worker, one for the acceptor, one for the
/// reporter, and what all of them share.
#[derive(Debug)]
pub struct Counters {
    /// One a worker, in their order.
    pub workers: Box<[WorkerTally]>,
    /// Connections that no worker saw.
    pub acceptor: WorkerTally,
    /// Record streams, counted when they are reported.
    pub reporter: WorkerTally,
    /// Bytes that wait to be written to the receivers of each worker. Each has its part of the
    /// whole, so that it can decide by itself whom to cut.
    pub queued: Box<[Arc<QueueBudget>]>,
}

impl Counters {
    /// All zero, for `workers` workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Counters {
            workers: (0..workers).map(|_| WorkerTally::default()).collect(),
            acceptor: WorkerTally::default(),
            reporter: WorkerTally::default(),
            queued: (0..workers)
                .map(|_| QueueBudget::new(queued_bytes_of_worker(workers)))
                .collect(),
        })
    }

    /// Every tally.
    pub fn tallies(&self) -> impl Iterator<Item = &WorkerTally> {
        self.workers.iter().chain([&self.acceptor, &self.reporter])
    }

    /// The sum of one count over all tallies.
    pub fn sum(&self, count: impl Fn(&WorkerTally) -> &Count) -> u64 {
        self.tallies().map(|tally| count(tally).get()).sum()
    }

    /// Bytes that wait to be written to receivers.
    pub fn queued_bytes(&self) -> usize {
        self.queued.iter().map(|budget| budget.queued_bytes()).sum()
    }

    /// Connections of a protocol that are there now.
    pub fn active(&self, protocol: Protocol) -> u64 {
        // Closed first: a connection that ends in between must not make the difference negative.
        let closed = self.sum(|tally| &tally.closed[protocol as usize]);
        self.sum(|tally| &tally.opened[protocol as usize]).saturating_sub(closed)
    }

    /// Latency of all messages so far.
    pub fn message_latency(&self) -> Latency {
        self.sum_latency(|worker| &worker.message_latency)
    }

    /// Latency of all packets of records so far.
    pub fn packet_latency(&self) -> Latency {
        self.sum_latency(|worker| &worker.packet_latency)
    }

    fn sum_latency(&self, of: impl Fn(&WorkerTally) -> &Mutex<Latency>) -> Latency {
        let mut sum = Latency::default();
        for worker in &self.workers {
            sum.merge(&of(worker).lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn counts_add_up_over_the_threads() {
        let counters = Counters::new(2);
        counters.workers[0].opened[Protocol::Messages as usize].add(3);
        counters.workers[1].opened[Protocol::Messages as usize].add(2);
        counters.workers[1].closed[Protocol::Messages as usize].add(1);
        assert_eq!(counters.active(Protocol::Messages), 4);
        assert_eq!(counters.active(Protocol::Records), 0);
        counters.acceptor.count_fault(Fault::ConnectionsLimit);
        counters.workers[0].count_fault(Fault::ConnectionsLimit);
        assert_eq!(counters.sum(|t| &t.faults[Fault::ConnectionsLimit as usize]), 2);
        counters.reporter.count_stream(None);
        counters.reporter.count_stream(Some(Reason::Reset));
        assert_eq!(counters.sum(|t| &t.stream_reasons[Reason::Reset as usize]), 1);
    }

    #[test]
    fn latencies_are_merged_once() {
        let counters = Counters::new(2);
        let mut gathered = Latency::default();
        gathered.record(Duration::from_micros(5), 4);
        counters.workers[0].merge_message_latency(&mut gathered);
        counters.workers[1].merge_message_latency(&mut gathered);
        assert_eq!(counters.message_latency().summary().count, 4);
        gathered.record(Duration::from_micros(7), 2);
        counters.workers[1].merge_packet_latency(&mut gathered);
        counters.workers[0].merge_packet_latency(&mut gathered);
        assert_eq!(counters.packet_latency().summary().count, 2);
        assert_eq!(counters.message_latency().summary().count, 4);
    }
}
