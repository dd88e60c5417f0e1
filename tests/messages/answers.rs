//! The message server as its clients meet it: answers byte for byte, its end, its options. What
//! clients do wrong is in `message_bad_input` and `message_crowds`.

use crate::common::beside::{stats, wait_for_clients};
use crate::common::oracle::{records, stream};
use crate::common::wire::*;
use crate::common::{Engine, ringest, run, stderr_of, until};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;

/// What is sent, and the answer byte for byte.
const GOLDEN: [(&str, &str); 6] = [
    (
        "deadbeef010100080000018bcfe56800c8bc9ec8", // PING 1700000000000
        "deadbeef010200080000018bcfe56800515ef8c9", // PONG
    ),
    (
        "deadbeef0103000e48656c6c6f2c20536572766572211a24c8fb", // ECHO "Hello, Server!"
        "deadbeef0104000e48656c6c6f2c20536572766572213ab6b4b0", // ECHO_REPLY
    ),
    (
        "deadbeef0108000b000000077061796c6f61648d1103c3", // DATA 7 "payload"
        "deadbeef0109000400000007b3d7544c",               // DATA_ACK 7
    ),
    (
        "deadbeef0106000c05616c6963657333637265741107bcdb", // AUTH alice / s3cret
        "deadbeef01070001002570c1ba",                       // AUTH_REPLY, refused
    ),
    (
        "deadbeef010300006077f2df", // ECHO, empty, with a wrong checksum
        "deadbeef01ff00160543524320636865636b73756d206d69736d6174636845856623",
    ),
    ("deadbeef010a00006fa6c951", ""), // CLOSE
];

#[test]
fn answers_are_right_byte_for_byte() {
    let engine = Engine::start_messages(&[]);
    for (sent, answer) in GOLDEN {
        let mut stream = TcpStream::connect(engine.messages()).unwrap();
        stream.write_all(&unhex(sent)).unwrap();
        let mut received = vec![0; answer.len() / 2];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(received, unhex(answer), "{sent}");
        if answer.is_empty() {
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "CLOSE closes");
        }
    }
}

#[test]
fn a_broadcast_is_passed_on_byte_for_byte() {
    let engine = Engine::start_messages(&[]);
    let mut receiver = Client::connect(engine.messages());
    receiver.ping(1);
    let hi = unhex("deadbeef010500026869185f10b4");
    let mut sender = TcpStream::connect(engine.messages()).unwrap();
    sender.write_all(&hi).unwrap();
    let mut received = vec![0; hi.len()];
    receiver.stream.read_exact(&mut received).unwrap();
    assert_eq!(received, hi);
}

#[test]
fn payloads_of_every_size_come_back() {
    let engine = Engine::start_messages(&["--rate-limit", "0"]);
    let mut client = Client::connect(engine.messages());
    for bytes in [0, 1, 2, 1000, 2035, 2036, 2037, 4096, 32_768, 65_534, 65_535, 3, 65_535] {
        let payload: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        client.send(&frame(ECHO, &payload));
        client.expect(ECHO_REPLY, &payload);
    }
    // Small and large ones mixed, all at once, come back in order.
    let sizes = [10, 65_535, 0, 2000, 40_000, 1, 65_535, 65_535];
    let all = sizes.map(|bytes| frame(ECHO, &vec![bytes as u8; bytes])).concat();
    let mut sending = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || sending.write_all(&all).unwrap());
    for bytes in sizes {
        client.expect(ECHO_REPLY, &vec![bytes as u8; bytes]);
    }
    writer.join().unwrap();
}

/// What was asked before CLOSE is answered before the end.
#[test]
fn close_flushes_what_is_owed() {
    let engine = Engine::start_messages(&[]);
    let mut client = Client::connect(engine.messages());
    let large = vec![5; 50_000];
    let bytes = [frame(ECHO, &large).repeat(20), frame(CLOSE, b""), frame(PING, b"unheard!")];
    let mut sending = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || sending.write_all(&bytes.concat()).unwrap());
    for _ in 0..20 {
        client.expect(ECHO_REPLY, &large);
    }
    client.expect_end();
    writer.join().unwrap();
    drop(client);
    wait_for_clients(&engine, 0);
    assert_eq!(stats(&engine)["faults"], 0);
}

#[test]
fn sigterm_closes_message_connections_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let engine = Engine::start_messages(&["--debug"]);
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(engine.messages())).collect();
        clients.iter_mut().for_each(|client| client.ping(1));
        let address = engine.messages();
        engine.signal(signal);
        clients.iter_mut().for_each(Client::expect_end);
        let (status, results, log) = engine.wait();
        assert_eq!((status.code(), results.len()), (Some(0), 0), "{log}");
        // Ten seconds are for record streams: these have nothing to finish.
        assert_eq!(log.matches(r#"end="shutdown""#).count(), 20, "{log}");
        assert!(log.contains("20 message connections, 20 messages"), "{log}");
        assert!(TcpStream::connect(address).is_err());
    }
}

#[test]
fn both_listeners_serve_side_by_side() {
    let engine = Engine::start_both(&[]);
    let mut client = Client::connect(engine.messages());
    let all = records(500, 3);
    crate::common::send(&engine, &stream(&all, 4));
    client.ping(1);
    let results = engine.wait_for_results(1);
    crate::common::oracle::assert_result(&results[0], &all);
    client.ping(2);
    until("the record connection to be gone", || {
        stats(&engine)["connections_active"]["records"] == 0
    });
    let stats = stats(&engine);
    assert_eq!(stats["connections_active"]["messages"], 1);
    assert_eq!((&stats["messages"], &stats["records"]), (&2.into(), &500.into()));
}

#[test]
fn listeners_can_be_left_out() {
    let engine = Engine::start(&[]);
    assert!(!engine.log().contains("ready for messages"));
    let engine = Engine::start_messages(&[]);
    assert!(!engine.log().contains("ready for records"));
    Client::connect(engine.messages()).ping(1);
    let output = run(ringest().args(["serve", "--no-records", "--no-messages"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr_of(&output).contains("nothing to serve"), "{}", stderr_of(&output));
}

#[test]
fn a_taken_message_port_exits_3() {
    let engine = Engine::start_messages(&[]);
    let port = engine.messages().port().to_string();
    let serve = ["serve", "--host", "127.0.0.1", "--no-records", "--admin-port", "0"];
    let output = run(ringest().args(serve).args(["--port", &port]));
    assert_eq!(output.status.code(), Some(3));
    let stderr = stderr_of(&output);
    assert!(stderr.contains("another process is listening there") && stderr.contains("--port"));
}

#[test]
fn options_that_do_not_go_together_exit_2() {
    let serve = |options: &[&str]| {
        let free = ["serve", "--port", "0", "--records-port", "0", "--admin-port", "0"];
        let output = run(ringest().args(free).args(options));
        assert_eq!(output.status.code(), Some(2), "{options:?}: {}", stderr_of(&output));
        stderr_of(&output)
    };
    assert!(serve(&["--require-auth"]).contains("--require-auth without --auth-file"));
    assert!(serve(&["--tls"]).contains("TLS needs --cert and --key"));
    assert!(serve(&["--cert", "a", "--key", "b"]).contains("have no effect without"));
    assert!(serve(&["--auth-file", "/nonexistent/users"]).contains("cannot read users from"));
    let tls = ["--tls", "--cert", "/nonexistent/cert", "--key", "/nonexistent/key"];
    assert!(serve(&tls).contains("cannot read --cert"));
}
