//! Results and partials on a disk that answers slowly: files are written at the same time, and
//! results are printed in order.

use crate::common::beside::stats;
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::{Engine, one_core, result_of, ringest, run, send, until};
use serde_json::Value;
use std::fs;
use std::io::Write;

#[test]
fn a_file_that_takes_long_holds_up_no_other_and_results_keep_their_order() {
    let (directory, failpoints) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let variables = [("RINGEST_FAILPOINTS", failpoints.path().to_str().unwrap())];
    let options = ["--output", directory.path().to_str().unwrap(), "--exit-after", "4"];
    let engine = Engine::start_both_in(&variables, &options);
    fs::write(failpoints.path().join("writer.block"), "").unwrap();
    let all = records(40, 1);
    let mut peers = vec![send(&engine, &stream(&all, 4))];
    let hit = failpoints.path().join("writer.hit");
    until("the first file is being written", || hit.exists());
    let files = || {
        let names = fs::read_dir(directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".parquet")).count()
    };
    // One by one, since which of two streams has its result first is not said.
    for count in 1..=3 {
        peers.push(send(&engine, &stream(&all, 4)));
        until("its file is there", || files() == count);
    }
    assert!(engine.results().is_empty(), "printed before the first");
    assert_eq!(stats(&engine)["result_files_written"], 0, "counted when printed");
    fs::remove_file(&hit).unwrap();
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), files()), (Some(0), 4), "{log}");
    for (result, peer) in results.iter().zip(&peers) {
        assert_eq!(result["peer"], peer.to_string());
        assert_result(result_of(&results, *peer), &all);
    }
}

/// The batch of one stream is stuck at the disk. Streams of the same worker, and so of the same
/// aggregation thread, go on; their batches are written, and their results are printed.
#[test]
fn partials_that_take_long_hold_up_no_other_stream() {
    let (directory, failpoints) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let variables = [("RINGEST_FAILPOINTS", failpoints.path().to_str().unwrap())];
    let (path, core) = (directory.path().to_str().unwrap(), one_core());
    let options = ["--partials", path, "--partials-interval", "100ms", "--cores", &core];
    let engine =
        Engine::start_both_in(&variables, &[&options[..], &["--exit-after", "4"]].concat());
    fs::write(failpoints.path().join("partials.block"), "").unwrap();
    let all = records(40, 1);
    let stuck = send(&engine, &stream(&all, 4));
    let hit = failpoints.path().join("partials.hit");
    until("the batch is being written", || hit.exists());
    let batches = || {
        let names = fs::read_dir(directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".stream.parquet")).count()
    };
    let mut long = engine.connect();
    let mut sent = Vec::new();
    for seed in 0..3 {
        let some = records(20, seed);
        long.write_all(&packets(&some, 4)).unwrap();
        sent.extend(some);
        until("its batch is there", || batches() > seed as usize);
    }
    long.write_all(&stream(&[], 4)).unwrap();
    let others = [send(&engine, &stream(&all, 4)), send(&engine, &stream(&all, 4))];
    let results = engine.wait_for_results(3);
    assert_result(result_of(&results, long.local_addr().unwrap()), &sent);
    others.iter().for_each(|peer| assert_result(result_of(&results, *peer), &all));
    assert!(results.iter().all(|result| result["partials_failed"] == 0), "{results:?}");
    assert!(stats(&engine)["partials_waiting_bytes"].as_u64() > Some(0));
    fs::remove_file(&hit).unwrap();
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_result(result_of(&results, stuck), &all);
    let merged = run(ringest().args(["merge", "--complete-only", "--format", "ndjson", path]));
    let merged: Value = serde_json::from_slice(&merged.stdout).unwrap();
    assert_eq!((&merged["complete"], &merged["batches"]), (&4.into(), &batches().into()));
    assert_result(&merged, &[&sent[..], &all, &all, &all].concat());
}
