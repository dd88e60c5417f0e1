//! Clients that do not read, do not finish, or are too many: each kind beside a healthy client on
//! the same worker, and each counted once.

use crate::common::beside::{Beside, assert_added, stats, wait_for_clients, wrongs};
use crate::common::wire::*;
use crate::common::{Engine, PATIENCE, one_core, until};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

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

/// Sends until nothing has been taken for a while, or the engine has cut the connection.
fn send_until_stuck(stream: &mut TcpStream, bytes: &[u8]) {
    const ENOUGH: usize = 256 << 20;
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    while sent < ENOUGH {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(more) => sent += more,
            Err(_) => return,
        }
    }
    panic!("the engine takes in {ENOUGH} bytes from a client that reads none of its answers");
}

/// Of one who asks on and on and reads no answer, no more is read; and in the end it is cut.
#[test]
fn a_client_that_never_reads_is_read_no_further_and_cut() {
    let beside = Beside::start(&[&UNLIMITED[..], &["--write-timeout", "3s"]].concat());
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

/// A client that receives broadcasts, which are numbered, and counts them.
struct NumberedReceiver {
    received: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl NumberedReceiver {
    /// Receives until it has one more than were `sent`.
    fn start(address: SocketAddr, sent: &Arc<AtomicUsize>) -> Self {
        let (received, sent) = (Arc::new(AtomicUsize::new(0)), Arc::clone(sent));
        let counter = Arc::clone(&received);
        let mut client = Client::connect(address);
        client.ping(0);
        let thread = thread::spawn(move || {
            for number in 0..=usize::MAX {
                let frame = client.next().expect("a broadcast");
                assert_eq!(frame.kind, BROADCAST);
                assert_eq!(frame.payload[..8], number.to_be_bytes());
                counter.store(number + 1, Ordering::Relaxed);
                if number == sent.load(Ordering::Relaxed) {
                    break;
                }
            }
            client.ping(1);
        });
        NumberedReceiver { received, thread }
    }

    fn received(&self) -> usize {
        assert!(!self.thread.is_finished(), "a receiver that reads suffered");
        self.received.load(Ordering::Relaxed)
    }

    fn finish(self) {
        self.thread.join().expect("every broadcast, in order");
    }
}

/// Whoever does not read broadcasts is cut when too many wait, and nobody else notices. All clients
/// here keep up with the sender, which waits for them, or do not read at all: how busy the machine
/// is decides nothing.
#[test]
fn receivers_that_do_not_read_are_cut_alone() {
    const SLOW: u64 = 3;
    // Together 64 MiB: more than a cap of 1 MiB and every buffer of the kernel.
    const MESSAGES_MAX: usize = 4096;
    // Of those who read at most 16 messages wait, 256 KiB.
    const AHEAD: usize = 16;
    let core = one_core();
    let engine = Engine::start_messages(&[&UNLIMITED[..], &["--cores", &core]].concat());
    let address = engine.messages();
    let before = wrongs(&engine);
    let mut slow: Vec<_> = (0..SLOW).map(|_| connect_small(address)).collect();
    slow.iter_mut().for_each(|client| client.ping(0));
    let sent = Arc::new(AtomicUsize::new(usize::MAX));
    let good: Vec<_> = (0..2).map(|_| NumberedReceiver::start(address, &sent)).collect();
    let mut sender = Client::connect(address);
    let are_cut = || stats(&engine)["slow_consumers"] == SLOW;
    let mut number = 0;
    while number % AHEAD != 0 || !are_cut() {
        assert!(number < MESSAGES_MAX, "they are never cut");
        let payload = [&number.to_be_bytes()[..], &[9; 16 << 10]].concat();
        sender.send(&frame(BROADCAST, &payload));
        number += 1;
        until("those who read", || {
            good.iter().all(|receiver| receiver.received() + AHEAD > number)
        });
    }
    sender.ping(0);
    sent.store(number, Ordering::Relaxed);
    // The last that they receive.
    sender.send(&frame(BROADCAST, &number.to_be_bytes()));
    good.into_iter().for_each(NumberedReceiver::finish);
    sender.ping(1);
    drop(sender);
    wait_for_clients(&engine, 0);
    assert_added(&engine, &before, &[("slow_consumers".to_owned(), SLOW)].into());
    assert_eq!(stats(&engine)["queued_bytes"], 0);
}

/// However many bytes come of a frame that was begun, it has its time and no more.
#[test]
fn a_thousand_clients_that_trickle_are_told_to_hurry() {
    const CLIENTS: usize = 1000;
    // Whoever has just been told may send one more byte, for which the engine waits.
    let options = ["--max-connections", "1100", "--frame-timeout", "2s", "--linger", "1min"];
    let beside = Beside::start(&options);
    beside.counts("frame_timeout", CLIENTS as u64, || {
        let endless = frame(ECHO, &[7; 60_000]);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| beside.connect()).collect();
        let mut waiting: Vec<_> = clients.iter_mut().collect();
        // Each sends a byte now and then, until it is told.
        for byte in &endless {
            waiting.retain_mut(|client| !is_told(&client.stream));
            waiting.iter_mut().for_each(|client| client.send(&[*byte]));
        }
        assert!(waiting.is_empty(), "{} may go on for ever", waiting.len());
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
    let beside = Beside::start(&["--idle-timeout", "1s"]);
    beside.counts("idle_timeout", 2, || {
        let (mut silent, mut once) = (beside.connect(), beside.connect());
        once.ping(1);
        for client in [&mut silent, &mut once] {
            client.expect_error(TIMEOUT);
            client.expect_end();
        }
    });
}

/// Connects so often; each connection is refused with a reason.
fn connect_to_be_refused(address: SocketAddr, count: usize) {
    for _ in 0..count {
        let mut client = Client::connect(address);
        client.expect_error(CONNECTION_LIMIT_EXCEEDED);
        client.expect_end();
    }
}

/// Each client too many reads why it is refused; those who have a slot notice nothing.
fn connect_against_slots(slots: usize, refused: usize) {
    const THREADS: usize = 4;
    let limit = slots.to_string();
    let beside = Beside::start(&["--max-connections", &limit, "--admit-timeout", "0s"]);
    let address = beside.engine.messages();
    let before = wrongs(&beside.engine);
    let mut accepted: Vec<_> = (1..slots).map(|_| beside.connect()).collect();
    accepted.iter_mut().for_each(|client| client.ping(0));
    thread::scope(|scope| {
        let refused = || connect_to_be_refused(address, refused / THREADS);
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(refused)).collect();
        // PINGs of those who are in, while others are refused.
        for number in 1.. {
            if threads.iter().all(|thread| thread.is_finished()) {
                break;
            }
            accepted[number % (slots - 1)].ping(number as u64);
        }
    });
    accepted.iter_mut().for_each(|client| client.ping(1));
    let expected = [("connections_limit".to_owned(), refused as u64)].into();
    assert_added(&beside.engine, &before, &expected);
    beside.assert_well();
    // A slot that becomes free is taken.
    accepted.pop();
    wait_for_clients(&beside.engine, slots as u64 - 1);
    beside.connect().ping(2);
}

#[test]
fn each_connect_without_a_slot_is_refused_with_a_reason() {
    connect_against_slots(64, 1000);
}

#[test]
#[ignore = "long: 20,000 connections one after the other"]
fn twenty_thousand_connects_against_1024_slots() {
    connect_against_slots(1024, 20_000);
}

/// One who is refused and talks on all the same still reads why.
#[test]
fn a_refused_client_that_talks_still_reads_why() {
    let beside = Beside::start(&["--max-connections", "1", "--admit-timeout", "0s"]);
    beside.counts("connections_limit", 20, || {
        for _ in 0..20 {
            let mut client = beside.connect();
            client.send_last(&frame(PING, b"12345678").repeat(10));
            assert_eq!(error_codes(&client.rest()), [CONNECTION_LIMIT_EXCEEDED]);
        }
    });
}
