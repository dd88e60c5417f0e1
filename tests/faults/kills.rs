//! Engines that are killed while they write results, partials and captures, and are started again
//! on the same directories: every file that has its name is whole, merges are exact, and nothing
//! comes twice.

use crate::common::oracle::{RECORD_BYTES, Record, end_record, packet, record};
use crate::common::{Engine, connect_as_new, ringest, run, stderr_of, until};
use crate::setting;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Engines that share their directories, before these are looked at.
const KILLS_OF_A_ROUND: usize = 25;
const SENDERS: usize = 4;

/// A stream, which is a group of its own: its name is the text of all its records.
struct Stream {
    records: Vec<Record>,
    bytes: Vec<u8>,
}

impl Stream {
    /// All sums of it are exact in f64.
    fn new(name: &str, random: &mut fastrand::Rng) -> Self {
        let count = random.usize(1..400);
        let records: Vec<Record> = (0..count)
            .map(|_| {
                let (b, c) = (random.u16(..), f32::from(random.i16(..)));
                record(1, b, c, random.i8(..), name.as_bytes())
            })
            .collect();
        let packets = records
            .chunks(random.usize(1..20))
            .map(|chunk| packet(&chunk.iter().map(Record::bytes).collect::<Vec<_>>()));
        let end = packet(&[end_record()]);
        let bytes = packets.chain([end]).collect::<Vec<_>>().concat();
        Stream { records, bytes }
    }

    /// The only group of its first `count` records.
    fn group(&self, count: usize) -> Value {
        let first = &self.records[..count];
        let b_sum: u64 = first.iter().map(|record| u64::from(record.b)).sum();
        let c_sum: f64 = first.iter().map(|record| f64::from(record.c)).sum();
        json!({
            "A": 1, "E": String::from_utf8(first[0].e.clone()).unwrap(),
            "B_mean": b_sum as f64 / count as f64, "C_sum": c_sum,
            "D_min": first.iter().map(|record| record.d).min(), "count": count,
        })
    }

    /// Fails unless a group is exactly that of its first records; gives how many.
    fn assert_group(&self, group: &Value) -> usize {
        let count = group["count"].as_u64().expect("a count") as usize;
        assert!(count <= self.records.len(), "more than was sent: {group}");
        let expected = self.group(count);
        for key in ["A", "E", "D_min", "count"] {
            assert_eq!(group[key], expected[key], "{group}");
        }
        for key in ["B_mean", "C_sum"] {
            let near = |left: f64, right: f64| (left - right).abs() <= 1e-12 * right.abs();
            let (found, expected) = (group[key].as_f64(), expected[key].as_f64());
            assert!(near(found.unwrap(), expected.unwrap()), "{key} of {group}: {expected:?}");
        }
        count
    }
}

/// The streams of a round by their names, and who sent them.
#[derive(Default)]
struct Round {
    streams: Mutex<HashMap<String, Stream>>,
    senders: Mutex<HashMap<(usize, SocketAddr), String>>,
    /// Streams with a printed result that is complete.
    complete: Mutex<HashSet<String>>,
    results: AtomicUsize,
}

impl Round {
    fn with<T>(&self, name: &str, look: impl FnOnce(&Stream) -> T) -> T {
        let streams = self.streams.lock().unwrap();
        look(streams.get(name).unwrap_or_else(|| panic!("nobody sent {name}")))
    }

    /// Sends streams until the engine is gone.
    fn send(&self, engine: SocketAddr, kill: usize, seed: u64, gone: &AtomicBool) {
        let mut random = fastrand::Rng::with_seed(seed);
        for number in 0.. {
            let name = format!("stream {kill}-{seed}-{number}");
            let stream = Stream::new(&name, &mut random);
            let bytes = stream.bytes.clone();
            let Ok(mut socket) = connect_as_new(engine) else { return };
            let peer = socket.local_addr().unwrap();
            self.senders.lock().unwrap().insert((kill, peer), name.clone());
            self.streams.lock().unwrap().insert(name, stream);
            for piece in bytes.chunks(random.usize(1..40_000)) {
                if gone.load(Ordering::Relaxed) || socket.write_all(piece).is_err() {
                    return;
                }
                if random.u8(..4) == 0 {
                    thread::sleep(Duration::from_millis(random.u64(..30)));
                }
            }
        }
    }

    /// Runs an engine, and kills it at some moment.
    fn run_and_kill(&self, kill: usize, directories: &Directories, format: &str) {
        let options = directories.options(format);
        let engine = Engine::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
        let gone = AtomicBool::new(false);
        let mut random = fastrand::Rng::with_seed(kill as u64);
        thread::scope(|scope| {
            for seed in 0..SENDERS as u64 {
                let gone = &gone;
                let address = engine.address;
                scope.spawn(move || self.send(address, kill, seed, gone));
            }
            // So far it works, however busy the machine is; then at any moment.
            let results = random.usize(..8);
            until("results", || engine.results().len() >= results);
            thread::sleep(Duration::from_micros(random.u64(..100_000)));
            engine.signal(Signal::KILL);
            gone.store(true, Ordering::Relaxed);
        });
        let results = engine.results();
        self.results.fetch_add(results.len(), Ordering::Relaxed);
        let mut seen = HashSet::new();
        for result in &results {
            let peer: SocketAddr = result["peer"].as_str().unwrap().parse().unwrap();
            assert!(seen.insert(peer), "{peer} is reported twice");
            let name = self.senders.lock().unwrap()[&(kill, peer)].clone();
            self.assert_announced(result, &name);
        }
    }

    /// What a printed result names is there, and is what was sent.
    fn assert_announced(&self, result: &Value, name: &str) {
        for key in ["file_error", "capture_error", "partials_error"] {
            assert_eq!(result[key], Value::Null, "{result}");
        }
        let groups = result["groups"].as_array().unwrap();
        if result["bytes"] == 0 {
            // It waited for a slot in vain, because the disk is slow.
            assert_eq!(result["reason"], "connections_limit", "{result}");
            return;
        }
        let capture = result["capture"].as_str().unwrap_or_else(|| panic!("{result}"));
        let bytes = fs::read(capture).unwrap();
        assert!(Path::new(result["file"].as_str().expect("a file")).exists(), "{result}");
        self.with(name, |stream| {
            let count = groups.first().map_or(0, |group| stream.assert_group(group));
            assert!(groups.len() <= 1 && result["records"] == count, "{result}");
            if result["status"] == "complete" {
                assert_eq!((count, &bytes), (stream.records.len(), &stream.bytes));
            }
        });
        if result["status"] == "complete" {
            self.complete.lock().unwrap().insert(name.to_owned());
        }
    }
}

struct Directories {
    all: tempfile::TempDir,
}

impl Directories {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        ["output", "partials", "captures"]
            .iter()
            .for_each(|name| fs::create_dir(all.path().join(name)).unwrap());
        Directories { all }
    }

    fn path(&self, name: &str) -> String {
        self.all.path().join(name).to_str().unwrap().to_owned()
    }

    fn options(&self, format: &str) -> Vec<String> {
        let (output, partials, captures) =
            (self.path("output"), self.path("partials"), self.path("captures"));
        ["--output", &output, "--output-format", format, "--partials", &partials]
            .into_iter()
            .chain(["--partials-interval", "100ms", "--capture", &captures, "--node", "n"])
            .map(str::to_owned)
            .collect()
    }

    /// Files that have their names.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(name)).unwrap().map(|entry| entry.unwrap().path());
        let hidden = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('.');
        entries.filter(|path| !hidden(path)).collect()
    }
}

/// The groups in a file of results.
fn groups_in(path: &Path) -> Vec<Value> {
    if path.extension().unwrap() == "ndjson" {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{} is cut", path.display());
        return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    }
    let frame = ParquetReader::new(File::open(path).unwrap()).finish();
    let frame = frame.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cell = |name: &str, row: usize| {
        let column = frame.column(name).unwrap();
        let value = column.get(row).unwrap();
        match (name, value.get_str(), value.extract::<f64>()) {
            ("E", Some(text), _) => json!(text),
            ("B_mean" | "C_sum", _, Some(number)) => json!(number),
            (_, _, Some(number)) => json!(number as i64),
            _ => panic!("{name}: {value}"),
        }
    };
    let names = ["A", "E", "B_mean", "C_sum", "D_min", "count"];
    let row = |row| names.map(|name| (name.to_owned(), cell(name, row)));
    (0..frame.height()).map(|number| Value::Object(row(number).into_iter().collect())).collect()
}

fn assert_files(round: &Round, directories: &Directories) -> [usize; 2] {
    let mut seen = HashSet::new();
    let files = directories.files("output");
    for path in &files {
        for group in groups_in(path) {
            let name = group["E"].as_str().unwrap();
            assert!(seen.insert(name.to_owned()), "{name} has two files");
            round.with(name, |stream| stream.assert_group(&group));
        }
    }
    let captures = directories.files("captures");
    let mut seen = HashSet::new();
    for path in &captures {
        let bytes = fs::read(path).unwrap();
        let streams = round.streams.lock().unwrap();
        let owner = streams.iter().find(|(_, stream)| stream.bytes.starts_with(&bytes));
        let (name, _) = owner.unwrap_or_else(|| panic!("{} is nobody's", path.display()));
        // Before the end of its first record it may be anybody's.
        let is_known = bytes.len() >= 4 + RECORD_BYTES;
        assert!(!is_known || seen.insert(name.clone()), "{name} has two captures");
    }
    [files.len(), captures.len()]
}

/// Merges; the only remarks may be about streams that the kill has cut.
fn merge(directory: &str, options: &[&str]) -> Value {
    let command = ["merge", "--format", "ndjson"];
    let output = run(ringest().args(command).args(options).arg(directory));
    let remarks = stderr_of(&output);
    assert_eq!(output.status.code(), Some(0), "{remarks}");
    for line in remarks.lines() {
        let expected =
            ["unfinished", "groups and no .stream.parquet", "left out", "no partials so far"];
        assert!(expected.iter().any(|said| line.contains(said)), "{line}");
    }
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{remarks}"))
}

fn assert_merges(round: &Round, directories: &Directories) -> [usize; 2] {
    let partials = directories.path("partials");
    let groups_of = |merged: &Value| merged["groups"].as_array().unwrap().clone();
    let all = groups_of(&merge(&partials, &[]));
    for group in &all {
        round.with(group["E"].as_str().unwrap(), |stream| stream.assert_group(group));
    }
    let complete = groups_of(&merge(&partials, &["--complete-only"]));
    let mut names = HashSet::new();
    for group in &complete {
        let name = group["E"].as_str().unwrap();
        let whole = round.with(name, |stream| stream.assert_group(group) == stream.records.len());
        assert!(whole, "{group} is said to be complete");
        names.insert(name.to_owned());
    }
    for name in &*round.complete.lock().unwrap() {
        assert!(names.contains(name), "{name} was printed as complete, and is not in the merge");
    }
    [all.len(), complete.len()]
}

#[test]
#[ignore = "long: RINGEST_KILLS engines are killed, 50 by default"]
fn whatever_an_engine_had_announced_outlives_its_kill() {
    let kills = setting("RINGEST_KILLS", 50) as usize;
    let mut sums = [0; 6];
    for (round, first) in (0..kills).step_by(KILLS_OF_A_ROUND).enumerate() {
        let directories = Directories::new();
        let format = if round % 2 == 0 { "parquet" } else { "ndjson" };
        let sent = Round::default();
        for kill in first..(first + KILLS_OF_A_ROUND).min(kills) {
            sent.run_and_kill(kill, &directories, format);
        }
        let [files, captures] = assert_files(&sent, &directories);
        let [merged, complete] = assert_merges(&sent, &directories);
        let streams = sent.streams.lock().unwrap().len();
        let results = sent.results.load(Ordering::Relaxed);
        for (sum, more) in
            sums.iter_mut().zip([streams, results, files, captures, merged, complete])
        {
            *sum += more;
        }
    }
    let [streams, results, files, captures, merged, complete] = sums;
    println!(
        "kills: {kills}; {streams} streams, {results} results printed, {files} result files, \
         {captures} captures, {merged} streams merged, {complete} of them complete; all exact"
    );
}
