//! Partials that engines leave, merged by `ringest merge`, are what one engine would have made of
//! all records; and what is missing is said.

use crate::common::beside::{let_run, stats};
use crate::common::oracle::{Record, assert_result, packet, packets, records};
use crate::common::{Engine, RINGEST, null_device, ringest, run, stderr_of, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

const INTERVAL: [&str; 2] = ["--partials-interval", "100ms"];

fn options<'a>(directory: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&INTERVAL[..], &["--partials", directory.to_str().unwrap()], more].concat()
}

fn files_of(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    files.sort();
    files
}

fn groups_files(directory: &Path) -> Vec<PathBuf> {
    files_of(directory, ".groups.parquet")
}

/// Sends packets of one record until the directory has so many files of groups, then the rest.
fn send_in_batches(stream: &mut TcpStream, records: &[Record], directory: &Path, batches: usize) {
    let mut rest = records.iter();
    until("batches", || {
        let record = rest.next().expect("enough records for these batches");
        stream.write_all(&packet(&[record.bytes()])).unwrap();
        thread::sleep(Duration::from_millis(10));
        groups_files(directory).len() >= batches
    });
    stream.write_all(&packets(rest.as_slice(), 7)).unwrap();
}

fn end(mut stream: TcpStream) {
    stream.write_all(&packet(&[crate::common::oracle::end_record()])).unwrap();
}

/// Merges; gives exit code, the printed object if there is one, and stderr.
fn merge(directories: &[&Path], options: &[&str]) -> (i32, Value, String) {
    let output =
        run(ringest().arg("merge").args(["--format", "ndjson"]).args(options).args(directories));
    let line = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), line, stderr_of(&output))
}

fn stop(engine: Engine) -> (Option<i32>, Vec<Value>, String) {
    engine.signal(Signal::TERM);
    let (status, results, log) = engine.wait();
    (status.code(), results, log)
}

/// Two engines, a stream each, the groups of which overlap.
#[test]
fn partials_of_two_engines_merge_into_what_one_would_have_made() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let all = records(6000, 7);
    let mut results = Vec::new();
    for ((directory, half), mode) in
        directories.iter().zip(all.chunks(3000)).zip(["two-phase", "columns"])
    {
        let node = format!("node-{mode}");
        let more = ["--node", &node, "--aggregate", mode, "--batch-rows", "100"];
        let engine = Engine::start(&options(directory.path(), &more));
        let mut stream = engine.connect();
        send_in_batches(&mut stream, half, directory.path(), 3);
        end(stream);
        let result = engine.wait_for_results(1).remove(0);
        assert_result(&result, half);
        results.push(result);
        let (code, _, log) = stop(engine);
        assert_eq!(code, Some(0), "{log}");
    }
    let [one, other] = directories.each_ref().map(|directory| directory.path());
    let (code, merged, log) = merge(&[one, other], &[]);
    assert_eq!((code, log.as_str()), (0, ""), "{merged}");
    assert_result(&merged, &all);
    let sum = |key: &str| results.iter().map(|result| result[key].as_u64().unwrap()).sum::<u64>();
    for key in ["packets", "bytes"] {
        assert_eq!(merged[key], sum(key), "{key}");
    }
    assert_eq!(merged["latency_us"]["count"], sum("packets"));
    let slowest = results.iter().map(|result| result["latency_us"]["max"].as_f64().unwrap());
    assert_eq!(merged["latency_us"]["max"], slowest.fold(0.0, f64::max));
    for (key, number) in [("nodes", 2), ("connections", 2), ("complete", 2), ("rejected", 0)] {
        assert_eq!(merged[key], number, "{key}");
    }
    let batches = groups_files(one).len() + groups_files(other).len();
    assert!(batches >= 6 && merged["batches"] == batches, "{merged}");

    // The same files again, under other names and in another order.
    let copies = tempfile::tempdir().unwrap();
    for (i, file) in groups_files(one).iter().chain(&groups_files(other)).enumerate() {
        fs::copy(file, copies.path().join(format!("{i}.groups.parquet"))).unwrap();
    }
    fs::copy(one.join("schema.toml"), copies.path().join("schema.toml")).unwrap();
    let (code, again, _) = merge(&[copies.path(), other, one], &[]);
    assert_eq!(code, 0);
    assert_result(&again, &all);
    let without_groups = |line: &Value| {
        let mut line = line.clone();
        line["groups"] = Value::Null;
        line
    };
    assert_eq!(without_groups(&again), without_groups(&merged));

    // By one key, and to a file.
    let file = copies.path().join("result.csv");
    let to_file = ["--output", file.to_str().unwrap(), "--output-format", "csv"];
    let (code, by_a, log) = merge(&[one, other], &[&["--by", "A"], &to_file[..]].concat());
    assert_eq!(code, 0, "{log}");
    let counts = by_a["groups"].as_array().unwrap().iter().map(|group| {
        assert_eq!(group.as_object().unwrap().len(), 5, "{group}");
        let a = group["A"].as_u64().unwrap();
        assert_eq!(group["count"], all.iter().filter(|r| u64::from(r.a) == a).count());
        a
    });
    assert!(counts.eq([1, 2, 3]));
    let csv = fs::read_to_string(&file).unwrap();
    assert!(csv.starts_with("A,B_mean,C_sum,D_min,count\n") && csv.lines().count() == 4, "{csv}");
    let table = run(ringest().args(["merge", "--by", "E"]).args([one, other]));
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("2 streams from 2 nodes: 2 complete"), "{table}");
    assert!(table.contains("│ pump 0 "), "{table}");
}

const READINGS: &str = r#"
name = "readings"
endian = "little"
[packet]
length = "none"
end = "close"
[[field]]
name = "KIND"
type = "bytes"
bytes = 2
[[field]]
name = "SEEN"
type = "bool"
[[field]]
name = "TICKS"
type = "i64"
[[field]]
name = "LEVEL"
type = "f64"
[result]
by = ["SEEN", "KIND"]
aggregates = [
    "TICKS:sum", "TICKS:mean", "TICKS:max", "TICKS:first", "TICKS:last", "SEEN:sum",
    "LEVEL:min", "LEVEL:var", "LEVEL:std", "count",
]
"#;

/// Every kind of part, over batches of a schema of its own: the merge says what the engine said.
#[test]
fn batches_of_any_schema_merge_into_what_the_engine_said() {
    let directory = tempfile::tempdir().unwrap();
    let (schema, partials) = (directory.path().join("s.toml"), directory.path().join("partials"));
    fs::write(&schema, READINGS).unwrap();
    for mode in ["two-phase", "columns"] {
        fs::create_dir(&partials).unwrap();
        let more = ["--schema", schema.to_str().unwrap(), "--aggregate", mode];
        let engine = Engine::start(&options(&partials, &more));
        let mut stream = engine.connect();
        let mut random = fastrand::Rng::with_seed(5);
        until("batches", || {
            let kind = [[0xff, 0], *b"ab", *b"\\c"][random.usize(..3)];
            let (seen, ticks) = (random.u8(..2), random.i64(..) / 64);
            let level = random.f64() * 1e6;
            let record = [&kind[..], &[seen], &ticks.to_le_bytes(), &level.to_le_bytes()].concat();
            stream.write_all(&record).unwrap();
            thread::sleep(Duration::from_millis(2));
            groups_files(&partials).len() >= 4
        });
        drop(stream);
        let result = engine.wait_for_results(1).remove(0);
        assert_eq!(result["status"], "complete", "{result}");
        let (code, merged, log) = merge(&[&partials], &[]);
        assert_eq!((code, log.as_str()), (0, ""), "{merged}");
        assert_eq!(merged["records"], result["records"]);
        let groups = |line: &Value| line["groups"].as_array().unwrap().clone();
        let (ours, theirs) = (groups(&merged), groups(&result));
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            for (name, theirs) in theirs.as_object().unwrap() {
                let near = match (ours[name].as_f64(), theirs.as_f64()) {
                    (Some(ours), Some(theirs)) if name.starts_with("LEVEL") => {
                        (ours - theirs).abs() <= 1e-9 * theirs.abs()
                    }
                    _ => ours[name] == *theirs,
                };
                assert!(near, "{name}: {ours}, not {theirs}");
            }
        }
        stop(engine);
        fs::remove_dir_all(&partials).unwrap();
    }
}

/// What a killed engine leaves is the beginning of its stream, a whole number of batches.
#[test]
fn partials_of_a_killed_engine_are_whole_batches() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let all = records(5000, 11);
    let mut engine = Engine::start(&options(directory, &[]));
    let mut stream = engine.connect();
    send_in_batches(&mut stream, &all, directory, 3);
    engine.signal(Signal::KILL);
    engine.wait_for_end();
    let (code, merged, log) = merge(&[directory, directory], &[]);
    assert_eq!(code, 0, "{log}");
    let records = usize::try_from(merged["records"].as_u64().unwrap()).unwrap();
    assert!(records > 0 && records < all.len(), "{merged}");
    assert_result(&merged, &all[..records]);
    assert_eq!(merged["batches"], groups_files(directory).len());
    assert_eq!(merged["unfinished"].as_array().unwrap().len(), 1, "{merged}");
    assert!(log.contains("one stream is unfinished: 2"), "{log}");
    // The next engine goes on beside it.
    let engine = Engine::start(&options(directory, &[]));
    crate::common::send(&engine, &crate::common::oracle::stream(&all, 50));
    engine.wait_for_results(1);
    stop(engine);
    let (code, merged, _) = merge(&[directory], &[]);
    assert_result(&merged, &[&all[..records], &all].concat());
    assert_eq!((code, &merged["complete"], &merged["connections"]), (0, &1.into(), &2.into()));
}

/// A stream that falls silent has all it brought in its partials an interval later, in one batch
/// and no empty ones behind it; and the next batch begins with what comes then.
#[test]
fn a_quiet_stream_keeps_no_batch_open() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let all = records(120, 5);
    let mut engine = Engine::start(&options(directory, &[]));
    let mut stream = engine.connect();
    for (said, part) in [(1, &all[..50]), (2, &all[50..])] {
        stream.write_all(&packets(part, 10)).unwrap();
        until("the batch", || groups_files(directory).len() >= said);
        // An engine that closes empty batches has the time to show it.
        let_run(&engine, Duration::from_millis(450));
        assert_eq!(groups_files(directory).len(), said, "nothing came meanwhile");
    }
    engine.signal(Signal::KILL);
    engine.wait_for_end();
    let (code, merged, log) = merge(&[directory], &[]);
    assert_eq!(code, 0, "{log}");
    assert_result(&merged, &all);
    assert_eq!((&merged["batches"], &merged["records"]), (&2.into(), &120.into()), "{merged}");
}

#[test]
fn streams_that_end_otherwise_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(&options(directory.path(), &["--report-empty"]));
    let all = records(10, 3);
    crate::common::send(&engine, &packets(&all, 5));
    crate::common::send(&engine, &[&packets(&all, 5)[..], &[0xff; 4]].concat());
    crate::common::send(&engine, &[1]);
    // One that sends nothing leaves nothing.
    drop(engine.connect());
    engine.wait_for_results(4);
    stop(engine);
    let (code, merged, log) = merge(&[directory.path()], &[]);
    assert_eq!((code, log.as_str()), (0, ""));
    assert_result(&merged, &[&all[..], &all].concat());
    let keys = ["connections", "complete", "incomplete", "rejected"];
    assert_eq!(keys.map(|key| merged[key].as_u64().unwrap()), [3, 0, 2, 1], "{merged}");
}

#[test]
fn what_is_wrong_with_a_directory_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let engine = Engine::start(&options(path, &[]));
    let (code, merged, log) = merge(&[path], &[]);
    assert_eq!((code, merged["groups"].as_array().map(Vec::len)), (0, Some(0)), "{log}");
    assert!(log.contains("has no partials so far"), "{log}");
    let mut stream = engine.connect();
    send_in_batches(&mut stream, &records(2000, 5), path, 2);
    end(stream);
    engine.wait_for_results(1);
    stop(engine);

    fs::write(path.join("notes.txt"), "").unwrap();
    let (code, _, log) = merge(&[path], &[]);
    assert!(code == 0 && log.contains("1 files in") && log.contains("notes.txt"), "{log}");
    let (code, merged, log) = merge(&[path], &["--by", "A,B"]);
    assert!(
        code == 2 && merged.is_null() && log.contains("--by B: not a key of these partials"),
        "{log}"
    );
    let empty = tempfile::tempdir().unwrap();
    let (code, _, log) = merge(&[path, empty.path()], &[]);
    assert!(code == 2 && log.contains("serve --partials"), "{log}");
    let (code, _, log) = merge(&[&path.join("gone")], &[]);
    assert!(code == 2 && log.contains("gone/schema.toml: No such file"), "{log}");

    let other = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(path.join("schema.toml")).unwrap();
    fs::write(other.path().join("schema.toml"), text.replace("D:min", "D:max")).unwrap();
    let (code, _, log) = merge(&[path, other.path()], &[]);
    let both = [path, other.path()].map(|path| log.contains(path.to_str().unwrap()));
    assert!(code == 2 && both == [true; 2] && log.contains("D:max"), "{log}");
    let serve = ["serve", "--no-messages", "--records-port", "0", "--admin-port", "0"];
    let refused = run(ringest().args(serve).arg("--partials").arg(other.path()));
    let log = stderr_of(&refused);
    assert!(refused.status.code() == Some(2) && log.contains("another schema"), "{log}");

    // A row about a batch is gone, then its groups are cut off, then gone.
    fs::remove_file(files_of(path, "000001.stream.parquet").remove(0)).unwrap();
    let (code, _, log) = merge(&[path], &[]);
    assert!(code == 1 && log.contains("no .stream.parquet, but a later one has"), "{log}");
    let first = groups_files(path).remove(0);
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() / 2]).unwrap();
    let (code, merged, log) = merge(&[path], &[]);
    assert!(code == 1 && merged.is_null() && log.contains(first.to_str().unwrap()), "{log}");
    fs::remove_file(&first).unwrap();
    let (code, merged, log) = merge(&[path], &[]);
    assert!(code == 1 && log.contains("has groups of 0 records, it had "), "{log}");
    assert_eq!(merged["faults"].as_array().map(Vec::len), Some(2), "{merged}");
    fs::remove_file(files_of(path, "000000.stream.parquet").remove(0)).unwrap();
    let (code, _, log) = merge(&[path], &[]);
    assert!(code == 1 && log.contains(" batches, the first: 0"), "{log}");
}

/// One complete stream in a directory of partials.
fn a_stream(path: &Path) {
    let engine = Engine::start(&options(path, &[]));
    crate::common::send(&engine, &crate::common::oracle::stream(&records(40, 2), 10));
    engine.wait_for_results(1);
    assert_eq!(stop(engine).0, Some(0));
}

/// As root, a rename would replace the device for every program on the machine.
#[test]
fn a_merge_writes_into_a_device_and_refuses_what_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    a_stream(path);
    let beside = tempfile::tempdir().unwrap();
    let at = |name: &str| beside.path().join(name).to_str().unwrap().to_owned();
    let devices = tempfile::tempdir().unwrap();
    let null = null_device(devices.path());
    std::os::unix::fs::symlink(&null, at("null")).unwrap();
    for device in [null.to_str().unwrap(), &at("null")] {
        for format in ["parquet", "arrow", "csv", "ndjson"] {
            let to = ["--output", device, "--output-format", format];
            assert_eq!(merge(&[path], &to).0, 0, "{device} {format}");
        }
        assert!(fs::metadata(device).unwrap().file_type().is_char_device());
    }
    let pipe = Command::new("sh")
        .arg("-c")
        .arg("\"$0\" merge \"$1\" --output /dev/stderr --output-format csv 2>&1 >/dev/null | cat")
        .args([RINGEST.as_ref(), path])
        .output()
        .unwrap();
    assert!(pipe.stdout.starts_with(b"A,E,B_mean,"), "{:?}", String::from_utf8(pipe.stdout));
    let (code, _, log) = merge(&[path], &["--output", &at("."), "--output-format", "csv"]);
    assert!(code == 2 && log.contains("is a directory; name a file"), "{log}");
    assert_eq!(files_of(beside.path(), "").len(), 1, "nothing else is left");
    // Replacing the file that stdout goes to would lose what is printed.
    let printed = fs::File::create(at("printed.csv")).unwrap();
    let mut both = ringest();
    both.arg("merge").arg(path).args(["--output", &at("printed.csv")]).stdout(printed);
    assert_eq!(both.status().unwrap().code(), Some(2));
    assert_eq!(fs::read(at("printed.csv")).unwrap(), b"");
}

#[test]
fn the_end_of_its_name_decides_the_format_of_a_merged_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    a_stream(path);
    let beside = tempfile::tempdir().unwrap();
    let at = |name: &str| beside.path().join(name).to_str().unwrap().to_owned();
    for (name, begin) in
        [("x.csv", "A,E,"), ("x.NDJSON", "{\"A\":"), ("x.parquet", "PAR1"), ("x.arrow", "ARROW1")]
    {
        assert_eq!(merge(&[path], &["--output", &at(name)]).0, 0);
        assert!(fs::read(at(name)).unwrap().starts_with(begin.as_bytes()), "{name}");
    }
    assert_eq!(merge(&[path], &["--output", &at("x"), "--output-format", "csv"]).0, 0);
    for (name, chosen, said) in [
        (
            "y.csv",
            &["--output-format", "parquet"][..],
            "ends in .csv, but --output-format is parquet",
        ),
        ("y", &[], "choose its format with --output-format"),
        ("y.txt", &[], "does not end in .parquet, .arrow, .csv or .ndjson"),
    ] {
        let (code, merged, log) = merge(&[path], &[&["--output", &at(name)], chosen].concat());
        assert!(code == 2 && merged.is_null() && log.contains(said), "{name}: {log}");
    }
    assert_eq!(files_of(beside.path(), "").len(), 5);
}

/// The file of the schema is the oldest, so whoever deletes by age deletes it first.
#[test]
fn partials_merge_without_the_file_of_their_schema() {
    let [directory, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let path = directory.path();
    a_stream(path);
    let (_, before, _) = merge(&[path], &[]);
    let schema = path.join("schema.toml");
    let text = fs::read_to_string(&schema).unwrap();
    fs::remove_file(&schema).unwrap();
    let (code, merged, log) = merge(&[path], &[]);
    assert_eq!((code, log.as_str(), &merged), (0, "", &before));
    // A file that is damaged is as good as none, and said to be.
    fs::write(&schema, "garbage").unwrap();
    let (code, merged, log) = merge(&[path], &[]);
    assert_eq!((code, merged), (0, before));
    assert!(log.contains("schema.toml") && log.contains("in the partials is used"), "{log}");
    fs::remove_file(&schema).unwrap();
    let different = other.path().join("s.toml");
    fs::write(&different, text.replace("D:min", "D:max")).unwrap();
    let serve = ["serve", "--no-messages", "--records-port", "0", "--admin-port", "0"];
    let schema = ["--schema", different.to_str().unwrap()];
    let refused = run(ringest().args(serve).args(schema).arg("--partials").arg(path));
    let log = stderr_of(&refused);
    assert!(refused.status.code() == Some(2) && log.contains("another schema"), "{log}");
    // One file of another schema among them is named.
    let serve = [&["--schema", different.to_str().unwrap()][..], &INTERVAL].concat();
    let engine = Engine::start(
        &[&serve[..], &["--partials", other.path().to_str().unwrap(), "--exit-after", "1"]]
            .concat(),
    );
    crate::common::send(&engine, &crate::common::oracle::stream(&records(4, 2), 2));
    assert_eq!(engine.wait().0.code(), Some(0));
    let foreign = files_of(other.path(), ".stream.parquet").remove(0);
    let moved = path.join(foreign.file_name().unwrap());
    a_stream(path);
    fs::rename(&foreign, &moved).unwrap();
    let (code, _, log) = merge(&[path], &[]);
    let said = log.contains("D:max") && log.contains("another schema");
    assert!(code == 1 && said && log.contains(moved.to_str().unwrap()), "{log}");
}

#[test]
fn a_damaged_file_is_named_and_a_merge_can_go_on_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    a_stream(path);
    a_stream(path);
    let file = groups_files(path).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (code, merged, log) = merge(&[path], &[]);
    assert!(code == 1 && merged.is_null(), "{log}");
    assert!(log.contains(file.to_str().unwrap()) && log.contains("its checksum is "), "{log}");
    let (code, merged, log) = merge(&[path], &["--skip-damaged"]);
    assert_eq!((code, &merged["records"]), (1, &40.into()), "{log}");
    assert_eq!(merged["faults"].as_array().unwrap().len(), 2, "{merged}");
    assert!(log.contains("was left out") && log.contains("has groups of 0 records"), "{log}");
    // The stream is not complete then.
    let (code, merged, log) = merge(&[path], &["--skip-damaged", "--complete-only"]);
    assert_eq!(
        (code, &merged["records"], &merged["complete"]),
        (1, &40.into(), &1.into()),
        "{log}"
    );
    assert!(log.contains("ended complete, but not all of it is here"), "{log}");
}

/// Nothing says which schema the partials have: no file of their schema, and none of theirs intact.
#[test]
fn damaged_files_are_named_where_nothing_says_their_schema() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    a_stream(path);
    fs::remove_file(path.join("schema.toml")).unwrap();
    let files = files_of(path, ".parquet");
    for file in &files {
        fs::write(file, &fs::read(file).unwrap()[..100]).unwrap();
    }
    for more in [&[][..], &["--skip-damaged"]] {
        let (code, merged, log) = merge(&[path], more);
        assert!(
            code == 1 && merged.is_null() && log.contains("schema.toml: No such file"),
            "{log}"
        );
        for file in &files {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(log.contains(&format!("{name}: it is cut off or not Parquet")), "{log}");
        }
        assert!(log.contains("copy schema.toml or one of these files again"), "{log}");
    }
    fs::write(path.join("schema.toml"), "garbage").unwrap();
    let (code, _, log) = merge(&[path], &[]);
    assert!(code == 1 && log.contains("schema.toml:1:") && log.contains("cut off"), "{log}");
}

/// Reading a pipe would never end.
#[test]
fn what_has_the_name_of_a_partial_and_is_no_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    a_stream(path);
    for (name, kind) in [("z.groups.parquet", "a directory"), ("z.stream.parquet", "not a file")] {
        let odd = path.join(name);
        match kind {
            "a directory" => fs::create_dir(&odd).unwrap(),
            _ => assert!(Command::new("mkfifo").arg(&odd).status().unwrap().success()),
        }
        for more in [&[][..], &["--skip-damaged"]] {
            let (code, merged, log) = merge(&[path], more);
            assert!(code == 1 && merged.is_null(), "{log}");
            let said = format!("{name} does not belong to these partials: it is {kind}; move it");
            assert!(log.contains(&said), "{log}");
        }
        fs::remove_file(&odd).or_else(|_| fs::remove_dir(&odd)).unwrap();
    }
}

#[test]
fn only_complete_streams_count_if_asked() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(&options(directory.path(), &[]));
    let all = records(30, 3);
    crate::common::send(&engine, &crate::common::oracle::stream(&all, 5));
    crate::common::send(&engine, &packets(&all, 5));
    engine.wait_for_results(2);
    stop(engine);
    let (code, merged, log) = merge(&[directory.path()], &["--complete-only"]);
    assert_eq!(code, 0, "{log}");
    assert_result(&merged, &all);
    assert_eq!((&merged["connections"], &merged["incomplete"]), (&1.into(), &0.into()));
    assert_eq!(merged["left_out"].as_array().unwrap().len(), 1, "{merged}");
    assert!(log.contains("one stream did not end complete and is left out: 2"), "{log}");
}

/// A directory that goes away costs the partials, and no result.
#[test]
fn partials_that_cannot_be_written_are_counted_and_cost_no_result() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let engine = Engine::start(&options(&inside, &[]));
    fs::remove_dir_all(&inside).unwrap();
    let all = records(100, 2);
    crate::common::send(&engine, &crate::common::oracle::stream(&all, 10));
    let result = engine.wait_for_results(1).remove(0);
    assert_result(&result, &all);
    assert_eq!(result["partials_failed"], 1, "{result}");
    assert_eq!(
        result["partials_error"],
        "the directory no longer exists; create it again (os error 2)"
    );
    let counts = stats(&engine);
    assert_eq!((&counts["partials_failed"], &counts["partials_written"]), (&1.into(), &0.into()));
    fs::create_dir(&inside).unwrap();
    crate::common::send(&engine, &crate::common::oracle::stream(&all, 10));
    let result = engine.wait_for_results(2).remove(1);
    assert_eq!((&result["partials_failed"], &result["partials_error"]), (&0.into(), &Value::Null));
    assert_eq!(stats(&engine)["partials_written"], 1);
    let (code, _, log) = stop(engine);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("1 batch of partials could not be written (--partials)"), "{log}");
}
