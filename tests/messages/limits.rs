//! Rate limits and slots, and the options and variables that set them.

use crate::common::beside::{stats, wait_for_clients, wrongs};
use crate::common::oracle::{records, stream};
use crate::common::wire::*;
use crate::common::{Engine, result_of, until, wait_closed};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Sends so many PINGs at once; gives how many were answered, the others having been refused.
fn burst(client: &mut Client<TcpStream>, count: u64) -> u64 {
    client.send(&frame(PING, b"12345678").repeat(count as usize));
    passed(client, count)
}

fn passed<S: Read + Write>(client: &mut Client<S>, count: u64) -> u64 {
    let answered = |client: &mut Client<S>| {
        let frame = client.next().expect("an answer");
        if frame.kind != PONG {
            assert_eq!(frame.error_code(), RATE_LIMIT_EXCEEDED);
        }
        frame.kind == PONG
    };
    (0..count).filter(|_| answered(client)).count() as u64
}

/// The most that a rate lets pass since `begun`, with one burst.
fn most(rate: u64, begun: Instant) -> u64 {
    rate + (begun.elapsed().as_secs_f64() * rate as f64) as u64 + 1
}

#[test]
fn each_client_has_its_own_rate() {
    let engine = Engine::start_messages(&["--rate-limit", "5", "--global-rate-limit", "0"]);
    for _ in 0..3 {
        let mut client = Client::connect(engine.messages());
        // One segment, so that all of it comes at one time.
        let bytes = [frame(PING, b"12345678").repeat(10), frame(BROADCAST, b"too much")];
        client.send(&bytes.concat());
        assert_eq!(passed(&mut client, 10), 5);
        // The refusal names what was refused, and the connection goes on.
        let refused = client.next().unwrap();
        assert_eq!(refused.error_code(), RATE_LIMIT_EXCEEDED);
        assert!(refused.payload.ends_with(b"BROADCAST"), "{refused:?}");
        client.send(&frame(CLOSE, b""));
        client.expect_end();
    }
}

/// A user has one limit, however often it connects.
#[test]
fn the_rate_of_a_user_survives_a_reconnect() {
    let options = ["--auth-open", "--rate-limit", "40", "--global-rate-limit", "0"];
    let engine = Engine::start_messages(&options);
    let begun = Instant::now();
    let mut total = 0;
    for _ in 0..4 {
        let mut client = Client::connect(engine.messages());
        client.log_in("ann", "token");
        total += burst(&mut client, 100);
    }
    assert!((40..=most(40, begun)).contains(&total), "{total}");
    let mut other = Client::connect(engine.messages());
    other.log_in("bob", "token");
    assert!(burst(&mut other, 100) >= 40, "another user has its own");
}

#[test]
fn all_clients_together_have_a_rate() {
    let engine = Engine::start_messages(&["--rate-limit", "0", "--global-rate-limit", "60"]);
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(engine.messages())).collect();
    let total: u64 = clients.iter_mut().map(|client| burst(client, 50)).sum();
    assert!((60..=most(60, begun)).contains(&total), "{total}");
    assert_eq!(wrongs(&engine)["rate_limited"], 250 - total);
}

/// Also those that have not authenticated, although they may only PING; and they use up nothing
/// that users need.
#[test]
fn strangers_together_have_a_rate_of_their_own() {
    let limits = ["--rate-limit", "0", "--global-rate-limit", "60"];
    let engine =
        Engine::start_messages(&[&limits[..], &["--require-auth", "--auth-open"]].concat());
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(engine.messages())).collect();
    let total: u64 = clients.iter_mut().map(|client| burst(client, 50)).sum();
    assert!((60..=most(60, begun)).contains(&total), "{total}");
    let begun = Instant::now();
    let mut user = Client::connect(engine.messages());
    user.log_in("ann", "token");
    let total = burst(&mut user, 100);
    assert!((60..=most(60, begun)).contains(&total), "{total}");
}

#[test]
fn a_rate_of_zero_is_no_limit() {
    let engine = Engine::start_messages(&["--rate-limit", "0", "--global-rate-limit", "0"]);
    let mut client = Client::connect(engine.messages());
    let bytes = frame(PING, b"12345678").repeat(60_000);
    let mut sending = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || sending.write_all(&bytes).unwrap());
    assert_eq!(passed(&mut client, 60_000), 60_000);
    writer.join().unwrap();
    assert_eq!(stats(&engine)["rate_limited"], 0);
}

fn assert_refused(engine: &Engine) {
    let mut client = Client::connect(engine.messages());
    client.expect_error(CONNECTION_LIMIT_EXCEEDED);
    client.expect_end();
}

#[test]
fn the_connection_limit_holds_at_its_edge() {
    let engine = Engine::start_messages(&["--max-connections", "3", "--admit-timeout", "0s"]);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(engine.messages())).collect();
    clients.iter_mut().for_each(|client| client.ping(1));
    assert_refused(&engine);
    assert_refused(&engine);
    drop(clients.pop());
    wait_for_clients(&engine, 2);
    let mut third = Client::connect(engine.messages());
    third.ping(2);
    assert_refused(&engine);
    clients.iter_mut().for_each(|client| client.ping(3));
    assert_eq!(wrongs(&engine)["connections_limit"], 3);
}

/// Both listeners share the slots.
#[test]
fn the_connection_limit_is_over_both_listeners() {
    let engine = Engine::start_both(&["--max-connections", "2", "--admit-timeout", "0s"]);
    let mut client = Client::connect(engine.messages());
    client.ping(1);
    let all = records(8, 1);
    let mut sender = engine.connect();
    let (sender_address, bytes) = (sender.local_addr().unwrap(), stream(&all, 4));
    sender.write_all(&bytes[..1072]).unwrap();
    until("the record connection", || stats(&engine)["connections_active"]["records"] == 1);
    assert_refused(&engine);
    let mut refused = engine.connect();
    let refused_address = refused.local_addr().unwrap();
    wait_closed(&mut refused);
    sender.write_all(&bytes[1072..]).unwrap();
    drop(sender);
    let results = engine.wait_for_results(2);
    assert_eq!(result_of(&results, refused_address)["reason"], "connections_limit");
    assert_eq!(result_of(&results, sender_address)["status"], "complete");
    client.ping(2);
}

#[test]
fn short_variables_are_read_and_long_ones_win() {
    let short = [("MAX_CONNECTIONS", "1"), ("RATE_LIMIT", "20"), ("RINGEST_ADMIT_TIMEOUT", "0s")];
    let engine = Engine::start_messages_in(&short, &[]);
    let begun = Instant::now();
    let mut client = Client::connect(engine.messages());
    let passed = burst(&mut client, 100);
    assert!((20..=most(20, begun)).contains(&passed), "{passed}");
    assert_refused(&engine);

    let both = [
        ("MAX_CONNECTIONS", "1"),
        ("RINGEST_MAX_CONNECTIONS", "2"),
        ("RATE_LIMIT", "1"),
        ("RINGEST_RATE_LIMIT", "50"),
        ("RINGEST_ADMIT_TIMEOUT", "0s"),
    ];
    let engine = Engine::start_messages_in(&both, &[]);
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(engine.messages())).collect();
    clients.iter_mut().for_each(|client| assert!(burst(client, 50) == 50));
    assert_refused(&engine);
    // The command line wins over both.
    let engine = Engine::start_messages_in(&both, &["--max-connections", "3"]);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(engine.messages())).collect();
    clients.iter_mut().for_each(|client| client.ping(1));
    assert_refused(&engine);
}

#[test]
fn options_can_come_from_the_environment() {
    let environment = [
        ("RINGEST_AUTH_OPEN", "1"),
        ("RINGEST_REQUIRE_AUTH", "true"),
        ("RINGEST_IDLE_TIMEOUT", "1s"),
        ("RINGEST_DEBUG", "yes"),
    ];
    let engine = Engine::start_messages_in(&environment, &[]);
    let mut client = Client::connect(engine.messages());
    client.send(&frame(ECHO, b"x"));
    client.expect_error(AUTHENTICATION_FAILED);
    client.log_in("ann", "token");
    client.expect_error(TIMEOUT);
    client.expect_end();
    assert!(engine.log().contains("authenticated"), "{}", engine.log());
}
