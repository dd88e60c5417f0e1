//! A snapshot of a running engine as plain values. Reads no clock, file or socket. Serialised, it
//! is the body of `/stats.json`, whose keys never change their meaning.

use super::counters::{Count, Counters, Protocol, WorkerTally};
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::Reason;
use crate::wire::messages::fault::Fault;
use crate::wire::messages::frame::FrameType;
use serde::{Serialize, Serializer};
use std::time::{Duration, Instant};

/// The types that a client may send, with their names in metrics and keys. A frame of another type
/// is counted as `invalid_message_type`, not as a message.
pub(crate) const CLIENT_TYPES: [(FrameType, &str); 7] = [
    (FrameType::Ping, "ping"),
    (FrameType::Echo, "echo"),
    (FrameType::Broadcast, "broadcast"),
    (FrameType::Auth, "auth"),
    (FrameType::Data, "data"),
    (FrameType::Close, "close"),
    (FrameType::Error, "error"),
];

/// Counts by name, in the order of the documentation; serialised as an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByWord(Vec<(&'static str, u64)>);

impl ByWord {
    fn of(words: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        ByWord(words.into_iter().collect())
    }

    /// Each name with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The sum of all counts.
    pub fn sum(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }
}

impl Serialize for ByWord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Whether new connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// Connections are accepted.
    Ready,
    /// The engine is stopping: it accepts none, and open ones may still finish.
    Draining,
}

/// Facts about the process besides its counters.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Ready or draining.
    pub state: EngineState,
    /// Time since the start.
    pub uptime: Duration,
    /// Start time since the Unix epoch.
    pub started: Duration,
    /// Resident memory, if known.
    pub resident_bytes: Option<u64>,
    /// Core of each worker, in the order of the counters.
    pub cores: &'a [usize],
}

/// Counts at one point in time. [`Rates`] are computed from two of them.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    at: Instant,
    messages: u64,
    records: u64,
    faults: u64,
    cpu_ns: Vec<u64>,
}

impl Sample {
    /// The counts as they are at `now`.
    pub(crate) fn take(counters: &Counters, now: Instant) -> Self {
        Sample {
            at: now,
            messages: messages(counters).sum(),
            records: counters.sum(|tally| &tally.records),
            faults: faults(counters).sum(),
            cpu_ns: counters.workers.iter().map(|worker| worker.cpu_ns.get()).collect(),
        }
    }

    /// The rates since an earlier sample of the same counters; all zero if no time has passed.
    pub(crate) fn since(&self, earlier: &Sample) -> Rates {
        let seconds = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        if seconds == 0.0 {
            return Rates::default();
        }
        let delta = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64;
        let messages = delta(self.messages, earlier.messages);
        let faults = delta(self.faults, earlier.faults);
        let busy = |(&later, &earlier)| (delta(later, earlier) / 1e9 / seconds).min(1.0);
        Rates {
            seconds,
            messages_per_second: messages / seconds,
            records_per_second: delta(self.records, earlier.records) / seconds,
            faults_per_second: faults / seconds,
            fault_share: faults / messages.max(faults).max(1.0),
            busy_shares: self.cpu_ns.iter().zip(&earlier.cpu_ns).map(busy).collect(),
        }
    }
}

/// Rates between two samples, about a second apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Time between the two; 0 until there are two.
    pub seconds: f64,
    /// Messages from clients.
    pub messages_per_second: f64,
    /// Records that became rows.
    pub records_per_second: f64,
    /// Message connections that failed.
    pub faults_per_second: f64,
    /// Faults per message in that time: 0 to 1, and 1 if there were only faults.
    pub fault_share: f64,
    /// Share of that time in which each worker was busy, 0 to 1. Workers publish their processor
    /// time now and then, so a share is accurate to a few hundredths.
    pub busy_shares: Vec<f64>,
}

/// Counts by listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByListener {
    /// Count of the record listener.
    pub records: u64,
    /// Count of the message listener.
    pub messages: u64,
}

impl ByListener {
    fn of(count: impl Fn(Protocol) -> u64) -> Self {
        ByListener { records: count(Protocol::Records), messages: count(Protocol::Messages) }
    }

    /// Each listener's name with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let counts = [self.records, self.messages];
        Protocol::ALL.into_iter().map(Protocol::as_str).zip(counts)
    }
}

/// Seconds by listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SecondsByListener {
    /// Time of the record listener.
    pub records: f64,
    /// Time of the message listener.
    pub messages: f64,
}

impl From<ByListener> for SecondsByListener {
    fn from(ns: ByListener) -> Self {
        SecondsByListener { records: ns.records as f64 / 1e9, messages: ns.messages as f64 / 1e9 }
    }
}

impl SecondsByListener {
    /// Each listener's name with its time.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + use<> {
        let seconds = [self.records, self.messages];
        Protocol::ALL.into_iter().map(Protocol::as_str).zip(seconds)
    }
}

/// Latency of all messages, or of all packets, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MeasuredLatency {
    /// Number of measurements.
    pub count: u64,
    /// The mean.
    pub mean_us: f64,
    /// The median.
    pub p50_us: f64,
    /// The 90th percentile.
    pub p90_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// The 99.9th percentile.
    pub p99_9_us: f64,
    /// The maximum.
    pub max_us: f64,
}

impl From<&Latency> for MeasuredLatency {
    fn from(latency: &Latency) -> Self {
        let summary = latency.summary();
        let sum_us = latency.sum().as_secs_f64() * 1e6;
        MeasuredLatency {
            count: summary.count,
            mean_us: rounded(sum_us / summary.count.max(1) as f64),
            p50_us: summary.p50,
            p90_us: summary.p90,
            p99_us: summary.p99,
            p99_9_us: summary.p99_9,
            max_us: summary.max,
        }
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoreSnapshot {
    /// The core that it is pinned to.
    pub core: usize,
    /// Share of the last second in which it was busy, 0 to 1.
    pub busy_share: f64,
    /// Its open connections, of both listeners.
    pub connections_active: u64,
    /// Messages that it received since the start.
    pub messages: u64,
    /// Its processor time since the start.
    pub cpu_seconds: f64,
}

/// The whole state at one point in time. Counts are since the start of the engine, rates are those
/// of about the last second.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// Version of the program.
    pub version: &'static str,
    /// Ready or draining.
    pub state: EngineState,
    /// Time since the start.
    pub uptime_seconds: f64,
    /// Start time, in seconds since the Unix epoch.
    pub start_time_seconds: f64,
    /// Resident memory; null if unknown.
    pub resident_memory_bytes: Option<u64>,
    /// Memory that is counted: the program's, and what peers make it take.
    pub memory_counted_bytes: u64,
    /// The most that it may be (`--memory-limit`).
    pub memory_limit_bytes: u64,
    /// Open connections.
    pub connections_active: ByListener,
    /// Connections accepted by workers.
    pub connections_opened: ByListener,
    /// Connections that closed without sending a byte.
    pub connections_empty: ByListener,
    /// Connections, and streams in DATA, that waited for a slot.
    pub admission_waits: ByListener,
    /// Total time that they waited.
    pub admission_wait_seconds: SecondsByListener,
    /// Messages from clients, including rejected ones.
    pub messages: u64,
    /// Messages by type.
    pub messages_by_type: ByWord,
    /// Records that became rows.
    pub records: u64,
    /// Whole packets of records.
    pub packets: u64,
    /// Reads of record connections that returned bytes.
    pub record_reads: u64,
    /// Reads among them that waited for more bytes.
    pub record_coalesced_reads: u64,
    /// Total time that those reads waited; no byte waited longer than its read.
    pub record_coalesce_wait_seconds: f64,
    /// Bytes received from sockets.
    pub received_bytes: ByListener,
    /// Bytes passed to the kernel.
    pub sent_bytes: u64,
    /// Deliveries of broadcasts, counted per receiver.
    pub deliveries: u64,
    /// DATA messages without records.
    pub opaque_data: u64,
    /// Record streams that ended complete.
    pub streams_complete: u64,
    /// Record streams that ended otherwise.
    pub streams_by_reason: ByWord,
    /// Total time spent on writing and syncing files of results, over all writers.
    pub result_write_seconds: f64,
    /// Total time from each result until it was printed.
    pub result_wait_seconds: f64,
    /// Results written to a file.
    pub result_files_written: u64,
    /// Results that could not be written to a file.
    pub result_files_failed: u64,
    /// Batches of partials that were written.
    pub partials_written: u64,
    /// Batches of partials that could not be written.
    pub partials_failed: u64,
    /// Total time spent on writing and syncing partials, over all writers.
    pub partials_write_seconds: f64,
    /// Total time for which aggregation threads waited, because too many batches did.
    pub partials_wait_seconds: f64,
    /// Bytes of the batches that wait or are being written.
    pub partials_waiting_bytes: u64,
    /// Raw bytes in captures.
    pub captured_bytes: u64,
    /// Captures that lack bytes or are missing.
    pub captures_incomplete: u64,
    /// Message connections that failed.
    pub faults: u64,
    /// Message connections that failed, by fault.
    pub faults_by_reason: ByWord,
    /// Messages rejected by a rate limit.
    pub rate_limited: u64,
    /// Receivers cut because they did not read.
    pub slow_consumers: u64,
    /// Wrong credentials, and messages that needed authentication.
    pub auth_failures: u64,
    /// Bytes queued for receivers.
    pub queued_bytes: u64,
    /// The period that the rates below cover; 0 during the first second.
    pub rates_over_seconds: f64,
    /// Messages from clients per second.
    pub messages_per_second: f64,
    /// Records per second.
    pub records_per_second: f64,
    /// Faults per second.
    pub faults_per_second: f64,
    /// Faults per message in that period, 0 to 1.
    pub fault_share: f64,
    /// Latency of messages.
    pub message_latency: MeasuredLatency,
    /// Latency of record packets.
    pub packet_latency: MeasuredLatency,
    /// One entry per worker.
    pub cores: Vec<CoreSnapshot>,
    /// Histogram of message latencies.
    #[serde(skip)]
    pub message_latencies: Latency,
    /// Histogram of packet latencies.
    #[serde(skip)]
    pub packet_latencies: Latency,
}

impl Snapshot {
    /// Takes a snapshot. Each worker's latencies are locked while they are copied; nothing else is
    /// locked.
    pub fn take(counters: &Counters, facts: &Facts<'_>, rates: &Rates) -> Self {
        let sum = |count: fn(&WorkerTally) -> &Count| counters.sum(count);
        let (message_latencies, packet_latencies) =
            (counters.message_latency(), counters.packet_latency());
        let (by_type, by_fault) = (messages(counters), faults(counters));
        let reasons = (0..)
            .zip(Reason::ALL)
            .map(|(i, reason)| (reason.as_str(), counters.sum(|tally| &tally.stream_reasons[i])));
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            state: facts.state,
            uptime_seconds: rounded(facts.uptime.as_secs_f64()),
            start_time_seconds: rounded(facts.started.as_secs_f64()),
            resident_memory_bytes: facts.resident_bytes,
            memory_counted_bytes: counters.memory.used() as u64,
            memory_limit_bytes: counters.memory.limit() as u64,
            connections_active: ByListener::of(|protocol| counters.active(protocol)),
            connections_opened: by_protocol(counters, |tally| &tally.opened),
            connections_empty: by_protocol(counters, |tally| &tally.empty),
            admission_waits: by_protocol(counters, |tally| &tally.admission_waits),
            admission_wait_seconds: by_protocol(counters, |tally| &tally.admission_wait_ns).into(),
            messages: by_type.sum(),
            messages_by_type: by_type,
            records: sum(|tally| &tally.records),
            packets: sum(|tally| &tally.packets),
            record_reads: sum(|tally| &tally.record_reads),
            record_coalesced_reads: sum(|tally| &tally.coalesced_reads),
            record_coalesce_wait_seconds: sum(|tally| &tally.coalesce_wait_ns) as f64 / 1e9,
            received_bytes: by_protocol(counters, |tally| &tally.bytes_received),
            sent_bytes: sum(|tally| &tally.bytes_sent),
            deliveries: sum(|tally| &tally.deliveries),
            opaque_data: sum(|tally| &tally.opaque_data),
            streams_complete: sum(|tally| &tally.streams_complete),
            streams_by_reason: ByWord::of(reasons),
            result_write_seconds: sum(|tally| &tally.result_write_ns) as f64 / 1e9,
            result_wait_seconds: sum(|tally| &tally.result_wait_ns) as f64 / 1e9,
            result_files_written: sum(|tally| &tally.result_files_written),
            result_files_failed: sum(|tally| &tally.result_files_failed),
            partials_written: counters.partials.written(),
            partials_failed: counters.partials.failed(),
            partials_write_seconds: counters.partials.write_seconds(),
            partials_wait_seconds: counters.partials.wait_seconds(),
            partials_waiting_bytes: counters.partials.waiting_bytes(),
            captured_bytes: sum(|tally| &tally.captured_bytes),
            captures_incomplete: sum(|tally| &tally.captures_incomplete),
            faults: by_fault.sum(),
            faults_by_reason: by_fault,
            rate_limited: sum(|tally| &tally.rate_limited),
            slow_consumers: sum(|tally| &tally.slow_consumers),
            auth_failures: sum(|tally| &tally.auth_failures),
            queued_bytes: counters.queued_bytes() as u64,
            rates_over_seconds: rounded(rates.seconds),
            messages_per_second: rounded(rates.messages_per_second),
            records_per_second: rounded(rates.records_per_second),
            faults_per_second: rounded(rates.faults_per_second),
            fault_share: rounded(rates.fault_share),
            message_latency: MeasuredLatency::from(&message_latencies),
            packet_latency: MeasuredLatency::from(&packet_latencies),
            cores: cores(counters, facts.cores, rates),
            message_latencies,
            packet_latencies,
        }
    }
}

fn by_protocol(counters: &Counters, counts: fn(&WorkerTally) -> &[Count; 2]) -> ByListener {
    ByListener::of(|protocol| counters.sum(|tally| &counts(tally)[protocol as usize]))
}

/// Messages from clients by type, including rejected ones.
pub(crate) fn messages(counters: &Counters) -> ByWord {
    ByWord::of(
        CLIENT_TYPES
            .map(|(kind, word)| (word, counters.sum(|tally| &tally.messages[kind.index()]))),
    )
}

fn faults(counters: &Counters) -> ByWord {
    ByWord::of(
        Fault::ALL
            .map(|fault| (fault.as_str(), counters.sum(|tally| &tally.faults[fault as usize]))),
    )
}

fn cores(counters: &Counters, cores: &[usize], rates: &Rates) -> Vec<CoreSnapshot> {
    let busy = rates.busy_shares.iter().copied().chain(std::iter::repeat(0.0));
    let workers = counters.workers.iter().zip(cores).zip(busy);
    workers
        .map(|((worker, &core), busy_share)| CoreSnapshot {
            core,
            busy_share: rounded(busy_share),
            connections_active: active(worker),
            messages: CLIENT_TYPES
                .iter()
                .map(|(kind, _)| worker.messages[kind.index()].get())
                .sum(),
            cpu_seconds: worker.cpu_ns.get() as f64 / 1e9,
        })
        .collect()
}

/// Open connections of one thread.
fn active(tally: &WorkerTally) -> u64 {
    let sum = |counts: &[Count; 2]| -> u64 { counts.iter().map(Count::get).sum() };
    // Reads `closed` first, so that a connection that ends in between cannot make the difference
    // negative.
    let closed = sum(&tally.closed);
    sum(&tally.opened).saturating_sub(closed)
}

/// Rounds to three decimals, which is readable and finer than what is measured.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
