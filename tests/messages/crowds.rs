//! Clients that do not read, do not finish, or are too many: each kind beside a healthy client on
//! the same worker, and each counted once.

use crate::common::beside::{Beside, Wrongs, added, stats, wait_for_clients, wrongs};
use crate::common::wire::*;
use crate::common::{PATIENCE, until};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const UNLIMITED: [&str; 4] = ["--rate-limit", "0", "--global-rate-limit", "0"];

/// A client for which the kernel keeps little.
fn connect_small(address: SocketAddr) -> Client<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream)
}

/// Sends until nothing has been taken for a second; gives how many bytes were.
fn send_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    const ENOUGH: usize = 256 << 20;
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    while sent < ENOUGH {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("cut before it was stuck: {error}"),
        }
    }
    panic!("the engine takes in {ENOUGH} bytes from a client that reads none of its answers");
}

/// Of one who asks on and on and reads no answer, no more is read; and in the end it is cut.
#[test]
fn a_client_that_never_reads_is_read_no_further_and_cut() {
    let beside = Beside::start(&UNLIMITED);
    let memory_before = beside.engine.memory_resident_kib();
    beside.counts("slow_consumers", 1, || {
        let mut client = connect_small(beside.engine.messages());
        send_until_stuck(&mut client.stream, &frame(ECHO, &[7; 60_000]));
        beside.assert_well();
        let memory = beside.engine.memory_resident_kib();
        assert!(memory < memory_before + (16 << 10), "{memory_before} KiB, then {memory} KiB");
        wait_for_clients(&beside.engine, 1);
        client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        until("the cut to be seen", || client.stream.write_all(b"x").is_err());
    });
}

/// Receives broadcasts that are numbered, and counts them.
fn receive_numbered(address: SocketAddr, count: usize) -> (Arc<AtomicUsize>, impl FnOnce()) {
    let received = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&received);
    let mut client = Client::connect(address);
    client.ping(0);
    let thread = thread::spawn(move || {
        for number in 0..count {
            let frame = client.next().expect("a broadcast");
            assert_eq!(frame.kind, BROADCAST);
            assert_eq!(frame.payload[..8], number.to_be_bytes());
            counter.store(number + 1, Ordering::Relaxed);
        }
        client.ping_amid_broadcasts(1);
    });
    (received, move || thread.join().expect("every broadcast, in order"))
}

/// Whoever does not read broadcasts is cut when too many wait, and nobody else notices.
#[test]
fn receivers_that_do_not_read_are_cut_alone() {
    const SLOW: u64 = 3;
    const MESSAGES: usize = 1500;
    let beside = Beside::start(&UNLIMITED);
    let address = beside.engine.messages();
    let before = wrongs(&beside.engine);
    let mut slow: Vec<_> = (0..SLOW).map(|_| connect_small(address)).collect();
    slow.iter_mut().for_each(|client| client.ping_amid_broadcasts(0));
    let good: Vec<_> = (0..2).map(|_| receive_numbered(address, MESSAGES)).collect();
    let mut sender = beside.connect();
    for number in 0..MESSAGES {
        // Together 24 MiB: more than a cap of 1 MiB and every buffer of the kernel.
        let payload = [&number.to_be_bytes()[..], &[9; 16 << 10]].concat();
        sender.send(&frame(BROADCAST, &payload));
        // Those who read are given the time to do so.
        until("those who read", || {
            good.iter().all(|(received, _)| received.load(Ordering::Relaxed) + 16 > number)
        });
        if number % 100 == 0 {
            sender.ping(number as u64);
        }
    }
    for (_, join) in good {
        join();
    }
    until("the slow ones to be cut", || stats(&beside.engine)["slow_consumers"] == SLOW);
    sender.ping(0);
    drop(sender);
    wait_for_clients(&beside.engine, 1);
    let counted = added(&before, &wrongs(&beside.engine));
    assert_eq!(counted, Wrongs::from([("slow_consumers".to_owned(), SLOW)]));
    assert_eq!(stats(&beside.engine)["queued_bytes"], 0);
    beside.assert_well();
}

/// Bytes that come now and then keep no slot: a frame that was begun has ten seconds.
#[test]
fn a_thousand_clients_that_trickle_are_told_to_hurry() {
    const CLIENTS: u64 = 1000;
    let beside = Beside::start(&["--max-connections", "1100"]);
    beside.counts("frame_timeout", CLIENTS, || {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| beside.connect()).collect();
        for byte in [0xDE, 0xAD] {
            for client in &mut clients {
                client.send(&[byte]);
            }
            // A second byte on the way does not begin the time anew.
            thread::sleep(Duration::from_secs(5));
        }
        beside.assert_well();
        for mut client in clients {
            client.expect_error(TIMEOUT);
            client.expect_end();
        }
    });
}

#[test]
fn those_who_are_silent_are_told_to_ping() {
    // The healthy client asks now and then, and for longer than that.
    let beside = Beside::start(&["--idle-timeout", "3s"]);
    beside.counts("idle_timeout", 2, || {
        let (mut silent, mut once) = (beside.connect(), beside.connect());
        once.ping(1);
        for client in [&mut silent, &mut once] {
            client.expect_error(TIMEOUT);
            client.expect_end();
        }
    });
}

const SLOTS: usize = 1024;
const CONNECTS: usize = 20_000;

/// Connects so often; each connection is refused with a reason.
fn connect_to_be_refused(address: SocketAddr, count: usize) {
    for _ in 0..count {
        let mut client = Client::connect(address);
        client.expect_error(CONNECTION_LIMIT_EXCEEDED);
        client.expect_end();
    }
}

/// Each client too many reads why it is refused; those who have a slot notice nothing.
#[test]
fn twenty_thousand_connects_against_1024_slots() {
    let beside = Beside::start(&["--max-connections", &SLOTS.to_string()]);
    let address = beside.engine.messages();
    let before = wrongs(&beside.engine);
    let mut accepted: Vec<_> = (1..SLOTS).map(|_| beside.connect()).collect();
    accepted.iter_mut().for_each(|client| client.ping(0));
    let refused = CONNECTS - SLOTS;
    let shares = [refused / 4, refused / 4, refused / 4, refused - 3 * (refused / 4)];
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || connect_to_be_refused(address, share));
        }
        ping_for_a_second(&mut accepted);
    });
    accepted.iter_mut().for_each(|client| client.ping(1));
    let counted = added(&before, &wrongs(&beside.engine));
    assert_eq!(counted, Wrongs::from([("connections_limit".to_owned(), refused as u64)]));
    beside.assert_well();
    // A slot that becomes free is taken.
    accepted.pop();
    wait_for_clients(&beside.engine, SLOTS as u64 - 1);
    beside.connect().ping(2);
}

/// PINGs of those who are in, while others are refused.
fn ping_for_a_second(accepted: &mut [Client<TcpStream>]) {
    let end = Instant::now() + Duration::from_secs(1);
    for (number, client) in (0..).zip(accepted) {
        if Instant::now() > end {
            break;
        }
        client.ping(number);
    }
}

/// One who is refused and talks on all the same still reads why.
#[test]
fn a_refused_client_that_talks_still_reads_why() {
    let beside = Beside::start(&["--max-connections", "1"]);
    beside.counts("connections_limit", 20, || {
        for _ in 0..20 {
            let mut client = beside.connect();
            client.send_last(&frame(PING, b"12345678").repeat(10));
            assert_eq!(error_codes(&client.rest()), [CONNECTION_LIMIT_EXCEEDED]);
        }
    });
}
