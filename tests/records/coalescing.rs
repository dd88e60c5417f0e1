//! Record streams in small, fast segments, whose reads wait for more of them: whatever happens
//! while a read waits, nothing is lost and nothing is left lying. How fast is not tested.

use crate::common::beside::stats;
use crate::common::oracle::{assert_result, end_record, packet, packets, records, stream};
use crate::common::{Engine, wait_closed};
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// The longest that may be asked for: what is sent every few milliseconds comes fast then.
const LONG: [&str; 2] = ["--coalesce-delay", "1s"];

fn start(options: &[&str]) -> Engine {
    let core = crate::common::one_core();
    Engine::start(&[&LONG[..], &["--cores", &core], options].concat())
}

/// Sends this packet again and again until reads have waited for several of it; how often that was.
fn trickle_until_gathered(engine: &Engine, socket: &mut TcpStream, packet: &[u8]) -> usize {
    let mut sent = 0;
    while stats(engine)["record_coalesced_reads"].as_u64().unwrap() < 2 {
        for _ in 0..20 {
            socket.write_all(packet).unwrap();
            sent += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(sent < 10_000, "reads were never gathered");
    }
    sent
}

/// So many times the same records.
fn repeated<T: Clone>(records: &[T], times: usize) -> Vec<T> {
    records.iter().cloned().cycle().take(records.len() * times).collect()
}

fn assert_gathered(result: &Value) {
    assert!(result["coalesced_reads"].as_u64().unwrap() >= 2, "{result}");
    let wait = |key: &str| result[format!("coalesce_wait_us_{key}")].as_f64().unwrap();
    assert!(0.0 < wait("p50") && wait("p50") <= wait("p99") && wait("p99") <= wait("max"));
}

#[test]
fn records_that_trickle_in_are_gathered_and_all_arrive() {
    let engine = start(&[]);
    let some = records(4, 1);
    let mut socket = engine.connect();
    let sent = trickle_until_gathered(&engine, &mut socket, &packets(&some, 4));
    // The end comes while the mark is raised.
    socket.write_all(&packet(&[end_record()])).unwrap();
    drop(socket);
    let results = engine.wait_for_results(1);
    assert_eq!(results[0]["status"], "complete");
    assert_result(&results[0], &repeated(&some, sent));
    assert_gathered(&results[0]);
    let stats = stats(&engine);
    assert_eq!(stats["record_coalesced_reads"], results[0]["coalesced_reads"]);
    assert!(stats["record_reads"].as_u64() > stats["record_coalesced_reads"].as_u64());
    assert!(stats["record_coalesce_wait_seconds"].as_f64().unwrap() > 0.0);
}

/// A peer that waits for its result before it closes, behind a mark that is never reached.
#[test]
fn an_end_record_behind_a_raised_mark_ends_the_stream() {
    let engine = start(&[]);
    let some = records(4, 2);
    let mut socket = engine.connect();
    let sent = trickle_until_gathered(&engine, &mut socket, &packets(&some, 4));
    socket.write_all(&packet(&[end_record()])).unwrap();
    wait_closed(&mut socket);
    let results = engine.wait_for_results(1);
    assert_eq!(results[0]["status"], "complete");
    assert_result(&results[0], &repeated(&some, sent));
}

#[test]
fn a_close_behind_a_raised_mark_is_seen() {
    for half in [false, true] {
        let engine = start(&[]);
        let some = records(4, 3);
        let mut socket = engine.connect();
        let sent = trickle_until_gathered(&engine, &mut socket, &packets(&some, 4));
        match half {
            true => socket.shutdown(Shutdown::Write).unwrap(),
            false => drop(socket),
        }
        let results = engine.wait_for_results(1);
        assert_eq!(results[0]["reason"], "closed_before_end");
        assert_result(&results[0], &repeated(&some, sent));
    }
}

#[test]
fn silence_behind_a_raised_mark_ends_with_the_idle_timeout() {
    // Less than a read may wait, and more than a busy machine keeps a sender waiting.
    let engine = start(&["--idle-timeout", "600ms"]);
    let some = records(4, 4);
    let mut socket = engine.connect();
    let sent = trickle_until_gathered(&engine, &mut socket, &packets(&some, 4));
    wait_closed(&mut socket);
    let results = engine.wait_for_results(1);
    assert_eq!(results[0]["reason"], "idle_timeout");
    // Packets whose reads waited for longer than the timeout came in time all the same.
    assert_result(&results[0], &repeated(&some, sent));
    assert_gathered(&results[0]);
}

#[test]
fn a_packet_that_trickles_behind_a_raised_mark_ends_with_the_packet_timeout() {
    let engine = start(&["--packet-timeout", "100ms"]);
    let some = records(4, 5);
    let mut socket = engine.connect();
    let sent = trickle_until_gathered(&engine, &mut socket, &packets(&some, 4));
    let more = records(1000, 6);
    let bytes = packets(&more, 1000);
    let cut = bytes.iter().position(|byte| {
        std::thread::sleep(Duration::from_millis(5));
        socket.write_all(&[*byte]).is_err()
    });
    assert!(cut.is_some(), "the engine never closed");
    let results = engine.wait_for_results(1);
    assert_eq!(results[0]["reason"], "packet_timeout");
    let received = results[0]["records"].as_u64().unwrap() as usize;
    let all = [repeated(&some, sent), more].concat();
    assert!((4 * sent..=4 * sent + cut.unwrap() / 267).contains(&received), "{received}");
    assert_result(&results[0], &all[..received]);
}

#[test]
fn a_stopping_engine_ends_a_stream_whose_reads_are_gathered() {
    let engine = start(&["--drain-timeout", "1s"]);
    let some = records(4, 7);
    let bytes = packets(&some, 4);
    let mut socket = engine.connect();
    let mut sent = trickle_until_gathered(&engine, &mut socket, &bytes);
    engine.signal(Signal::TERM);
    // It goes on until the engine cuts it, so that a read always waits.
    while engine.results().is_empty() && socket.write_all(&bytes).is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), &results[0]["reason"]), (Some(0), &"shutdown".into()), "{log}");
    let received = results[0]["records"].as_u64().unwrap() as usize;
    assert!(received <= 4 * sent);
    assert_result(&results[0], &repeated(&some, sent)[..received]);
}

#[test]
fn without_a_delay_nothing_is_gathered() {
    let engine = Engine::start(&["--coalesce-delay", "0"]);
    let some = records(800, 8);
    let mut socket = engine.connect();
    for packet in packets(&some, 4).chunks(1072) {
        socket.write_all(packet).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    socket.write_all(&packet(&[end_record()])).unwrap();
    drop(socket);
    let results = engine.wait_for_results(1);
    assert_result(&results[0], &some);
    for key in ["coalesced_reads", "coalesce_wait_us_max"] {
        assert_eq!(results[0][key].as_f64(), Some(0.0), "{key}");
    }
    let stats = stats(&engine);
    assert_eq!(stats["record_coalesced_reads"], 0);
    assert!(stats["record_reads"].as_u64().unwrap() > 0);
}

/// Every size of segment and of window, as fast as it goes: nothing is lost between singly read and
/// gathered, and nobody waits for room that the other holds.
#[test]
fn segments_of_every_size_through_windows_of_every_size() {
    let all = records(6000, 9);
    let bytes = stream(&all, 4);
    for window in ["4KiB", "16KiB", "128KiB"] {
        let sizes = [100, 267, 1072, 5000, 20_000];
        let count = sizes.len().to_string();
        let options = ["--buffer-bytes", window, "--coalesce-delay", "100ms"];
        let engine = Engine::start(&[&options[..], &["--exit-after", &count]].concat());
        let senders = sizes.map(|size| {
            let (mut socket, bytes) = (engine.connect(), bytes.clone());
            std::thread::spawn(move || {
                bytes.chunks(size).for_each(|segment| socket.write_all(segment).unwrap());
            })
        });
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let (status, results, log) = engine.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        results.iter().for_each(|result| assert_result(result, &all));
    }
}
