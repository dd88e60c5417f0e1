//! The record sender as a library, over real sockets: what a benchmark links; and what `send` says
//! about servers that are no engine.

use crate::common::{Engine, nobody, ringest, run, stderr_of};
use ringest::client::records::block::PacketBlock;
use ringest::client::records::generate::{SentPadding, StreamSpec};
use ringest::client::records::pace::Pace;
use ringest::client::records::sender::{SendError, SendSettings, Sent, send_stream};
use ringest::schema::Schema;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

fn block(records: u64) -> Arc<PacketBlock> {
    let (padding, seed, groups) = (SentPadding::Space, 1, 125);
    let (schema, packet_records) = (Schema::built_in(), 4);
    let spec = StreamSpec { schema, records, packet_records, padding, seed, groups };
    PacketBlock::new(&spec).unwrap()
}

#[test]
fn connections_that_share_a_pace_send_what_others_send() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let block = block(500);
    let taken = || {
        let mut taken = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut taken).unwrap();
        taken
    };
    // As fast as it can, and then at a rate.
    let mut streams = Vec::new();
    for number in 0..2 {
        let settings = SendSettings {
            number,
            write_bytes: 4096,
            pace: None,
            tally: false,
            ..SendSettings::default()
        };
        let sent = thread::scope(|scope| {
            let sender =
                scope.spawn(|| send_stream(address, &block, &settings, &AtomicU64::new(0)));
            streams.push(taken());
            sender.join().unwrap().unwrap()
        });
        assert!(sent.delay_max.is_none() && sent.expected.is_none());
    }
    let pace = Pace::new(50_000, 2);
    let (mut paced, sent): (Vec<Vec<u8>>, Vec<Sent>) = thread::scope(|scope| {
        let send = |number| {
            let pace = Some(Arc::clone(&pace));
            let settings = SendSettings {
                number,
                write_bytes: 0,
                pace,
                tally: true,
                ..SendSettings::default()
            };
            send_stream(address, &block, &settings, &AtomicU64::new(0)).unwrap()
        };
        let senders = [0, 1].map(|number| scope.spawn(move || send(number)));
        let streams = vec![taken(), taken()];
        (streams, senders.map(|sender| sender.join().unwrap()).into())
    });
    // Either may have been accepted first.
    paced.sort_unstable();
    streams.sort_unstable();
    assert!(paced == streams && paced[0] != paced[1]);
    for stream in &sent {
        assert_eq!((stream.records, stream.packets), (500, 126));
        assert_eq!(stream.bytes, 125 * 1072 + 271);
        assert_eq!(stream.begun, sent[0].begun);
        assert!(stream.delay_max.is_some());
        assert_eq!(stream.expected.as_ref().unwrap().groups(), 125);
    }
}

/// A connection that cannot be made holds up nobody who shares its pace.
#[test]
fn a_failed_connection_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (nobody, _kept) = nobody();
    let (block, pace) = (block(0), Pace::new(1_000_000, 2));
    let send = |number, address| {
        let pace = Some(Arc::clone(&pace));
        let settings =
            SendSettings { number, write_bytes: 0, pace, tally: false, ..SendSettings::default() };
        send_stream(address, &block, &settings, &AtomicU64::new(0))
    };
    thread::scope(|scope| {
        let failed = scope.spawn(|| send(0, nobody));
        // A sender waits until its receiver has closed.
        scope.spawn(|| listener.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap());
        assert_eq!(send(1, address).unwrap().packets, 1);
        assert!(matches!(failed.join().unwrap(), Err(SendError::Connect { .. })));
    });
}

/// The kernel knows the names of its own; another is refused before anything is sent.
#[test]
fn a_congestion_control_is_used_or_refused_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let block = block(3);
    let send = |name: &str| {
        let settings =
            SendSettings { congestion: Some(name.to_owned()), ..SendSettings::default() };
        send_stream(address, &block, &settings, &AtomicU64::new(0))
    };
    // Every kernel has this one.
    thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap());
        assert_eq!(send("reno").unwrap().records, 3);
    });
    let refused = send("no\nsuch").unwrap_err();
    assert!(matches!(refused, SendError::Congestion { .. }), "{refused}");
    let said = refused.to_string();
    assert!(said.starts_with(r"cannot use --congestion no\nsuch: "), "{said}");
    assert!(said.contains("tcp_available_congestion_control"), "{said}");
}

/// Runs `ringest send` to an address; one connection that sends so many records.
fn send(address: SocketAddr, records: &str, options: &[&str]) -> Output {
    let port = address.port().to_string();
    let mut command = ringest();
    command.args(["send", "--records-port", &port, "--records", records]);
    let one: &[_] = if options.is_empty() { &["--connections", "1"] } else { &[] };
    run(command.args(one).args(options))
}

/// A server that does this to one connection, while `ringest send` sends so many records to it;
/// what that says with exit code 1.
fn send_to(records: &str, server: impl FnOnce(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || server(listener.accept().unwrap().0));
    let output = send(address, records, &[]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr_of(&output));
    stderr_of(&output)
}

/// An engine never answers, so whatever does is something else, however little is sent to it.
#[test]
fn other_servers_are_recognised() {
    let engine = Engine::start_both(&[]);
    for (address, said) in [
        (engine.messages(), "is a message port; give the engine's record port"),
        (engine.admin(), "speaks HTTP, as an engine's admin port does"),
    ] {
        // Few fit into the kernel's buffers, many do not.
        for records in ["5", "400000"] {
            let output = send(address, records, &[]);
            let stderr = stderr_of(&output);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(&format!("the server at {address} {said}")), "{stderr}");
        }
    }
    let said = send_to("5", |mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    assert!(said.contains("answered, which an engine never does"), "{said}");
}

/// By then, all is handed to the kernel, but not all has been received.
#[test]
fn a_reset_after_the_last_byte_is_noticed() {
    let said = send_to("5", |stream| {
        let bytes = (1 + 1) * 4 + 6 * 267;
        let mut all = vec![0; bytes];
        // Everything is there, and nothing has been read.
        while stream.peek(&mut all).unwrap() < bytes {}
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    assert!(said.contains("broke after 5 records: Connection reset by peer"), "{said}");
}

#[test]
fn what_all_connections_meet_is_said_once() {
    let (nobody, _kept) = nobody();
    let output = send(nobody, "5", &["--connections", "10"]);
    let stderr = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.matches("cannot connect to").count(), 1, "{stderr}");
    let said = format!("ringest: 10 connections failed: cannot connect to {nobody}: Connection");
    assert!(stderr.contains(&said), "{stderr}");
}
