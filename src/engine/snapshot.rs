//! What is known of a running engine at one moment, as plain values: reads no clock, no file and
//! no socket. Serialised it is the body of `/stats.json`, whose keys never change their meaning.

use super::counters::{Count, Counters, Protocol, Tally};
use super::latency::Latency;
use super::report::Reason;
use crate::wire::fault::Fault;
use crate::wire::frame::FrameType;
use serde::{Serialize, Serializer};
use std::time::{Duration, Instant};

/// The types that a client may send, with the word that stands in metrics and keys. A frame of
/// another type is an `invalid_message_type` and no message.
pub const CLIENT_TYPES: [(FrameType, &str); 7] = [
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
pub enum State {
    /// Connections are taken.
    Ready,
    /// The engine is stopping: none is taken, running ones may still end by themselves.
    Draining,
}

/// What is known of the process beside its counters.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Ready or draining.
    pub state: State,
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
pub struct Sample {
    at: Instant,
    messages: u64,
    records: u64,
    faults: u64,
    cpu_ns: Vec<u64>,
}

impl Sample {
    /// The counts as they are at `now`.
    pub fn take(counters: &Counters, now: Instant) -> Self {
        Sample {
            at: now,
            messages: messages(counters).sum(),
            records: counters.sum(|tally| &tally.records),
            faults: faults(counters).sum(),
            cpu_ns: counters.workers.iter().map(|worker| worker.cpu_ns.get()).collect(),
        }
    }

    /// What happened since an earlier sample of the same counters; all zero where no time passed.
    pub fn since(&self, earlier: &Sample) -> Rates {
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
    pub state: State,
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
        let sum = |count: fn(&Tally) -> &Count| counters.sum(count);
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

fn by_protocol(counters: &Counters, counts: fn(&Tally) -> &[Count; 2]) -> ByListener {
    ByListener::of(|protocol| counters.sum(|tally| &counts(tally)[protocol as usize]))
}

/// Messages of clients by type, refused ones included.
pub fn messages(counters: &Counters) -> ByWord {
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
fn active(tally: &Tally) -> u64 {
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
mod tests {
    use super::*;
    use crate::engine::outbox::Outbox;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn facts(cores: &[usize]) -> Facts<'_> {
        Facts {
            state: State::Ready,
            uptime: Duration::from_millis(12_345),
            started: Duration::from_secs(1_700_000_000),
            resident_bytes: Some(4096),
            cores,
        }
    }

    fn snapshot_json(counters: &Counters, rates: &Rates) -> Value {
        serde_json::to_value(Snapshot::take(counters, &facts(&[0, 3]), rates)).unwrap()
    }

    #[test]
    fn words_of_client_types_are_their_names() {
        for (kind, word) in CLIENT_TYPES {
            assert_eq!(kind.name().to_ascii_lowercase(), word);
        }
    }

    /// Each count of each tally is read from where it is kept, and the keys are those documented.
    #[test]
    fn each_count_stands_under_its_key() {
        let counters = Counters::new(2);
        let (first, second) = (&counters.workers[0], &counters.workers[1]);
        first.opened[Protocol::Messages as usize].add(5);
        second.opened[Protocol::Records as usize].add(4);
        first.closed[Protocol::Messages as usize].add(2);
        first.bytes_received[Protocol::Messages as usize].add(100);
        second.bytes_received[Protocol::Records as usize].add(200);
        first.bytes_sent.add(7);
        first.messages[FrameType::Ping.index()].add(10);
        second.messages[FrameType::Data.index()].add(3);
        // Only a server sends it: a fault and no message.
        second.messages[FrameType::Pong.index()].add(1);
        second.count_fault(Fault::InvalidMessageType);
        counters.acceptor.count_fault(Fault::ConnectionsLimit);
        counters.reporter.count_stream(None);
        counters.reporter.count_stream(Some(Reason::Reset));
        for (i, count) in [
            &first.deliveries,
            &first.opaque_data,
            &first.records,
            &first.packets,
            &first.rate_limited,
            &first.slow_consumers,
            &first.auth_failures,
            &second.record_reads,
            &second.coalesced_reads,
        ]
        .into_iter()
        .enumerate()
        {
            count.add(20 + i as u64);
        }
        first.coalesce_wait_ns.add(250_000_000);
        first.cpu_ns.set(1_500_000_000);
        let mut outbox = Outbox::new(100, Arc::clone(&counters.queued[0]));
        outbox.push(b"123456789").unwrap();
        // Its bytes are to wait for the whole test.
        std::mem::forget(outbox);
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(10), 3);
        latency.record(Duration::from_micros(30), 1);
        first.merge_message_latency(&mut latency);
        latency.record(Duration::from_micros(20), 2);
        second.merge_packet_latency(&mut latency);

        let mut body = snapshot_json(&counters, &Rates::default());
        let reasons = body["streams_by_reason"].take();
        let faults = body["faults_by_reason"].take();
        assert_eq!(reasons.as_object().unwrap().len(), Reason::ALL.len());
        assert_eq!(reasons["reset"], 1);
        assert_eq!(faults.as_object().unwrap().len(), Fault::ALL.len());
        assert_eq!(faults["invalid_message_type"], 1);
        assert_eq!(faults["connections_limit"], 1);
        for (measured, count, mean_us) in
            [("message_latency", 4, 15.0), ("packet_latency", 2, 20.0)]
        {
            let measured = body[measured].take();
            assert_eq!(
                (&measured["count"], &measured["mean_us"]),
                (&count.into(), &mean_us.into())
            );
            for key in ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"] {
                assert!(measured[key].as_f64().unwrap() >= 10.0, "{key}");
            }
        }
        for (key, value) in [
            ("record_reads", json!(27)),
            ("record_coalesced_reads", json!(28)),
            ("record_coalesce_wait_seconds", json!(0.25)),
        ] {
            assert_eq!(body[key].take(), value, "{key}");
            body.as_object_mut().unwrap().remove(key);
        }
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "state": "ready",
            "uptime_seconds": 12.345,
            "start_time_seconds": 1_700_000_000.0,
            "resident_memory_bytes": 4096,
            "connections_active": {"records": 4, "messages": 3},
            "connections_opened": {"records": 4, "messages": 5},
            "messages": 13,
            "messages_by_type": {
                "ping": 10, "echo": 0, "broadcast": 0, "auth": 0, "data": 3, "close": 0, "error": 0
            },
            "records": 22,
            "packets": 23,
            "received_bytes": {"records": 200, "messages": 100},
            "sent_bytes": 7,
            "deliveries": 20,
            "opaque_data": 21,
            "streams_complete": 1,
            "streams_by_reason": null,
            "faults": 2,
            "faults_by_reason": null,
            "rate_limited": 24,
            "slow_consumers": 25,
            "auth_failures": 26,
            "queued_bytes": 9,
            "rates_over_seconds": 0.0,
            "messages_per_second": 0.0,
            "records_per_second": 0.0,
            "faults_per_second": 0.0,
            "fault_share": 0.0,
            "message_latency": null,
            "packet_latency": null,
            "cores": [
                {"core": 0, "busy_share": 0.0, "connections_active": 3, "messages": 10,
                 "cpu_seconds": 1.5},
                {"core": 3, "busy_share": 0.0, "connections_active": 4, "messages": 3,
                 "cpu_seconds": 0.0},
            ],
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn rates_are_those_between_two_samples() {
        let counters = Counters::new(2);
        let start = Instant::now();
        let earlier = Sample::take(&counters, start);
        counters.workers[0].messages[FrameType::Echo.index()].add(100);
        counters.workers[1].records.add(3000);
        counters.workers[1].count_fault(Fault::Reset);
        counters.workers[1].cpu_ns.add(1_000_000_000);
        let later = Sample::take(&counters, start + Duration::from_secs(2));
        let rates = later.since(&earlier);
        let expected = Rates {
            seconds: 2.0,
            messages_per_second: 50.0,
            records_per_second: 1500.0,
            faults_per_second: 0.5,
            fault_share: 0.01,
            busy_shares: vec![0.0, 0.5],
        };
        assert_eq!(rates, expected);
        let body = snapshot_json(&counters, &rates);
        assert_eq!(body["cores"][1]["busy_share"], 0.5);
        assert_eq!(body["fault_share"], 0.01);
    }

    /// No time, no messages, a thread's clock that runs ahead: still numbers that can be shown.
    #[test]
    fn odd_samples_give_rates_within_their_range() {
        let counters = Counters::new(1);
        let start = Instant::now();
        let earlier = Sample::take(&counters, start);
        assert_eq!(Sample::take(&counters, start).since(&earlier), Rates::default());
        counters.acceptor.count_fault(Fault::ConnectionsLimit);
        counters.workers[0].cpu_ns.add(5_000_000_000);
        let later = Sample::take(&counters, start + Duration::from_secs(1));
        let rates = later.since(&earlier);
        assert_eq!((rates.fault_share, &rates.busy_shares[..]), (1.0, &[1.0][..]));
        assert_eq!(earlier.since(&later), Rates::default());
    }
}
