//! Tests that each count has its own key in a snapshot, and tests rates.

use super::*;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::messages::outbox::Outbox;
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
    let counters = Counters::with_memory(2, MemoryAccount::new(1000, 700));
    let (first, second) = (&counters.workers[0], &counters.workers[1]);
    first.opened[Protocol::Messages as usize].add(5);
    second.opened[Protocol::Records as usize].add(4);
    first.closed[Protocol::Messages as usize].add(2);
    first.bytes_received[Protocol::Messages as usize].add(100);
    second.bytes_received[Protocol::Records as usize].add(200);
    second.empty[Protocol::Records as usize].add(2);
    counters.acceptor.empty[Protocol::Messages as usize].add(1);
    counters.acceptor.admission_waits[Protocol::Records as usize].add(6);
    first.admission_waits[Protocol::Messages as usize].add(3);
    counters.acceptor.admission_wait_ns[Protocol::Records as usize].add(1_500_000_000);
    first.admission_wait_ns[Protocol::Messages as usize].add(500_000_000);
    first.bytes_sent.add(7);
    first.messages[FrameType::Ping.index()].add(10);
    second.messages[FrameType::Data.index()].add(3);
    // Only a server sends PONG, so this is a fault and not a message.
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
        &counters.reporter.result_files_written,
        &counters.reporter.result_files_failed,
        &counters.reporter.captured_bytes,
        &counters.reporter.captures_incomplete,
    ]
    .into_iter()
    .enumerate()
    {
        count.add(20 + i as u64);
    }
    counters.partials.add_written();
    counters.partials.add_written();
    counters.partials.add_failed();
    counters.partials.add_write_time(Duration::from_millis(1750));
    counters.partials.add_wait_time(Duration::from_millis(500));
    counters.partials.set_waiting_bytes(7);
    first.coalesce_wait_ns.add(250_000_000);
    counters.reporter.result_write_ns.add(750_000_000);
    counters.reporter.result_wait_ns.add(1_250_000_000);
    first.cpu_ns.set(1_500_000_000);
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

/// No time, no messages, or a thread clock that runs ahead still give valid rates.
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
