//! Results on a disk that answers slowly: their files are written at the same time, and they are
//! printed in order.

use crate::common::beside::stats;
use crate::common::oracle::{assert_result, records, stream};
use crate::common::{Engine, result_of, send, until};
use std::fs;

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
