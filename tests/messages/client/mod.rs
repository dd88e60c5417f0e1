//! The message client, the load generator and its command against small servers: what the client
//! sends and takes byte by byte, and what is said of a server that does something else than it
//! should.

mod command;
mod load;
mod server;

use ringest::client::messages::client::{Answer, BROADCAST_BYTES_KEPT, RequestOutcome};
use ringest::client::messages::session::{DATA_BYTES_MAX, Unsendable};
use ringest::client::messages::tls::{Identity, Trust, client_config};
use ringest::client::messages::transport::ClientTls;
use ringest::client::{MessageClient, MessageError};
use ringest::protocol::frame::{self, FrameType, PAYLOAD_BYTES_MAX};
use ringest::protocol::payload::Request;
use server::{Reaction, Server, certificate, error};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// Longer than any answer takes, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(100);

fn connect(address: SocketAddr) -> MessageClient {
    let host = address.ip().to_string();
    MessageClient::connect(&host, address.port(), TIMEOUT, None).expect("a connection")
}

fn unhex(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

#[test]
fn a_conversation_in_the_bytes_of_the_protocol() {
    let script = [
        ("deadbeef0106000c05616c6963657333637265741107bcdb", "deadbeef01070001002570c1ba"),
        (
            "deadbeef0103000e48656c6c6f2c20536572766572211a24c8fb",
            // A broadcast before the reply.
            "deadbeef010500026869185f10b4deadbeef0104000e48656c6c6f2c20536572766572213ab6b4b0",
        ),
        ("deadbeef0108000b000000077061796c6f61648d1103c3", "deadbeef0109000400000007b3d7544c"),
        ("deadbeef010500026869185f10b4deadbeef010a00006fa6c951", ""),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for (expected, reply) in script {
            let expected = unhex(expected);
            let mut got = vec![0; expected.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, expected);
            // In pieces, so that frames come apart.
            for piece in unhex(reply).chunks(5) {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let mut client = connect(address);
    let refused = client.authenticate("alice", "s3cret").unwrap_err();
    assert!(matches!(&refused, MessageError::Refused { user } if user == "alice"), "{refused}");
    assert!(!format!("{client:?} {refused:?} {refused}").contains("s3cret"));
    assert_eq!(client.echo(b"Hello, Server!").unwrap(), b"Hello, Server!");
    client.send_data_as(7, b"payload").unwrap();
    assert_eq!(client.next_broadcast(TIMEOUT).unwrap().unwrap(), b"hi");
    client.broadcast(b"hi").unwrap();
    client.close().unwrap();
    server.join().unwrap();
}

#[test]
fn every_request_against_a_server() {
    let server = Server::start();
    let (mut client, mut other) = (connect(server.address), connect(server.address));
    // An answer says that the server knows the connection.
    assert!(client.ping().unwrap() < TIMEOUT && other.ping().unwrap() < TIMEOUT);
    assert_eq!(client.authenticate("alice", "s3cret").unwrap(), "f00d");
    assert_eq!((client.send_data(b"").unwrap(), client.send_data(b"x").unwrap()), (0, 1));
    client.send_data_as(u32::MAX, b"last").unwrap();
    assert_eq!(client.send_data(&vec![7; DATA_BYTES_MAX]).unwrap(), 0);
    let long: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|i| i as u8).collect();
    assert_eq!(client.echo(&long).unwrap(), long);
    assert_eq!(client.echo(b"").unwrap(), b"");
    client.broadcast(&long).unwrap();
    client.broadcast(b"").unwrap();
    assert_eq!(other.next_broadcast(TIMEOUT).unwrap().unwrap(), long);
    assert_eq!(other.next_broadcast(TIMEOUT).unwrap().unwrap(), b"");
    assert_eq!(other.next_broadcast(SHORT).unwrap(), None);
    let too_long = client.echo(&vec![0; PAYLOAD_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(too_long, MessageError::Unsendable(Unsendable::TooLong { .. })));
    client.close().unwrap();
    other.close().unwrap();
}

/// More in flight than all socket buffers hold: neither side may wait for the other.
#[test]
fn a_long_pipeline_does_not_block() {
    let server = Server::start();
    let mut client = connect(server.address);
    let payload = vec![0x5A; 60_000];
    const REQUESTS: u64 = 1000;
    for number in 0..REQUESTS {
        assert_eq!(client.send(Request::Echo(&payload)).unwrap(), number);
    }
    for number in 0..REQUESTS {
        let answer = client.receive().unwrap();
        assert_eq!(answer.request, Some(number));
        assert_eq!(answer.outcome, RequestOutcome::Echo(payload.clone()));
    }
    assert_eq!(client.outstanding(), 0);
    // A call that waits for its own answer leaves earlier ones for `receive`.
    let earlier = client.send(Request::Echo(b"earlier")).unwrap();
    client.ping().unwrap();
    let outcome = RequestOutcome::Echo(b"earlier".to_vec());
    assert_eq!(client.receive().unwrap(), Answer { request: Some(earlier), outcome });
}

#[test]
fn refused_messages_leave_the_session_as_it_is() {
    let server = Server::judged(|_, _, frame| match frame.payload {
        b"later" => {
            let text = format!("rate limit exceeded for {}", frame.kind.name());
            Reaction::Instead(error(7, &text))
        }
        b"who?" => Reaction::Instead(error(6, "authenticate first")),
        _ => Reaction::Usual,
    });
    let mut client = connect(server.address);
    let refused = client.echo(b"who?").unwrap_err();
    assert!(matches!(refused, MessageError::NotAuthenticated(FrameType::Echo)), "{refused}");
    let refused = client.echo(b"later").unwrap_err();
    assert!(matches!(refused, MessageError::RateLimited(FrameType::Echo)), "{refused}");
    client.broadcast(b"later").unwrap();
    assert_eq!(client.echo(b"now").unwrap(), b"now");
    let outcome = RequestOutcome::RateLimited(FrameType::Broadcast);
    assert_eq!(client.receive().unwrap(), Answer { request: None, outcome });
    client.close().unwrap();
}

#[test]
fn a_server_that_ends_the_session_is_quoted() {
    let server = Server::judged(|_, number, _| match number {
        0 => Reaction::Usual,
        _ => Reaction::Last(error(9, "idle for too long\x1b[2J")),
    });
    let mut client = connect(server.address);
    client.ping().unwrap();
    for _ in 0..2 {
        let ended = client.ping().unwrap_err().to_string();
        let expected = r"the server ended the connection: TIMEOUT (idle for too long\x1b[2J)";
        assert_eq!(ended, expected);
    }
}

#[test]
fn wrong_answers_are_errors() {
    fn reply(kind: FrameType, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(kind, &[payload], &mut out);
        out
    }
    fn error_for(instead: Vec<u8>) -> MessageError {
        let server = Server::judged(move |_, _, _| Reaction::Instead(instead.clone()));
        connect(server.address).ping().unwrap_err()
    }
    let error = error_for(reply(FrameType::Pong, b"87654321"));
    assert!(matches!(error, MessageError::Differs(FrameType::Ping)), "{error}");
    let error = error_for(reply(FrameType::EchoReply, b"87654321"));
    assert!(
        error.to_string().contains("ECHO_REPLY out of order: the next answer was due to PING"),
        "{error}"
    );
    let error = error_for(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    assert!(error.to_string().contains("is it a message server"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_as_long_as_was_said() {
    let server = Server::judged(|_, _, _| Reaction::Instead(Vec::new()));
    let mut client = connect(server.address);
    client.set_timeout(SHORT);
    let error = client.ping().unwrap_err();
    assert!(matches!(error, MessageError::Timeout { limit: SHORT, .. }), "{error}");
}

#[test]
fn a_late_answer_is_not_taken_for_the_next() {
    let (let_go, word) = mpsc::channel();
    let word = Arc::new(Mutex::new(word));
    let server = Server::judged(move |_, _, frame| match frame.payload {
        b"slow" => Reaction::Held(Arc::clone(&word)),
        _ => Reaction::Usual,
    });
    let mut client = connect(server.address);
    client.set_timeout(SHORT);
    let late = client.echo(b"slow").unwrap_err();
    assert!(matches!(late, MessageError::Timeout { doing: "ECHO", .. }), "{late}");
    let_go.send(()).unwrap();
    client.set_timeout(TIMEOUT);
    assert_eq!(client.echo(b"fast").unwrap(), b"fast");
    let outcome = RequestOutcome::Echo(b"slow".to_vec());
    assert_eq!(client.receive().unwrap(), Answer { request: Some(0), outcome });
}

#[test]
fn a_connection_that_breaks_says_so() {
    let server = Server::judged(|_, _, _| Reaction::Last(Vec::new()));
    let mut client = connect(server.address);
    let error = client.ping().unwrap_err();
    assert!(matches!(error, MessageError::Closed { unanswered: 1, .. }), "{error}");
    let (nobody, _kept) = crate::common::nobody();
    let error = MessageClient::connect("127.0.0.1", nobody.port(), TIMEOUT, None).unwrap_err();
    assert!(error.to_string().ends_with("is a server listening there?"), "{error}");
    let error = MessageClient::connect("no.such.host.invalid", 1, TIMEOUT, None).unwrap_err();
    assert!(matches!(error, MessageError::Resolve(_)), "{error}");
}

#[test]
fn broadcasts_that_nobody_asks_for_are_dropped_the_oldest_first() {
    let server = Server::start();
    let (mut client, mut other) = (connect(server.address), connect(server.address));
    client.ping().unwrap();
    let mut payload = vec![0; 60_000];
    let sent = (BROADCAST_BYTES_KEPT / payload.len() + 20) as u64;
    for number in 0..sent {
        payload[..8].copy_from_slice(&number.to_be_bytes());
        other.broadcast(&payload).unwrap();
        // By its answer the server has passed the message on; by the next it has been taken in.
        other.ping().unwrap();
        client.ping().unwrap();
    }
    let dropped = client.broadcasts_dropped();
    assert!((20..30).contains(&dropped), "{dropped}");
    for number in dropped..sent {
        let payload = client.next_broadcast(TIMEOUT).unwrap().unwrap();
        assert_eq!(payload[..8], number.to_be_bytes());
    }
}

#[test]
fn tls_with_a_known_authority_with_none_and_without_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("ca.pem");
    let (pem, config) = certificate();
    std::fs::write(&authority, pem).unwrap();
    let server = Server::with(Some(config), |_, _, _| Reaction::Usual);
    let (host, port) = ("127.0.0.1", server.address.port());
    let connect = |trust: &Trust, name: &'static str| {
        let config = client_config(trust, None).unwrap();
        let tls = ClientTls { config, server_name: name.try_into().unwrap() };
        MessageClient::connect(host, port, TIMEOUT, Some(&tls))
    };
    let known = Trust::Authorities(authority);
    for (trust, name) in [(&known, "localhost"), (&known, "127.0.0.1"), (&Trust::Anybody, "any")] {
        let mut client = connect(trust, name).unwrap();
        assert_eq!(client.authenticate("alice", "s3cret").unwrap(), "f00d");
        let long = vec![0xC3; PAYLOAD_BYTES_MAX];
        for _ in 0..100 {
            client.send(Request::Echo(&long)).unwrap();
        }
        for _ in 0..100 {
            assert_eq!(client.receive().unwrap().outcome, RequestOutcome::Echo(long.clone()));
        }
        client.close().unwrap();
    }
    let error = connect(&known, "elsewhere").unwrap_err();
    assert!(matches!(error, MessageError::Tls { .. }), "{error}");
    let (other, _) = certificate();
    let unknown = directory.path().join("other.pem");
    std::fs::write(&unknown, other).unwrap();
    let error = connect(&Trust::Authorities(unknown), "localhost").unwrap_err();
    assert!(matches!(error, MessageError::Tls { .. }), "{error}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty.pem");
    let missing = client_config(&Trust::Authorities(path.clone()), None).unwrap_err();
    assert!(missing.to_string().contains("cannot read --ca"), "{missing}");
    assert!(missing.to_string().contains("empty.pem"), "{missing}");
    std::fs::write(&path, "no PEM").unwrap();
    let empty = client_config(&Trust::Authorities(path), None).unwrap_err();
    assert!(empty.to_string().contains("contains no certificate"), "{empty}");
}

#[test]
fn what_is_wrong_with_a_clients_key_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = directory.path().join("own.crt");
    std::fs::write(&certificates, certificate().0).unwrap();
    let keys = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    let other = directory.path().join("other.key");
    std::fs::write(&other, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    for (key, said) in [
        (
            keys.join("rsa1024.key"),
            "rsa1024.key cannot be used: it is an RSA key of 1024 bits; use",
        ),
        (keys.join("ed448.key"), "it is an Ed448 key"),
        (other, "is not that of the first certificate in --client-cert"),
        (certificates.clone(), "cannot read --client-key"),
    ] {
        let identity = Identity { certificates: certificates.clone(), key };
        let error = client_config(&Trust::Anybody, Some(&identity)).unwrap_err().to_string();
        assert!(error.contains("--client-key") && error.contains(said), "{error}");
    }
}
