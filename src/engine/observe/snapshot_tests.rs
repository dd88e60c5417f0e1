//! Tests that each count has its own key in a snapshot, and tests rates.

use super::*;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::messages::outbox::Outbox;
use crate::engine::observe::counters::{Count, TallyWriter, WorkerTally};
use serde_json::{Value, json};
use std::sync::Arc;

fn facts(cores: &[usize]) -> Facts<'_> {
    Facts {
        state: EngineState::Ready,
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
fn names_of_client_types_match_the_frame_types() {
    for (kind, word) in CLIENT_TYPES {
        assert_eq!(kind.name().to_ascii_lowercase(), word);
    }
}

/// Each count of each tally is reported under its documented key.
#[test]
fn each_count_has_its_own_key() {
    let (counters, writers) = Counters::with_memory(2, MemoryAccount::new(1000, 700));
    let (first, second) = (&writers.workers[0], &writers.workers[1]);
    let reporter = &writers.reporter;
    first.add(|tally| &tally.opened[Protocol::Messages as usize], 5);
    second.add(|tally| &tally.opened[Protocol::Records as usize], 4);
    first.add(|tally| &tally.closed[Protocol::Messages as usize], 2);
    first.add(|tally| &tally.bytes_received[Protocol::Messages as usize], 100);
    second.add(|tally| &tally.bytes_received[Protocol::Records as usize], 200);
    second.add(|tally| &tally.empty[Protocol::Records as usize], 2);
    writers.acceptor.add(|tally| &tally.empty[Protocol::Messages as usize], 1);
    writers.acceptor.add(|tally| &tally.admission_waits[Protocol::Records as usize], 6);
    first.add(|tally| &tally.admission_waits[Protocol::Messages as usize], 3);
    writers
        .acceptor
        .add(|tally| &tally.admission_wait_ns[Protocol::Records as usize], 1_500_000_000);
    first.add(|tally| &tally.admission_wait_ns[Protocol::Messages as usize], 500_000_000);
    first.add(|tally| &tally.bytes_sent, 7);
    first.add(|tally| &tally.messages[FrameType::Ping.index()], 10);
    second.add(|tally| &tally.messages[FrameType::Data.index()], 3);
    // Only a server sends PONG, so this is a fault and not a message.
    second.add(|tally| &tally.messages[FrameType::Pong.index()], 1);
    second.count_fault(Fault::InvalidMessageType);
    writers.acceptor.count_fault(Fault::ConnectionsLimit);
    reporter.count_stream(None);
    reporter.count_stream(Some(Reason::Reset));
    type Of = fn(&WorkerTally) -> &Count;
    let singles: [(&TallyWriter, Of); 13] = [
        (first, |t| &t.deliveries),
        (first, |t| &t.opaque_data),
        (first, |t| &t.records),
        (first, |t| &t.packets),
        (first, |t| &t.rate_limited),
        (first, |t| &t.slow_consumers),
        (first, |t| &t.auth_failures),
        (second, |t| &t.record_reads),
        (second, |t| &t.coalesced_reads),
        (reporter, |t| &t.result_files_written),
        (reporter, |t| &t.result_files_failed),
        (reporter, |t| &t.captured_bytes),
        (reporter, |t| &t.captures_incomplete),
    ];
    for (i, (writer, count)) in (0..).zip(singles) {
        writer.add(count, 20 + i);
    }
    counters.partials.add_written();
    counters.partials.add_written();
    counters.partials.add_failed();
    counters.partials.add_write_time(Duration::from_millis(1750));
    counters.partials.add_wait_time(Duration::from_millis(500));
    counters.partials.set_waiting_bytes(7);
    first.add(|tally| &tally.coalesce_wait_ns, 250_000_000);
    reporter.add(|tally| &tally.result_write_ns, 750_000_000);
    reporter.add(|tally| &tally.result_wait_ns, 1_250_000_000);
    first.set(|tally| &tally.cpu_ns, 1_500_000_000);
    let mut outbox = Outbox::new(100, Arc::clone(&counters.queued[0]));
    outbox.push(b"123456789").unwrap();
    // Its bytes must stay queued for the whole test.
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
    for (measured, count, mean_us) in [("message_latency", 4, 15.0), ("packet_latency", 2, 20.0)] {
        let measured = body[measured].take();
        assert_eq!((&measured["count"], &measured["mean_us"]), (&count.into(), &mean_us.into()));
        for key in ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"] {
            assert!(measured[key].as_f64().unwrap() >= 10.0, "{key}");
        }
    }
    for (key, value) in [
        ("result_files_written", json!(29)),
        ("result_files_failed", json!(30)),
        ("partials_written", json!(2)),
        ("partials_failed", json!(1)),
        ("partials_write_seconds", json!(1.75)),
        ("partials_wait_seconds", json!(0.5)),
        ("partials_waiting_bytes", json!(7)),
        ("captured_bytes", json!(31)),
        ("captures_incomplete", json!(32)),
        ("record_reads", json!(27)),
        ("record_coalesced_reads", json!(28)),
        ("record_coalesce_wait_seconds", json!(0.25)),
        ("connections_empty", json!({"records": 2, "messages": 1})),
        ("admission_waits", json!({"records": 6, "messages": 3})),
        ("admission_wait_seconds", json!({"records": 1.5, "messages": 0.5})),
        ("result_write_seconds", json!(0.75)),
        ("result_wait_seconds", json!(1.25)),
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
        "memory_counted_bytes": 700,
        "memory_limit_bytes": 1000,
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
fn rates_are_computed_between_two_samples() {
    let (counters, writers) = Counters::new(2);
    let start = Instant::now();
    let earlier = Sample::take(&counters, start);
    writers.workers[0].add(|tally| &tally.messages[FrameType::Echo.index()], 100);
    writers.workers[1].add(|tally| &tally.records, 3000);
    writers.workers[1].count_fault(Fault::Reset);
    writers.workers[1].add(|tally| &tally.cpu_ns, 1_000_000_000);
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

/// No time, no messages, or a thread clock that runs ahead still give valid rates.
#[test]
fn odd_samples_give_rates_within_their_range() {
    let (counters, writers) = Counters::new(1);
    let start = Instant::now();
    let earlier = Sample::take(&counters, start);
    assert_eq!(Sample::take(&counters, start).since(&earlier), Rates::default());
    writers.acceptor.count_fault(Fault::ConnectionsLimit);
    writers.workers[0].add(|tally| &tally.cpu_ns, 5_000_000_000);
    let later = Sample::take(&counters, start + Duration::from_secs(1));
    let rates = later.since(&earlier);
    assert_eq!((rates.fault_share, &rates.busy_shares[..]), (1.0, &[1.0][..]));
    assert_eq!(earlier.since(&later), Rates::default());
}
