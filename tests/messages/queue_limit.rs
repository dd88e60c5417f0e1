//! The cap on everything that waits for the receivers of one worker: when many do not read, the one
//! to whom the most is owed is cut, and never one who reads.

use crate::common::beside::{Beside, stats};
use crate::common::until;
use crate::common::wire::*;
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpStream};

/// Enough for 64 MiB to wait before any of them has 1 MiB of its own.
const SILENT: usize = 90;
const PAYLOAD_BYTES: usize = 60_000;
const BROADCASTS_MAX: usize = 2000;

/// A client for which the kernel keeps little, and which does not read.
fn connect_silent(address: SocketAddr) -> Client<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::over(socket.into())
}

#[test]
fn when_too_much_waits_for_all_the_slowest_is_cut() {
    let options = ["--rate-limit", "0", "--global-rate-limit", "0", "--debug"];
    let beside = Beside::start(&options);
    let address = beside.engine.messages();
    let silent: Vec<_> = (0..SILENT).map(|_| connect_silent(address)).collect();
    let mut reader = beside.connect();
    reader.ping(0);
    let mut sender = beside.connect();
    let slow = || stats(&beside.engine)["slow_consumers"].as_u64().unwrap();
    until("all of them", || stats(&beside.engine)["connections_active"]["messages"] == SILENT + 3);

    let payload = vec![7; PAYLOAD_BYTES];
    let mut sent = 0;
    while slow() == 0 {
        assert!(sent < BROADCASTS_MAX, "nobody is cut");
        sender.send(&frame(BROADCAST, &payload));
        reader.expect(BROADCAST, &payload);
        sent += 1;
    }
    // The first to be cut was cut for what waited for all, and the one who reads is still there.
    // It is counted before it is logged.
    let is_cut = |line: &str| line.contains("cut: ") || line.contains("does not read");
    until("the line in the log", || beside.engine.log().lines().any(is_cut));
    let log = beside.engine.log();
    let first = log.lines().find(|line| is_cut(line));
    assert!(first.unwrap().contains("cut: it has the most bytes waiting"), "{first:?}");
    reader.ping(1);
    sender.ping(2);
    beside.assert_well();
    let queued = stats(&beside.engine)["queued_bytes"].as_u64().unwrap();
    assert!(queued <= 64 << 20, "{queued}");
    drop(silent);
}
