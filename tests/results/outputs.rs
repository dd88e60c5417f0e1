//! `--output`, a file with each result, and `--capture`, the raw bytes of each stream: what is in
//! the files, how they are called, and what happens where they cannot be written. Parquet and Arrow
//! are read by another program, in `.ci/outputs.sh`.

use crate::common::beside::stats;
use crate::common::oracle::{Record, assert_result, packets, record, records, stream};
use crate::common::wire::{CLOSE, Client, DATA_ACK, data, frame};
use crate::common::{Engine, RINGEST, result_of, ringest, run, stderr_of, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// The files in a directory, hidden ones included but for their schema, in order of their names.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| !path.ends_with(".schema.toml")).collect();
    found.sort();
    found
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// The file that a result names.
fn file_of(result: &Value) -> PathBuf {
    assert_eq!(result["file_error"], Value::Null, "{result}");
    PathBuf::from(result["file"].as_str().unwrap_or_else(|| panic!("no file in {result}")))
}

/// Cells of CSV as RFC 4180 has it, line by line.
fn csv_cells(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut bytes) = (false, text.chars().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            '"' if quoted && bytes.peek() == Some(&'"') => {
                cell.push('"');
                bytes.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    assert!(!quoted && cell.is_empty() && row.is_empty(), "the last line is whole: {text}");
    rows
}

/// The groups in a file, as a result on stdout has them.
fn groups_in(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    if path.extension().unwrap() == "ndjson" {
        assert!(text.is_empty() || text.ends_with('\n'));
        return text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    }
    let mut rows = csv_cells(&text).into_iter();
    let header = rows.next().expect("a line of names");
    assert_eq!(header, ["A", "E", "B_mean", "C_sum", "D_min", "count"]);
    let integer = |cell: &str| json!(cell.parse::<i64>().unwrap());
    let fraction = |cell: &str| match cell {
        "NaN" | "inf" | "-inf" => json!(cell),
        _ => json!(cell.parse::<f64>().unwrap()),
    };
    rows.map(|row| {
        json!({
            "A": integer(&row[0]), "E": row[1], "B_mean": fraction(&row[2]),
            "C_sum": fraction(&row[3]), "D_min": integer(&row[4]), "count": integer(&row[5]),
        })
    })
    .collect()
}

/// Fails unless a file has exactly the groups of `records`.
fn assert_file(path: &Path, records: &[Record]) {
    let groups = groups_in(path);
    let count = |group: &Value| group["count"].as_u64().unwrap();
    let total: u64 = groups.as_array().unwrap().iter().map(count).sum();
    assert_result(&json!({"records": total, "groups": groups}), records);
}

fn difficult_records() -> Vec<Record> {
    let mut all = records(500, 1);
    all.extend([
        record(0, 65_535, f32::MAX, -128, b""),
        record(u32::MAX, 1, f32::NAN, 127, b"a,b"),
        record(5, 1, f32::INFINITY, 0, b"quo\"te\",\"\r\n"),
        record(5, 1, f32::NEG_INFINITY, 0, b"'=1+1"),
        record(5, 1, -0.0, 0, &[0xFF, 0x1B, b'\\', b'x']),
        record(5, 1, 1e-45, 0, &[b'x'; 256]),
    ]);
    all
}

#[test]
fn each_format_holds_the_result_that_is_printed() {
    let all = difficult_records();
    for format in ["csv", "ndjson", "parquet", "arrow"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let options = ["--output", path, "--output-format", format, "--node", "n-1.lan"];
        let engine = Engine::start(&[&options[..], &["--exit-after", "1"]].concat());
        let process = engine.child.id();
        let peer = crate::common::send(&engine, &stream(&all, 7));
        let (status, results, log) = engine.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        let result = result_of(&results, peer);
        assert_result(result, &all);
        let file = file_of(result);
        assert_eq!(files(directory.path()), std::slice::from_ref(&file), "and nothing else");
        let end = format!("Z-n-1.lan-{process}-{}.{format}", result["connection"]);
        let moment = name(&file).strip_suffix(end.as_str()).unwrap_or_else(|| panic!("{file:?}"));
        assert!(moment.starts_with("20") && moment.len() == "20261120T200201.123456".len());
        match format {
            "parquet" | "arrow" => {
                let bytes = fs::read(&file).unwrap();
                let magic: &[u8] = if format == "arrow" { b"ARROW1" } else { b"PAR1" };
                assert!(bytes.starts_with(magic) && bytes.ends_with(magic));
            }
            "csv" => assert_file(&file, &all),
            _ => {
                assert_file(&file, &all);
                assert_eq!(groups_in(&file), result["groups"]);
            }
        }
    }
}

#[test]
fn names_say_which_streams_were_not_complete() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let engine = Engine::start(&[
        "--output",
        path,
        "--output-format",
        "csv",
        "--max-streams",
        "1",
        "--report-empty",
        "--exit-after",
        "5",
    ]);
    let all = records(8, 3);
    let part = packets(&all, 4);
    let mut results = Vec::new();
    // One after the other: there is one slot.
    for (count, bytes) in [&stream(&all, 4), &part, &[&part[..], &[0, 0, 0, 9]].concat(), &vec![]]
        .into_iter()
        .enumerate()
    {
        let peer = crate::common::send(&engine, bytes);
        results = engine.wait_for_results(count + 1);
        let result = result_of(&results, peer);
        let (end, expected) = match count {
            0 => (".csv", &all[..]),
            1 => (".incomplete.csv", &all[..]),
            2 => (".rejected.csv", &all[..]),
            _ => (".incomplete.csv", &[][..]),
        };
        let file = file_of(result);
        let number = format!("-{}{end}", result["connection"]);
        assert!(name(&file).ends_with(&number), "{file:?}");
        assert_file(&file, expected);
    }
    assert_eq!(results[3]["reason"], "closed_before_data");
    let (status, ..) = engine.wait_after_last();
    assert_eq!(status.code(), Some(1), "not all were complete");
}

trait WaitAfterLast {
    /// Has the last connection come, and waits for the end.
    fn wait_after_last(self) -> (std::process::ExitStatus, Vec<Value>, String);
}

impl WaitAfterLast for Engine {
    fn wait_after_last(self) -> (std::process::ExitStatus, Vec<Value>, String) {
        crate::common::send(&self, &stream(&[], 1));
        self.wait()
    }
}

/// Anybody could fill a directory with such files.
#[test]
fn a_connection_without_a_slot_has_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let one = ["--max-streams", "1", "--admit-timeout", "0s", "--report-empty"];
    let engine = Engine::start(&[&["--output", path, "--capture", path][..], &one].concat());
    let mut first = engine.connect();
    first.write_all(&packets(&records(4, 1), 4)).unwrap();
    until("the slot is taken", || stats(&engine)["records"] == 4);
    let mut second = engine.connect();
    let peer = second.local_addr().unwrap();
    crate::common::wait_closed(&mut second);
    let results = engine.wait_for_results(1);
    let result = result_of(&results, peer);
    assert_eq!(result["reason"], "connections_limit");
    for key in ["file", "file_error", "capture", "capture_error"] {
        assert_eq!(result.get(key), Some(&Value::Null), "{key}");
    }
    assert_eq!(result["capture_bytes"], 0);
    let visible = |path: &&PathBuf| !name(path).starts_with('.');
    assert_eq!(files(directory.path()).iter().filter(visible).count(), 0);
}

#[test]
fn without_the_options_results_are_as_they_were() {
    let engine = Engine::start(&["--exit-after", "1"]);
    crate::common::send(&engine, &stream(&records(4, 1), 4));
    let (_, results, _) = engine.wait();
    let keys: Vec<&String> = results[0].as_object().unwrap().keys().collect();
    assert!(keys.iter().all(|key| !key.contains("file") && !key.contains("capture")), "{keys:?}");
}

#[test]
fn streams_within_messages_have_files_and_captures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let options = ["--output", path, "--output-format", "ndjson", "--capture", path];
    let engine = Engine::start_messages(&options);
    let mut client = Client::connect(engine.messages());
    let all = [records(100, 1), records(60, 2)];
    let mut sequence = 0;
    for records in &all {
        let bytes = stream(records, 4);
        // Several DATA make one stream: whole packets each.
        for piece in bytes.chunks(5 * (4 + 4 * 267)) {
            client.send(&data(sequence, piece));
            client.expect(DATA_ACK, &sequence.to_be_bytes());
            sequence += 1;
        }
    }
    client.send(&frame(CLOSE, b""));
    client.expect_end();
    let results = engine.wait_for_results(2);
    for (result, records) in results.iter().zip(&all) {
        assert_file(&file_of(result), records);
        let captured = fs::read(result["capture"].as_str().unwrap()).unwrap();
        assert!(captured == stream(records, 4), "payload bytes alone");
    }
}

#[test]
fn wrong_values_exit_2_before_anything_listens() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let (here, file) = (directory.path().to_str().unwrap(), file.to_str().unwrap());
    let long = "n".repeat(65);
    let no_node = "use 1 to 64 letters, digits";
    for (options, said) in [
        (&["--output", "/no/such"][..], "cannot write to --output /no/such: No such file"),
        (&["--output", file], "must be a directory"),
        (&["--output", "/proc"], "cannot write to --output /proc: "),
        (&["--capture", "/no/such"], "cannot write to --capture /no/such: No such file"),
        (&["--capture", file], "must be a directory"),
        (&["--output-format", "csv"], "--output <DIR>"),
        (&["--output", here, "--output-format", "xls"], "invalid value 'xls'"),
        (&["--capture-bytes-limit", "1MB"], "--capture <DIR>"),
        (
            &["--capture", here, "--capture-bytes-limit", "0"],
            "--capture-bytes-limit is 0; it must be between 1 and 1152921504606846976",
        ),
        (&["--node", ""], no_node),
        (&["--node", "a/b"], no_node),
        (&["--node", "ä"], no_node),
        (&["--node", &long], no_node),
    ] {
        let listeners = ["--port", "0", "--records-port", "0", "--host", "127.0.0.1"];
        let output = run(ringest().arg("serve").args(listeners).args(options));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(said), "{options:?}: {stderr}");
        assert!(!stderr.contains("ready for"), "{options:?}: {stderr}");
    }
    assert_eq!(files(directory.path()).len(), 1, "no probe is left");
}

#[test]
fn a_directory_that_goes_away_costs_the_files_and_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let path = inside.to_str().unwrap();
    let engine = Engine::start(&[
        "--output",
        path,
        "--output-format",
        "csv",
        "--capture",
        path,
        "--exit-after",
        "3",
    ]);
    fs::remove_dir_all(&inside).unwrap();
    let all = records(400, 1);
    for count in 1..3 {
        let peer = crate::common::send(&engine, &stream(&all, 4));
        let results = engine.wait_for_results(count);
        let result = result_of(&results, peer);
        assert_eq!((&result["status"], &result["file"]), (&json!("complete"), &Value::Null));
        assert_eq!((&result["capture"], &result["capture_bytes"]), (&Value::Null, &json!(0)));
        for key in ["file_error", "capture_error"] {
            let cause = result[key].as_str().unwrap();
            assert_eq!(cause, "the directory no longer exists; create it again (os error 2)");
        }
        assert_result(result, &all);
    }
    let counts = stats(&engine);
    assert_eq!(
        (&counts["result_files_written"], &counts["result_files_failed"]),
        (&json!(0), &json!(2))
    );
    assert_eq!((&counts["captured_bytes"], &counts["captures_incomplete"]), (&json!(0), &json!(2)));
    // It is not given up: the directory may come back.
    fs::create_dir(&inside).unwrap();
    let peer = crate::common::send(&engine, &stream(&all, 4));
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_file(&file_of(result_of(&results, peer)), &all);
    // Each line names the file, or at least the directory.
    let (why, first) = ("the directory no longer exists; create it again", format!("{path}/2"));
    for (said, cause) in [
        (format!("ERROR cannot write a result: {first}"), format!("-1.csv: {why}")),
        (format!("ERROR cannot write a capture: {first}"), format!("-1.capture: {why}")),
        (
            format!("ringest: 2 result files could not be written (--output); the first: {first}"),
            format!("-1.csv: {why}"),
        ),
        (
            format!("ringest: 2 captures could not be written (--capture); the first: {path}: "),
            why.to_owned(),
        ),
    ] {
        let found = log.lines().any(|line| line.contains(&said) && line.contains(&cause));
        assert!(found, "{said}: {log}");
    }
}

/// An engine whose results come over a pipe, so that what limits files does not limit them.
struct Piped {
    engine: Engine,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Piped {
    fn start(command: Command, options: &[&str]) -> Self {
        let (mut engine, mut log) = Engine::start_command_with(command, options, Stdio::piped());
        let out = BufReader::new(engine.child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let kept = Arc::clone(&lines);
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Piped { engine, lines }
    }

    /// Sends a stream and gives its result.
    fn result(&self, bytes: &[u8]) -> Value {
        let peer = crate::common::send(&self.engine, bytes);
        let mut found = None;
        until("its result", || {
            let lines = self.lines.lock().unwrap();
            found = lines.iter().find(|line| line["peer"] == peer.to_string().as_str()).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    fn end(mut self) -> Option<i32> {
        self.engine.signal(Signal::TERM);
        self.engine.wait_for_end().code()
    }
}

/// So many groups that each file is larger than 64 KiB, however well it is compressed.
fn large_records() -> Vec<Record> {
    let mut random = fastrand::Rng::with_seed(9);
    (0..8000)
        .map(|_| {
            record(random.u32(..), 1, random.f32(), 1, format!("{}", random.u64(..)).as_bytes())
        })
        .collect()
}

/// A limit on the size of files (`ulimit -f`, LimitFSIZE=) fails writes as a full disk does.
#[test]
fn files_that_may_not_be_so_large_are_reported_and_small_ones_go_on() {
    let (large, small) = (large_records(), records(40, 1));
    for format in ["parquet", "arrow", "csv", "ndjson"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\"", RINGEST]);
        let options = ["--output", path, "--output-format", format, "--capture", path];
        let engine = Piped::start(command, &options);
        let result = engine.result(&stream(&large, 100));
        assert_result(&result, &large);
        for (key, error) in [("file", "file_error"), ("capture", "capture_error")] {
            assert_eq!(result[key], Value::Null);
            let cause = result[error].as_str().unwrap();
            assert!(cause.contains("(ulimit -f, LimitFSIZE); raise it"), "{format}: {cause}");
        }
        assert!(files(directory.path()).is_empty(), "no half file");
        let result = engine.result(&stream(&small, 4));
        assert!(file_of(&result).exists() && result["capture_error"] == Value::Null, "{result}");
        assert_eq!(files(directory.path()).len(), 2);
        assert_eq!(engine.end(), Some(1));
    }
}

/// A disk that is really full: a small one of the test's own.
#[test]
#[ignore = "needs root: mounts a file system of 64 KiB (unshare --mount, mount -t tmpfs)"]
fn a_full_disk_costs_the_files_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=64k none '{path}'");
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", &format!("{mount} && {then}"), RINGEST]);
        command
    };
    let mounted = in_namespace("true").output().expect("`unshare` of util-linux");
    assert!(mounted.status.success(), "{}", stderr_of(&mounted));
    let options = ["--output", path, "--output-format", "csv", "--capture", path];
    let engine = Piped::start(in_namespace("exec \"$0\" \"$@\""), &options);
    let (large, small) = (large_records(), records(40, 1));
    let result = engine.result(&stream(&large, 100));
    for (key, error) in [("file", "file_error"), ("capture", "capture_error")] {
        assert_eq!(result[key], Value::Null);
        assert_eq!(result[error], "the disk is full; make room (os error 28)");
    }
    assert_result(&result, &large);
    // What was written of the large ones was removed, so there is room.
    let result = engine.result(&stream(&small, 4));
    // The mount is the engine's alone.
    let seen = format!("/proc/{}/root{path}", engine.engine.child.id());
    assert_file(&Path::new(&seen).join(name(&file_of(&result))), &small);
    assert!(result["capture_error"] == Value::Null && files(Path::new(&seen)).len() == 2);
    assert_eq!(engine.end(), Some(1));
}

/// Whatever the moment of death: a file that has its name is whole, and the next run goes on.
#[test]
fn a_killed_process_leaves_whole_files_and_hidden_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let all = records(2000, 9);
    let bytes = stream(&all, 500);
    let options = ["--output", path, "--output-format", "csv", "--capture", path];
    for round in 0..6 {
        let engine = Engine::start(&options);
        let mut sockets: Vec<_> = (0..8).map(|_| engine.connect()).collect();
        thread::scope(|scope| {
            for socket in &mut sockets {
                // The engine may be gone before it has them all.
                scope.spawn(|| drop(socket.write_all(&bytes)));
            }
            until("some files", || engine.results().len() > round);
            engine.signal(Signal::KILL);
        });
    }
    let (hidden, whole): (Vec<_>, Vec<_>) =
        files(directory.path()).into_iter().partition(|path| name(path).starts_with('.'));
    assert!(hidden.iter().all(|path| name(path).ends_with(".tmp")), "{hidden:?}");
    let (captures, results): (Vec<_>, Vec<_>) =
        whole.iter().partition(|path| name(path).ends_with(".capture"));
    assert!(results.len() >= 6, "{whole:?}");
    for file in results {
        assert_file(file, &all);
    }
    for file in captures {
        assert!(fs::read(file).unwrap() == bytes, "{file:?}");
    }
    let before = files(directory.path());
    let engine = Engine::start(&[&options[..], &["--exit-after", "1"]].concat());
    crate::common::send(&engine, &bytes);
    let (status, ..) = engine.wait();
    assert_eq!(status.code(), Some(0));
    let after = files(directory.path());
    assert!(before.iter().all(|path| after.contains(path)) && after.len() == before.len() + 2);
}

// ---- --capture ----

#[test]
fn captures_are_the_bytes_that_were_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let all = records(20_000, 5);
    let whole = stream(&all, 100);
    let engine = Engine::start(&[
        "--capture",
        path,
        "--node",
        "n",
        "--report-empty",
        "--exit-after",
        "5",
        "--buffer-bytes",
        "64KiB",
    ]);
    let process = engine.child.id();
    let sent = [
        whole.clone(),
        whole[..whole.len() / 2].to_vec(),
        [&whole[..], b"after the end"].concat(),
        [&whole[..whole.len() - 271], &[0xFF; 50]].concat(),
        Vec::new(),
    ];
    let peers = sent.each_ref().map(|bytes| crate::common::send(&engine, bytes));
    let (_, results, log) = engine.wait();
    for (peer, sent) in peers.iter().zip(&sent) {
        let result = result_of(&results, *peer);
        assert_eq!(result["capture_error"], Value::Null, "{log}");
        assert_eq!(result["capture_bytes"], sent.len());
        if sent.is_empty() {
            assert_eq!(result["capture"], Value::Null);
            continue;
        }
        let file = PathBuf::from(result["capture"].as_str().unwrap());
        let end = format!("Z-n-{process}-{}.capture", result["connection"]);
        assert!(name(&file).ends_with(&end), "{file:?}");
        assert!(fs::read(&file).unwrap() == *sent, "{file:?}");
    }
    assert_eq!(files(directory.path()).len(), 4);

    // What was captured gives the same result again.
    let engine = Engine::start(&["--exit-after", "1"]);
    let capture = result_of(&results, peers[0])["capture"].as_str().unwrap();
    let peer = crate::common::send(&engine, &fs::read(capture).unwrap());
    let (_, again, _) = engine.wait();
    assert_eq!(result_of(&again, peer)["groups"], result_of(&results, peers[0])["groups"]);
}

/// As many bytes as are allowed, and one fewer allowed than come.
#[test]
fn captures_stop_at_their_limit_and_say_so() {
    let all = records(40, 5);
    let bytes = stream(&all, 4);
    for (short, cut) in [(0, false), (1, true)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let limit = (2 * bytes.len() - short).to_string();
        let options = ["--capture", path, "--capture-bytes-limit", &limit, "--exit-after", "4"];
        let engine = Engine::start(&options);
        let mut peers = Vec::new();
        for count in 1..=4 {
            peers.push(crate::common::send(&engine, &bytes));
            if count < 4 {
                engine.wait_for_results(count);
            }
        }
        let (status, results, log) = engine.wait();
        assert_eq!(status.code(), Some(0), "results are complete: {log}");
        let lack = format!("cut: all captures together have {limit} bytes (--capture-bytes-limit)");
        for (number, peer) in peers.into_iter().enumerate() {
            let result = result_of(&results, peer);
            assert_result(result, &all);
            let (kept, end, lack) = match number {
                0 => (bytes.len(), ".capture", Value::Null),
                1 if cut => (bytes.len() - 1, ".cut.capture", json!(lack)),
                1 => (bytes.len(), ".capture", Value::Null),
                _ => (0, "", json!(lack)),
            };
            assert_eq!((&result["capture_bytes"], &result["capture_error"]), (&json!(kept), &lack));
            if kept == 0 {
                assert_eq!(result["capture"], Value::Null);
                continue;
            }
            let file = PathBuf::from(result["capture"].as_str().unwrap());
            let expected = format!("-{}{end}", result["connection"]);
            assert!(name(&file).ends_with(&expected), "{file:?}");
            assert!(fs::read(&file).unwrap() == bytes[..kept], "{file:?}");
        }
        assert_eq!(files(directory.path()).len(), 2);
        let reached = "the captures have reached --capture-bytes-limit";
        assert_eq!(log.matches(reached).count(), 1, "{log}");
    }
}
