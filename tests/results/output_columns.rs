//! `--output-columns`: what the added columns hold in files that are text, and which lists are
//! refused. `.ci/outputs.sh` has another program read them from Parquet and Arrow.

use crate::common::oracle::{packets, records, stream};
use crate::common::{Engine, result_of, ringest, run, stderr_of};
use serde_json::{Value, json};
use std::fs;

#[test]
fn added_columns_come_first_in_the_order_of_the_list() {
    let all = records(50, 1);
    for format in ["ndjson", "csv"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let list = "status,connection,peer";
        let engine = Engine::start(&[
            "--output",
            path,
            "--output-format",
            format,
            "--output-columns",
            list,
            "--exit-after",
            "2",
        ]);
        let whole = crate::common::send(&engine, &stream(&all, 7));
        engine.wait_for_results(1);
        let cut = crate::common::send(&engine, &packets(&all, 7));
        let (_, results, log) = engine.wait();
        for (peer, status) in [(whole, "complete"), (cut, "incomplete")] {
            let result = result_of(&results, peer);
            let text = fs::read_to_string(result["file"].as_str().expect(&log)).unwrap();
            let groups = result["groups"].as_array().unwrap();
            let connection = &result["connection"];
            if format == "csv" {
                let mut lines = text.lines();
                let head = format!("{list},A,E,B_mean,C_sum,D_min,count");
                assert_eq!(lines.next(), Some(head.as_str()));
                let begin = format!("{status},{connection},{peer},");
                assert_eq!(lines.filter(|line| line.starts_with(&begin)).count(), groups.len());
                continue;
            }
            let rows: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let with_stream = groups.iter().map(|group| {
                let mut row = group.as_object().unwrap().clone();
                row.insert("connection".to_owned(), connection.clone());
                row.insert("peer".to_owned(), json!(peer.to_string()));
                row.insert("status".to_owned(), json!(status));
                Value::Object(row)
            });
            assert_eq!(rows, with_stream.collect::<Vec<_>>());
            assert!(text.starts_with(&format!("{{\"status\":\"{status}\",\"connection\":")));
        }
    }
}

/// A stream without records has a file with a line of names.
#[test]
fn a_result_without_groups_has_the_columns_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let options = ["--output", path, "--output-format", "csv", "--output-columns", "peer"];
    let engine = Engine::start(&[&options[..], &["--exit-after", "1"]].concat());
    crate::common::send(&engine, &stream(&[], 1));
    let (_, results, _) = engine.wait();
    let text = fs::read_to_string(results[0]["file"].as_str().unwrap()).unwrap();
    assert_eq!(text, "peer,A,E,B_mean,C_sum,D_min,count\n");
}

#[test]
fn lists_that_cannot_be_are_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    let fields = ["--struct", ">I", "--fields", "peer", "--by", "peer"];
    for (options, said) in [
        (&["--output-columns", "peer"][..], "--output <DIR>"),
        (&["--output", here, "--output-columns", "node"], "invalid value 'node'"),
        (
            &["--output", here, "--output-columns", "peer,peer"],
            "--output-columns names a column twice",
        ),
        (
            &[&["--output", here, "--output-columns", "status,peer"][..], &fields].concat(),
            "--output-columns peer: results of this schema already have a column \"peer\"",
        ),
    ] {
        let listeners = ["--port", "0", "--records-port", "0", "--host", "127.0.0.1"];
        let output = run(ringest().arg("serve").args(listeners).args(options));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {stderr}");
        assert!(stderr.contains(said), "{options:?}: {stderr}");
    }
    assert_eq!(fs::read_dir(here).unwrap().count(), 0, "nothing is left");
}
