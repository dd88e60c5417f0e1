//! `--memory-limit` end to end: who ends when memory is used up, with which records, and that it
//! comes back. The witnesses are exact, whatever others do.

use crate::common::beside::stats;
use crate::common::oracle::*;
use crate::common::wire::{Client, DATA_ACK, data};
use crate::common::{Engine, one_core, result_of, until, wait_closed};
use serde_json::Value;
use std::io::Write;

/// Bytes for groups and texts besides what one worker and a few streams take.
const LIMIT: [&str; 2] = ["--memory-limit", "48MiB"];

/// Records with a group each.
fn distinct(count: u32) -> Vec<Record> {
    (0..count).map(|a| record(a, a as u16, 0.5, (a % 100) as i8, b"")).collect()
}

/// Records with a text each that fills its field.
fn distinct_texts(count: usize) -> Vec<Record> {
    (0..count).map(|n| record(1, 7, 0.5, 1, format!("{n:0>256}").as_bytes())).collect()
}

fn counted(engine: &Engine) -> u64 {
    stats(engine)["memory_counted_bytes"].as_u64().expect("a number")
}

fn received(engine: &Engine) -> u64 {
    stats(engine)["records"].as_u64().expect("a number")
}

/// A stream that took what there was has all records before the one that needed more.
fn assert_cut(result: &Value, all: &[Record]) {
    assert_eq!(
        (&result["status"], &result["reason"]),
        (&"rejected".into(), &"memory_limit".into())
    );
    let records = result["records"].as_u64().unwrap() as usize;
    assert!((1000..all.len()).contains(&records), "{records} records");
    assert_result(result, &all[..records]);
}

/// Groups or texts: alone, a stream is the largest. What it held comes back once it is reported.
#[test]
fn a_stream_that_takes_all_memory_is_complete_up_to_there() {
    let core = one_core();
    let kinds = [("two-phase", distinct(120_000)), ("columns", distinct(120_000))];
    let texts = ("two-phase", distinct_texts(40_000));
    for (aggregate, all) in kinds.into_iter().chain([texts]) {
        let options = ["--cores", &core, "--aggregate", aggregate, "--batch-rows", "1024"];
        let engine = Engine::start(&[&options[..], &LIMIT[..]].concat());
        let before = counted(&engine);
        let mut stream = engine.connect();
        let address = stream.local_addr().unwrap();
        // The engine may close before it has read everything.
        let _ = stream.write_all(&packets(&all, 200));
        wait_closed(&mut stream);
        let results = engine.wait_for_results(1);
        assert_cut(result_of(&results, address), &all);
        until("the memory to come back", || counted(&engine) == before);
        assert_eq!(stats(&engine)["streams_by_reason"]["memory_limit"], 1);
        let few = records(3000, 5);
        let mut next = engine.connect();
        let address = next.local_addr().unwrap();
        next.write_all(&stream_of(&few)).unwrap();
        let results = engine.wait_for_results(2);
        assert_result(result_of(&results, address), &few);
    }
}

fn stream_of(records: &[Record]) -> Vec<u8> {
    crate::common::oracle::stream(records, 50)
}

/// One that is silent and holds the most ends, with all that it sent. The one that needs its memory
/// waits for it, and is complete, as is a witness that holds little.
#[test]
fn the_largest_ends_and_only_it() {
    let core = one_core();
    let engine = Engine::start(&[&["--cores", &core][..], &LIMIT[..]].concat());
    let (large, small, few) = (distinct(25_000), distinct(20_000), records(3000, 5));
    let mut witness = engine.connect();
    witness.write_all(&packets(&few[..1000], 50)).unwrap();
    let mut silent = engine.connect();
    silent.write_all(&packets(&large, 200)).unwrap();
    until("the records to be decoded", || received(&engine) == 26_000);
    let mut needy = engine.connect();
    needy.write_all(&stream_of(&small)).unwrap();
    wait_closed(&mut silent);
    witness.write_all(&stream_of(&few[1000..])).unwrap();
    let results = engine.wait_for_results(3);
    let of = |stream: &std::net::TcpStream| result_of(&results, stream.local_addr().unwrap());
    assert_eq!(of(&silent)["reason"], "memory_limit");
    assert_result(of(&silent), &large);
    for (stream, all) in [(&needy, &small), (&witness, &few)] {
        assert_eq!(of(stream)["status"], "complete");
        assert_result(of(stream), all);
    }
}

/// The same where the largest is carried in DATA messages: it ends, its client stays.
#[test]
fn a_silent_stream_in_data_ends_and_its_client_stays() {
    let core = one_core();
    let options = ["--cores", &core, "--rate-limit", "0"];
    let engine = Engine::start_both(&[&options[..], &LIMIT[..]].concat());
    let (large, small) = (distinct(25_000), distinct(20_000));
    let mut client = Client::connect(engine.messages());
    for (number, some) in (0..).zip(large.chunks(200)) {
        client.send(&data(number, &packets(some, 200)));
        assert_eq!(client.next().expect("an answer").kind, DATA_ACK);
    }
    let mut needy = engine.connect();
    needy.write_all(&stream_of(&small)).unwrap();
    let results = engine.wait_for_results(2);
    let needy = result_of(&results, needy.local_addr().unwrap());
    assert_eq!(needy["status"], "complete");
    assert_result(needy, &small);
    let carried = result_of(&results, client.stream.local_addr().unwrap());
    assert_eq!(carried["reason"], "memory_limit");
    assert_result(carried, &large);
    client.ping(1);
}

/// With partials, the groups of earlier batches count as well.
#[test]
fn batches_count_until_the_stream_is_reported() {
    let core = one_core();
    let directory = tempfile::tempdir().unwrap();
    let partials = directory.path().to_str().unwrap();
    let options = ["--cores", &core, "--partials", partials, "--partials-interval", "100ms"];
    // As much for groups as elsewhere, besides 32 MiB for batches on their way to the disk.
    let engine = Engine::start(&[&options[..], &["--memory-limit", "80MiB"]].concat());
    let before = counted(&engine);
    let all = distinct(120_000);
    let mut stream = engine.connect();
    let address = stream.local_addr().unwrap();
    for some in all.chunks(2000) {
        if stream.write_all(&packets(some, 200)).is_err() {
            break;
        }
    }
    wait_closed(&mut stream);
    let results = engine.wait_for_results(1);
    assert_cut(result_of(&results, address), &all);
    until("the memory to come back", || counted(&engine) == before);
}
