//! `--results`, a file that printed results are appended to, also while it is rotated; and what a
//! directory of results refuses.

use crate::common::oracle::{assert_result, records, stream};
use crate::common::{Engine, ringest, run, send, stderr_of, until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sends a stream and waits for its result in the file.
fn result_in(path: &Path, engine: &Engine, count: usize) -> Value {
    let all = records(40, 3);
    send(engine, &stream(&all, 4));
    until("the result", || lines(path).len() == count);
    let result = lines(path).remove(count - 1);
    assert_result(&result, &all);
    result
}

/// As logrotate does it, in both of its ways.
#[test]
fn no_result_is_lost_or_torn_while_the_file_is_rotated() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let results = path("results.ndjson");
    let engine = Engine::start(&["--results", results.to_str().unwrap()]);
    result_in(&results, &engine, 1);
    // copytruncate
    fs::copy(&results, path("copied")).unwrap();
    fs::File::options().write(true).open(&results).unwrap().set_len(0).unwrap();
    result_in(&results, &engine, 1);
    assert!(!fs::read(&results).unwrap().contains(&0), "no hole");
    // Moved away: results go on to the moved file until the signal.
    fs::rename(&results, path("moved")).unwrap();
    result_in(&path("moved"), &engine, 2);
    assert!(!results.exists());
    engine.signal(Signal::HUP);
    until("the new file", || results.exists());
    until("its line in the log", || engine.log().contains("results file opened again"));
    result_in(&results, &engine, 1);
    assert_eq!((lines(&path("copied")).len(), lines(&path("moved")).len()), (1, 2));
    engine.signal(Signal::TERM);
    let (status, printed, log) = engine.wait();
    assert_eq!((status.code(), printed.len()), (Some(0), 0), "nothing on stdout: {log}");
    // The next run appends.
    let engine = Engine::start(&["--results", results.to_str().unwrap()]);
    result_in(&results, &engine, 2);
    // And keeps others out.
    let listeners = ["serve", "--no-messages", "--records-port", "0", "--admin-port", "0"];
    let refused = run(ringest().args(listeners).arg("--results").arg(&results));
    let said = stderr_of(&refused);
    assert!(refused.status.code() == Some(2) && said.contains("in use by another"), "{said}");
    let refused = run(ringest().args(listeners).arg("--results").arg(directory.path()));
    let said = stderr_of(&refused);
    assert!(refused.status.code() == Some(2) && said.contains("Is a directory"), "{said}");
}

/// A table of two schemas would mix columns, or sums of different things.
#[test]
fn a_directory_holds_results_of_one_schema() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("output");
    fs::create_dir(&output).unwrap();
    for _ in 0..2 {
        let engine = Engine::start(&["--output", output.to_str().unwrap(), "--exit-after", "1"]);
        send(&engine, &stream(&records(4, 1), 4));
        assert_eq!(engine.wait().0.code(), Some(0));
    }
    let shown = run(ringest().args(["schema", "show"]));
    let other = String::from_utf8(shown.stdout).unwrap().replace("D:min", "D:max");
    let schema = directory.path().join("other.toml");
    fs::write(&schema, other).unwrap();
    let listeners = ["serve", "--no-messages", "--records-port", "0", "--admin-port", "0"];
    let options = ["--schema", schema.to_str().unwrap(), "--output", output.to_str().unwrap()];
    // Its schema's file is the oldest, so whoever deletes by age deletes it first.
    for gone in [false, true] {
        if gone {
            fs::remove_file(output.join(".schema.toml")).unwrap();
        }
        let refused = run(ringest().args(listeners).args(options));
        let said = stderr_of(&refused);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("another schema") && said.contains("D:max"), "{said}");
    }
}

/// Results are text and could not say where their files are.
#[test]
fn a_directory_that_results_cannot_name_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join(OsStr::from_bytes(b"z\xfcrich"));
    fs::create_dir(&inside).unwrap();
    for option in ["--output", "--capture"] {
        let listeners = ["serve", "--no-messages", "--records-port", "0", "--admin-port", "0"];
        let refused = run(ringest().args(listeners).arg(option).arg(&inside));
        let said = stderr_of(&refused);
        assert!(refused.status.code() == Some(2) && said.contains("not UTF-8"), "{said}");
    }
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
    // Nothing names these files in a result.
    let mut merge = ringest();
    fs::write(inside.join("schema.toml"), run(ringest().args(["schema", "show"])).stdout).unwrap();
    assert_eq!(run(merge.arg("merge").arg(&inside)).status.code(), Some(0));
}
