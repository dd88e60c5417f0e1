//! Broadcasts to all others: across workers, in the order of each sender, to nobody else.

use crate::common::Engine;
use crate::common::beside::{stats, wait_for_clients};
use crate::common::wire::*;
use std::net::TcpStream;

const UNLIMITED: [&str; 4] = ["--rate-limit", "0", "--global-rate-limit", "0"];

fn numbered(sender: usize, number: usize) -> Vec<u8> {
    format!("message {number} of sender {sender}").into_bytes()
}

fn connect_some(engine: &Engine, count: usize) -> Vec<Client<TcpStream>> {
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(engine.messages())).collect();
    clients.iter_mut().for_each(|client| client.ping(0));
    clients
}

/// Reads what `senders` senders sent, `count` each, in whatever mixture, each in its order.
fn expect_all(client: &mut Client<TcpStream>, senders: &[usize], count: usize) {
    let mut next = vec![0; senders.len()];
    for _ in 0..senders.len() * count {
        let frame = client.next().expect("a broadcast");
        assert_eq!(frame.kind, BROADCAST);
        let is_next = |&at: &usize| numbered(senders[at], next[at]) == frame.payload;
        let from = (0..senders.len()).find(is_next);
        let from = from.unwrap_or_else(|| panic!("{frame:?} is not the next of any sender"));
        next[from] += 1;
    }
    assert_eq!(next, vec![count; senders.len()]);
}

#[test]
fn everybody_else_gets_each_senders_messages_in_order() {
    const SENDERS: usize = 4;
    const RECEIVERS: usize = 5;
    const COUNT: usize = 500;
    let engine = Engine::start_messages(&UNLIMITED);
    let mut receivers = connect_some(&engine, RECEIVERS);
    let mut senders = connect_some(&engine, SENDERS);
    std::thread::scope(|scope| {
        for (sender, client) in (0..).zip(&mut senders) {
            scope.spawn(move || {
                for number in 0..COUNT {
                    client.send(&frame(BROADCAST, &numbered(sender, number)));
                }
            });
        }
        let all: Vec<usize> = (0..SENDERS).collect();
        for client in &mut receivers {
            expect_all(client, &all, COUNT);
        }
    });
    for (sender, client) in (0..).zip(&mut senders) {
        let others: Vec<usize> = (0..SENDERS).filter(|&other| other != sender).collect();
        expect_all(client, &others, COUNT);
    }
    // Nothing came twice, and nobody got his own.
    for client in receivers.iter_mut().chain(&mut senders) {
        client.ping(1);
    }
    let deliveries = SENDERS * COUNT * (RECEIVERS + SENDERS - 1);
    assert_eq!(stats(&engine)["deliveries"], deliveries);
}

/// A PING behind broadcasts in one write is answered, and all of them are passed on.
#[test]
fn broadcasts_mixed_with_others_keep_their_order() {
    let engine = Engine::start_messages(&UNLIMITED);
    let mut clients = connect_some(&engine, 2);
    let mut bytes = Vec::new();
    for number in 0..300 {
        bytes.extend(frame(BROADCAST, &numbered(0, number)));
        if number % 7 == 0 {
            bytes.extend(frame(PING, &(number as u64).to_be_bytes()));
        }
    }
    clients[0].send(&bytes);
    for number in (0..300u64).step_by(7) {
        clients[0].expect(PONG, &number.to_be_bytes());
    }
    expect_all(&mut clients[1], &[0], 300);
}

#[test]
fn large_broadcasts_arrive_whole() {
    let engine = Engine::start_messages(&UNLIMITED);
    let mut clients = connect_some(&engine, 3);
    for fill in 0..30u8 {
        let payload = vec![fill; 65_535];
        clients[0].send(&frame(BROADCAST, &payload));
        clients[1].expect(BROADCAST, &payload);
        clients[2].expect(BROADCAST, &payload);
    }
}

#[test]
fn nobody_gets_what_was_sent_before_or_after() {
    let engine = Engine::start_messages(&[]);
    let mut clients = connect_some(&engine, 2);
    clients[0].send(&frame(BROADCAST, b"early"));
    clients[1].expect(BROADCAST, b"early");
    let mut late = Client::connect(engine.messages());
    late.ping(1);
    drop(clients.pop());
    wait_for_clients(&engine, 2);
    clients[0].send(&frame(BROADCAST, b"late"));
    late.expect(BROADCAST, b"late");
    late.ping(2);
    clients[0].ping(3);
}

#[test]
fn where_auth_is_required_only_the_authenticated_receive() {
    let engine = Engine::start_messages(&["--require-auth", "--auth-open"]);
    let mut clients = connect_some(&engine, 3);
    clients[0].log_in("sender", "token");
    clients[1].log_in("receiver", "token");
    clients[0].send(&frame(BROADCAST, b"secret"));
    clients[1].expect(BROADCAST, b"secret");
    // To whom it did not go: the answer to a PING is the first thing to come.
    clients[2].ping(1);
    clients[2].log_in("late", "token");
    clients[0].send(&frame(BROADCAST, b"for all"));
    clients[1].expect(BROADCAST, b"for all");
    clients[2].expect(BROADCAST, b"for all");
}
