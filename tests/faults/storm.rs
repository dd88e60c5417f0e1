//! Everything at once: streams in plain and over TLS, records in DATA and messages, each through a
//! proxy that cuts, damages, delays or doubles by chance, beside a client that does no wrong.

use crate::common::beside::{Healthy, stats, wait_for_clients, wrongs};
use crate::common::oracle::{Record, packets, records, stream};
use crate::common::proxy::{Course, CutBy, Mischief, Proxy};
use crate::common::wire::*;
use crate::common::{Engine, PATIENCE};
use crate::proxied::{assert_prefix, bit};
use crate::proxied_tls::TlsEngine;
use crate::setting;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// What was sent, by what the engine saw as the peer; and whether the line left the bytes alone.
type Sent = Mutex<HashMap<SocketAddr, (Vec<Record>, bool)>>;

fn course(random: &mut fastrand::Rng, bytes: u64, may_flip: bool) -> Course {
    let mut course = Course::default();
    match random.u8(..4) {
        0 => {
            let by = if random.bool() { CutBy::End } else { CutBy::Reset };
            course.cut = Some((random.u64(1..bytes), by));
        }
        1 if may_flip => course.flip = Some((random.u64(..bytes), bit(random))),
        _ => {}
    }
    course.pieces = random.bool().then(|| random.u64(..));
    course
}

/// One connection with records; `true` over TLS, where damage is noticed.
fn send_records(
    engine: SocketAddr,
    tls: Option<&TlsEngine>,
    random: &mut fastrand::Rng,
    sent: &Sent,
) {
    let all = records(random.usize(1..300), random.u64(..));
    let bytes = stream(&all, random.usize(1..8));
    // Without TLS nothing on the record port can notice a damaged byte.
    let up = course(random, bytes.len() as u64 + 1, tls.is_some());
    let mischief = Mischief { up, down: course(random, 2000, false), twice: random.u8(..8) == 0 };
    let proxy = Proxy::to(engine, mischief);
    let untouched = up.cut.is_none() && up.flip.is_none() && mischief.down.cut.is_none();
    let mut known = sent.lock().unwrap();
    known.insert(proxy.upstream, (all.clone(), untouched));
    if let Some(second) = proxy.second {
        // Over TLS the copy has no records.
        let all = if tls.is_some() { Vec::new() } else { all };
        known.insert(second, (all, false));
    }
    drop(known);
    match tls {
        Some(tls) => drop(tls.send(&proxy, &bytes)),
        None => drop(proxy.connect().write_all(&bytes)),
    }
}

/// One client with messages, and records among them, some of which may not arrive.
fn send_messages(engine: SocketAddr, random: &mut fastrand::Rng, sent: &Sent) {
    let all = records(random.usize(1..60), random.u64(..));
    let chunks = all.chunks(6).zip(0..);
    let data: Vec<Vec<u8>> =
        chunks.map(|(records, number)| data(number, &packets(records, 3))).collect();
    let mut said: Vec<Vec<u8>> = Vec::new();
    for frame_ in data {
        said.push(frame(PING, b"12345678"));
        said.push(frame(ECHO, &vec![1; random.usize(..2000)]));
        said.push(frame_);
    }
    said.push(frame(CLOSE, b""));
    let said = said.concat();
    let mischief = Mischief {
        up: course(random, said.len() as u64, true),
        down: course(random, 2000, false),
        twice: false,
    };
    let proxy = Proxy::to(engine, mischief);
    let untouched =
        mischief.up.cut.is_none() && mischief.up.flip.is_none() && mischief.down.cut.is_none();
    sent.lock().unwrap().insert(proxy.upstream, (all, untouched));
    let mut stream = proxy.connect();
    // It may be cut meanwhile.
    let _ = stream.write_all(&said);
    let _ = stream.shutdown(Shutdown::Write);
    drain(&mut stream);
}

fn drain(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
}

/// Each stream is reported at most once, with its first records; whole and untouched ones are
/// complete.
fn assert_all(results: &[Value], sent: &HashMap<SocketAddr, (Vec<Record>, bool)>) -> usize {
    let mut seen = HashMap::new();
    for result in results {
        let peer: SocketAddr = result["peer"].as_str().unwrap().parse().unwrap();
        assert!(seen.insert(peer, result).is_none(), "{peer} is reported twice");
        let (all, untouched) = sent.get(&peer).unwrap_or_else(|| panic!("who is {peer}?"));
        let count = assert_prefix(result, all);
        if result["status"] == "complete" {
            assert_eq!(count, all.len(), "{result}");
        }
        assert!(!untouched || result["status"] == "complete", "{result}");
    }
    for (peer, (_, untouched)) in sent {
        assert!(!untouched || seen.contains_key(peer), "nothing is said of {peer}");
    }
    seen.len()
}

#[test]
#[ignore = "long: RINGEST_STORM_SECONDS, 20 by default"]
fn a_storm_of_faults_harms_nobody_else() {
    let plain = Engine::start_both(&["--linger", "100ms", "--rate-limit", "0"]);
    let tls = TlsEngine::start(false, &["--handshake-timeout", "2s", "--idle-timeout", "5s"]);
    let healthy = Healthy::start(plain.messages());
    let (to_plain, to_tls) = (Sent::default(), Sent::default());
    let seconds = setting("RINGEST_STORM_SECONDS", 20);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (records_at, messages_at, tls_at) = (plain.address, plain.messages(), tls.engine.address);
    thread::scope(|scope| {
        for seed in 0..8 {
            let (to_plain, to_tls, tls) = (&to_plain, &to_tls, &tls);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while Instant::now() < end {
                    match random.u8(..3) {
                        0 => send_records(records_at, None, &mut random, to_plain),
                        1 => send_records(tls_at, Some(tls), &mut random, to_tls),
                        _ => send_messages(messages_at, &mut random, to_plain),
                    }
                }
            });
        }
    });
    wait_for_clients(&plain, 1);
    healthy.assert_well();
    drop(healthy);
    let faults = wrongs(&plain);
    let mut reported = 0;
    for (engine, sent) in [(plain, to_plain), (tls.engine, to_tls)] {
        let stats = stats(&engine);
        assert_eq!(stats["streams_by_reason"]["internal_error"], 0, "{stats}");
        assert_eq!(stats["faults_by_reason"]["internal_error"], 0, "{stats}");
        engine.signal(Signal::TERM);
        let (status, results, log) = engine.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        reported += assert_all(&results, &sent.into_inner().unwrap());
    }
    println!("storm: {seconds} s, {reported} streams reported, each exact; faults {faults:?}");
}
