//! What happens to connections while no slot is free, and to those that need none because they
//! close without a byte.

use crate::common::beside::{stats, wrongs};
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::wire::{CONNECTION_LIMIT_EXCEEDED, Client, DATA_ACK, PING, PONG, data, frame};
use crate::common::{Engine, PATIENCE, result_of, until, wait_closed};
use rustix::process::Signal;
use serde_json::Value;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

/// Streams whose senders do not wait for one another, with results that nobody reads for now: each
/// of them is complete in the end.
#[test]
fn streams_beyond_the_limit_wait_until_a_slot_is_free() {
    const STREAMS: usize = 100;
    let count = STREAMS.to_string();
    // Nobody's patience decides.
    let options = ["--max-streams", "2", "--admit-timeout", "7days", "--exit-after", &count];
    let (mut engine, _stderr) = Engine::start_with(&options, Stdio::piped());
    let all = records(200, 3);
    let bytes = stream(&all, 4);
    let mut peers = Vec::new();
    for _ in 0..STREAMS {
        peers.push(crate::common::send(&engine, &bytes));
    }
    let mut results = String::new();
    engine.child.stdout.take().unwrap().read_to_string(&mut results).unwrap();
    assert_eq!(engine.wait_for_end().code(), Some(0));
    let results: Vec<Value> =
        results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), STREAMS);
    for peer in peers {
        assert_eq!(result_of(&results, peer)["status"], "complete");
        assert_result(result_of(&results, peer), &all);
    }
}

/// Takes the only slot of an engine.
fn take_slot(engine: &Engine) -> TcpStream {
    let mut first = engine.connect();
    first.write_all(&packets(&records(4, 1), 4)).unwrap();
    until("the slot is taken", || stats(engine)["records"] == 4);
    first
}

/// What waits for a slot when the engine is told to stop may be whole, and its sender gone.
#[test]
fn streams_that_wait_when_the_engine_stops_are_received() {
    const WAITING: usize = 20;
    let options = ["--max-streams", "1", "--admit-timeout", "7days", "--drain-timeout", "7days"];
    let engine = Engine::start(&options);
    let mut first = take_slot(&engine);
    let all = records(12, 2);
    let bytes = stream(&all, 4);
    let peers: Vec<_> = (0..WAITING).map(|_| crate::common::send(&engine, &bytes)).collect();
    engine.signal(Signal::TERM);
    first.write_all(&stream(&[], 1)).unwrap();
    let (status, results, _) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), WAITING + 1));
    for peer in peers {
        assert_result(result_of(&results, peer), &all);
    }
}

fn waits(engine: &Engine, listener: &str) -> u64 {
    stats(engine)["admission_waits"][listener].as_u64().unwrap()
}

/// The sender of a refused stream sees an error even if it has sent everything by then.
#[test]
fn a_stream_that_waits_too_long_is_refused_and_its_sender_sees_it() {
    let engine =
        Engine::start(&["--max-streams", "1", "--admit-timeout", "100ms", "--exit-after", "4"]);
    let first = take_slot(&engine);
    // All of them wait at the same time, so each of them has waited long enough.
    let mut late: Vec<TcpStream> = (0..3).map(|_| engine.connect()).collect();
    for sender in &mut late {
        sender.write_all(&stream(&records(8, 2), 4)).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
        sender.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    for sender in &mut late {
        let error = sender.read(&mut [0]).expect_err("a refused sender must not see a proper end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    engine.wait_for_results(3);
    assert_eq!(waits(&engine, "records"), 3);
    let seconds = stats(&engine)["admission_wait_seconds"]["records"].as_f64().unwrap();
    assert!(
        seconds >= 0.25,
        "three waits of 100 ms, less what the kernel's clock rounds: {seconds}"
    );
    drop(first);
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(1), 4));
    for sender in late {
        let result = result_of(&results, sender.local_addr().unwrap());
        assert_eq!(result["reason"], "connections_limit");
        let line = log.lines().find(|line| line.contains(result["peer"].as_str().unwrap()));
        assert!(line.unwrap().contains("100ms (--admit-timeout, --max-streams"), "{log}");
    }
}

#[test]
fn a_stream_that_waits_while_the_engine_stops_is_reported() {
    let engine = Engine::start(&["--max-streams", "1", "--drain-timeout", "0s"]);
    let _first = take_slot(&engine);
    let mut second = engine.connect();
    second.write_all(&stream(&records(8, 2), 4)).unwrap();
    until("it waits", || waits(&engine, "records") == 1);
    engine.signal(Signal::TERM);
    wait_closed(&mut second);
    let (status, results, _) = engine.wait();
    assert_eq!(status.code(), Some(0));
    let result = result_of(&results, second.local_addr().unwrap());
    assert_eq!((&result["status"], &result["reason"]), (&"incomplete".into(), &"shutdown".into()));
}

#[test]
fn a_message_client_waits_for_a_free_connection() {
    let engine = Engine::start_messages(&["--max-connections", "1", "--admit-timeout", "7days"]);
    let mut first = Client::connect(engine.messages());
    first.ping(1);
    let mut second = Client::connect(engine.messages());
    second.send(&frame(PING, b"12345678"));
    until("it waits", || waits(&engine, "messages") == 1);
    drop(first);
    second.expect(PONG, b"12345678");
    assert!(wrongs(&engine).values().all(|&count| count == 0));
}

#[test]
fn a_message_client_that_waits_too_long_is_told() {
    let engine = Engine::start_messages(&["--max-connections", "1", "--admit-timeout", "100ms"]);
    let mut first = Client::connect(engine.messages());
    first.ping(1);
    let mut second = Client::connect(engine.messages());
    second.expect_error(CONNECTION_LIMIT_EXCEEDED);
    second.expect_end();
    assert_eq!(wrongs(&engine)["connections_limit"], 1);
    first.ping(2);
}

#[test]
fn records_in_data_wait_for_a_free_stream() {
    let engine = Engine::start_both(&["--max-streams", "1", "--admit-timeout", "7days"]);
    let first = take_slot(&engine);
    let mut second = Client::connect(engine.messages());
    let all = records(20, 4);
    second.send(&data(0, &packets(&all, 4)));
    // What comes behind it waits as well.
    second.send(&frame(PING, b"12345678"));
    until("it waits", || waits(&engine, "messages") == 1);
    drop(first);
    second.expect(DATA_ACK, &0u32.to_be_bytes());
    second.expect(PONG, b"12345678");
    let peer = second.local_address();
    second.send(&frame(crate::common::wire::CLOSE, b""));
    second.expect_end();
    assert_result(result_of(&engine.wait_for_results(2), peer), &all);
}

#[test]
fn records_in_data_that_wait_too_long_are_refused() {
    let engine = Engine::start_both(&["--max-streams", "1", "--admit-timeout", "100ms"]);
    let _first = take_slot(&engine);
    let mut second = Client::connect(engine.messages());
    second.send(&data(0, &packets(&records(20, 4), 4)));
    second.expect_error(CONNECTION_LIMIT_EXCEEDED);
    second.expect_end();
    assert_eq!(wrongs(&engine)["streams_limit"], 1);
}

/// A connection that is opened and closed, as a load balancer's check does, either properly or with
/// a reset.
fn probe(address: SocketAddr, reset: bool) {
    let stream = TcpStream::connect(address).unwrap();
    if reset {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn empty(engine: &Engine, listener: &str) -> u64 {
    stats(engine)["connections_empty"][listener].as_u64().unwrap()
}

#[test]
fn connections_without_a_byte_are_counted_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let all = records(30, 1);
    let engine = Engine::start_both(&["--exit-after", "1", "--output", path]);
    for round in 1..=2 {
        probe(engine.address, false);
        probe(engine.address, true);
        until("both probes are counted", || empty(&engine, "records") == 2 * round);
        probe(engine.messages(), false);
        probe(engine.messages(), true);
        until("these as well", || empty(&engine, "messages") == 2 * round);
    }
    assert_eq!(stats(&engine)["streams_by_reason"]["closed_before_data"], 0);
    assert!(wrongs(&engine).values().all(|&count| count == 0));
    let peer = crate::common::send(&engine, &stream(&all, 4));
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), 1), "{log}");
    assert_result(result_of(&results, peer), &all);
    assert!(!log.contains("WARN"), "{log}");
    // Their schema has a hidden file there.
    let names = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(names.filter(|name| !name.to_string_lossy().starts_with('.')).count(), 1);
}

/// Whether the kernel has seen the end of what this client sent to the engine.
fn has_ended(engine: &Engine, client: SocketAddr) -> bool {
    const CLOSE_WAIT: &str = "08";
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&port(engine.address))
            && fields[2].ends_with(&port(client))
            && fields[3] == CLOSE_WAIT
    })
}

/// Also where all slots are taken: such a connection needs none, and is not refused.
#[test]
fn connections_without_a_byte_need_no_slot() {
    let failpoints = tempfile::tempdir().unwrap();
    let variables = [("RINGEST_FAILPOINTS", failpoints.path().to_str().unwrap())];
    let options = ["--max-streams", "1", "--admit-timeout", "7days"];
    let engine = Engine::start_both_in(&variables, &options);
    let first = take_slot(&engine);
    std::fs::write(failpoints.path().join("acceptor.block"), "").unwrap();
    let probe = engine.connect();
    let hit = failpoints.path().join("acceptor.hit");
    until("it is accepted", || hit.exists());
    let address = probe.local_addr().unwrap();
    drop(probe);
    until("its end has come", || has_ended(&engine, address));
    std::fs::remove_file(&hit).unwrap();
    until("it is counted", || empty(&engine, "records") == 1);
    assert_eq!(waits(&engine, "records"), 0);
    drop(first);
    assert_eq!(engine.wait_for_results(1).len(), 1);
}

#[test]
fn connections_without_a_byte_are_reported_on_request() {
    let engine = Engine::start(&["--report-empty", "--exit-after", "1"]);
    probe(engine.address, false);
    let (status, results, _) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(1), 1));
    assert_eq!(results[0]["reason"], "closed_before_data");
}

/// While as many connections as `--exit-after` says are open, the next one waits; it is taken if
/// one of them turns out to be empty.
#[test]
fn an_empty_connection_gives_its_place_to_another() {
    let engine = Engine::start(&["--exit-after", "1"]);
    let silent = engine.connect();
    until("it is there", || stats(&engine)["connections_active"]["records"] == 1);
    let all = records(30, 1);
    let peer = crate::common::send(&engine, &stream(&all, 4));
    drop(silent);
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), 1), "{log}");
    assert_result(result_of(&results, peer), &all);
}
