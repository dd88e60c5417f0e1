//! What an engine does about its own defects: a panic in one connection, and threads and tasks that
//! die. Tests provoke them at failpoints, which only builds with debug assertions have.

use crate::common::beside::{stats, wrongs};
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::wire::{
    BROADCAST, CLOSE, Client, DATA_ACK, ECHO, INTERNAL_ERROR, PING, data, frame,
};
use crate::common::{Engine, result_of, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// An engine of one worker and the directory of its failpoints.
struct Sick {
    engine: Engine,
    failpoints: tempfile::TempDir,
}

impl Sick {
    fn start(options: &[&str]) -> Self {
        let failpoints = tempfile::tempdir().unwrap();
        let variables = [("RINGEST_FAILPOINTS", failpoints.path().to_str().unwrap())];
        let core = crate::common::one_core();
        let options = [&["--cores", &core], options].concat();
        let engine = Engine::start_both_in(&variables, &options);
        Sick { engine, failpoints }
    }

    /// Makes the next thread that passes the place panic.
    fn make_panic(&self, place: &str) {
        fs::write(self.failpoints.path().join(format!("{place}.panic")), "").unwrap();
    }

    fn wait_for_hit(&self, place: &str) {
        let hit = self.failpoints.path().join(format!("{place}.hit"));
        until(place, || hit.exists());
    }

    /// Waits for the end, which must have exit code 1 and a line that names the cause.
    fn assert_stops(self, cause: &str) -> Vec<Value> {
        let (status, results, log) = self.engine.wait();
        assert_eq!(status.code(), Some(1), "{log}");
        let line = log.lines().find(|line| line.starts_with("ringest: stopped because "));
        let line = line.unwrap_or_else(|| panic!("no line says why: {log}"));
        assert!(line.contains(cause) && line.contains("this is a bug"), "{line}");
        results
    }
}

/// A stream that has sent some records, which are in its groups.
fn begin(engine: &Engine, all: &[crate::common::oracle::Record]) -> TcpStream {
    let before = stats(engine)["records"].as_u64().unwrap();
    let mut sender = engine.connect();
    sender.write_all(&packets(all, 4)).unwrap();
    until("its records", || stats(engine)["records"] == before + all.len() as u64);
    sender
}

fn assert_internal_error(result: &Value) {
    let found = (&result["status"], &result["reason"]);
    assert_eq!(found, (&"incomplete".into(), &"internal_error".into()), "{result}");
}

#[test]
fn a_panic_in_a_record_connection_costs_that_connection_only_and_no_row() {
    let sick = Sick::start(&[]);
    let (some, more) = (records(40, 1), records(80, 1));
    let mut healthy = begin(&sick.engine, &records(20, 7));
    let mut ill = begin(&sick.engine, &some);
    sick.make_panic("record_connection");
    ill.write_all(&packets(&more[40..], 4)).unwrap();
    sick.wait_for_hit("record_connection");
    let results = sick.engine.wait_for_results(1);
    let result = result_of(&results, ill.local_addr().unwrap());
    assert_internal_error(result);
    assert_result(result, &more);
    // The others go on as before.
    healthy
        .write_all(&crate::common::oracle::packet(&[crate::common::oracle::end_record()]))
        .unwrap();
    healthy.shutdown(Shutdown::Write).unwrap();
    let results = sick.engine.wait_for_results(2);
    assert_result(result_of(&results, healthy.local_addr().unwrap()), &records(20, 7));
    assert_eq!(stats(&sick.engine)["state"], "ready");
}

#[test]
fn a_panic_in_a_message_connection_keeps_its_acknowledged_records() {
    let sick = Sick::start(&[]);
    let all = records(40, 1);
    let mut client = Client::connect(sick.engine.messages());
    client.send(&data(0, &packets(&all, 4)));
    client.expect(DATA_ACK, &0u32.to_be_bytes());
    sick.make_panic("message_connection");
    client.send(&frame(PING, b"12345678"));
    client.expect_error(INTERNAL_ERROR);
    client.expect_end();
    let results = sick.engine.wait_for_results(1);
    let result = result_of(&results, client.local_address());
    assert_internal_error(result);
    assert_result(result, &all);
    assert_eq!(wrongs(&sick.engine)["internal_error"], 1);
    // Slots and lists are in order.
    let mut next = Client::connect(sick.engine.messages());
    next.ping(1);
    next.send(&frame(CLOSE, b""));
    next.expect_end();
}

/// Running streams still come to their end, and the engine stops.
#[test]
fn a_timer_that_dies_stops_the_engine() {
    let sick = Sick::start(&[]);
    let all = records(40, 1);
    let mut sender = begin(&sick.engine, &all);
    sick.make_panic("timer");
    sick.wait_for_hit("timer");
    until("not ready", || stats(&sick.engine)["state"] == "draining");
    sender.write_all(&stream(&records(8, 9), 4)).unwrap();
    sender.shutdown(Shutdown::Write).unwrap();
    let results = sick.assert_stops("the timer of worker-");
    let result = result_of(&results, sender.local_addr().unwrap());
    assert_result(result, &[all, records(8, 9)].concat());
    assert_eq!(result["status"], "complete");
}

/// Nobody else would end the streams that go on for longer than `--drain-timeout`.
#[test]
fn without_a_timer_streams_end_all_the_same() {
    let sick = Sick::start(&["--drain-timeout", "0s"]);
    let sender = begin(&sick.engine, &records(40, 1));
    sick.make_panic("timer");
    let results = sick.assert_stops("the timer of worker-");
    assert_eq!(result_of(&results, sender.local_addr().unwrap())["reason"], "shutdown");
}

#[test]
fn a_coalescer_that_dies_stops_the_engine() {
    // Eight reads within the delay are fast enough to be gathered.
    let sick = Sick::start(&["--drain-timeout", "0s", "--coalesce-delay", "1s"]);
    sick.make_panic("coalescer");
    // It looks around when the reads of a stream are gathered for the first time.
    let mut sender = sick.engine.connect();
    let packet = packets(&records(4, 1), 4);
    let hit = sick.failpoints.path().join("coalescer.hit");
    until("gathered reads", || sender.write_all(&packet).is_err() || hit.exists());
    sick.assert_stops("the coalescer of worker-");
}

#[test]
fn a_hub_that_dies_stops_the_engine() {
    let sick = Sick::start(&[]);
    let mut client = Client::connect(sick.engine.messages());
    sick.make_panic("hub");
    client.send(&frame(BROADCAST, b"x"));
    client.expect_end();
    sick.assert_stops("the hub of worker-");
}

#[test]
fn a_worker_that_dies_stops_the_engine_and_its_streams_are_reported() {
    let sick = Sick::start(&[]);
    let first = begin(&sick.engine, &records(40, 1));
    let mut client = Client::connect(sick.engine.messages());
    client.send(&data(0, &packets(&records(4, 1), 4)));
    client.expect(DATA_ACK, &0u32.to_be_bytes());
    sick.make_panic("worker");
    let second = sick.engine.connect();
    let results = sick.assert_stops("the thread worker-");
    for peer in [first.local_addr(), Ok(client.local_address()), second.local_addr()] {
        assert_internal_error(result_of(&results, peer.unwrap()));
    }
}

#[test]
fn other_threads_that_die_stop_the_engine() {
    for (place, thread) in
        [("reporter", "reporter"), ("aggregator", "aggregate-"), ("acceptor", "acceptor")]
    {
        let sick = Sick::start(&["--drain-timeout", "0s"]);
        sick.make_panic(place);
        let _ = sick.engine.connect().write_all(&stream(&records(8, 1), 4));
        let cause = match place {
            "acceptor" => "connections can no longer be accepted: ",
            _ => thread,
        };
        let (status, _, log) = sick.engine.wait();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("ringest: stopped because ") && log.contains(cause), "{log}");
    }
}

/// Waits for exit code 1 and a line that names the thread.
fn assert_stopped_because_of(sick: Sick, thread: &str) {
    sick.assert_stops(&format!("the thread {thread} panicked"));
}

/// Without it nobody would see the metrics, and health checks would hang.
#[test]
fn an_admin_thread_that_dies_stops_the_engine() {
    let sick = Sick::start(&["--drain-timeout", "0s"]);
    let admin = sick.engine.admin();
    sick.make_panic("admin");
    let _asks = TcpStream::connect(admin).unwrap();
    assert_stopped_because_of(sick, "admin");
    // It measures rates by itself.
    let sick = Sick::start(&["--drain-timeout", "0s"]);
    sick.make_panic("admin_sample");
    assert_stopped_because_of(sick, "admin");
}

#[test]
fn a_panic_in_an_admin_connection_costs_that_connection_only() {
    let sick = Sick::start(&[]);
    sick.make_panic("admin_connection");
    let mut asks = TcpStream::connect(sick.engine.admin()).unwrap();
    asks.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    crate::common::wait_closed(&mut asks);
    until("the line about it", || sick.engine.log().contains("an admin connection panicked"));
    assert_eq!(stats(&sick.engine)["state"], "ready");
}

/// Without it no signal but SIGKILL would do anything.
#[test]
fn a_thread_of_signals_that_dies_stops_the_engine() {
    let sick = Sick::start(&["--drain-timeout", "0s"]);
    sick.make_panic("signals");
    sick.engine.signal(Signal::TERM);
    assert_stopped_because_of(sick, "signals");
    let failpoints = tempfile::tempdir().unwrap();
    fs::write(failpoints.path().join("signals_start.panic"), "").unwrap();
    let engine = Engine::start_both_in(
        &[("RINGEST_FAILPOINTS", failpoints.path().to_str().unwrap())],
        &["--drain-timeout", "0s"],
    );
    assert_stopped_because_of(Sick { engine, failpoints }, "signals");
}

/// The next SIGHUP is acted upon as before.
#[test]
fn a_reload_that_panics_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let results = directory.path().join("results");
    let sick = Sick::start(&["--results", results.to_str().unwrap()]);
    sick.make_panic("reload");
    sick.engine.signal(Signal::HUP);
    until("the line about it", || sick.engine.log().contains("reloading panicked"));
    fs::rename(&results, directory.path().join("rotated")).unwrap();
    sick.engine.signal(Signal::HUP);
    until("a new file", || results.exists());
    assert_eq!(stats(&sick.engine)["state"], "ready");
}

#[test]
fn a_live_line_that_dies_stops_the_engine() {
    let sick = Sick::start(&["--drain-timeout", "0s", "--interval", "100ms"]);
    sick.make_panic("live");
    assert_stopped_because_of(sick, "live");
}

/// Whatever a stream's files lack is said in its result; and the engine stops at once, not only
/// when somebody stops it.
#[test]
fn threads_of_files_that_die_stop_the_engine() {
    for (place, option, thread) in [
        ("capture", "--capture", "capture"),
        ("capture_end", "--capture", "capture-end-"),
        ("writer", "--output", "writer-"),
        ("partials", "--partials", "partials-"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let sick = Sick::start(&["--drain-timeout", "0s", option, path]);
        sick.make_panic(place);
        let mut sender = sick.engine.connect();
        let _ = sender.write_all(&stream(&records(8, 1), 4));
        let results = sick.assert_stops(&format!("the thread {thread}"));
        if option != "--output" {
            let result = result_of(&results, sender.local_addr().unwrap());
            assert_result(result, &records(8, 1));
            // Another thread writes the batch.
            let whole = option == "--partials" && result["partials_failed"] == 0;
            assert!(
                whole || result["capture_error"].as_str().unwrap().contains("died"),
                "{result}"
            );
        }
    }
}

/// What waits for a client is written by a task, whose panic its connection must not survive as if
/// nothing had happened.
#[test]
fn a_panic_while_writing_to_a_client_costs_that_connection_only() {
    let unlimited = ["--rate-limit", "0", "--global-rate-limit", "0"];
    let sick = Sick::start(&unlimited);
    let mut client = Client::connect(sick.engine.messages());
    client.ping(0);
    sick.make_panic("outbox");
    // Asks until the kernel takes no more answers, and an answer has to wait.
    let hit = sick.failpoints.path().join("outbox.hit");
    let echo = frame(ECHO, &[7; 60_000]);
    client.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut at = 0;
    until("answers that wait", || {
        at += client.stream.write(&echo[at..]).unwrap_or(0);
        at %= echo.len();
        hit.exists()
    });
    until("it is counted", || wrongs(&sick.engine)["internal_error"] == 1);
    Client::connect(sick.engine.messages()).ping(1);
    assert_eq!(stats(&sick.engine)["state"], "ready");
}
