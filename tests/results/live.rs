//! The two ways to watch `serve` at work: `--interval`, what comes in lines on stderr, and
//! `--hgrm`, a file of latencies for each record stream.

use crate::common::beside::stats;
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::wire::{CLOSE, Client, DATA_ACK, data, frame};
use crate::common::{Engine, RINGEST, read_results, result_of, ringest, run, stderr_of, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

// ---- --interval, to a file or a pipe ----

/// The lines that say how much came.
fn progress_lines(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" records/s, ")).collect()
}

/// The number before a word.
fn number_before(line: &str, word: &str) -> u64 {
    let (before, _) = line.split_once(word).unwrap_or_else(|| panic!("no {word} in {line}"));
    before.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{word} in {line}"))
}

#[test]
fn lines_come_at_each_interval_and_nothing_is_missing_in_them() {
    let engine = Engine::start(&["--interval", "100ms", "--exit-after", "3"]);
    let good = records(5000, 1);
    let bytes = stream(&good, 4);
    crate::common::send(&engine, &bytes);
    let mut slow = engine.connect();
    slow.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let shown = |text: &str| engine.log().lines().any(|line| line.contains(text));
    until("a line with a connection", || shown(", 1 record connections; so far "));
    until("some more lines", || progress_lines(&engine.log()).len() > 5);
    slow.write_all(&bytes[bytes.len() / 2..]).unwrap();
    drop(slow);
    crate::common::send(&engine, &bytes);
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), 3), "{log}");

    let lines = progress_lines(&log);
    for line in &lines {
        let moment = line.strip_prefix("ringest: ").and_then(|rest| rest.split_once("Z: "));
        assert!(moment.is_some_and(|(moment, _)| moment.len() == "2026-11-20T10:15:01.003".len()));
        assert!(!line.contains("message"), "there is no listener for them: {line}");
    }
    let so_far = |line: &&str| {
        let (_, sums) = line.split_once("; so far ").unwrap();
        (number_before(sums, " records in "), number_before(sums, " packets"))
    };
    let sums: Vec<_> = lines.iter().map(so_far).collect();
    assert!(sums.is_sorted(), "{log}");
    let of_results = |key: &str| results.iter().map(|result| result[key].as_u64().unwrap()).sum();
    let expected: (u64, u64) = (of_results("records"), of_results("packets"));
    assert_eq!((expected.0, sums.last()), (15_000, Some(&expected)), "{log}");
    assert!(lines.iter().any(|line| line.contains(", p99 ")), "{log}");
}

#[test]
fn messages_have_their_part_of_the_line() {
    let engine = Engine::start_both(&["--interval", "100ms"]);
    let mut client = Client::connect(engine.messages());
    let mut number = 0;
    until("a line with messages", || {
        client.ping(number);
        number += 1;
        let log = engine.log();
        progress_lines(&log).iter().any(|line| {
            line.contains(", no packets, 0 record and 1 message connections, ")
                && number_before(line, " messages/s; so far 0 records in 0 packets") > 0
        })
    });
    drop(client);
    engine.signal(Signal::TERM);
    let (status, _, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// `O_NONBLOCK` of `asm-generic/fcntl.h`.
const NONBLOCK: i32 = 0o4000;

/// An engine whose stderr is full: a pipe that somebody made and forgot to read.
struct Unread {
    engine: Engine,
    stderr: BufReader<ChildStderr>,
    directory: tempfile::TempDir,
}

impl Unread {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let results = fs::File::create(directory.path().join("results")).unwrap();
        let (engine, stderr) = Engine::start_with(&["--interval", "100ms"], results.into());
        // By another way to the same pipe, so that the engine's own still blocks.
        let pipe = format!("/proc/self/fd/{}", stderr.get_ref().as_raw_fd());
        let filler = fs::OpenOptions::new().write(true).custom_flags(NONBLOCK).open(pipe);
        let mut filler = filler.unwrap();
        while filler.write(b"\n").is_ok() {}
        Unread { engine, stderr, directory }
    }

    /// Streams that are refused, each of which is worth a line of the log.
    fn refuse(&self, times: usize) {
        let path = self.directory.path().join("results");
        let before = read_results(&path).len();
        for _ in 0..times {
            crate::common::send(&self.engine, b"no length");
        }
        until("results", || read_results(&path).len() == before + times);
    }
}

#[test]
fn a_stderr_that_nobody_reads_holds_neither_results_nor_the_end_up() {
    let mut unread = Unread::start();
    unread.refuse(10);
    unread.engine.signal(Signal::TERM);
    assert_eq!(unread.engine.wait_for_end().code(), Some(0));
}

#[test]
fn who_reads_stderr_late_sees_that_lines_are_missing() {
    let Unread { mut engine, mut stderr, directory } = {
        let unread = Unread::start();
        unread.refuse(10);
        unread
    };
    let mut line = String::new();
    while !line.contains(" dropped: stderr was not being read") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it never says so");
    }
    engine.signal(Signal::TERM);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("stopped: 10 connections reported"), "{rest}");
    assert_eq!(engine.wait_for_end().code(), Some(0));
    drop(directory);
}

#[test]
fn without_the_option_there_is_no_line() {
    let engine = Engine::start(&["--exit-after", "1"]);
    crate::common::send(&engine, &stream(&records(100, 1), 4));
    let (_, _, log) = engine.wait();
    assert!(!log.contains("records/s"), "{log}");
}

#[test]
fn packets_have_their_latency_in_the_state() {
    let engine = Engine::start_both(&["--exit-after", "1"]);
    assert_eq!(stats(&engine)["packet_latency"]["count"], 0);
    let mut sender = engine.connect();
    sender.write_all(&packets(&records(100, 1), 4)).unwrap();
    until("25 packets", || stats(&engine)["packet_latency"]["count"] == 25);
    let stats = stats(&engine);
    assert_eq!(stats["packets"], 25);
    let latency = &stats["packet_latency"];
    assert!(latency["max_us"].as_f64() >= latency["p50_us"].as_f64(), "{latency}");
    assert_eq!(stats["message_latency"]["count"], 0);
}

// ---- --interval, on a terminal ----

/// Runs `serve` for one stream on a terminal of 40 columns; gives what the terminal got.
fn on_a_terminal(term: &str) -> String {
    let serve = format!(
        "stty cols 40 rows 20; exec {RINGEST} serve --host 127.0.0.1 --records-port 0 \
         --no-messages --admin-port 0 --format ndjson --interval 100ms --exit-after 1 --debug"
    );
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &serve, "/dev/null"])
        .env("TERM", term)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("`script` makes the terminal (Debian packages bsdutils, util-linux)");
    let shown = Arc::new(Mutex::new(Vec::new()));
    let mut output = script.stdout.take().unwrap();
    let reader = thread::spawn({
        let shown = Arc::clone(&shown);
        move || {
            let mut bytes = [0; 4096];
            // A terminal whose program has ended reads as an error.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().extend(&bytes[..count]);
            }
        }
    });
    let text = || String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    let mut address: Option<SocketAddr> = None;
    until("the engine", || {
        let text = text();
        let line =
            text.split_once("ready for records on ").and_then(|(_, line)| line.split_once(' '));
        address = line.map(|(address, _)| address.parse().unwrap());
        address.is_some()
    });
    until("lines", || text().matches(" records/s, ").count() > 3);
    let mut sender = TcpStream::connect(address.unwrap()).unwrap();
    sender.write_all(&stream(&records(200, 1), 4)).unwrap();
    drop(sender);
    let status = script.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(status.code(), Some(0), "{}", text());
    text()
}

#[test]
fn on_a_terminal_one_line_changes_and_nothing_runs_into_it() {
    const CLEAR: &str = "\r\x1b[K";
    let shown = on_a_terminal("xterm");
    // What stays on the terminal: of each line, what follows the last time it was cleared.
    let kept: Vec<&str> =
        shown.split("\r\n").map(|line| line.rsplit(CLEAR).next().unwrap()).collect();
    assert!(!kept.iter().any(|line| line.contains("records/s, ")), "{shown:?}");
    assert_eq!(kept.last(), Some(&""), "{shown:?}");
    let results: Vec<Value> =
        kept.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(results.len(), 1, "the result stands alone on its line: {shown:?}");
    assert_result(&results[0], &records(200, 1));
    for line in kept.iter().filter(|line| !line.is_empty() && !line.starts_with('{')) {
        assert!(line.starts_with("ringest: ") || line.starts_with("20"), "{line:?} in {shown:?}");
    }
    let drawn: Vec<&str> = shown
        .split(CLEAR)
        .filter(|part| part.contains(" records/s, ") && !part.contains('\n'))
        .collect();
    assert!(drawn.len() > 2, "{shown:?}");
    for line in drawn {
        assert!(line.chars().count() == 39 && line.ends_with('…'), "{line:?}");
    }
    assert_eq!(shown.matches('\x1b').count(), shown.matches(CLEAR).count(), "{shown:?}");
}

#[test]
fn a_terminal_that_cannot_change_lines_gets_plain_ones() {
    let shown = on_a_terminal("dumb");
    assert!(!shown.contains('\x1b'), "{shown:?}");
    assert!(progress_lines(&shown).iter().all(|line| line.contains("; so far ")), "{shown}");
}

// ---- --hgrm ----

/// The files in a directory.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The one file of a connection.
fn file_of(directory: &Path, result: &Value) -> String {
    let end = format!("-{}.hgrm", result["connection"]);
    let named = |path: &&PathBuf| path.to_string_lossy().ends_with(&end);
    let files = files_in(directory);
    let found: Vec<_> = files.iter().filter(named).collect();
    assert_eq!(found.len(), 1, "{end} in {files:?}");
    fs::read_to_string(found[0]).unwrap()
}

/// What stands in the footer behind a name.
fn footer(text: &str, name: &str) -> f64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name} in {text}"));
    let value = rest.trim_start_matches([' ', '=']).split([',', ']']).next().unwrap();
    value.parse().unwrap_or_else(|_| panic!("{value} in {text}"))
}

/// Reads a file as a plotter does and compares it with the result of its connection.
fn assert_percentiles(text: &str, result: &Value) {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
    assert_eq!(lines.next(), Some(""));
    let rows: Vec<Vec<f64>> = lines
        .take_while(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert!(rows.len() >= 2, "{text}");
    for pair in rows.windows(2) {
        assert!((0..3).all(|column| pair[0][column] <= pair[1][column]), "{text}");
    }
    let (last, others) = rows.split_last().unwrap();
    for row in others {
        assert_eq!(row.len(), 4, "{text}");
        assert!((row[3] - 1.0 / (1.0 - row[1])).abs() <= 0.006, "{text}");
    }
    let latency = &result["latency_us"];
    let (count, max) = (latency["count"].as_f64().unwrap(), latency["max"].as_f64().unwrap());
    assert_eq!(result["packets"], latency["count"]);
    assert_eq!((last[1], last[2]), (1.0, count), "{text}");
    assert_eq!(footer(text, "Total count"), count);
    // Written with three decimals.
    assert!(
        (footer(text, "Max") - max).abs() < 0.000_6 && last[0] == footer(text, "Max"),
        "{text}"
    );
}

#[test]
fn each_stream_with_packets_gets_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let engine = Engine::start(&["--hgrm", path, "--report-empty", "--exit-after", "4"]);
    let bytes = stream(&records(4000, 1), 4);
    let peers = [&bytes[..], &bytes[..bytes.len() / 2], &bytes[bytes.len() - 271..], b""]
        .map(|bytes| crate::common::send(&engine, bytes));
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(1), 4), "two are not complete: {log}");
    assert_eq!(files_in(directory.path()).len(), 3, "none for one without a packet");
    for peer in &peers[..3] {
        let result = result_of(&results, *peer);
        assert_percentiles(&file_of(directory.path(), result), result);
    }
    // 20261120T101500.123456Z-host-4711-1.hgrm
    for file in files_in(directory.path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (moment, _) = name.split_once("Z-").unwrap();
        assert!(moment.len() == 22 && moment.starts_with("20") && &moment[8..9] == "T", "{name}");
    }
    assert!(!log.contains("latency files"), "{log}");
}

#[test]
fn streams_within_messages_get_theirs() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start_messages(&["--hgrm", directory.path().to_str().unwrap()]);
    let mut client = Client::connect(engine.messages());
    for round in 0..2 {
        client.send(&data(round, &stream(&records(100, 1), 4)));
        client.expect(DATA_ACK, &round.to_be_bytes());
    }
    client.send(&frame(CLOSE, b""));
    client.expect_end();
    engine.wait_for_results(2);
    engine.signal(Signal::TERM);
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(files_in(directory.path()).len(), 2);
    for result in &results {
        assert_percentiles(&file_of(directory.path(), result), result);
    }
}

#[test]
fn a_directory_that_goes_away_costs_the_files_and_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let engine =
        Engine::start(&["--hgrm", directory.path().to_str().unwrap(), "--exit-after", "2"]);
    fs::remove_dir(directory.path()).unwrap();
    let all = records(400, 1);
    let peers = [(); 2].map(|()| crate::common::send(&engine, &stream(&all, 4)));
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    for peer in peers {
        let result = result_of(&results, peer);
        assert_eq!(result["status"], "complete");
        assert_result(result, &all);
    }
    let file = directory.path().join("2").display().to_string();
    for said in [
        format!("ERROR cannot write latencies: {file}"),
        format!("ringest: 2 latency files could not be written (--hgrm); the first: {file}"),
    ] {
        let why = ".hgrm: the directory no longer exists";
        assert!(log.lines().any(|l| l.contains(&said) && l.contains(why)), "{said}: {log}");
    }
}

#[test]
fn wrong_values_exit_2_and_say_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for (option, value, said) in [
        ("--interval", "99ms", "--interval is 99ms; it must be between 100ms and 1h"),
        ("--interval", "3600001ms", "--interval is 1h 1ms; it must be between 100ms and 1h"),
        ("--interval", "1", "invalid value '1' for '--interval <TIME>'"),
        ("--hgrm", "/no/such/directory", "cannot write to --hgrm /no/such/directory: No such file"),
        ("--hgrm", file.to_str().unwrap(), "must be a directory"),
    ] {
        let listeners = ["--port", "0", "--records-port", "0", "--host", "127.0.0.1"];
        let output = run(ringest().arg("serve").args(listeners).args([option, value]));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(2), "{option} {value}: {stderr}");
        assert!(stderr.contains(said), "{option} {value}: {stderr}");
    }
}
