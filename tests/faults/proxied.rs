//! A byte proxy between peers and the engine: what is cut, damaged, delayed or doubled is noticed,
//! and nothing wrong comes out.

use crate::common::beside::{Healthy, stats, wait_for_clients, wrongs};
use crate::common::oracle::{RECORD_BYTES, Record, assert_result, packets, records, stream};
use crate::common::proxy::{Course, CutBy, Mischief, Proxy};
use crate::common::wire::*;
use crate::common::{Engine, result_of, until};
use ringest::client::MessageClient;
use serde_json::Value;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

/// Records of each packet in these streams.
const PER_PACKET: usize = 2;
const PACKET_BYTES: u64 = (4 + PER_PACKET * RECORD_BYTES) as u64;

/// Nothing but what happens on the way to the engine.
pub(crate) fn up(course: Course) -> Mischief {
    Mischief { up: course, ..Mischief::default() }
}

pub(crate) fn cut(after: u64, by: CutBy) -> Mischief {
    up(Course { cut: Some((after, by)), ..Course::default() })
}

pub(crate) fn flip(at: u64, mask: u8) -> Mischief {
    up(Course { flip: Some((at, mask)), ..Course::default() })
}

/// One bit of a byte, by chance.
pub(crate) fn bit(random: &mut fastrand::Rng) -> u8 {
    1 << random.u8(..8)
}

/// Fails unless a result has exactly the first of these records, as many as it says.
pub(crate) fn assert_prefix(result: &Value, all: &[Record]) -> usize {
    let count = result["records"].as_u64().expect("a count") as usize;
    assert!(count <= all.len(), "{count} of {} records: {result}", all.len());
    assert_result(result, &all[..count]);
    count
}

/// Waits until so many record connections are reported, or counted as empty.
pub(crate) fn results_of(engine: &Engine, connections: usize) -> Vec<Value> {
    until("results", || {
        let stats = stats(engine);
        let empty = stats["connections_empty"]["records"].as_u64().unwrap() as usize;
        stats["connections_active"]["records"] == 0 && engine.results().len() + empty >= connections
    });
    engine.results()
}

/// How many of the records are whole in the first `bytes` bytes of a stream, and why a stream that
/// ends there is not complete.
fn whole_records(bytes: u64, all: usize) -> (usize, &'static str) {
    let (packets, rest) = ((bytes / PACKET_BYTES) as usize, bytes % PACKET_BYTES);
    let record = RECORD_BYTES as u64;
    let (more, reason) = match rest {
        0 => (0, "closed_before_end"),
        1..4 => (0, "closed_in_header"),
        rest if (rest - 4) % record == 0 => ((rest - 4) / record, "closed_in_packet"),
        rest => ((rest - 4) / record, "closed_in_record"),
    };
    ((packets * PER_PACKET + more as usize).min(all), reason)
}

/// Around every place where something begins, and some in between.
fn places(all: u64) -> Vec<u64> {
    let record = RECORD_BYTES as u64;
    let begins = (0..).map(|packet| packet * PACKET_BYTES).take_while(|at| *at <= all);
    let edges = begins.flat_map(|at| [at, at + 4, at + 4 + record]);
    let near = edges.flat_map(|edge| edge.saturating_sub(2)..=edge + 2);
    let mut places: Vec<u64> = near.chain((1..all).step_by(61)).filter(|at| *at <= all).collect();
    places.sort_unstable();
    places.dedup();
    places
}

#[test]
fn a_stream_that_is_cut_has_exactly_what_came_before() {
    let engine = Engine::start(&[]);
    let all = records(6, 1);
    let bytes = stream(&all, PER_PACKET);
    let total = bytes.len() as u64;
    let mut sent = Vec::new();
    for by in [CutBy::End, CutBy::Reset] {
        for place in places(total) {
            let proxy = Proxy::to(engine.address, cut(place, by));
            let mut sender = proxy.connect();
            // It may be cut while it sends.
            let _ = sender.write_all(&bytes);
            let _ = sender.shutdown(Shutdown::Write);
            sent.push((proxy.upstream, place, by, sender));
        }
    }
    let results = results_of(&engine, sent.len());
    for (peer, place, by, _) in &sent {
        let shown = peer.to_string();
        let Some(result) = results.iter().find(|result| result["peer"] == shown.as_str()) else {
            assert!(*place == 0 || *by == CutBy::Reset, "nothing is said of {place} bytes");
            continue;
        };
        let count = assert_prefix(result, &all);
        let (whole, reason) = whole_records(*place, all.len());
        let said = (result["status"].as_str().unwrap(), result["reason"].as_str());
        match by {
            CutBy::End if *place == total => assert_eq!((said, count), (("complete", None), 6)),
            CutBy::End => {
                assert_eq!((said, count), (("incomplete", Some(reason)), whole), "{place}");
            }
            // What had arrived may be lost with the connection.
            CutBy::Reset => {
                assert!(count <= whole, "{count} records of {place} bytes");
                assert!(said.0 == "incomplete" || *place == total, "{place}: {result}");
                let reasons = [None, Some("reset"), Some("closed_before_data")];
                assert!(reasons.contains(&said.1), "{place}: {result}");
            }
        }
    }
}

/// Pauses and odd pieces change nothing.
#[test]
fn streams_and_messages_through_a_slow_line_are_exact() {
    let engine = Engine::start_both(&[]);
    let (records_at, messages_at) = (engine.address, engine.messages());
    thread::scope(|scope| {
        for seed in 0..6 {
            let course = Course { pieces: Some(seed), ..Course::default() };
            let mischief = Mischief { up: course, down: course, twice: false };
            scope.spawn(move || {
                let mut client = Client::over(Proxy::to(messages_at, mischief).connect());
                for number in 0..20 {
                    client.ping(number);
                    let payload = vec![number as u8; 3000];
                    client.send(&frame(ECHO, &payload));
                    client.expect(ECHO_REPLY, &payload);
                }
            });
        }
    });
    let mut sent = Vec::new();
    thread::scope(|scope| {
        for seed in 0..6 {
            let proxy =
                Proxy::to(records_at, up(Course { pieces: Some(seed), ..Course::default() }));
            let all = records(500, seed);
            sent.push((proxy.upstream, all.clone()));
            scope.spawn(move || proxy.connect().write_all(&stream(&all, 3)).unwrap());
        }
    });
    let results = results_of(&engine, sent.len());
    for (peer, all) in &sent {
        let result = result_of(&results, *peer);
        assert_eq!(result["status"], "complete", "{result}");
        assert_result(result, all);
    }
    assert_eq!(stats(&engine)["faults"], 0);
}

/// Whoever gets the same bytes twice has two streams, and does not mix them.
#[test]
fn a_stream_that_comes_twice_is_two_streams() {
    let engine = Engine::start(&[]);
    let all = records(300, 3);
    let mischief = Mischief { twice: true, ..Mischief::default() };
    let proxy = Proxy::to(engine.address, mischief);
    proxy.connect().write_all(&stream(&all, 4)).unwrap();
    let results = engine.wait_for_results(2);
    for peer in [proxy.upstream, proxy.second.unwrap()] {
        let result = result_of(&results, peer);
        assert_eq!(result["status"], "complete", "{result}");
        assert_result(result, &all);
    }
}

/// What a client says whose frames are damaged one after the other, and the answers to each.
fn conversation(all: &[Record]) -> (Vec<Vec<u8>>, Vec<Frame>) {
    let answer = |kind, payload: &[u8]| Frame { kind, payload: payload.to_vec() };
    let said = vec![
        frame(PING, b"12345678"),
        frame(ECHO, b"what is damaged is not answered"),
        data(7, &packets(all, PER_PACKET)),
        frame(PING, b"87654321"),
        frame(CLOSE, b""),
    ];
    let answers = vec![
        answer(PONG, b"12345678"),
        answer(ECHO_REPLY, b"what is damaged is not answered"),
        answer(DATA_ACK, &7u32.to_be_bytes()),
        answer(PONG, b"87654321"),
    ];
    (said, answers)
}

/// Damages one byte of a conversation; gives what the engine sees as the peer.
fn converse_damaged(engine: SocketAddr, all: &[Record], at: u64, mask: u8) -> SocketAddr {
    let (said, answers) = conversation(all);
    let ends = said.iter().scan(0, |end, frame| {
        *end += frame.len() as u64;
        Some(*end)
    });
    let damaged = ends.take_while(|end| *end <= at).count();
    let proxy = Proxy::to(engine, flip(at, mask));
    let mut client = Client::over(proxy.connect());
    client.send_last(&said.concat());
    let mut told = client.rest();
    let complaint = told.pop_if(|frame| frame.kind == ERROR);
    assert_eq!(told, answers[..damaged], "byte {at} by {mask:#04x}");
    // A length that became longer has the rest of the conversation as its payload, and no end.
    let (in_frame, length) = (at - said[..damaged].concat().len() as u64, 6..8);
    assert!(complaint.is_some() || length.contains(&in_frame), "byte {at} by {mask:#04x}");
    proxy.upstream
}

/// One bit of each byte: no damaged frame is acted upon, all before it are, and a stream of records
/// that is acknowledged is reported.
#[test]
fn each_damaged_byte_of_a_message_is_noticed() {
    let engine = Engine::start_both(&["--linger", "100ms"]);
    let healthy = Healthy::start(engine.messages());
    let all = records(4, 2);
    let (said, _) = conversation(&all);
    let before_data: usize = said[..3].iter().map(Vec::len).sum();
    let (total, threads) = (said.concat().len(), 8);
    let address = engine.messages();
    let acknowledged: Vec<SocketAddr> = thread::scope(|scope| {
        let one = |first| {
            let all = &all;
            move || {
                let mut random = fastrand::Rng::with_seed(first as u64);
                let damaged = (first..total).step_by(threads).map(|at| {
                    let peer = converse_damaged(address, all, at as u64, bit(&mut random));
                    (at >= before_data).then_some(peer)
                });
                damaged.flatten().collect::<Vec<_>>()
            }
        };
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(one(first))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(acknowledged.len(), total - before_data);
    let results = engine.wait_for_results(acknowledged.len());
    assert_eq!(results.len(), acknowledged.len(), "a stream of damaged DATA");
    for peer in &acknowledged {
        let result = result_of(&results, *peer);
        assert_eq!(result["status"], "incomplete", "{result}");
        assert_result(result, &all);
    }
    wait_for_clients(&engine, 1);
    healthy.assert_well();
    assert!(wrongs(&engine)["crc_mismatch"] > total as u64 / 2, "{:?}", wrongs(&engine));
}

/// The project's own client notices what is damaged on the way back.
#[test]
fn each_damaged_byte_of_an_answer_is_noticed_by_the_client() {
    let engine = Engine::start_messages(&[]);
    let payload = b"an answer of the engine";
    let total = 12 + 8 + 12 + payload.len() as u64;
    let address = engine.messages();
    thread::scope(|scope| {
        for first in 0..8 {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(first);
                for at in (first..total).step_by(8) {
                    let course = Course { flip: Some((at, bit(&mut random))), ..Course::default() };
                    let proxy =
                        Proxy::to(address, Mischief { down: course, ..Mischief::default() });
                    let wait = Duration::from_secs(2);
                    let port = proxy.address.port();
                    let mut client = MessageClient::connect("127.0.0.1", port, wait, None).unwrap();
                    let pinged = client.ping();
                    let echoed = pinged.as_ref().ok().map(|_| client.echo(payload));
                    assert_eq!(pinged.is_ok(), at >= 20, "byte {at}: {pinged:?}");
                    assert!(echoed.is_none_or(|echoed| echoed.is_err()), "byte {at} of the echo");
                }
            });
        }
    });
}
