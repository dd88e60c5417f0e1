//! Every way in which a record stream can be wrong, over a real socket, each beside a healthy
//! connection on the same worker that must come out right.

use crate::common::beside::wait_for_bytes;
use crate::common::oracle::{Record, assert_result, end_record, packet, packets, records, stream};
use crate::common::{Engine, one_core, result_of, wait_closed};
use serde_json::Value;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};

/// What a healthy stream has sent when another misbehaves: whole packets, since some of these
/// engines do not wait long for the rest of one.
const HEALTHY_FIRST_BYTES: usize = 250 * (4 + 4 * 267);

/// Runs `misbehave` between the halves of a healthy stream; gives the result of the bad one.
fn beside_a_healthy_stream(
    options: &[&str],
    misbehave: impl FnOnce(&Engine) -> SocketAddr,
) -> (Value, String) {
    let core = one_core();
    let engine = Engine::start(&[&["--cores", &core, "--exit-after", "2"], options].concat());
    let healthy_records = records(2000, 1);
    let bytes = stream(&healthy_records, 4);
    let (first_half, second_half) = bytes.split_at(HEALTHY_FIRST_BYTES);
    let mut healthy = engine.connect();
    let healthy_peer = healthy.local_addr().unwrap();
    healthy.write_all(first_half).unwrap();

    let peer = misbehave(&engine);
    let results = engine.wait_for_results(1);
    let bad = result_of(&results, peer).clone();

    healthy.write_all(second_half).unwrap();
    drop(healthy);
    let (status, results, log) = engine.wait();
    let good = result_of(&results, healthy_peer);
    assert_eq!((&good["status"], &good["reason"]), (&"complete".into(), &Value::Null));
    assert_result(good, &healthy_records);
    assert_eq!(status.code(), Some(1), "one of the two was not complete");
    (bad, log)
}

/// Sends `bytes` whole and closes. Where the engine closes first, part of it may not be sent.
fn send_and_close(bytes: &[u8]) -> impl FnOnce(&Engine) -> SocketAddr + use<'_> {
    |engine| {
        let mut socket = engine.connect();
        let peer = socket.local_addr().unwrap();
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        wait_closed(&mut socket);
        peer
    }
}

fn assert_refused(options: &[&str], bytes: &[u8], status: &str, reason: &str, received: &[Record]) {
    let (result, log) = beside_a_healthy_stream(options, send_and_close(bytes));
    assert_eq!(
        (&result["status"], &result["reason"]),
        (&status.into(), &reason.into()),
        "{result}"
    );
    assert_result(&result, received);
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(reason)).collect();
    assert_eq!(lines.len(), 1, "one line of the log names {reason}: {log}");
    assert!(lines[0].contains(result["peer"].as_str().unwrap()), "{log}");
}

/// Three whole packets, then `bad`.
fn after_three_packets(bad: &[u8]) -> (Vec<Record>, Vec<u8>) {
    let good = records(12, 5);
    let bytes = [packets(&good, 4), bad.to_vec()].concat();
    (good, bytes)
}

#[test]
fn a_length_below_one_record_is_rejected() {
    for length in [0u32, 3, 4, 270] {
        let (good, bytes) = after_three_packets(&length.to_be_bytes());
        assert_refused(&[], &bytes, "rejected", "packet_length_below_minimum", &good);
    }
}

#[test]
fn a_length_with_a_part_of_a_record_is_rejected() {
    for length in [272u32, 537, 1071] {
        let (good, bytes) = after_three_packets(&length.to_be_bytes());
        assert_refused(&[], &bytes, "rejected", "packet_length_not_whole_records", &good);
    }
}

#[test]
fn a_length_above_the_limit_is_rejected_from_its_header() {
    // The smallest packet above 16 MiB, and the largest of all: a packet of 16 MiB is whole.
    for length in [4 + 267 * 62_837u32, 4 + 267 * 16_086_019] {
        let (good, bytes) = after_three_packets(&length.to_be_bytes());
        assert_refused(&[], &bytes, "rejected", "packet_length_above_limit", &good);
    }
}

#[test]
fn the_packet_limit_holds_at_its_edge() {
    let good = records(12, 5);
    let options = ["--packet-bytes-limit", "1072"];
    let bytes = packets(&good, 4);
    assert_refused(&options, &bytes, "incomplete", "closed_before_end", &good);
    let bytes = [bytes, packets(&good, 5)].concat();
    assert_refused(&options, &bytes, "rejected", "packet_length_above_limit", &good);
}

#[test]
fn closing_without_a_byte_is_incomplete() {
    assert_refused(&["--report-empty"], &[], "incomplete", "closed_before_data", &[]);
}

#[test]
fn closing_without_the_end_record_is_incomplete() {
    let (good, bytes) = after_three_packets(&[]);
    assert_refused(&[], &bytes, "incomplete", "closed_before_end", &good);
}

#[test]
fn closing_in_a_header_is_incomplete() {
    for bytes in 1..4 {
        let (good, bytes) = after_three_packets(&1072u32.to_be_bytes()[..bytes]);
        assert_refused(&[], &bytes, "incomplete", "closed_in_header", &good);
    }
}

#[test]
fn closing_in_a_packet_keeps_its_whole_records() {
    let good = records(6, 5);
    let bytes = packets(&good, 6);
    for whole in [0, 1, 5] {
        let cut = &bytes[..4 + whole * 267];
        assert_refused(&[], cut, "incomplete", "closed_in_packet", &good[..whole]);
    }
}

#[test]
fn closing_in_a_record_keeps_those_before_it() {
    let good = records(6, 5);
    let bytes = packets(&good, 6);
    for cut in [5, 4 + 266, 4 + 267 + 1, 4 + 6 * 267 - 1] {
        let whole = (cut - 4) / 267;
        assert_refused(&[], &bytes[..cut], "incomplete", "closed_in_record", &good[..whole]);
    }
}

/// An end record cut by one byte has not come.
#[test]
fn a_cut_end_record_is_no_end() {
    let good = records(3, 5);
    let mut bytes = packet(&[good[0].bytes(), good[1].bytes(), good[2].bytes(), end_record()]);
    bytes.pop();
    assert_refused(&[], &bytes, "incomplete", "closed_in_record", &good);
}

#[test]
fn a_reset_is_incomplete() {
    let good = records(8, 5);
    let (result, _) = beside_a_healthy_stream(&[], |engine| {
        let socket = engine.connect();
        let peer = socket.local_addr().unwrap();
        let sent = packets(&good, 4);
        (&socket).write_all(&sent).unwrap();
        // A close with linger 0 resets; what was sent before must have been read by then.
        wait_for_bytes(engine, "records", (HEALTHY_FIRST_BYTES + sent.len()) as u64);
        socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(socket);
        peer
    });
    assert_eq!((&result["status"], &result["reason"]), (&"incomplete".into(), &"reset".into()));
    assert_result(&result, &good);
}

#[test]
fn silence_ends_with_the_idle_timeout() {
    let good = records(8, 5);
    let engine = Engine::start(&["--idle-timeout", "500ms", "--exit-after", "1"]);
    let mut socket = engine.connect();
    socket.write_all(&packets(&good, 4)).unwrap();
    wait_closed(&mut socket);
    let (_, results, _) = engine.wait();
    assert_eq!(results[0]["reason"], "idle_timeout");
    assert_eq!(results[0]["status"], "incomplete");
    assert_result(&results[0], &good);
}

/// With `end = "close"` only the sender's close completes a stream, not the engine's.
#[test]
fn a_stream_that_the_engine_cuts_is_not_complete_either_way_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let schema = directory.path().join("schema.toml");
    let built_in = include_str!("../../src/wire/schema/default.toml");
    std::fs::write(&schema, built_in.replace("end = \"zero-record\"", "end = \"close\"")).unwrap();
    let schema = schema.to_str().unwrap();
    let good = records(8, 5);
    for (option, reason) in [("--idle-timeout", "idle_timeout"), ("--drain-timeout", "shutdown")] {
        let engine = Engine::start(&["--schema", schema, option, "500ms"]);
        let mut socket = engine.connect();
        let bytes = packets(&good, 4);
        socket.write_all(&bytes).unwrap();
        wait_for_bytes(&engine, "records", bytes.len() as u64);
        if reason == "shutdown" {
            engine.signal(rustix::process::Signal::TERM);
        }
        wait_closed(&mut socket);
        let results = engine.wait_for_results(1);
        assert_eq!(
            (&results[0]["status"], &results[0]["reason"]),
            (&"incomplete".into(), &reason.into())
        );
        assert_result(&results[0], &good);
    }
}

/// A byte now and then does not keep a slot: the packet that it belongs to has its own time.
#[test]
fn a_packet_that_trickles_ends_with_the_packet_timeout() {
    let good = records(8, 5);
    let options = ["--packet-timeout", "500ms", "--idle-timeout", "60s"];
    let (result, _) = beside_a_healthy_stream(&options, |engine| {
        let mut socket = engine.connect();
        let peer = socket.local_addr().unwrap();
        socket.write_all(&packets(&good, 4)).unwrap();
        trickle(&mut socket, &packets(&good, 8));
        peer
    });
    assert_eq!(
        (&result["status"], &result["reason"]),
        (&"incomplete".into(), &"packet_timeout".into())
    );
    let received = result["records"].as_u64().unwrap() as usize;
    assert!((8..16).contains(&received), "{received}");
    assert_result(&result, &[good.clone(), good].concat()[..received]);
}

/// Sends a byte every 20 ms until the engine closes; bounded by the bytes.
fn trickle(socket: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if socket.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the engine never closed");
}

/// One record of each of so many groups, with one text.
fn one_of_each(groups: u32) -> Vec<Record> {
    (0..groups).map(|a| crate::common::oracle::record(a + 1, 1, 1.0, 1, b"x")).collect()
}

/// The record that would open one group too many is not received, nor is anything after it; what
/// came before it is reported.
#[test]
fn the_groups_limit_is_exact() {
    let options = ["--groups-limit", "20", "--batch-rows", "7"];
    let whole = [one_of_each(20), one_of_each(20)].concat();
    let bytes = packets(&whole, 4);
    assert_refused(&options, &bytes, "incomplete", "closed_before_end", &whole);
    // The 21st group stands in the midst of a packet, and records of known groups behind it.
    let bytes = stream(&[whole.clone(), one_of_each(21), one_of_each(20)].concat(), 7);
    let received = [whole, one_of_each(20)].concat();
    assert_refused(&options, &bytes, "rejected", "groups_limit", &received);
}

/// Whole columns are counted when they are merged: the groups that came until then are reported.
#[test]
fn the_groups_limit_of_whole_columns_is_noticed_at_a_merge() {
    let options = ["--aggregate", "columns", "--groups-limit", "20", "--batch-rows", "7"];
    let bytes = packets(&one_of_each(20), 4);
    assert_refused(&options, &bytes, "incomplete", "closed_before_end", &one_of_each(20));
    let bytes = stream(&one_of_each(21), 4);
    assert_refused(&options, &bytes, "rejected", "groups_limit", &one_of_each(21));
}

#[test]
fn too_many_texts_are_rejected_before_the_one_too_many() {
    let texts: Vec<Record> = (0..50u32)
        .map(|i| crate::common::oracle::record(1, 1, 1.0, 1, format!("text {i:05}").as_bytes()))
        .collect();
    // 10 bytes each: 30 of them fit, and the four texts of the healthy stream.
    let options = ["--strings-bytes-limit", "305"];
    assert_refused(&options, &stream(&texts, 4), "rejected", "strings_bytes_limit", &texts[..30]);
    let options = ["--groups-limit", "30"];
    assert_refused(&options, &stream(&texts, 4), "rejected", "groups_limit", &texts[..30]);
}

/// A stream with far more groups than allowed is stopped on its way, not at its end.
#[test]
fn a_flood_of_groups_is_stopped_while_it_runs() {
    // The first 20,000 records are all of different groups.
    assert_eq!(records_of_a_flood("two-phase"), 1000);
    // Whole columns are merged, and their groups counted, at every 262,144 rows.
    let records = records_of_a_flood("columns");
    assert!((1000..500_000).contains(&records), "{records}");
}

/// How many records of 700,000 an engine takes that allows 1000 groups.
fn records_of_a_flood(aggregate: &str) -> u64 {
    let core = one_core();
    let options = ["--cores", &core, "--groups-limit", "1000", "--batch-rows", "1024"];
    let engine =
        Engine::start(&[&options[..], &["--exit-after", "1", "--aggregate", aggregate]].concat());
    let port = engine.address.port().to_string();
    let sent = crate::common::run(
        crate::common::ringest()
            .args(["send", "--records-port", &port, "--connections", "1"])
            .args(["--records", "700000", "--groups", "20000", "--packet-records", "100"]),
    );
    let (_, results, _) = engine.wait();
    assert_eq!(results[0]["reason"], "groups_limit");
    assert_eq!(sent.status.code(), Some(1), "{}", crate::common::stderr_of(&sent));
    assert!(
        crate::common::stderr_of(&sent).contains("the engine's result and log give the reason")
    );
    results[0]["records"].as_u64().unwrap()
}

#[test]
fn one_connection_too_many_is_refused_and_reported() {
    let options = ["--max-streams", "2", "--admit-timeout", "0s", "--exit-after", "3"];
    let engine = Engine::start(&options);
    let good = records(8, 5);
    let (mut first, mut second) = (engine.connect(), engine.connect());
    let mut third = engine.connect();
    let refused = third.local_addr().unwrap();
    wait_closed(&mut third);
    let peers = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    for socket in [&mut first, &mut second] {
        socket.write_all(&stream(&good, 4)).unwrap();
    }
    drop((first, second));
    let (status, results, _) = engine.wait();
    let result = result_of(&results, refused);
    assert_eq!(
        (&result["status"], &result["reason"]),
        (&"rejected".into(), &"connections_limit".into())
    );
    for peer in peers {
        assert_result(result_of(&results, peer), &good);
    }
    assert_eq!(status.code(), Some(1));
}

/// What comes after the end record is counted, never aggregated, and does not spoil the result.
#[test]
fn bytes_after_the_end_record_are_counted() {
    let good = records(7, 5);
    let engine = Engine::start(&["--exit-after", "3"]);
    let in_packet: Vec<Vec<u8>> =
        [good[4].bytes(), good[5].bytes(), end_record(), good[6].bytes()].into();
    let cases = [
        (stream(&good[..4], 4), 0, 4),
        ([stream(&good[..4], 4), packets(&good, 7), vec![9]].concat(), 4 + 7 * 267 + 1, 4),
        ([packets(&good[..4], 4), packet(&in_packet)].concat(), 267, 6),
    ];
    let peers: Vec<SocketAddr> =
        cases.iter().map(|(bytes, ..)| crate::common::send(&engine, bytes)).collect();
    let (status, results, _) = engine.wait();
    for (peer, (bytes, after_end, whole)) in peers.into_iter().zip(cases) {
        let result = result_of(&results, peer);
        assert_eq!(
            (&result["status"], &result["bytes"]),
            (&"complete".into(), &bytes.len().into())
        );
        assert_eq!(result["bytes_after_end"], after_end);
        assert_result(result, &good[..whole]);
    }
    assert_eq!(status.code(), Some(0));
}

/// A peer that sends on and on after its end record is closed for it.
#[test]
fn a_peer_that_does_not_stop_after_its_end_is_closed() {
    let good = records(4, 5);
    let engine = Engine::start(&["--exit-after", "1"]);
    let mut socket = engine.connect();
    socket.write_all(&stream(&good, 4)).unwrap();
    trickle(&mut socket, &[7; 1000]);
    let (status, results, _) = engine.wait();
    assert_eq!((status.code(), &results[0]["status"]), (Some(0), &"complete".into()));
    assert!(results[0]["bytes_after_end"].as_u64().unwrap() > 0);
    assert_result(&results[0], &good);
}

/// Streams with some of their bytes changed, cut off or made up: each is reported once, its groups
/// add up to its records, and a right stream at the end comes out right.
#[test]
fn mangled_streams_are_each_reported_and_harm_nobody() {
    const STREAMS: usize = 300;
    let core = one_core();
    let count = (STREAMS + 1).to_string();
    let engine = Engine::start(&[
        "--cores",
        &core,
        "--exit-after",
        &count,
        "--max-streams",
        &count,
        "--report-empty",
        "--packet-bytes-limit",
        "64KiB",
        "--packet-timeout",
        "1s",
        "--buffer-bytes",
        "8KiB",
    ]);
    let mut random = fastrand::Rng::with_seed(11);
    let mut peers = Vec::new();
    for number in 0..STREAMS {
        let mut bytes = match number % 3 {
            0 => (0..random.usize(..5000)).map(|_| random.u8(..)).collect(),
            1 => (0..random.usize(..5000)).map(|_| random.u8(..2)).collect(),
            _ => stream(&records(random.usize(..60), number as u64), random.usize(1..9)),
        };
        for _ in 0..random.usize(..4) {
            if !bytes.is_empty() {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
        }
        bytes.truncate(random.usize(..=bytes.len()));
        let mut socket = engine.connect();
        peers.push(socket.local_addr().unwrap());
        // The engine may close before it has all of it.
        let _ = socket.write_all(&bytes);
    }
    let good = records(3000, 1);
    let healthy = crate::common::send(&engine, &stream(&good, 4));
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(1), STREAMS + 1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_result(result_of(&results, healthy), &good);
    for peer in peers {
        let result = result_of(&results, peer);
        let groups = result["groups"].as_array().unwrap();
        let rows: u64 = groups.iter().map(|group| group["count"].as_u64().unwrap()).sum();
        assert_eq!(result["records"], rows, "{result}");
        assert_eq!(result["reason"].is_null(), result["status"] == "complete", "{result}");
    }
}
