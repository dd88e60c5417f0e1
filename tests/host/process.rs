//! The program as its users meet it: start, signals, output, exit codes, wrong usage.

use crate::common::beside::{let_run, wait_for_bytes};
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::{
    Engine, RINGEST, nobody, result_of, ringest, root, run, stderr_of, until, wait_closed,
};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Stops an engine in mid-stream: what came of each connection is reported.
fn stop_in_mid_stream(signal: Signal, options: &[&str]) {
    let engine = Engine::start(&[&["--debug", "--drain-timeout", "3s"], options].concat());
    let good = records(800, 2);
    let mut running = engine.connect();
    let mut finishing = engine.connect();
    let peers = [running.local_addr().unwrap(), finishing.local_addr().unwrap()];
    running.write_all(&packets(&good, 4)).unwrap();
    let bytes = stream(&good, 4);
    finishing.write_all(&bytes[..1072]).unwrap();
    wait_for_connections(&engine, 2);
    engine.signal(signal);
    // Connections that run may go on; new ones are refused.
    until("the listener to close", || std::net::TcpStream::connect(engine.address).is_err());
    finishing.write_all(&bytes[1072..]).unwrap();
    drop(finishing);
    wait_closed(&mut running);
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let cut = result_of(&results, peers[0]);
    assert_eq!((&cut["status"], &cut["reason"]), (&"incomplete".into(), &"shutdown".into()));
    assert_result(cut, &good);
    let whole = result_of(&results, peers[1]);
    assert_eq!(whole["status"], "complete");
    assert_result(whole, &good);
}

#[test]
fn sigterm_in_mid_stream_reports_what_came_and_exits_0() {
    stop_in_mid_stream(Signal::TERM, &[]);
}

/// Whoever stops an engine knows that connections are cut: --exit-after changes nothing.
#[test]
fn sigint_in_mid_stream_reports_what_came_and_exits_0() {
    stop_in_mid_stream(Signal::INT, &["--exit-after", "2"]);
}

/// Without a time to drain, running connections are cut with the signal; with a long one, none is
/// cut that ends by itself.
#[test]
fn the_time_to_drain_is_an_option() {
    let good = records(8, 2);
    for (time, status) in [("0s", "incomplete"), ("1h", "complete")] {
        let engine = Engine::start(&["--debug", "--drain-timeout", time]);
        let mut running = engine.connect();
        running.write_all(&packets(&good, 4)).unwrap();
        wait_for_bytes(&engine, "records", packets(&good, 4).len() as u64);
        engine.signal(Signal::TERM);
        until("the signal to be seen", || engine.log().contains("SIGTERM"));
        if status == "complete" {
            running.write_all(&stream(&[], 4)).unwrap();
        }
        wait_closed(&mut running);
        let (code, results, log) = engine.wait();
        assert_eq!((code.code(), &results[0]["status"]), (Some(0), &status.into()), "{log}");
        assert_result(&results[0], &good);
    }
}

#[test]
fn an_idle_engine_stops() {
    let engine = Engine::start(&[]);
    engine.signal(Signal::TERM);
    let (status, results, _) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), 0));
}

/// Waits until so many connections are with a worker.
pub fn wait_for_connections(engine: &Engine, count: usize) {
    until("connections", || engine.log().matches(" connected").count() == count);
}

#[test]
fn exit_after_says_by_its_code_whether_all_were_complete() {
    let good = records(40, 2);
    for (cut, code) in [(0, 0), (1, 1)] {
        let engine = Engine::start(&["--exit-after", "2"]);
        let bytes = stream(&good, 4);
        crate::common::send(&engine, &bytes);
        crate::common::send(&engine, &bytes[..bytes.len() - cut]);
        let (status, results, _) = engine.wait();
        assert_eq!((status.code(), results.len()), (Some(code), 2));
        let mut numbers: Vec<_> =
            results.iter().map(|r| r["connection"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
    }
}

/// Runs an engine that is not expected to start.
fn serve_records_on(port: &str) -> std::process::Output {
    let listeners = ["--no-messages", "--admin-port", "0", "--host", "127.0.0.1"];
    run(ringest().arg("serve").args(listeners).args(["--records-port", port]))
}

#[test]
fn a_taken_port_exits_3_with_the_next_step() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = serve_records_on(&port);
    assert_eq!(output.status.code(), Some(3));
    let stderr = stderr_of(&output);
    assert!(stderr.contains("another process is listening there"), "{stderr}");
    assert!(stderr.contains("FAIL  port"), "{stderr}");
    // Nor may two engines share a port.
    let engine = Engine::start(&[]);
    let port = engine.address.port().to_string();
    let output = serve_records_on(&port);
    assert_eq!(output.status.code(), Some(3));
}

/// Sends one stream to an engine with the given stdout; gives its exit code and what followed on
/// its stderr.
fn serve_one_with(stdout: Stdio) -> (Option<i32>, String) {
    let (mut engine, mut stderr) = Engine::start_with(&["--exit-after", "1"], stdout);
    crate::common::send(&engine, &stream(&records(100, 1), 4));
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    (engine.wait_for_end().code(), text)
}

#[test]
fn a_stdout_that_was_never_open_is_an_error() {
    let serve = "serve --no-messages --admin-port 0 --records-port 0";
    for command in [serve, "demo --connections 1 --records 1", "doctor"] {
        let script = format!("exec {RINGEST} {command} >&-");
        let output = run(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()));
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(stderr_of(&output).contains("stdout is closed"), "{}", stderr_of(&output));
    }
}

#[test]
fn a_full_or_closed_stdout_is_an_error_and_no_panic() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for (stdout, cause) in
        [(Stdio::from(full), "No space left"), (Stdio::from(closed), "Broken pipe")]
    {
        let (code, stderr) = serve_one_with(stdout);
        assert_eq!(code, Some(1), "{stderr}");
        let message = format!("cannot write results to stdout: {cause}");
        assert!(stderr.contains(&message) && !stderr.contains("panicked"), "{stderr}");
    }
}

/// Results that nobody takes hold the engine up, as they must, since nothing may grow. No sender is
/// held to account for that, however short its deadline for a packet, and nothing is lost.
#[test]
fn results_that_wait_to_be_read_cost_no_connection() {
    const CONNECTIONS: usize = 60;
    const RECORDS: u32 = 200;
    let options = [
        "--exit-after",
        &CONNECTIONS.to_string(),
        "--cores",
        &crate::common::one_core(),
        // So that reads end within packets.
        "--buffer-bytes",
        "4KiB",
        "--packet-timeout",
        "4s",
    ];
    let (mut engine, stderr) = Engine::start_with(&options, Stdio::piped());
    engine.read_log(stderr);
    let all: Vec<_> = (0..RECORDS)
        .map(|i| crate::common::oracle::record(i, 1, 1.0, 1, b"a group for each record"))
        .collect();
    let bytes = stream(&all, RECORDS as usize);
    // All of it fits into the buffers of the kernel: no sender has to be woken to send the rest.
    for _ in 0..CONNECTIONS {
        crate::common::send(&engine, &bytes);
    }
    // More than the deadline, with nobody reading.
    let_run(&engine, Duration::from_secs(6));
    assert!(engine.child.try_wait().unwrap().is_none(), "results fitted into the pipe");
    let mut printed = String::new();
    engine.child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(engine.wait_for_end().code(), Some(0), "{}", engine.log());
    assert_eq!(printed.lines().count(), CONNECTIONS);
    for line in printed.lines() {
        assert_result(&serde_json::from_str(line).unwrap(), &all);
    }
}

#[test]
fn a_closed_stderr_stops_nothing() {
    let options = ["--exit-after", "2", "--debug"];
    let (mut engine, stderr) = Engine::start_with(&options, Stdio::null());
    drop(stderr);
    crate::common::send(&engine, &stream(&records(100, 1), 4));
    crate::common::send(&engine, b"not a packet");
    assert_eq!(engine.wait_for_end().code(), Some(1));
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_allowed() {
    for (arguments, said) in [
        (&["serve", "--cores", "1000"][..], "allowed: "),
        (&["serve", "--cores", "0-"], "is not a core number"),
        (
            &["serve", "--buffer-bytes", "4095"],
            "--buffer-bytes is 4095; it must be between 4096 and",
        ),
        (&["serve", "--batch-rows", "0"], "--batch-rows is 0; it must be between 1 and"),
        (&["serve", "--packet-bytes-limit", "270"], "must be between 271 and"),
        (&["serve", "--registered-buffers", "1025"], "must be between 0 and 1024"),
        (&["serve", "--max-connections", "100000"], "must be between 1 and 65536"),
        (&["serve", "--batch-rows", "18446744073709551615"], "must be between 1 and 16777216"),
        (
            &["serve", "--idle-timeout", "1ms"],
            "--idle-timeout is 1ms; it must be between 100ms and 7 days",
        ),
        (
            &["serve", "--coalesce-delay", "1001ms"],
            "--coalesce-delay is 1s 1ms; it must be between 0s and 1s",
        ),
        (&["serve", "--buffer-bytes", "many"], "write e.g. 64KiB"),
        (&["serve", "--exit-after", "0"], "0 is not in 1.."),
        (&["serve", "--format", "xml"], "possible values: table, ndjson"),
        (&["serve", "--aggregate", "rows"], "possible values: columns, two-phase"),
        (&["doctor", "--max-connections", "0"], "must be between 1 and 65536"),
        (&["send", "--host", "no such host"], "cannot resolve --host"),
        (&["send", "--verify", "/nonexistent/results"], "serve --format ndjson"),
        (&["send", "--rate", "1000000001"], "1000000001 is not in 0..=1000000000"),
        (&["send", "--rate=-1"], "invalid value '-1' for '--rate <N>'"),
        (&["send", "--groups", "0"], "0 is not in 1..=10000000"),
        (&["send", "--groups", "10000001"], "10000001 is not in 1..=10000000"),
        (&["send", "--write-bytes", "268435457"], "268435457 bytes; it must be at most 268435456"),
        (&["send", "--packet-records", "0"], "0 is not in 1..=1000000"),
        (&["send", "--verify-timeout", "18446744073709551615s"], "it must be at most 7 days"),
        (&["send", "--port", "99999"], "invalid value '99999' for '--records-port <PORT>'"),
        (&["send", "--ca", "ca.crt"], "--tls"),
        (&["send", "--tls"], "--tls needs --ca FILE"),
        (&["replay", "--tls", "--ca", "/nowhere.crt", "/dev/null"], "not a regular file"),
        (&["load", "--duration", "18446744073709551615s"], "it must be at most 7 days"),
        (&["load", "--warm-up", "8days"], "it must be at most 7 days"),
        (&["load", "--rate", "20000000000"], "20000000000 is not in 1..=1000000000"),
        (&["load", "--rate", "0"], "0 is not in 1..=1000000000"),
        (&["fly"], "unrecognized subcommand"),
    ] {
        let output = run(ringest().args(arguments));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty() && !stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn every_option_of_serve_reads_its_environment_variable() {
    let help = String::from_utf8(run(ringest().args(["serve", "--help"])).stdout).unwrap();
    let options = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let mut count = 0;
    for option in options {
        let name = option.split([' ', '=']).next().unwrap();
        if name == "help" {
            continue;
        }
        let variable = format!("RINGEST_{}", name.to_uppercase().replace('-', "_"));
        assert!(help.contains(&format!("[env: {variable}=")), "{variable} in {help}");
        count += 1;
    }
    assert!(count >= 14, "{help}");
    for (variable, value, said) in [
        ("RINGEST_BATCH_ROWS", "0", "--batch-rows is 0"),
        ("RINGEST_AGGREGATE", "nonsense", "invalid value 'nonsense' for '--aggregate"),
        ("RINGEST_AGGREGATE", "", "for '--aggregate"),
    ] {
        let output = run(ringest().arg("serve").env(variable, value));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {stderr}");
        assert!(stderr.contains(said), "{variable}={value}: {stderr}");
    }
}

#[test]
fn doctor_gives_each_finding_in_both_forms() {
    let doctor = ["doctor", "--port", "0", "--records-port", "0", "--admin-port", "0"];
    let text = run(ringest().args(doctor));
    let json = run(ringest().args(doctor).args(["--format", "json"]));
    let findings: Value = serde_json::from_slice(&json.stdout).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for check in ["kernel", "io_uring", "memlock", "nofile", "cores", "cpu_quota", "port", "memory"]
    {
        let found = findings["findings"].as_array().unwrap().iter().find(|f| f["check"] == check);
        let verdict = found.unwrap()["verdict"].as_str().unwrap();
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{verdict}  {check} "))),
            "{text}"
        );
    }
    assert_eq!(findings["ok"], json.status.code() == Some(0));
}

#[test]
fn doctor_fails_where_the_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let doctor = ["doctor", "--host", "127.0.0.1", "--port", "0"];
    let output = run(ringest().args(doctor).args(["--records-port", &port]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAIL  port"));
}

#[test]
fn health_sees_whether_an_engine_listens_and_connects_to_none() {
    let engine = Engine::start(&[]);
    let port = engine.address.port().to_string();
    let health = |port: &str| run(ringest().args(["health", "--records-port", port])).status.code();
    assert_eq!(health(&port), Some(0));
    engine.signal(Signal::TERM);
    let (_, results, _) = engine.wait();
    assert!(results.is_empty());
    // Not the same port: another test may listen on one that was given up.
    let (nobody, _kept) = nobody();
    assert_eq!(health(&nobody.port().to_string()), Some(1));
}

#[test]
fn too_few_descriptors_exit_3_with_the_next_step() {
    let script = format!("ulimit -n 100; exec {RINGEST} serve --port 0 --records-port 0");
    let output = run(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()));
    assert_eq!(output.status.code(), Some(3));
    let stderr = stderr_of(&output);
    assert!(stderr.contains("but 100 are allowed; raise the hard limit"), "{stderr}");
}

#[test]
fn the_demo_agrees_with_itself() {
    let output = run(ringest().args(["demo", "--connections", "3", "--records", "5000"]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(&output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout.matches("shape: (125, 6)").count(), 3);
    // 125 rows each, none cut.
    assert_eq!(stdout.lines().filter(|line| line.starts_with('│')).count(), 3 * (125 + 2));
    assert_eq!(stdout.matches("latency of 1251 packets: p50").count(), 3);
    assert!(!stdout.contains("connection  peer"), "the summary is for terminals only");
    assert!(stderr_of(&output).contains("3 results of 15000 records match what was sent"));
}

/// On a terminal the tables are followed by a row for each connection, and by the verdict.
#[test]
fn on_a_terminal_the_demo_ends_with_a_summary() {
    const ON_A_TERMINAL: &str =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let demo = ["demo", "--connections", "3", "--records", "5000"];
    let output = run(Command::new("python3").args(["-c", ON_A_TERMINAL, RINGEST]).args(demo));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}{}", stderr_of(&output));
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    let [.., heading, first, second, third, verdict] = lines[..] else { panic!("{shown}") };
    assert!(heading.starts_with("connection  peer ") && heading.ends_with(" max µs"), "{shown}");
    for (row, number) in [first, second, third].into_iter().zip(["1", "2", "3"]) {
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!((cells.len(), cells[0]), (10, number), "{row}");
        assert_eq!(cells[2..5], ["complete", "5000", "125"], "{row}");
    }
    assert!(verdict.contains("3 results of 15000 records match what was sent"), "{shown}");
    assert_eq!(shown.matches("shape: (125, 6)").count(), 3);
}

/// The reference sender, written in another language, writes down what must come out.
#[test]
fn the_test_head_expects_exactly_the_results() {
    let directory = tempfile::tempdir().unwrap();
    let expected_path = directory.path().join("expected.json");
    let engine = Engine::start(&["--exit-after", "10"]);
    let script = root().join("test_head.py");
    let head = Command::new("python3")
        .arg(script)
        .args(["127.0.0.1", "20000", "--padding", "mixed", "--seed", "1"])
        .args(["--port", &engine.address.port().to_string(), "--expect"])
        .arg(&expected_path)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is there: the end-to-end tests need it");
    assert!(head.status.success(), "{}", stderr_of(&head));
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), 10), "{log}");
    let expected: Value = serde_json::from_slice(&fs::read(expected_path).unwrap()).unwrap();
    let connections = expected["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 10);
    for connection in connections {
        let result = result_of(&results, connection["local"].as_str().unwrap().parse().unwrap());
        assert_eq!(result["status"], "complete");
        for key in ["records", "packets", "bytes"] {
            assert_eq!(result[key], connection[key], "{key}");
        }
        assert_groups(&result["groups"], &connection["groups"]);
    }
}

fn assert_groups(reported: &Value, expected: &Value) {
    let (reported, expected) = (reported.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!((reported.len(), expected.len()), (125, 125));
    for (reported, expected) in reported.iter().zip(expected) {
        for key in ["A", "E", "D_min", "count"] {
            assert_eq!(reported[key], expected[key], "{reported} against {expected}");
        }
        for key in ["B_mean", "C_sum"] {
            let (left, right) = (reported[key].as_f64().unwrap(), expected[key].as_f64().unwrap());
            assert!((left - right).abs() <= 1e-9 * right.abs(), "{reported} against {expected}");
        }
    }
}

/// A worker's id is that of a thread that runs on one core only.
#[test]
fn workers_are_pinned_to_the_cores_that_were_asked_for() {
    let cores: Vec<usize> = core_affinity::get_core_ids().unwrap().iter().map(|c| c.id).collect();
    let last = cores.last().unwrap().to_string();
    let engine = Engine::start(&["--cores", &last]);
    let tasks = format!("/proc/{}/task", engine.child.id());
    let name = format!("worker-{last}");
    let mut pinned = String::new();
    until("the worker", || {
        pinned = fs::read_dir(&tasks)
            .into_iter()
            .flatten()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .find(|status| status.starts_with(&format!("Name:\t{name}\n")))
            .and_then(|status| {
                let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"))?;
                Some(line.split('\t').nth(1)?.to_owned())
            })
            .unwrap_or_default();
        pinned == last
    });
}
