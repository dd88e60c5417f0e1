//! Records that travel in DATA: acknowledged once they are in columns, and reported like those of
//! a record connection.

use crate::common::beside::{stats, wait_for_clients, wrongs};
use crate::common::oracle::{Record, assert_result, end_record, packet, packets, record, records};
use crate::common::wire::*;
use crate::common::{Engine, one_core, until};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Sends records in DATA of `per_message` each; gives the next sequence.
fn send_records(client: &mut Client<TcpStream>, all: &[Record], per_message: usize) -> u32 {
    let mut sequence = 0;
    for some in all.chunks(per_message) {
        send_acknowledged(client, sequence, &packets(some, 4));
        sequence += 1;
    }
    sequence
}

fn send_acknowledged(client: &mut Client<TcpStream>, sequence: u32, body: &[u8]) {
    client.send(&data(sequence, body));
    client.expect(DATA_ACK, &sequence.to_be_bytes());
}

fn close(client: &mut Client<TcpStream>) {
    client.send(&frame(CLOSE, b""));
    client.expect_end();
}

fn results_of(results: &[Value], peer: SocketAddr) -> Vec<Value> {
    let peer = peer.to_string();
    results.iter().filter(|result| result["peer"] == peer.as_str()).cloned().collect()
}

fn assert_status(result: &Value, status: &str, reason: Option<&str>) {
    assert_eq!((&result["status"], &result["reason"]), (&status.into(), &reason.into()));
}

#[test]
fn records_are_reported_at_close() {
    let engine = Engine::start_messages(&["--batch-rows", "100"]);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(engine.messages())).collect();
    let all: Vec<_> = (0..3).map(|seed| records(700, seed)).collect();
    for (client, records) in clients.iter_mut().zip(&all) {
        // 245 packets of four and one of one fit into a frame of 65,535 bytes.
        send_records(client, records, 240);
    }
    assert!(engine.results().is_empty(), "nothing is reported before the end");
    clients.iter_mut().for_each(close);
    let results = engine.wait_for_results(3);
    for (client, records) in clients.iter().zip(&all) {
        let result = &results_of(&results, client.local_address())[0];
        assert_status(result, "complete", None);
        assert_result(result, records);
    }
    until("the counts", || stats(&engine)["streams_complete"] == 3);
    assert_eq!(stats(&engine)["records"], 2100);
}

/// The end record ends a stream and not the connection, on which the next one may begin.
#[test]
fn records_are_reported_at_the_end_record() {
    let engine = Engine::start_messages(&[]);
    let mut client = Client::connect(engine.messages());
    for round in 0..3 {
        let all = records(50, round);
        send_records(&mut client, &all[..40], 13);
        let last: Vec<_> = all[40..].iter().map(Record::bytes).chain([end_record()]).collect();
        send_acknowledged(&mut client, 99, &packet(&last));
        let results = engine.wait_for_results(round as usize + 1);
        let results = results_of(&results, client.local_address());
        assert_status(results.last().unwrap(), "complete", None);
        assert_result(results.last().unwrap(), &all);
        client.ping(round);
    }
    close(&mut client);
    wait_for_clients(&engine, 0);
    assert_eq!(engine.results().len(), 3, "CLOSE reports no stream that has not begun");
}

/// Several packets, and their records, in one message; several messages in one write.
#[test]
fn many_messages_at_once_are_acknowledged_in_order() {
    let engine = Engine::start_messages(&["--batch-rows", "64"]);
    let mut client = Client::connect(engine.messages());
    let all = records(900, 5);
    let chunks: Vec<_> = all.chunks(9).collect();
    let bytes: Vec<u8> =
        (0..).zip(&chunks).flat_map(|(sequence, some)| data(sequence, &packets(some, 2))).collect();
    client.send(&bytes);
    for sequence in 0..chunks.len() as u32 {
        client.expect(DATA_ACK, &sequence.to_be_bytes());
    }
    close(&mut client);
    assert_result(&engine.wait_for_results(1)[0], &all);
}

#[test]
fn anything_else_is_acknowledged_and_counted() {
    let engine = Engine::start_messages(&[]);
    let mut client = Client::connect(engine.messages());
    let one = packets(&records(1, 1), 1);
    let mut wrong_length = one.clone();
    wrong_length[3] ^= 1;
    let opaque =
        [&b""[..], b"payload", b"Large data payload...", &one[..3], &wrong_length, &[0; 60_000]];
    for (sequence, body) in (0..).zip(opaque) {
        send_acknowledged(&mut client, sequence, body);
    }
    assert_eq!(stats(&engine)["opaque_data"], opaque.len());
    // The connection may carry records afterwards.
    let all = records(30, 2);
    send_records(&mut client, &all, 10);
    close(&mut client);
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "complete", None);
    assert_result(&results[0], &all);
}

#[test]
fn data_can_be_told_to_be_opaque() {
    let engine = Engine::start_messages(&["--data", "opaque"]);
    let mut client = Client::connect(engine.messages());
    assert_eq!(send_records(&mut client, &records(40, 1), 10), 4);
    close(&mut client);
    wait_for_clients(&engine, 0);
    let stats = stats(&engine);
    assert_eq!((&stats["opaque_data"], &stats["records"]), (&4.into(), &0.into()));
    assert!(engine.results().is_empty());
}

/// What was acknowledged is in the result, however the connection ends.
#[test]
fn a_broken_connection_leaves_an_incomplete_result() {
    let engine = Engine::start_messages(&["--cores", &one_core()]);
    let all = records(60, 4);
    let begin = || {
        let mut client = Client::connect(engine.messages());
        send_records(&mut client, &all, 20);
        client
    };
    let mut peers = Vec::new();
    let closed = begin();
    peers.push((closed.local_address(), "closed_before_end"));
    drop(closed);
    let reset = begin();
    peers.push((reset.local_address(), "reset"));
    socket2::SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    let mut wrong = begin();
    peers.push((wrong.local_address(), "closed_before_end"));
    wrong.send(b"GET / HTTP/1.1");
    wrong.expect_error(INVALID_MAGIC);
    wrong.expect_end();
    let results = engine.wait_for_results(3);
    for (peer, reason) in peers {
        let result = &results_of(&results, peer)[0];
        assert_status(result, "incomplete", Some(reason));
        assert_result(result, &all);
    }
}

#[test]
fn an_idle_stream_is_cut_and_reported() {
    let engine = Engine::start_messages(&["--idle-timeout", "1s"]);
    let mut client = Client::connect(engine.messages());
    let all = records(10, 4);
    send_records(&mut client, &all, 10);
    client.expect_error(TIMEOUT);
    client.expect_end();
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "incomplete", Some("idle_timeout"));
    assert_result(&results[0], &all);
}

#[test]
fn streams_within_messages_have_slots() {
    let engine = Engine::start_both(&["--max-streams", "1", "--admit-timeout", "0s"]);
    let mut first = Client::connect(engine.messages());
    let all = records(20, 4);
    send_records(&mut first, &all[..10], 10);
    let mut second = Client::connect(engine.messages());
    send_acknowledged(&mut second, 0, b"opaque data needs none");
    second.send(&data(1, &packets(&all, 4)));
    second.expect_error(CONNECTION_LIMIT_EXCEEDED);
    second.expect_end();
    assert_eq!(wrongs(&engine)["streams_limit"], 1);
    // Record connections share them.
    let mut refused = engine.connect();
    crate::common::wait_closed(&mut refused);
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "rejected", Some("connections_limit"));
    send_records(&mut first, &all[10..], 10);
    close(&mut first);
    let results = results_of(&engine.wait_for_results(2), first.local_address());
    assert_status(&results[0], "complete", None);
    assert_result(&results[0], &all);
    // The slot is free again once the result is printed.
    let mut third = Client::connect(engine.messages());
    until("a free slot", || {
        third = Client::connect(engine.messages());
        third.send(&data(0, &packets(&all, 4)));
        third.next().unwrap().kind == DATA_ACK
    });
    close(&mut third);
    engine.wait_for_results(3);
}

/// Texts of which only some fit are refused with the message that brings the first too many.
#[test]
fn texts_beyond_the_limit_are_refused_at_once() {
    let engine = Engine::start_messages(&["--strings-bytes-limit", "305"]);
    let texts: Vec<Record> =
        (0..50u32).map(|i| record(1, 1, 1.0, 1, format!("text {i:05}").as_bytes())).collect();
    let mut client = Client::connect(engine.messages());
    assert_eq!(send_records(&mut client, &texts[..30], 10), 3);
    client.send(&data(3, &packets(&texts[30..], 4)));
    client.expect_error(UNKNOWN);
    client.expect_end();
    drop(client);
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "rejected", Some("strings_bytes_limit"));
    assert_result(&results[0], &texts[..30]);
    wait_for_clients(&engine, 0);
    // Counted once, as every record stream that ends otherwise.
    until("the count", || stats(&engine)["streams_by_reason"]["strings_bytes_limit"] == 1);
    assert_eq!(stats(&engine)["faults"], 0);
}

/// Folded groups are counted record by record: the result has all before the one too many.
#[test]
fn groups_beyond_the_limit_are_refused_at_once() {
    let engine = Engine::start_messages(&["--groups-limit", "5"]);
    let many: Vec<Record> = (0..6u32).map(|a| record(a, 1, 1.0, 1, b"x")).collect();
    let mut client = Client::connect(engine.messages());
    assert_eq!(send_records(&mut client, &many[..4], 2), 2);
    client.send(&data(2, &packets(&many[4..], 2)));
    client.expect_error(UNKNOWN);
    client.expect_end();
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "rejected", Some("groups_limit"));
    assert_result(&results[0], &many[..5]);
}

/// Groups in whole columns are counted when they are merged, which may be at the end: the result
/// says so.
#[test]
fn groups_beyond_the_limit_are_reported() {
    let engine = Engine::start_messages(&["--groups-limit", "5", "--aggregate", "columns"]);
    let many: Vec<Record> = (0..6u32).map(|a| record(a, 1, 1.0, 1, b"x")).collect();
    let mut client = Client::connect(engine.messages());
    send_records(&mut client, &many, 2);
    close(&mut client);
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "rejected", Some("groups_limit"));
}

/// A stream within messages may end in peace, like one of its own.
#[test]
fn a_stream_that_runs_at_sigterm_may_finish() {
    let engine = Engine::start_messages(&["--debug"]);
    let (mut carrying, mut quiet) =
        (Client::connect(engine.messages()), Client::connect(engine.messages()));
    quiet.ping(1);
    let all = records(40, 6);
    send_records(&mut carrying, &all[..20], 10);
    engine.signal(Signal::TERM);
    quiet.expect_end();
    send_records(&mut carrying, &all[20..], 10);
    close(&mut carrying);
    let (status, results, log) = engine.wait();
    assert_eq!((status.code(), results.len()), (Some(0), 1), "{log}");
    assert_status(&results[0], "complete", None);
    assert_result(&results[0], &all);
}

#[test]
fn records_may_be_kept_for_the_authenticated() {
    let engine = Engine::start_messages(&["--require-auth", "--auth-open"]);
    let mut client = Client::connect(engine.messages());
    let all = records(9, 6);
    client.send(&data(0, &packets(&all[..1], 1)));
    client.expect_error(AUTHENTICATION_FAILED);
    client.log_in("ann", "token");
    send_records(&mut client, &all, 3);
    close(&mut client);
    assert_result(&engine.wait_for_results(1)[0], &all);
}

/// Payloads that are meant as records and are not whole packets: nothing of them counts, the client
/// is told what is wrong, and the stream says that it lacks something.
#[test]
fn nearly_whole_packets_are_refused() {
    let engine = Engine::start_messages(&["--packet-bytes-limit", "60000"]);
    let all = records(8, 1);
    let good = packets(&all, 4);
    let part = &good[..1072];
    let mut wrong_second = good.clone();
    wrong_second[1072 + 3] ^= 1;
    let one_more = [part, &[0][..]].concat();
    let above = [&(4 + 267 * 230_u32).to_be_bytes()[..], &[1; 267 * 230]].concat();
    let cases: [(&[u8], &str, &str); 6] = [
        (&part[..1071], "data_not_whole_packets", "1071 bytes left after 0 whole packets"),
        (&one_more, "data_not_whole_packets", "1 byte left after 1 whole packet,"),
        (&good[..1072 + 500], "data_not_whole_packets", "500 bytes left after 1 whole"),
        (&part[..4], "data_not_whole_packets", "4 bytes left after 0 whole packets"),
        (&wrong_second, "packet_length_not_whole_records", "packet length 1073"),
        (&above, "packet_length_above_limit", "--packet-bytes-limit"),
    ];
    let mut reported = 0;
    for (payload, reason, said) in cases {
        // As the first payload of a connection, and behind records that were acknowledged.
        for before in [&[][..], &all[..4]] {
            let mut client = Client::connect(engine.messages());
            if !before.is_empty() {
                send_acknowledged(&mut client, 0, &packets(before, 4));
            }
            client.send(&data(1, payload));
            let error = client.next().expect("an ERROR");
            assert_eq!((error.kind, error.error_code()), (ERROR, UNKNOWN));
            let text = String::from_utf8(error.payload[1..].to_vec()).unwrap();
            assert!(text.starts_with("records rejected: ") && text.contains(said), "{text}");
            client.expect_end();
            reported += 1;
            let results = engine.wait_for_results(reported);
            let result = &results_of(&results, client.local_address())[0];
            assert_status(result, "rejected", Some(reason));
            assert_result(result, before);
        }
    }
    let counts = stats(&engine);
    assert_eq!((&counts["opaque_data"], &counts["faults"]), (&0.into(), &0.into()));
}

/// Once a connection has carried records, everything on it must be records, even after the end of a
/// stream.
#[test]
fn anything_else_between_records_is_refused() {
    let engine = Engine::start_messages(&[]);
    let all = records(8, 1);
    for (count, ended) in [(1, false), (3, true)] {
        let mut client = Client::connect(engine.messages());
        send_records(&mut client, &all, 4);
        if ended {
            send_acknowledged(&mut client, 8, &packet(&[end_record()]));
        }
        // Holds nothing that could be lost.
        send_acknowledged(&mut client, 9, b"");
        client.send(&data(10, b"Large data payload..."));
        client.expect_error(UNKNOWN);
        client.expect_end();
        let results = results_of(&engine.wait_for_results(count), client.local_address());
        let last = results.last().unwrap();
        assert_status(last, "rejected", Some("packet_length_above_limit"));
        assert_result(last, if ended { &[] } else { &all });
        if ended {
            assert_status(&results[0], "complete", None);
            assert_result(&results[0], &all);
        }
    }
}

/// What follows an end record in its payload would be acknowledged and be in no result.
#[test]
fn nothing_may_follow_the_end_record_in_its_payload() {
    let engine = Engine::start_messages(&[]);
    let all = records(4, 1);
    let mut client = Client::connect(engine.messages());
    let ended = [packets(&all, 4), packet(&[end_record()])].concat();
    client.send(&data(1, &[&ended[..], &packets(&all, 4)].concat()));
    client.expect_error(UNKNOWN);
    client.expect_end();
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "rejected", Some("data_after_end"));
    assert_result(&results[0], &all);
    assert_eq!(results[0]["bytes_after_end"], 1072);
}

fn partials_in(directory: &std::path::Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(".groups.parquet")).count()
}

/// What was acknowledged is in a file after the interval, whether the client is silent or PINGs.
#[test]
fn a_quiet_stream_closes_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let engine = Engine::start_messages(&["--partials", path, "--partials-interval", "100ms"]);
    let all = records(20, 4);
    let mut client = Client::connect(engine.messages());
    send_records(&mut client, &all[..10], 10);
    until("the first batch", || partials_in(directory.path()) == 1);
    send_records(&mut client, &all[10..], 10);
    until("the second batch", || {
        client.ping(7);
        partials_in(directory.path()) == 2
    });
    close(&mut client);
    let results = engine.wait_for_results(1);
    assert_status(&results[0], "complete", None);
    assert_result(&results[0], &all);
}

/// PINGs keep a client, and only records keep its stream: two quiet clients lock nobody out.
#[test]
fn a_quiet_stream_gives_its_slot_back_and_the_client_stays() {
    let engine = Engine::start_messages(&["--max-streams", "2", "--idle-timeout", "2s"]);
    let all = records(12, 4);
    let mut quiet = [Client::connect(engine.messages()), Client::connect(engine.messages())];
    for client in &mut quiet {
        send_records(client, &all, 12);
    }
    until("the end of both streams", || {
        quiet.iter_mut().for_each(|client| client.ping(1));
        engine.results().len() == 2
    });
    for result in engine.results() {
        assert_status(&result, "incomplete", Some("idle_timeout"));
        assert_result(&result, &all);
    }
    let mut third = Client::connect(engine.messages());
    send_records(&mut third, &all, 12);
    close(&mut third);
    // The next records of a client whose stream has ended begin another stream.
    send_records(&mut quiet[0], &all, 12);
    close(&mut quiet[0]);
    let results = engine.wait_for_results(4);
    for result in &results[2..] {
        assert_status(result, "complete", None);
        assert_result(result, &all);
    }
    assert_eq!(stats(&engine)["faults"], 0);
}
