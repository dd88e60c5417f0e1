//! Signals, one and several, during the start and afterwards; and the time between "not ready" and
//! closed listeners.

use super::process::wait_for_connections;
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::{Engine, result_of, ringest, send, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Sends a signal to a stopping engine and waits until it says that it has seen it.
fn repeat(engine: &Engine, signal: Signal, name: &str) {
    let said = format!("{name}: already stopping");
    let before = engine.log().matches(&said).count();
    engine.signal(signal);
    until("the repeated signal to be seen", || engine.log().matches(&said).count() > before);
}

/// `timeout ringest serve`, and a group that is killed together with a wrapper that forwards what
/// it gets, deliver SIGTERM twice at once. Supervisors repeat it. Nothing may be lost by that, nor
/// by one SIGINT among them.
#[test]
fn further_sigterms_and_one_sigint_change_nothing() {
    let engine = Engine::start(&["--debug", "--drain-timeout", "1h"]);
    let good = records(800, 2);
    let mut running = engine.connect();
    let peer = running.local_addr().unwrap();
    running.write_all(&packets(&good, 4)).unwrap();
    wait_for_connections(&engine, 1);
    engine.signal(Signal::TERM);
    until("the first signal to be seen", || engine.log().contains("SIGTERM: no new connections"));
    repeat(&engine, Signal::TERM, "SIGTERM");
    repeat(&engine, Signal::TERM, "SIGTERM");
    repeat(&engine, Signal::INT, "SIGINT");
    repeat(&engine, Signal::TERM, "SIGTERM");
    running.write_all(&stream(&[], 4)).unwrap();
    drop(running);
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let result = result_of(&results, peer);
    assert_eq!(result["status"], "complete", "{log}");
    assert_result(result, &good);
}

/// Ctrl-C, and Ctrl-C again. How much later is up to the unit test, which has the clock.
#[test]
fn a_second_sigint_exits_with_130() {
    let mut engine = Engine::start(&["--debug", "--drain-timeout", "1h"]);
    let _running = engine.connect();
    wait_for_connections(&engine, 1);
    engine.signal(Signal::INT);
    until("the first signal to be seen", || engine.log().contains("SIGINT: no new connections"));
    let mut status = None;
    until("the end", || {
        engine.signal(Signal::INT);
        status = engine.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130), "{}", engine.log());
}

/// An engine whose file of users is a pipe: its start goes on when the test writes it.
struct Starting {
    child: Child,
    pipe: PathBuf,
    log: Arc<Mutex<String>>,
    _directory: tempfile::TempDir,
}

impl Starting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("users");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let options = ["--port", "0", "--no-records", "--admin-port", "0", "--auth-file"];
        let mut child = ringest()
            .args(["serve", "--host", "127.0.0.1"])
            .args(options)
            .arg(&pipe)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (log, mut stderr) = (Arc::default(), BufReader::new(child.stderr.take().unwrap()));
        let kept: Arc<Mutex<String>> = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                kept.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Starting { child, pipe, log, _directory: directory }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the engine reads its file of users.
    fn wait_for_reader(&self) -> File {
        let mut pipe = None;
        until("the engine to read its users", || {
            pipe = open_if_read(&self.pipe);
            pipe.is_some()
        });
        pipe.unwrap()
    }

    fn wait_for_log(&self, text: &str) {
        until(text, || self.log.lock().unwrap().contains(text));
    }

    fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until("the end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a pipe for writing, if somebody has it open for reading.
fn open_if_read(pipe: &Path) -> Option<File> {
    File::options().write(true).custom_flags(libc::O_NONBLOCK).open(pipe).ok()
}

fn users() -> String {
    format!("ann:sha256:{}\n", "0".repeat(64))
}

/// Certificate tools send SIGHUP whenever they are done, also to an engine that is just starting.
#[test]
fn a_sighup_during_the_start_ends_nothing_and_reloads_afterwards() {
    let mut engine = Starting::new();
    let mut pipe = engine.wait_for_reader();
    engine.signal(Signal::HUP);
    pipe.write_all(users().as_bytes()).unwrap();
    drop(pipe);
    engine.wait_for_log("ready for messages");
    let mut pipe = engine.wait_for_reader();
    pipe.write_all(users().as_bytes()).unwrap();
    drop(pipe);
    engine.wait_for_log("auth file reloaded");
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait(), Some(0));
}

#[test]
fn a_start_that_hangs_can_be_stopped() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut engine = Starting::new();
        let _pipe = engine.wait_for_reader();
        engine.signal(signal);
        assert_eq!(engine.wait(), Some(0));
        assert!(engine.log.lock().unwrap().contains("before the start was finished"));
    }
}

/// A file that hangs while it is read again, as on a network file system, delays no stop.
#[test]
fn a_reload_that_hangs_delays_no_stop() {
    let mut engine = Starting::new();
    let mut pipe = engine.wait_for_reader();
    pipe.write_all(users().as_bytes()).unwrap();
    drop(pipe);
    engine.wait_for_log("ready for messages");
    engine.signal(Signal::HUP);
    let _pipe = engine.wait_for_reader();
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait(), Some(0));
}

/// What the admin listener answers to one question, status line and body.
fn ask(engine: &Engine, path: &str) -> String {
    let mut stream = TcpStream::connect(engine.admin()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

/// While balancers notice, the engine takes what they still send to it, and all of it counts.
#[test]
fn an_engine_goes_on_accepting_for_the_drain_delay() {
    let engine = Engine::start_both(&["--drain-delay", "1h"]);
    let good = records(800, 2);
    assert!(ask(&engine, "/readyz").starts_with("HTTP/1.1 200 "));
    engine.signal(Signal::TERM);
    until("the signal to be seen", || engine.log().contains("connections are accepted for 1h"));
    let reply = ask(&engine, "/readyz");
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("elsewhere"), "{reply}");
    assert!(ask(&engine, "/stats.json").contains("\"state\": \"draining\""));
    assert!(ask(&engine, "/metrics").contains("\nringest_ready 0\n"));
    let peer = send(&engine, &stream(&good, 4));
    TcpStream::connect(engine.messages()).expect("messages are accepted as well");
    let results = engine.wait_for_results(1);
    assert_eq!(result_of(&results, peer)["status"], "complete");
    assert_result(result_of(&results, peer), &good);
    repeat(&engine, Signal::TERM, "SIGTERM");
    assert!(!engine.log().contains("no new connections"), "{}", engine.log());
}

/// Without an option it depends on whether somebody has asked whether the engine is ready.
#[test]
fn the_drain_delay_follows_health_checks() {
    const ACCEPTING: &str = "connections are accepted for ";
    for (options, checked, delay) in [
        (&[][..], true, Some("5s")),
        (&[][..], false, None),
        (&["--drain-delay", "0"][..], true, None),
        (&["--drain-delay", "1ms"][..], false, Some("1ms")),
    ] {
        let engine = Engine::start(options);
        // Neither liveness nor metrics say where new connections should go.
        assert!(ask(&engine, "/healthz").starts_with("HTTP/1.1 200 "));
        assert!(ask(&engine, "/metrics").starts_with("HTTP/1.1 200 "));
        if checked {
            assert!(ask(&engine, "/readyz").starts_with("HTTP/1.1 200 "));
        }
        engine.signal(Signal::TERM);
        let (status, _, log) = engine.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        let said = log.split_once(ACCEPTING).and_then(|(_, rest)| rest.split(' ').next());
        assert_eq!(said, delay, "{options:?}: {log}");
        assert!(log.contains("SIGTERM: no new connections"), "{log}");
    }
}
