//! `ringest doctor` against `serve`: the same options, and what passes the one starts the other.

use crate::common::oracle::{records, stream};
use crate::common::{Engine, ringest, run, stderr_of, until};
use crate::confined::{Confined, ENOSYS, EPERM, IO_URING_ENTER, IO_URING_REGISTER, Outcome, serve};
use ringest::internals::{CertSpec, Generated, generate_certificates};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

const FREE_PORTS: [&str; 6] = ["--port", "0", "--records-port", "0", "--admin-port", "0"];

/// The exit code of doctor and its findings.
fn doctor(mut command: Command, options: &[&str]) -> (Option<i32>, Value) {
    let output = run(command.args(["doctor", "--format", "json"]).args(FREE_PORTS).args(options));
    let said = || format!("{options:?}: {}", stderr_of(&output));
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said()));
    (output.status.code(), found)
}

fn finding<'a>(found: &'a Value, check: &str) -> &'a Value {
    let findings = found["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}"))
}

/// The options of a command, apart from its format and its help.
fn options(command: &str) -> Vec<String> {
    let help = String::from_utf8(run(ringest().args([command, "--help"])).stdout).unwrap();
    let names = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let names = names.map(|rest| rest.split([' ', '=']).next().unwrap().to_owned());
    names.filter(|name| name != "format" && name != "help").collect()
}

#[test]
fn doctor_takes_every_option_of_serve_and_its_formats() {
    assert_eq!(options("doctor"), options("serve"));
    assert!(options("serve").len() >= 40);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    for format in ["table", "ndjson"] {
        let output = run(ringest()
            .args(["doctor", "--format", format, "--output", path, "--exit-after", "3"])
            .args(["--partials", path, "--capture", path, "--hgrm", path, "--node", "n"])
            .args(["--interval", "1s", "--drain-timeout", "1s", "--output-format", "csv"])
            .args(FREE_PORTS));
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr_of(&output));
        assert!(!output.stdout.is_empty());
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn directories_are_checked_as_serve_opens_them_and_left_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    for check in ["output", "partials", "capture", "hgrm"] {
        let option = format!("--{check}");
        let (_, found) = doctor(ringest(), &[&option, path]);
        assert_eq!(finding(&found, check)["verdict"], "PASS", "{found}");
        assert!(names(directory.path()).is_empty(), "{:?}", names(directory.path()));
        let (code, found) = doctor(ringest(), &[&option, "/nowhere/at/all"]);
        let finding = finding(&found, check);
        assert_eq!((code, &finding["verdict"]), (Some(1), &"FAIL".into()), "{found}");
        assert!(finding["found"].as_str().unwrap().contains(&option), "{found}");
        assert!(finding["remedy"].as_str().unwrap().contains("directory"), "{found}");
    }
    // Where partials of another schema are.
    fs::write(directory.path().join("schema.toml"), "not one").unwrap();
    let (code, found) = doctor(ringest(), &["--partials", path]);
    assert_eq!((code, &finding(&found, "partials")["verdict"]), (Some(1), &"FAIL".into()));
}

#[test]
fn captures_need_a_file_for_each_stream() {
    let directory = tempfile::tempdir().unwrap();
    let needed = |options: &[&str]| {
        let (_, found) = doctor(ringest(), options);
        let found = finding(&found, "nofile")["found"].as_str().unwrap().to_owned();
        let (_, needed) = found.split_once("allowed, ").unwrap();
        needed.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let plain = needed(&["--max-streams", "77"]);
    let capture = ["--max-streams", "77", "--capture", directory.path().to_str().unwrap()];
    assert_eq!(needed(&capture), plain + 77);
}

/// Doctor's verdict under a limit, and what becomes of serve under the same: they agree, and
/// neither panics.
fn agree(confined: &Confined, options: &[&str], limit: &str) -> bool {
    let (code, found) = doctor(confined.command(), options);
    let passes = match code {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("{limit}: {code:?}, {found}"),
    };
    let outcome = serve(confined.command(), options);
    let (status, log) = match &outcome {
        Outcome::Ready(status, log) | Outcome::Ended(status, log) => (status.code(), log),
    };
    assert!(!log.contains("panicked"), "{limit}: {log}");
    match outcome {
        Outcome::Ready(..) => {
            assert_eq!((passes, status), (true, Some(0)), "{limit}: {found} {log}")
        }
        Outcome::Ended(..) => {
            assert_eq!((passes, status), (false, Some(3)), "{limit}: {found} {log}")
        }
    }
    passes
}

/// So that memory is no matter.
const SMALL: [&str; 6] = ["--max-connections", "4", "--max-streams", "2", "--groups-limit", "1000"];

#[test]
fn whatever_the_number_of_threads_nothing_panics_and_what_passes_doctor_starts() {
    let mut passed = Vec::new();
    for threads in [1, 2, 3, 5, 8, 11, 14, 17, 40, 4000] {
        let confined = Confined::limit("NPROC", threads);
        passed.push(agree(&confined, &SMALL, &format!("{threads} threads")));
    }
    assert!(!passed[0] && *passed.last().unwrap(), "{passed:?}");
    let log = match serve(Confined::limit("NPROC", 5).command(), &SMALL) {
        Outcome::Ended(_, log) => log,
        Outcome::Ready(..) => panic!("five threads are not enough"),
    };
    assert!(log.contains("only 4 can be started") && log.contains("ulimit -u"), "{log}");
}

#[test]
fn whatever_the_number_of_files_nothing_panics_and_what_passes_doctor_starts() {
    let (_, found) = doctor(ringest(), &SMALL);
    let found = finding(&found, "nofile")["found"].as_str().unwrap();
    let needed = found.split_once("allowed, ").unwrap().1.split(' ').next().unwrap();
    let needed: u64 = needed.parse().unwrap();
    for files in [5, 6, 7, 8, 9, 10, 12, 16, 32, 100, needed - 1, needed, needed + 1] {
        let passes = agree(&Confined::limit("NOFILE", files), &SMALL, &format!("{files} files"));
        assert_eq!(passes, files >= needed, "{files} files of {needed}");
    }
}

/// Too little address space ends a process without a word, unless it is tried first. How much is
/// enough depends on the allocator, so only the extremes are known.
#[test]
fn whatever_the_memory_a_start_ends_with_a_word() {
    for mib in [160, 192, 256, 1 << 20] {
        let confined = Confined::limit("AS", mib << 20);
        let (status, log) = match serve(confined.command(), &SMALL) {
            Outcome::Ready(status, log) | Outcome::Ended(status, log) => (status, log),
        };
        assert!(matches!(status.code(), Some(0 | 3)), "{mib} MiB: {status:?}, {log}");
        assert!(!log.contains("panicked"), "{mib} MiB: {log}");
    }
    let windows = [&SMALL[..], &["--buffer-bytes", "16MiB", "--registered-buffers", "64"]].concat();
    let confined = Confined::limit("AS", 1 << 30);
    let Outcome::Ended(status, log) = serve(confined.command(), &windows) else {
        panic!("a GiB of windows and a program are more than a GiB");
    };
    // Unless the limit of locked memory leaves fewer windows.
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("cannot reserve the ") && log.contains("ulimit -v"), "{log}");
    let (code, found) = doctor(confined.command(), &windows);
    assert_eq!((code, &finding(&found, "address_space")["verdict"]), (Some(1), &"FAIL".into()));
}

/// The other commands that start threads.
#[test]
fn without_threads_no_command_panics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let engine = Engine::start(&["--partials", path]);
    let port = engine.address.port().to_string();
    let bytes = stream(&records(100, 3), 4);
    crate::common::send(&engine, &bytes);
    engine.wait_for_results(1);
    let capture = directory.path().join("a.capture");
    fs::write(&capture, &bytes).unwrap();
    // The commands run as another user.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let to_engine = ["--records-port", &port];
    let capture = capture.to_str().unwrap();
    for (arguments, code) in [
        (&["send", "--records", "10", to_engine[0], to_engine[1]][..], 3),
        // It needs none.
        (&["replay", capture, to_engine[0], to_engine[1]], 0),
        (&["load", "--port", &port, "--duration", "1s"], 3),
        (&["demo", "--records", "10"], 3),
        (&["merge", path], 3),
        (&["doctor"], 1),
        (&["schema", "show"], 0),
    ] {
        let output = run(Confined::limit("NPROC", 1).command().args(arguments));
        let stderr = stderr_of(&output);
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(code != 3 || stderr.contains("ulimit -u"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_filter_that_allows_a_ring_but_not_its_use_is_found_at_the_start() {
    for errno in [EPERM, ENOSYS] {
        let confined = Confined::refusing(&[(IO_URING_ENTER, errno)]);
        let (code, found) = doctor(confined.command(), &SMALL);
        let finding = finding(&found, "io_uring");
        assert_eq!((code, &finding["verdict"]), (Some(1), &"FAIL".into()), "{found}");
        assert!(finding["found"].as_str().unwrap().starts_with("io_uring_enter fails: "));
        assert!(finding["remedy"].as_str().unwrap().contains("seccomp"), "{found}");
        let Outcome::Ended(status, log) = serve(confined.command(), &SMALL) else {
            panic!("it cannot serve");
        };
        assert_eq!(status.code(), Some(3), "{log}");
        assert!(log.contains("cannot use an io_uring: io_uring_enter fails: "), "{log}");
        assert!(log.contains("FAIL  io_uring"), "{log}");
    }
}

/// Only registered windows need that call.
#[test]
fn a_filter_against_registering_is_found_unless_nothing_is_registered() {
    let confined = Confined::refusing(&[(IO_URING_REGISTER, EPERM)]);
    assert!(!agree(&confined, &SMALL, "register"));
    assert!(agree(&confined, &[&SMALL[..], &["--registered-buffers", "0"]].concat(), "plain"));
    let (_, found) = doctor(confined.command(), &SMALL);
    let remedy = finding(&found, "io_uring")["remedy"].as_str().unwrap().to_owned();
    assert!(remedy.contains("--registered-buffers 0"), "{found}");
}

/// An authority and a server's certificate that end so long after three hours ago.
fn certificates_for(hours: u32) -> Generated {
    const HOUR: Duration = Duration::from_secs(3600);
    let not_before = SystemTime::now() - 3 * HOUR;
    let not_after = not_before + hours * HOUR;
    let hosts = vec!["localhost".to_owned()];
    generate_certificates(&CertSpec { hosts, client: None, not_before, not_after }).unwrap()
}

/// Which file, which certificate in it, and whose it is: a file may hold many.
#[test]
fn expired_certificates_are_named_by_doctor_at_the_start_and_at_reload() {
    let directory = tempfile::tempdir().unwrap();
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| directory.path().join(name));
    let (valid, expired) = (certificates_for(1000), certificates_for(2));
    // The expired authority is also an intermediate certificate.
    let both = |first: &str| [first, &expired.ca.certificate].concat();
    fs::write(&cert, both(&valid.server.certificate)).unwrap();
    fs::write(&key, &valid.server.key).unwrap();
    fs::write(&ca, both(&valid.ca.certificate)).unwrap();
    let [cert, key, ca] = [&cert, &key, &ca].map(|path| path.to_str().unwrap());
    let options = ["--tls", "--cert", cert, "--key", key, "--client-ca", ca];
    let (code, found) = doctor(ringest(), &options);
    let warned: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["check"] == "certificates" && finding["verdict"] == "WARN")
        .map(|finding| finding["found"].as_str().unwrap())
        .collect();
    assert!(matches!(code, Some(0 | 1)) && warned.len() == 2, "{found}");
    let second =
        |option: &str, path: &str| format!("certificate 2 in {option} {path} (ringest trial CA ");
    let expected = [
        (second("--cert", cert), "so clients refuse the server's certificate"),
        (second("--client-ca", ca), "what it signed is still accepted"),
    ];
    for (said, (which, meaning)) in warned.iter().zip(&expected) {
        assert!(said.starts_with(which.as_str()), "{said}");
        assert!(said.contains(") expired 1h ") && said.contains(meaning), "{said}");
    }
    let engine = Engine::start_messages(&options);
    for times in 1..=2 {
        for (which, meaning) in &expected {
            until("the warning", || {
                let log = engine.log();
                let lines = log.lines().filter(|line| line.contains(which.as_str()));
                lines.filter(|line| line.contains(meaning)).count() == times
            });
        }
        engine.signal(Signal::HUP);
    }
}
