//! What is known of a running engine at one moment, as plain values: reads no clock, no file and
//! no socket. Serialised it is the body of `/stats.json`, whose keys never change their meaning.

use super::counters::{Count, Counters, Protocol, WorkerTally};
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::Reason;
use crate::wire::messages::fault::Fault;
use crate::wire::messages::frame::FrameType;
use serde::{Serialize, Serializer};
use std::time::{Duration, Instant};

/// The types that a client may send, with the word that stands in metrics and keys. A frame of
/// another type is an `invalid_message_type` and no message.
pub(crate) const CLIENT_TYPES: [(FrameType, &str); 7] = [
    (FrameType::Ping, "ping"),
    (FrameType::Echo, "echo"),
    (FrameType::Broadcast, "broadcast"),
    (FrameType::Auth, "auth"),
    (FrameType::Data, "data"),
    (FrameType::Close, "close"),
    (FrameType::Error, "error"),
];

/// Counts by word, in the order of the documents; serialised as an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByWord(Vec<(&'static str, u64)>);

impl ByWord {
    fn of(words: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        ByWord(words.into_iter().collect())
    }

    /// Each word with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().copied()
    }

    /// All counts added up.
    pub fn sum(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }
}

impl Serialize for ByWord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Whether new connections are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// Connections are taken.
    Ready,
    /// The engine is stopping: none is taken, running ones may still end by themselves.
    Draining,
}

/// What is known of the process beside its counters.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Ready or draining.
    pub state: EngineState,
    /// Since the start.
    pub uptime: Duration,
    /// Moment of the start, since the beginning of 1970.
    pub started: Duration,
    /// Memory that is really there; `None` where the system did not say.
    pub resident_bytes: Option<u64>,
    /// Core of each worker, in the order of the counters.
    pub cores: &'a [usize],
}

/// Counts at one moment, from which [`Rates`] come.
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

    /// What happened since an earlier sample of the same counters; all zero where no time passed.
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

/// What happened between two samples, which are a second or so apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Time between the two; 0 until there are two.
    pub seconds: f64,
    /// Messages of clients.
    pub messages_per_second: f64,
    /// Records that became rows.
    pub records_per_second: f64,
    /// Message connections that ended badly.
    pub faults_per_second: f64,
    /// Those faults for each message of that time: 0 to 1, and 1 where there were only faults.
    pub fault_share: f64,
    /// Share of that time in which each worker ran, 0 to 1. Workers publish their processor time
    /// every now and then, so that a share is true to some hundredths.
    pub busy_shares: Vec<f64>,
}

/// Counts by listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByListener {
    /// Of the record listener.
    pub records: u64,
    /// Of the message listener.
    pub messages: u64,
}

impl ByListener {
    fn of(count: impl Fn(Protocol) -> u64) -> Self {
        ByListener { records: count(Protocol::Records), messages: count(Protocol::Messages) }
    }

    /// Each listener's word with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let counts = [self.records, self.messages];
        Protocol::ALL.into_iter().map(Protocol::as_str).zip(counts)
    }
}

/// Latency of all messages, or of all packets, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MeasuredLatency {
    /// How many were measured.
    pub count: u64,
    /// Their average.
    pub mean_us: f64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 90 % of them took no longer.
    pub p90_us: f64,
    /// 99 % of them took no longer.
    pub p99_us: f64,
    /// 99.9 % of them took no longer.
    pub p99_9_us: f64,
    /// The longest.
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
    /// Share of the last second in which it ran, 0 to 1.
    pub busy_share: f64,
    /// Connections that it has now, of both listeners.
    pub connections_active: u64,
    /// Messages that it took since the start.
    pub messages: u64,
    /// Its processor time since the start.
    pub cpu_seconds: f64,
}

/// Everything, at one moment. Counts begin at the start of the engine, rates are those of the last
/// second or so.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// Version of the program.
    pub version: &'static str,
    /// Ready or draining.
    pub state: EngineState,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Moment of the start, in seconds since the beginning of 1970.
    pub start_time_seconds: f64,
    /// Memory that is really there; null where the system did not say.
    pub resident_memory_bytes: Option<u64>,
    /// Connections that are there now.
    pub connections_active: ByListener,
    /// Connections that workers took over.
    pub connections_opened: ByListener,
    /// Messages of clients, refused ones included.
    pub messages: u64,
    /// The same by type.
    pub messages_by_type: ByWord,
    /// Records that became rows.
    pub records: u64,
    /// Whole packets of records.
    pub packets: u64,
    /// Reads of record connections that brought bytes.
    pub record_reads: u64,
    /// Those among them that waited for more to come.
    pub record_coalesced_reads: u64,
    /// How long they waited together: no byte waited longer than its read.
    pub record_coalesce_wait_seconds: f64,
    /// Bytes that came from sockets.
    pub received_bytes: ByListener,
    /// Bytes handed to the kernel.
    pub sent_bytes: u64,
    /// Broadcasts handed to a receiver, each receiver counted.
    pub deliveries: u64,
    /// DATA that carried no records.
    pub opaque_data: u64,
    /// Record streams that ended complete.
    pub streams_complete: u64,
    /// Record streams that ended otherwise.
    pub streams_by_reason: ByWord,
    /// Results that were written to a file.
    pub result_files_written: u64,
    /// Results that should have been and could not.
    pub result_files_failed: u64,
    /// Raw bytes that are in captures.
    pub captured_bytes: u64,
    /// Captures that lack bytes, or are not there.
    pub captures_incomplete: u64,
    /// Message connections that ended badly.
    pub faults: u64,
    /// The same by fault.
    pub faults_by_reason: ByWord,
    /// Messages refused by a rate limit.
    pub rate_limited: u64,
    /// Receivers cut because they did not read.
    pub slow_consumers: u64,
    /// Refused credentials, and messages that needed authentication.
    pub auth_failures: u64,
    /// Bytes that wait to be written to receivers.
    pub queued_bytes: u64,
    /// The time that the rates below are those of; 0 during the first second.
    pub rates_over_seconds: f64,
    /// Messages of clients a second.
    pub messages_per_second: f64,
    /// Records a second.
    pub records_per_second: f64,
    /// Faults a second.
    pub faults_per_second: f64,
    /// Faults for each message of that time, 0 to 1.
    pub fault_share: f64,
    /// Latency of messages.
    pub message_latency: MeasuredLatency,
    /// Latency of packets of records.
    pub packet_latency: MeasuredLatency,
    /// One a worker.
    pub cores: Vec<CoreSnapshot>,
    /// All latencies of messages, for a histogram.
    #[serde(skip)]
    pub message_latencies: Latency,
    /// All latencies of packets, for a histogram.
    #[serde(skip)]
    pub packet_latencies: Latency,
}

impl Snapshot {
    /// Everything as it is now. Each worker's latencies are locked for as long as copying them
    /// takes; nothing else is locked.
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
            connections_active: ByListener::of(|protocol| counters.active(protocol)),
            connections_opened: by_protocol(counters, |tally| &tally.opened),
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
            result_files_written: sum(|tally| &tally.result_files_written),
            result_files_failed: sum(|tally| &tally.result_files_failed),
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

/// Messages of clients by type, refused ones included.
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

/// Connections that one thread has now.
fn active(tally: &WorkerTally) -> u64 {
    let sum = |counts: &[Count; 2]| -> u64 { counts.iter().map(Count::get).sum() };
    // Closed first: a connection that ends in between must not make the difference negative.
    let closed = sum(&tally.closed);
    sum(&tally.opened).saturating_sub(closed)
}

/// To three decimals: what people read, and finer than what is measured.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
