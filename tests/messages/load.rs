//! Ten thousand clients at once, each of which PINGs every few seconds: no error, and little
//! memory for each. A minute with `RINGEST_LONG_TESTS=1`, else some seconds.

use crate::common::beside::{stats, wrongs};
use crate::common::wire::{CLOSE, PING, PONG, frame};
use crate::common::{Engine, PATIENCE, until};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 10_000;
const THREADS: usize = 4;
/// Clients and engine are two processes; each needs a descriptor a connection, and some more.
const DESCRIPTORS: u64 = CLIENTS as u64 + 500;
/// Between two PINGs of a client: over all of them 3,333 a second.
const INTERVAL: Duration = Duration::from_secs(3);
/// PINGs in a row before a thread looks at the clock.
const AT_ONCE: usize = 25;
/// What an idle connection may cost.
const IDLE_BYTES_MAX: u64 = 8 << 10;

/// Allows this process as many descriptors as it may have; whether they are enough.
fn enough_descriptors() -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= DESCRIPTORS);
    if enough && limit.current.is_some_and(|current| current < DESCRIPTORS) {
        limit.current = Some(DESCRIPTORS);
        setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    }
    enough
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
fn ping_all(streams: &mut [TcpStream], rounds: u64) {
    let begun = Instant::now();
    let pings = streams.len() as u32 * rounds as u32;
    let mut sent = 0;
    for round in 1..=rounds {
        for some in streams.chunks_mut(AT_ONCE) {
            some.iter_mut().for_each(|stream| ping(stream, round));
            sent += some.len() as u32;
            let due = begun + INTERVAL * rounds as u32 * sent / pings;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

#[test]
fn ten_thousand_connections() {
    if !enough_descriptors() {
        eprintln!(
            "skipped: {CLIENTS} connections need {DESCRIPTORS} descriptors; raise the hard limit \
             (ulimit -Hn)"
        );
        return;
    }
    let long = std::env::var_os("RINGEST_LONG_TESTS").is_some_and(|value| value == "1");
    let rounds = if long { 20 } else { 2 };
    let engine = Engine::start_messages(&["--max-connections", "10100"]);
    let address = engine.messages();
    // What is needed once is there when the first clients have been served.
    drop((0..100).map(|_| connect(address)).collect::<Vec<_>>());
    crate::common::beside::wait_for_clients(&engine, 0);
    let before_kib = engine.memory_resident_kib();

    let mut streams: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
    thread::scope(|scope| {
        for share in streams.chunks_mut(CLIENTS / THREADS) {
            scope.spawn(move || ping_all(share, rounds));
        }
    });
    let idle_bytes = (engine.memory_resident_kib() - before_kib) * 1024 / CLIENTS as u64;
    let stats = stats(&engine);
    println!(
        "{CLIENTS} connections, {rounds} PINGs each in {} s: {idle_bytes} bytes of memory a \
         connection; latency {}",
        INTERVAL.as_secs() * rounds,
        stats["message_latency"]
    );
    assert_eq!(stats["connections_active"]["messages"], CLIENTS);
    assert_eq!(stats["messages"], 100 + CLIENTS as u64 * (rounds + 1));
    assert!(wrongs(&engine).values().all(|&count| count == 0), "{stats}");
    assert!(idle_bytes <= IDLE_BYTES_MAX, "{idle_bytes} bytes a connection");

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
