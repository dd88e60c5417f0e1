//! A flood of streams that never end and open a new group with each record, against an engine with
//! little memory. Beside it a witness, a client that PINGs, and the process's memory.

use crate::common::beside::stats;
use crate::common::oracle::*;
use crate::common::wire::{Client, PING, PONG, frame};
use crate::common::{Engine, result_of, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SENDERS: u32 = 256;
/// The limit, and what the process may take: the limit is three quarters of it.
const LIMIT: &str = "384MiB";
const PROCESS_KIB: u64 = 512 << 10;
/// Records of a packet: writes of nearly 64 KiB.
const PACKET: usize = 240;

/// Writes all bytes; false if the engine has cut the connection, or it is time to stop.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8], stop: &AtomicBool) -> bool {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(taken) => bytes = &bytes[taken..],
            // The engine lets it wait.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
    }
    true
}

/// Sends records with new groups until told to stop; connects again when it is cut. Returns the
/// connections that it had.
fn flood(address: SocketAddr, first: u32, stop: &AtomicBool) -> u64 {
    let mut bytes = packet(&vec![record(0, 1, 0.5, 1, b"flood").bytes(); PACKET]);
    let (mut group, mut connections) = (first, 0u64);
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).expect("the engine accepts");
        stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut begun = false;
        while !stop.load(Ordering::Relaxed) {
            for record in bytes[4..].chunks_mut(RECORD_BYTES) {
                record[..4].copy_from_slice(&group.to_be_bytes());
                group = group.wrapping_add(1);
            }
            if !write_all(&mut stream, &bytes, stop) {
                break;
            }
            begun = true;
        }
        connections += u64::from(begun);
    }
    connections
}

/// What came out.
#[derive(Default)]
struct Printed {
    results: u64,
    records: u64,
    by_reason: std::collections::BTreeMap<String, u64>,
    witness: Vec<Value>,
}

/// Reads results until the engine ends, and keeps those of the witness.
fn read_results(stdout: ChildStdout, witness: SocketAddr) -> Printed {
    let mut printed = Printed::default();
    let peer = witness.to_string();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.expect("stdout");
        if line.is_empty() {
            continue;
        }
        let result: Value = serde_json::from_slice(&line).expect("a result");
        printed.results += 1;
        let groups = result["groups"].as_array().expect("groups");
        let counted: u64 = groups.iter().map(|group| group["count"].as_u64().unwrap()).sum();
        assert_eq!(result["records"], counted, "records are in the result");
        printed.records += counted;
        let reason = result["reason"].as_str().unwrap_or("complete").to_owned();
        *printed.by_reason.entry(reason).or_default() += 1;
        if result["peer"] == peer.as_str() {
            printed.witness.push(result);
        }
    }
    printed
}

/// PINGs every 10 ms until told to stop; returns the times that the answers took, sorted.
fn ping_on(client: &mut Client<TcpStream>, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        client.send(&frame(PING, &(times.len() as u64).to_be_bytes()));
        assert_eq!(client.next().expect("an answer").kind, PONG);
        times.push(begun.elapsed());
        thread::sleep(Duration::from_millis(10));
    }
    times.sort_unstable();
    times
}

/// An ordinary load, so that what the process keeps anyway is there before the flood.
fn warm_up(engine: &Engine) {
    let streams: Vec<TcpStream> = (0..16)
        .map(|seed| {
            let mut stream = engine.connect();
            stream.write_all(&stream_of(&records(1000, seed))).unwrap();
            stream
        })
        .collect();
    until("the warm-up", || stats(engine)["streams_complete"] == streams.len());
}

fn stream_of(records: &[Record]) -> Vec<u8> {
    crate::common::oracle::stream(records, 50)
}

/// `RINGEST_FLOOD_SECONDS` sets how long it lasts, a minute otherwise.
#[test]
#[ignore = "a flood of 256 senders for a minute"]
fn a_flood_of_groups_ends_the_largest_and_harms_nobody_else() {
    let seconds = std::env::var("RINGEST_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    let lasts = Duration::from_secs(seconds.unwrap_or(60));
    let options = ["--memory-limit", LIMIT, "--max-streams", "300"];
    let options = [&options[..], &["--rate-limit", "0"]].concat();
    let (mut engine, stderr) = Engine::start_both_with(&options, Stdio::piped());
    engine.read_log(stderr);
    let stdout = engine.child.stdout.take().expect("piped");
    let all = records(6000, 3);
    let mut witness = engine.connect();
    let peer = witness.local_addr().unwrap();
    let reader = thread::spawn(move || read_results(stdout, peer));
    warm_up(&engine);
    let (idle, counted) =
        (engine.memory_resident_kib(), stats(&engine)["memory_counted_bytes"].clone());
    let (stop, connections) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut pinger = Client::connect(engine.messages());
    pinger.ping(0);
    let (times, highest) = thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (engine, stop, connections) = (&engine, &stop, &connections);
            scope.spawn(move || {
                let count = flood(engine.address, sender << 24, stop);
                connections.fetch_add(count, Ordering::Relaxed);
            });
        }
        let pinging = scope.spawn(|| ping_on(&mut pinger, &stop));
        // The witness sends all the while.
        let end = Instant::now() + lasts;
        let mut left = all.chunks(50);
        let pause = lasts / (all.len() / 50) as u32;
        let mut highest = 0;
        while Instant::now() < end {
            if let Some(some) = left.next() {
                witness.write_all(&packets(some, 50)).unwrap();
            }
            highest = highest.max(engine.memory_resident_kib());
            thread::sleep(pause);
        }
        left.for_each(|some| witness.write_all(&packets(some, 50)).unwrap());
        witness.write_all(&packet(&[end_record()])).unwrap();
        stop.store(true, Ordering::Relaxed);
        (pinging.join().unwrap(), highest)
    });
    // However slow the machine is: only where nothing moves, this fails.
    let left = || {
        let now = stats(&engine);
        let more = now["memory_counted_bytes"].as_u64() > counted.as_u64().map(|n| n + (16 << 10));
        (more || now["connections_active"]["records"] != 0)
            .then(|| now["streams_by_reason"].clone())
    };
    while let Some(before) = left() {
        until("all streams to be reported", || left().is_none_or(|now| now != before));
    }
    // The allocator's memory is returned once a second.
    let within = |kib: u64| kib <= idle + idle / 5;
    until("the memory to be back", || within(engine.memory_resident_kib()));
    let (after, peak) = (engine.memory_resident_kib(), engine.memory_peak_kib());
    let stats = stats(&engine);
    engine.signal(rustix::process::Signal::TERM);
    assert!(engine.wait_for_end().success(), "{}", engine.log());
    let printed = reader.join().unwrap();
    let p99 = times[times.len() * 99 / 100];
    println!(
        "{} results {:?}, {} records; {} connections; resident {idle} KiB before, {highest} \
         sampled, {peak} at most, {after} after; {} PINGs, p99 {p99:?}, at most {:?}",
        printed.results,
        printed.by_reason,
        printed.records,
        connections.load(Ordering::Relaxed),
        times.len(),
        times[times.len() - 1],
    );
    assert!(peak <= PROCESS_KIB, "{peak} KiB");
    assert!(printed.by_reason["memory_limit"] > 0, "the limit was never reached");
    assert_eq!(printed.records, stats["records"].as_u64().unwrap(), "each record in one result");
    assert_eq!(
        printed.results,
        stats["connections_opened"]["records"].as_u64().unwrap()
            - stats["connections_empty"]["records"].as_u64().unwrap()
    );
    let result = result_of(&printed.witness, peer);
    assert_eq!(result["status"], "complete", "{result}");
    assert_result(result, &all);
}
