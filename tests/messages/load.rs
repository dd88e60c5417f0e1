//! Thousands of clients at once, each of which PINGs every now and then: no error, and little
//! memory for each.

use crate::common::beside::{stats, wrongs};
use crate::common::wire::{CLOSE, PING, PONG, frame};
use crate::common::{Engine, PATIENCE, until};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: usize = 4;
/// PINGs in a row before a thread looks at the clock.
const AT_ONCE: usize = 25;
/// What an idle connection may cost, where there are so many that nothing else counts.
const IDLE_BYTES_MAX: u64 = 8 << 10;
/// What an engine needs once, whatever happens, in KiB.
const ENGINE_KIB_MAX: u64 = 4 << 10;

/// Allows this process a descriptor for each client, and some more. The engine, a process of its
/// own, raises its limit itself.
fn raise_descriptors(clients: usize) {
    let needed = clients as u64 + 500;
    let mut limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= needed);
    assert!(
        enough,
        "{clients} connections need {needed} descriptors; raise the hard limit \
                     (ulimit -Hn)"
    );
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed);
        setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    }
}

fn ping(stream: &mut TcpStream, number: u64) {
    stream.write_all(&frame(PING, &number.to_be_bytes())).expect("the engine reads");
    let mut pong = [0; 20];
    stream.read_exact(&mut pong).expect("a PONG");
    assert_eq!(pong[..], frame(PONG, &number.to_be_bytes()));
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the engine accepts");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ping(&mut stream, 0);
    stream
}

/// PINGs from every stream, one interval after the other.
fn ping_all(streams: &mut [TcpStream], rounds: u64, interval: Duration) {
    let begun = Instant::now();
    let pings = streams.len() as u32 * rounds as u32;
    let mut sent = 0;
    for round in 1..=rounds {
        for some in streams.chunks_mut(AT_ONCE) {
            some.iter_mut().for_each(|stream| ping(stream, round));
            sent += some.len() as u32;
            let due = begun + interval * rounds as u32 * sent / pings;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

#[test]
fn a_thousand_connections() {
    ping_from(1000, 3, Duration::ZERO);
}

/// Over all of them 3,333 PINGs a second.
#[test]
#[ignore = "long: 10,000 connections for a minute"]
fn ten_thousand_connections() {
    ping_from(10_000, 20, Duration::from_secs(3));
}

/// So many PINGs of each of so many clients, at an interval.
fn ping_from(clients: usize, rounds: u64, interval: Duration) {
    raise_descriptors(clients);
    let limit = (clients + 100).to_string();
    let unlimited = ["--rate-limit", "0", "--global-rate-limit", "0"];
    let options = [&["--max-connections", &limit][..], &unlimited].concat();
    let engine = Engine::start_messages(&options);
    let address = engine.messages();
    // What is needed once is there when the first clients have been served.
    drop((0..100).map(|_| connect(address)).collect::<Vec<_>>());
    crate::common::beside::wait_for_clients(&engine, 0);
    let before_kib = engine.memory_resident_kib();

    let mut streams: Vec<_> = (0..clients).map(|_| connect(address)).collect();
    thread::scope(|scope| {
        for share in streams.chunks_mut(clients / THREADS) {
            scope.spawn(move || ping_all(share, rounds, interval));
        }
    });
    let grown_kib = engine.memory_resident_kib().saturating_sub(before_kib);
    let stats = stats(&engine);
    println!(
        "{clients} connections, {rounds} PINGs each: {grown_kib} KiB of memory; latency {}",
        stats["message_latency"]
    );
    assert_eq!(stats["connections_active"]["messages"], clients);
    assert_eq!(stats["messages"], 100 + clients as u64 * (rounds + 1));
    assert!(wrongs(&engine).values().all(|&count| count == 0), "{stats}");
    let allowed_kib = clients as u64 * IDLE_BYTES_MAX / 1024 + ENGINE_KIB_MAX;
    assert!(grown_kib <= allowed_kib, "{grown_kib} KiB, {allowed_kib} allowed");

    for stream in &mut streams {
        stream.write_all(&frame(CLOSE, b"")).expect("the engine reads");
    }
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0; 1]).expect("an orderly end"), 0);
    }
    drop(streams);
    until("all to be gone", || {
        crate::common::beside::stats(&engine)["connections_active"]["messages"] == 0
    });
    engine.signal(Signal::TERM);
    let (status, _, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}
