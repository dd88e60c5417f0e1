//! The engine's counters since its start, per worker. Performs no I/O, formats nothing and reads no
//! clock.
//!
//! Each [`WorkerTally`] is written by the one thread that owns its [`TallyWriter`], so counting
//! takes a load and a store and no locked instruction. Readers may lag slightly, but never see a
//! count go back, nor an end without its beginning.

use crate::config::queued_bytes_of_worker;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::messages::outbox::QueueBudget;
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::{Reason, Status};
use crate::sync::AtomicU64;
use crate::wire::messages::fault::Fault;
use crate::wire::messages::frame::FrameType;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A count that everyone may read; its tally's [`TallyWriter`] writes it.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Only for [`TallyWriter`]: two writers would lose counts.
    #[inline]
    fn set(&self, n: u64) {
        // Pairs with `get`, so that whoever sees this count sees all that was counted before it.
        self.0.store(n, Ordering::Release);
    }

    /// The count.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
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

/// The only way to write a tally. It may be sent to the thread that counts; it can be neither
/// copied nor shared with a second thread, whose counts would be lost.
///
/// ```
/// use ringest::internals::Counters;
/// let (counters, writers) = Counters::new(1);
/// let thread = std::thread::spawn(move || writers.reporter.add(|tally| &tally.packets, 2));
/// thread.join().unwrap();
/// assert_eq!(counters.reporter.packets.get(), 2);
/// ```
///
/// Two threads cannot share it:
///
/// ```compile_fail,E0277
/// let (_, writers) = ringest::internals::Counters::new(1);
/// std::thread::scope(|scope| {
///     scope.spawn(|| writers.reporter.add(|tally| &tally.packets, 2));
///     scope.spawn(|| writers.reporter.add(|tally| &tally.packets, 2));
/// });
/// ```
///
/// Nor can each have its own:
///
/// ```compile_fail,E0599
/// let (_, writers) = ringest::internals::Counters::new(1);
/// let second = writers.reporter.clone();
/// ```
///
/// Readers cannot write:
///
/// ```compile_fail,E0624
/// let (counters, _) = ringest::internals::Counters::new(1);
/// counters.reporter.packets.set(2);
/// ```
#[derive(Debug)]
pub struct TallyWriter {
    tally: Arc<WorkerTally>,
    /// A cell can be sent, and not shared.
    _one_thread: PhantomData<Cell<()>>,
}

/// Writing takes a [`TallyWriter`]; its tally can be read through it as well.
impl Deref for TallyWriter {
    type Target = WorkerTally;

    fn deref(&self) -> &WorkerTally {
        &self.tally
    }
}

impl TallyWriter {
    fn new(tally: &Arc<WorkerTally>) -> Self {
        TallyWriter { tally: Arc::clone(tally), _one_thread: PhantomData }
    }

    /// Adds `n` to a count of this tally.
    #[inline]
    pub fn add(&self, count: impl FnOnce(&WorkerTally) -> &Count, n: u64) {
        let count = count(&self.tally);
        count.set(count.0.load(Ordering::Relaxed).wrapping_add(n));
    }

    /// Replaces a count of this tally, for values that are measured elsewhere.
    #[inline]
    pub fn set(&self, count: impl FnOnce(&WorkerTally) -> &Count, n: u64) {
        count(&self.tally).set(n);
    }

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
        self.add(|tally| &tally.faults[fault as usize], 1);
    }

    /// Counts a record stream that ended.
    pub fn count_stream(&self, reason: Option<Reason>) {
        match reason.filter(|reason| reason.status() != Status::Complete) {
            None => self.add(|tally| &tally.streams_complete, 1),
            Some(reason) => self.add(|tally| &tally.stream_reasons[reason as usize], 1),
        }
    }
}

/// The writers of all tallies, one for each thread that counts.
#[derive(Debug)]
pub struct TallyWriters {
    /// One per worker.
    pub workers: Vec<TallyWriter>,
    /// The acceptor's.
    pub acceptor: TallyWriter,
    /// The reporter's.
    pub reporter: TallyWriter,
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
    pub workers: Box<[Arc<WorkerTally>]>,
    /// Connections that never reached a worker.
    pub acceptor: Arc<WorkerTally>,
    /// Record streams, counted when they are reported.
    pub reporter: Arc<WorkerTally>,
    /// Batches of partials.
    pub partials: Arc<PartialCounts>,
    /// Bytes queued for the receivers of each worker. Each worker has its share of the total, so
    /// that it can decide on its own which receiver to cut.
    pub queued: Box<[Arc<QueueBudget>]>,
    /// The memory that peers make the engine take.
    pub memory: Arc<MemoryAccount>,
}

impl Counters {
    /// Counters at zero, for `workers` workers, without a limit on memory, and who may write them.
    pub fn new(workers: usize) -> (Arc<Self>, TallyWriters) {
        Self::with_memory(workers, MemoryAccount::unlimited())
    }

    /// The same, with an account of memory.
    pub fn with_memory(workers: usize, memory: Arc<MemoryAccount>) -> (Arc<Self>, TallyWriters) {
        let counters = Arc::new(Counters {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            acceptor: Arc::default(),
            reporter: Arc::default(),
            partials: Arc::default(),
            queued: (0..workers)
                .map(|_| QueueBudget::new(queued_bytes_of_worker(workers)))
                .collect(),
            memory,
        });
        let writers = TallyWriters {
            workers: counters.workers.iter().map(TallyWriter::new).collect(),
            acceptor: TallyWriter::new(&counters.acceptor),
            reporter: TallyWriter::new(&counters.reporter),
        };
        (counters, writers)
    }

    /// Every tally.
    pub fn tallies(&self) -> impl Iterator<Item = &WorkerTally> {
        self.workers.iter().chain([&self.acceptor, &self.reporter]).map(Arc::as_ref)
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
        // Reads `closed` first: whoever sees an end also sees its beginning, so a connection that
        // comes or goes in between cannot hide another one that stays.
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
#[path = "counters_models.rs"]
mod models;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_the_threads() {
        let (counters, writers) = Counters::new(2);
        writers.workers[0].add(|t| &t.opened[Protocol::Messages as usize], 3);
        writers.workers[1].add(|t| &t.opened[Protocol::Messages as usize], 2);
        writers.workers[1].add(|t| &t.closed[Protocol::Messages as usize], 1);
        assert_eq!(counters.active(Protocol::Messages), 4);
        assert_eq!(counters.active(Protocol::Records), 0);
        writers.acceptor.count_fault(Fault::ConnectionsLimit);
        writers.workers[0].count_fault(Fault::ConnectionsLimit);
        assert_eq!(counters.sum(|t| &t.faults[Fault::ConnectionsLimit as usize]), 2);
        writers.reporter.count_stream(None);
        writers.reporter.count_stream(Some(Reason::Reset));
        assert_eq!(counters.sum(|t| &t.stream_reasons[Reason::Reset as usize]), 1);
    }

    #[test]
    fn latencies_are_merged_once() {
        let (counters, writers) = Counters::new(2);
        let mut gathered = Latency::default();
        gathered.record(Duration::from_micros(5), 4);
        writers.workers[0].merge_message_latency(&mut gathered);
        writers.workers[1].merge_message_latency(&mut gathered);
        assert_eq!(counters.message_latency().summary().count, 4);
        gathered.record(Duration::from_micros(7), 2);
        writers.workers[1].merge_packet_latency(&mut gathered);
        writers.workers[0].merge_packet_latency(&mut gathered);
        assert_eq!(counters.packet_latency().summary().count, 2);
        assert_eq!(counters.message_latency().summary().count, 4);
    }
}
