//! How TLS connections end, and what counts then: with and without close_notify, and with a broken
//! record.

use super::tls::{Files, config, handshake, valid};
use crate::common::beside::{wait_for_bytes, wait_for_clients, wrongs};
use crate::common::oracle::{assert_result, packets, records, stream};
use crate::common::wire::*;
use crate::common::{Engine, until};
use ringest::internals::Generated;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A record of TLS 1.2 or 1.3 that says it has application data, and decrypts to nothing.
const BROKEN_RECORD: [u8; 53] = {
    let mut record = [0x5A; 53];
    [record[0], record[1], record[2], record[3], record[4]] = [0x17, 3, 3, 0, 48];
    record
};

fn start_records(files: &Files, more: &[&str]) -> Engine {
    let options = files.options(&[&["--records-tls"], more].concat());
    Engine::start(&options.iter().map(String::as_str).collect::<Vec<_>>())
}

fn connect(
    address: SocketAddr,
    made: &Generated,
    version: &'static SupportedProtocolVersion,
) -> TlsStream {
    handshake(address, config(made, None, &[version])).expect("a handshake")
}

/// The bytes that the client would send now.
fn sealed(connection: &mut ClientConnection, plain: &[u8]) -> Vec<u8> {
    connection.writer().write_all(plain).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Closes with or without close_notify, and waits until the engine has closed too.
fn close(mut stream: TlsStream, notify: bool) -> SocketAddr {
    let peer = stream.sock.local_addr().unwrap();
    if notify {
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    }
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let end = stream.read_to_end(&mut Vec::new());
    // Without close_notify rustls takes the end for an attack, as Python's unwrap() does.
    assert!(end.is_ok() || !notify, "{end:?}");
    peer
}

fn end_of(result: &Value) -> (&str, Option<&str>) {
    (result["status"].as_str().unwrap(), result["reason"].as_str())
}

/// Anybody on the way can send a FIN: only close_notify says that the sender has sent everything.
#[test]
fn a_stream_ends_by_closing_only_with_close_notify() {
    let made = valid();
    let files = Files::new(&made);
    let schema = files.path("schema.toml");
    let built_in = include_str!("../../src/wire/schema/default.toml");
    fs::write(&schema, built_in.replace("end = \"zero-record\"", "end = \"close\"")).unwrap();
    let options = ["--schema", schema.to_str().unwrap(), "--report-empty"];
    let engine = start_records(&files, &options);
    let all = records(40, 1);
    let bytes = packets(&all, 4);
    for version in [&TLS12, &TLS13] {
        let end = |bytes: &[u8], notify: bool| {
            let mut stream = connect(engine.address, &made, version);
            stream.write_all(bytes).unwrap();
            let peer = close(stream, notify);
            let mut results = Vec::new();
            until("the result", || {
                results = engine.results();
                results.iter().any(|result| result["peer"] == peer.to_string())
            });
            crate::common::result_of(&results, peer).clone()
        };
        let cut = end(&bytes, false);
        assert_eq!(end_of(&cut), ("incomplete", Some("closed_without_close_notify")), "{cut}");
        assert_result(&cut, &all);
        let whole = end(&bytes, true);
        assert_eq!(end_of(&whole), ("complete", None));
        assert_result(&whole, &all);
        // Whatever else is missing says more.
        for notify in [false, true] {
            let in_record = end(&bytes[..bytes.len() - 1], notify);
            assert_eq!(end_of(&in_record), ("incomplete", Some("closed_in_record")));
            let nothing = end(&[], notify);
            assert_eq!(end_of(&nothing), ("incomplete", Some("closed_before_data")));
        }
    }
}

/// An end record says that everything was sent, whatever comes after it.
#[test]
fn after_an_end_record_no_close_notify_is_needed() {
    let made = valid();
    let files = Files::new(&made);
    let engine = start_records(&files, &[]);
    let all = records(40, 1);
    for (count, notify) in [(1, false), (2, true)] {
        let mut sender = connect(engine.address, &made, &TLS13);
        sender.write_all(&stream(&all, 4)).unwrap();
        let peer = close(sender, notify);
        let results = engine.wait_for_results(count);
        let result = crate::common::result_of(&results, peer);
        assert_eq!(end_of(result), ("complete", None));
        assert_result(result, &all);
    }
}

/// Records before a broken record of TLS count, whether both came in one read or in two.
#[test]
fn records_before_a_broken_tls_record_count_however_they_were_cut() {
    let made = valid();
    let files = Files::new(&made);
    let engine = start_records(&files, &[]);
    let all = records(12, 3);
    let mut count = 0;
    let mut received = 0;
    for version in [&TLS12, &TLS13] {
        for together in [false, true] {
            let StreamOwned { conn, mut sock } = connect(engine.address, &made, version);
            let (mut connection, peer) = (conn, sock.local_addr().unwrap());
            let mut bytes = sealed(&mut connection, &packets(&all, 4));
            received += packets(&all, 4).len() as u64;
            if !together {
                sock.write_all(&bytes).unwrap();
                wait_for_bytes(&engine, "records", received);
                bytes.clear();
            }
            sock.write_all(&[&bytes[..], &BROKEN_RECORD].concat()).unwrap();
            count += 1;
            let results = engine.wait_for_results(count);
            let result = crate::common::result_of(&results, peer);
            assert_eq!(end_of(result), ("rejected", Some("tls_failed")), "{result}");
            assert_result(result, &all);
        }
    }
}

/// An end record in the same read as a broken record of TLS completes the stream.
#[test]
fn an_end_record_before_a_broken_tls_record_counts() {
    let made = valid();
    let files = Files::new(&made);
    let engine = start_records(&files, &[]);
    let all = records(12, 3);
    let StreamOwned { mut conn, mut sock } = connect(engine.address, &made, &TLS13);
    let bytes = sealed(&mut conn, &stream(&all, 4));
    sock.write_all(&[&bytes[..], &BROKEN_RECORD].concat()).unwrap();
    let results = engine.wait_for_results(1);
    assert_eq!(end_of(&results[0]), ("complete", None));
    assert_result(&results[0], &all);
}

/// Messages before a broken record of TLS are processed, though nobody can be answered any more:
/// broadcasts are delivered, and records count.
#[test]
fn messages_before_a_broken_tls_record_are_processed() {
    let made = valid();
    let engine = Files::new(&made).start(&[]);
    let mut other = Client::over(connect(engine.messages(), &made, &TLS13));
    other.ping(0);
    let all = records(8, 2);
    for (count, version) in [(1, &TLS12), (2, &TLS13)] {
        let StreamOwned { mut conn, mut sock } = connect(engine.messages(), &made, version);
        let words = [data(1, &packets(&all, 4)), frame(BROADCAST, b"last words")].concat();
        let bytes = sealed(&mut conn, &words);
        sock.write_all(&[&bytes[..], &BROKEN_RECORD].concat()).unwrap();
        other.expect(BROADCAST, b"last words");
        let results = engine.wait_for_results(count);
        let result = results.last().unwrap();
        assert_eq!(end_of(result), ("incomplete", Some("closed_before_end")), "{result}");
        assert_result(result, &all);
        wait_for_clients(&engine, 1);
        let wrongs = wrongs(&engine);
        assert_eq!((wrongs["tls_failed"], wrongs["reset"]), (count as u64, 0));
    }
}
