//! The engine's counters since its start, per worker. Performs no I/O, formats nothing and reads no
//! clock.
//!
//! Each [`WorkerTally`] has a single writing thread, so counting takes a load and a store and no
//! locked instruction. Readers may lag slightly, but never see a count go back.

use crate::config::queued_bytes_of_worker;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::messages::outbox::QueueBudget;
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::{Reason, Status};
use crate::wire::messages::fault::Fault;
use crate::wire::messages::frame::FrameType;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A count with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the tally's thread may call it.
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

/// The two kinds of connection.
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

    /// The name used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Records => "records",
            Protocol::Messages => "messages",
        }
    }
}

/// The counters of one thread. Arrays follow the order of their type's `ALL`.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerTally {
    /// Connections opened, by `Protocol`.
    pub opened: [Count; 2],
    /// Connections that have ended, by `Protocol`.
    pub closed: [Count; 2],
    /// Connections that closed without sending a byte, by `Protocol`.
    pub empty: [Count; 2],
    /// Connections, and streams in DATA, that waited for a slot, by `Protocol`.
    pub admission_waits: [Count; 2],
    /// Total time that they waited, in nanoseconds.
    pub admission_wait_ns: [Count; 2],
    /// Bytes received from sockets, by `Protocol`.
    pub bytes_received: [Count; 2],
    /// Bytes handed to the kernel.
    pub bytes_sent: Count,
    /// Complete frames from clients, by [`FrameType`], including rejected ones.
    pub messages: [Count; FrameType::ALL.len()],
    /// Deliveries of broadcasts, counted per receiver.
    pub deliveries: Count,
    /// DATA messages without records.
    pub opaque_data: Count,
    /// Data records that became rows.
    pub records: Count,
    /// Whole packets of records.
    pub packets: Count,
    /// Reads of record connections that returned bytes.
    pub record_reads: Count,
    /// Reads among them that waited for more bytes.
    pub coalesced_reads: Count,
    /// Total time that those reads waited, in nanoseconds.
    pub coalesce_wait_ns: Count,
    /// Record streams that ended complete.
    pub streams_complete: Count,
    /// Record streams that ended otherwise, by [`Reason`].
    pub stream_reasons: [Count; Reason::ALL.len()],
    /// Total time spent on writing and syncing files of results, in nanoseconds.
    pub result_write_ns: Count,
    /// Total time from each result until it was printed, in nanoseconds.
    pub result_wait_ns: Count,
    /// Results written to a file.
    pub result_files_written: Count,
    /// Results that could not be written to a file.
    pub result_files_failed: Count,
    /// Raw bytes in captures.
    pub captured_bytes: Count,
    /// Captures that lack bytes or are missing.
    pub captures_incomplete: Count,
    /// Message connections that failed, by [`Fault`].
    pub faults: [Count; Fault::ALL.len()],
    /// Messages rejected by a rate limit.
    pub rate_limited: Count,
    /// Receivers cut because they did not read.
    pub slow_consumers: Count,
    /// Wrong credentials, and messages that needed authentication.
    pub auth_failures: Count,
    /// Processor time of the thread so far, in nanoseconds.
    pub cpu_ns: Count,
    /// Latency of messages, from complete in the window until the reply was passed to the kernel.
    message_latency: Mutex<Latency>,
    /// Latency of record packets, from complete in the window until their rows were decoded.
    packet_latency: Mutex<Latency>,
}

/// Adds the latencies that a thread has gathered, and clears them.
fn merge(all: &Mutex<Latency>, gathered: &mut Latency) {
    if !gathered.is_empty() {
        all.lock().unwrap_or_else(PoisonError::into_inner).merge(gathered);
        gathered.clear();
    }
}

impl WorkerTally {
    /// Adds message latencies that the thread has gathered, and clears them.
    pub fn merge_message_latency(&self, gathered: &mut Latency) {
        merge(&self.message_latency, gathered);
    }

    /// Adds packet latencies that the thread has gathered, and clears them.
    pub fn merge_packet_latency(&self, gathered: &mut Latency) {
        merge(&self.packet_latency, gathered);
    }

    /// Counts a message connection that failed.
    pub fn count_fault(&self, fault: Fault) {
        self.faults[fault as usize].add(1);
    }

    /// Counts a record stream that ended.
    pub fn count_stream(&self, reason: Option<Reason>) {
        match reason.filter(|reason| reason.status() != Status::Complete) {
            None => self.streams_complete.add(1),
            Some(reason) => self.stream_reasons[reason as usize].add(1),
        }
    }
}

/// Batches of partials. Unlike the counts of a tally, several threads write these.
#[derive(Debug, Default)]
pub struct PartialCounts {
    written: AtomicU64,
    failed: AtomicU64,
    write_ns: AtomicU64,
    wait_ns: AtomicU64,
    waiting_bytes: AtomicU64,
}

impl PartialCounts {
    /// Counts a batch that was written.
    pub fn add_written(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a batch that could not be written.
    pub fn add_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds time spent on writing and syncing a batch.
    pub fn add_write_time(&self, time: Duration) {
        self.write_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Adds time for which an aggregation thread waited, because too many batches did.
    pub fn add_wait_time(&self, time: Duration) {
        self.wait_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Sets the bytes of the batches that wait or are being written.
    pub fn set_waiting_bytes(&self, bytes: usize) {
        self.waiting_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// Seconds spent on writing and syncing, over all writers.
    pub fn write_seconds(&self) -> f64 {
        self.write_ns.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// Seconds for which aggregation threads waited.
    pub fn wait_seconds(&self) -> f64 {
        self.wait_ns.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// Bytes of the batches that wait or are being written.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Batches that were written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Batches that could not be written.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// All counters: a tally for each worker, the acceptor and the reporter, and the queue budgets.
#[derive(Debug)]
pub struct Counters {
    /// One per worker.
    pub workers: Box<[WorkerTally]>,
    /// Connections that never reached a worker.
    pub acceptor: WorkerTally,
    /// Record streams, counted when they are reported.
    pub reporter: WorkerTally,
    /// Batches of partials.
    pub partials: Arc<PartialCounts>,
    /// Bytes queued for the receivers of each worker. Each worker has its share of the total, so
    /// that it can decide on its own which receiver to cut.
    pub queued: Box<[Arc<QueueBudget>]>,
    /// The memory that peers make the engine take.
    pub memory: Arc<MemoryAccount>,
}

impl Counters {
    /// Counters at zero, for `workers` workers, without a limit on memory.
    pub fn new(workers: usize) -> Arc<Self> {
        Self::with_memory(workers, MemoryAccount::unlimited())
    }

    /// The same, with an account of memory.
    pub fn with_memory(workers: usize, memory: Arc<MemoryAccount>) -> Arc<Self> {
        Arc::new(Counters {
            workers: (0..workers).map(|_| WorkerTally::default()).collect(),
            acceptor: WorkerTally::default(),
            reporter: WorkerTally::default(),
            partials: Arc::default(),
            queued: (0..workers)
                .map(|_| QueueBudget::new(queued_bytes_of_worker(workers)))
                .collect(),
            memory,
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

    /// Bytes queued for all receivers.
    pub fn queued_bytes(&self) -> usize {
        self.queued.iter().map(|budget| budget.queued_bytes()).sum()
    }

    /// Open connections of a protocol.
    pub fn active(&self, protocol: Protocol) -> u64 {
        // Reads `closed` first, so that a connection that ends in between cannot make the
        // difference negative.
        let closed = self.sum(|tally| &tally.closed[protocol as usize]);
        self.sum(|tally| &tally.opened[protocol as usize]).saturating_sub(closed)
    }

    /// Latency of all messages so far.
    pub fn message_latency(&self) -> Latency {
        self.sum_latency(|worker| &worker.message_latency)
    }

    /// Latency of all record packets so far.
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
