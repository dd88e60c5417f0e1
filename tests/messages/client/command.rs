//! `ringest load` as a process: exit codes, output, where secrets may and may not stand.

use super::server::{Reaction, Server, certificate, error};
use crate::common::until;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn load(server: &Server, arguments: &[&str]) -> Command {
    load_for("200ms", "20ms", server, arguments)
}

fn load_for(duration: &str, warm_up: &str, server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringest"));
    let port = server.address.port().to_string();
    command.args(["load", "--port", &port, "--warm-up", warm_up, "--duration", duration]);
    command.args(arguments).env_remove("RINGEST_TOKEN").env_remove("RINGEST_HOST");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn finish(mut command: Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    (stdout, stderr)
}

#[test]
fn a_table_and_nothing_on_stderr() {
    let (stdout, stderr) = finish(load(&Server::start(), &["--pipeline", "4"]), 0);
    assert!(stdout.starts_with("closed loop, pipeline 4: ping of 8 bytes"), "{stdout}");
    assert!(stdout.ends_with("\nerrors      none\n"), "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn json_and_percentiles_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latency.hgrm");
    let server = Server::start();
    let hgrm = file.to_str().unwrap();
    let arguments = ["--format", "json", "--rate", "500", "--type", "echo", "--hgrm", hgrm];
    let (stdout, _) = finish(load(&server, &arguments), 0);
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["loop"], "open");
    assert_eq!((&result["sent"], &result["clean"]), (&100.into(), &true.into()));
    let percentiles = fs::read_to_string(file).unwrap();
    assert!(percentiles.contains("Total count    =          100]"), "{percentiles}");
}

/// Neither failure hides the other, and each says what could not be written.
#[test]
fn what_cannot_be_written_is_named() {
    let server = Server::start();
    let hgrm = "cannot write --hgrm /dev/full: the disk is full; make room (os error 28)";
    let (stdout, stderr) = finish(load(&server, &["--hgrm", "/dev/full"]), 1);
    assert!(stdout.ends_with("\nerrors      none\n"), "{stdout}");
    assert_eq!(stderr, format!("ringest: {hgrm}\n"));
    let mut to_full_disks = load(&server, &["--hgrm", "/dev/full"]);
    to_full_disks.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let Output { status, stderr, .. } = to_full_disks.output().unwrap();
    let stderr = text(&stderr);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write the result to stdout: ") && stderr.contains(hgrm));
}

/// What a run replaces is lost only once there is something new.
#[test]
fn percentiles_of_an_earlier_run_survive_a_failed_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latency.hgrm");
    fs::write(&file, "old").unwrap();
    let (nobody, _kept) = crate::common::nobody();
    let port = nobody.port().to_string();
    let mut failing = Command::new(env!("CARGO_BIN_EXE_ringest"));
    failing.args(["load", "--port", &port, "--hgrm", file.to_str().unwrap()]);
    finish(failing, 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let server = Server::start();
    finish(load(&server, &["--hgrm", file.to_str().unwrap()]), 0);
    assert!(fs::read_to_string(&file).unwrap().contains("Total count"));
}

#[test]
fn any_error_is_exit_code_1() {
    let server = Server::judged(|_, number, _| match number {
        3 => Reaction::Instead(error(7, "rate limit exceeded for PING")),
        _ => Reaction::Usual,
    });
    let (stdout, _) = finish(load_for("200ms", "0s", &server, &["--connections", "2"]), 1);
    assert!(stdout.contains("\nerrors      RATE_LIMIT_EXCEEDED 2\n"), "{stdout}");
    let closing = Server::judged(|_, number, _| match number {
        0 => Reaction::Usual,
        _ => Reaction::Last(error(9, "idle\x1b[2J")),
    });
    let (stdout, _) = finish(load(&closing, &["--connections", "2"]), 1);
    assert!(stdout.contains("TIMEOUT 2, not answered 2, connections lost 2"), "{stdout}");
    assert!(stdout.contains(r"TIMEOUT (idle\x1b[2J)"), "{stdout}");
}

#[test]
fn tokens_come_from_the_environment_or_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, token) = (directory.path().join("ca.pem"), directory.path().join("token"));
    let (pem, config) = certificate();
    fs::write(&ca, pem).unwrap();
    fs::write(&token, "s3cret\n").unwrap();
    let server = Server::with(Some(config), |_, _, _| Reaction::Usual);
    let (ca, token) = (ca.to_str().unwrap(), token.to_str().unwrap());
    let arguments = ["--tls", "--ca", ca, "--user", "alice", "--token-file", token];
    finish(load(&server, &arguments), 0);
    let mut by_variable = load(&server, &["--tls", "--insecure", "--user", "alice"]);
    by_variable.env("RINGEST_TOKEN", "s3cret");
    finish(by_variable, 0);
    let mut wrong = load(&server, &["--tls", "--insecure", "--user", "alice"]);
    wrong.env("RINGEST_TOKEN", "unspeakable");
    let (stdout, stderr) = finish(wrong, 1);
    assert!(stderr.contains("refused user \"alice\"") && stdout.is_empty(), "{stderr}");
    assert!(!stderr.contains("unspeakable"));
}

#[test]
fn wrong_usage_is_exit_code_2_with_the_next_step() {
    let server = Server::start();
    for (arguments, said) in [
        (&["--tls"][..], "--insecure"),
        (&["--ca", "x"], "--tls"),
        (&["--user", "alice"], "RINGEST_TOKEN"),
        (&["--user", "alice", "--token-file", "/no/such/file"], "/no/such/file"),
        (&["--tls", "--ca", "/no/such/file"], "/no/such/file"),
        (&["--rate", "5", "--pipeline", "2"], "--pipeline"),
        (&["--threads", "11"], "11 threads for 10 connections"),
        (&["--hgrm", "/no/such/directory/file"], "cannot write to --hgrm /no/such"),
        (&["--hgrm", "/"], "--hgrm / is a directory; name a file"),
        (&["--host", "no.such.host.invalid"], "cannot resolve"),
        (&["--type", "data", "--payload-bytes", "65532"], "the limit is 65531"),
    ] {
        let (stdout, stderr) = finish(load(&server, arguments), 2);
        assert!(stderr.contains(said) && stdout.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_signal_ends_the_run_and_its_result_is_printed() {
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let server = Server::judged(move |_, _, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        Reaction::Usual
    });
    let mut command = load_for("600s", "0s", &server, &["--format", "json"]);
    command.stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    until("some messages", || asked.load(Ordering::Relaxed) > 1000);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    let result: serde_json::Value = serde_json::from_str(&text(&stdout)).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(result["seconds"].as_f64().unwrap() < 60.0 && result["answers"].as_u64() > Some(0));
}
