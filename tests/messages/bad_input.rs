//! Every way in which a message client can be wrong, over a real socket, each beside a healthy
//! client on the same worker, and each counted once. Crowds are in `message_crowds`.

use crate::common::beside::{Beside, assert_added, let_run, stats, wait_for_bytes};
use crate::common::wire::*;
use crate::common::{Engine, one_core, until};
use std::net::TcpStream;
use std::time::Duration;

/// Rate limits have tests of their own.
const UNLIMITED: [&str; 4] = ["--rate-limit", "0", "--global-rate-limit", "0"];

fn beside(options: &[&str]) -> Beside {
    Beside::start(&[&UNLIMITED, options].concat())
}

/// Sends bytes on a connection of their own, and nothing more; gives what came until its end.
fn answers_to(beside: &Beside, bytes: &[u8]) -> Vec<Frame> {
    let mut client = beside.connect();
    client.send_last(bytes);
    client.rest()
}

/// The bytes lead to one ERROR with this code and the end; the engine does not wait for more.
fn assert_refused(beside: &Beside, bytes: &[u8], code: u8, word: &str) {
    beside.counts(word, 1, || {
        let mut client = beside.connect();
        client.send(bytes);
        assert_eq!(error_codes(&client.rest()), [code], "{bytes:x?}");
    });
}

fn ping() -> Vec<u8> {
    frame(PING, b"12345678")
}

/// A payload that fits the type.
fn payload_of(kind: u8) -> &'static [u8] {
    match kind {
        PING | PONG => b"12345678",
        AUTH => b"\x05alices3cret",
        DATA => b"\0\0\0\x07payload",
        CLOSE => b"",
        _ => b"any bytes",
    }
}

#[test]
fn each_bit_of_the_magic_counts() {
    let beside = beside(&[]);
    for bit in 0..32 {
        let mut bytes = ping();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        assert_refused(&beside, &bytes, INVALID_MAGIC, "invalid_magic");
    }
}

#[test]
fn garbage_before_the_magic_is_not_skipped() {
    let beside = beside(&[]);
    for garbage in [&b"\0"[..], b"\xDE", b"GET / HTTP/1.1\r\n\r\n", b"\xDE\xAD\xBE\xEE", &[7; 3000]]
    {
        let bytes = [garbage, &ping()].concat();
        assert_refused(&beside, &bytes, INVALID_MAGIC, "invalid_magic");
    }
    // What came before it was answered, and one wrong byte is enough.
    beside.counts("invalid_magic", 1, || {
        let mut client = beside.connect();
        client.send(&[&ping()[..], b"\xAD"].concat());
        client.expect(PONG, b"12345678");
        client.expect_error(INVALID_MAGIC);
        client.expect_end();
    });
}

#[test]
fn other_versions_are_refused() {
    let beside = beside(&[]);
    for version in [0, 2, 0x81, 255] {
        let mut bytes = unchecked(PING, b"12345678");
        bytes[4] = version;
        assert_refused(&beside, &seal(bytes), INVALID_VERSION, "invalid_version");
    }
}

#[test]
fn each_of_256_types_does_what_it_must() {
    let beside = beside(&["--auth-open"]);
    for kind in 0..=255 {
        let bytes = frame(kind, payload_of(kind));
        let only = |replies: &[Frame], expected: u8| {
            assert_eq!(replies.iter().map(|f| f.kind).collect::<Vec<_>>(), [expected]);
        };
        match kind {
            PING | ECHO | AUTH | DATA => {
                let replies = beside.counts_nothing(|| answers_to(&beside, &bytes));
                only(&replies, kind + 1);
            }
            BROADCAST | CLOSE => {
                assert_eq!(beside.counts_nothing(|| answers_to(&beside, &bytes)), []);
            }
            // Never answered with an ERROR.
            ERROR => {
                let replies = beside.counts("client_error", 1, || answers_to(&beside, &bytes));
                assert_eq!(replies, []);
            }
            _ => assert_refused(&beside, &bytes, INVALID_MESSAGE_TYPE, "invalid_message_type"),
        }
    }
}

/// A frame in which any one bit is wrong is not taken for what it was, nor for anything else.
#[test]
fn no_flipped_bit_is_accepted() {
    let good = frame(ECHO, &[0x5A; 52]);
    assert_eq!(good.len(), 64);
    let beside = beside(&[]);
    let faults = |beside: &Beside| stats(&beside.engine)["faults"].as_u64().unwrap();
    for bit in 0..512 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        let replies = answers_to(&beside, &bytes);
        // A length that became larger waits for more, which does not come.
        assert!(replies.len() <= 1, "bit {bit}: {replies:?}");
        error_codes(&replies);
    }
    until("512 faults", || faults(&beside) == 512);
    let stats = stats(&beside.engine);
    let by_reason = |word: &str| stats["faults_by_reason"][word].as_u64().unwrap();
    assert_eq!(by_reason("invalid_magic"), 32);
    assert_eq!(by_reason("invalid_version"), 8);
    for word in ["rate_limited", "slow_consumers", "auth_failures"] {
        assert_eq!(stats[word], 0);
    }
    let others: u64 =
        ["crc_mismatch", "invalid_message_type", "closed_in_frame"].map(by_reason).iter().sum();
    assert_eq!(others, 512 - 40);
    assert!(by_reason("crc_mismatch") >= 52 * 8 + 32);
    beside.assert_well();
}

#[test]
fn other_checksums_are_refused() {
    let beside = beside(&[]);
    let bytes = unchecked(ECHO, b"Hello, Server!");
    let right = crc32(&bytes);
    let checksums = [
        right.swap_bytes(),
        !right,
        right.reverse_bits(),
        // Castagnoli's polynomial, and Koopman's.
        crc_with(0x82F6_3B78, &bytes),
        crc_with(0xEB31_D82E, &bytes),
        crc32(&bytes[8..]),
        crc32(&bytes[..8]),
        crc32(&bytes[4..]),
        0,
        u32::MAX,
    ];
    for checksum in checksums {
        let bytes = [&bytes[..], &checksum.to_be_bytes()].concat();
        assert_refused(&beside, &bytes, CRC_MISMATCH, "crc_mismatch");
    }
    beside.counts_nothing(|| {
        let replies = answers_to(&beside, &seal(bytes.clone()));
        assert_eq!(replies[0].payload, b"Hello, Server!");
    });
}

#[test]
fn payloads_that_do_not_fit_are_refused() {
    let beside = beside(&["--auth-open"]);
    let cases: [(u8, &[u8]); 12] = [
        (PING, b""),
        (PING, b"1234567"),
        (PING, b"123456789"),
        (DATA, b""),
        (DATA, b"\0\0\0"),
        (AUTH, b""),
        (AUTH, b"\x01"),
        (AUTH, b"\x06alice"),
        (AUTH, b"\xffalices3cret"),
        (AUTH, b"\x02\xff\xfetoken"),
        (AUTH, b"\x05alice\xc3\x28"),
        (CLOSE, b"x"),
    ];
    for (kind, payload) in cases {
        assert_refused(&beside, &frame(kind, payload), UNKNOWN, "malformed_payload");
    }
    let long = frame(CLOSE, &[0; 65_535]);
    assert_refused(&beside, &long, UNKNOWN, "malformed_payload");
}

#[test]
fn a_second_auth_is_refused() {
    let beside = beside(&["--auth-open"]);
    beside.counts("repeated_auth", 1, || {
        let mut client = beside.connect();
        client.log_in("alice", "s3cret");
        client.send(&auth("alice", "s3cret"));
        client.expect_error(UNKNOWN);
        client.expect_end();
    });
}

/// Names are what a client likes them to be: they reach the log on one line and escaped, tokens
/// not at all.
#[test]
fn strange_names_are_refused_and_shown_escaped() {
    let beside = beside(&["--debug"]);
    let names = ["nul\0nul", "new\nline connection=1", "escape \x1b[31m", "\u{202e}turned", ""];
    for name in names {
        beside.counts("auth_failures", 1, || {
            let mut client = beside.connect();
            client.send(&auth(name, "a secret\n"));
            client.expect(AUTH_REPLY, b"\0");
            client.ping(1);
        });
    }
    let log = beside.engine.log();
    for shown in [r"nul\x00nul", r"new\x0aline connection=1", r"\x1b[31m", r"\xe2\x80\xaeturned"] {
        assert!(log.contains(shown), "{shown} in {log}");
    }
    for raw in ["\0", "\nline", "\x1b", "\u{202e}", "a secret"] {
        assert!(!log.contains(raw), "{raw:?} in {log}");
    }
}

#[test]
fn the_third_failure_to_authenticate_closes() {
    let beside = beside(&[]);
    beside.counts("auth_failures", 3, || {
        let mut client = beside.connect();
        for _ in 0..3 {
            client.send(&auth("alice", "guess"));
            client.expect(AUTH_REPLY, b"\0");
        }
        client.expect_error(AUTHENTICATION_FAILED);
        client.expect_end();
    });
}

#[test]
fn before_authentication_little_is_allowed() {
    let core = one_core();
    let options = ["--require-auth", "--auth-open", "--cores", &core];
    let engine = Engine::start_messages(&options);
    let connect = || Client::connect(engine.messages());

    let mut healthy = connect();
    healthy.log_in("alice", "s3cret");
    for (payload_bytes, allowed) in [(512, true), (513, false), (65_535, false)] {
        let mut client = connect();
        // The header alone is judged.
        let bytes = frame(ECHO, &vec![1; payload_bytes]);
        client.send(if allowed { &bytes } else { &bytes[..8] });
        client.expect_error(if allowed { AUTHENTICATION_FAILED } else { PAYLOAD_TOO_LARGE });
        match allowed {
            true => client.ping(1),
            false => client.expect_end(),
        }
        healthy.ping(payload_bytes as u64);
    }
    assert_eq!(stats(&engine)["faults_by_reason"]["payload_too_large"], 2);
    assert_eq!(stats(&engine)["auth_failures"], 1);

    let mut client = connect();
    for (kind, last) in [(BROADCAST, false), (DATA, false), (ECHO, true)] {
        client.send(&frame(kind, payload_of(kind)));
        client.expect_error(AUTHENTICATION_FAILED);
        if last {
            client.expect_end();
        }
    }
    assert_eq!(stats(&engine)["auth_failures"], 4);
    healthy.ping(2);
    healthy.send(&frame(ECHO, &[1; 513]));
    healthy.expect(ECHO_REPLY, &[1; 513]);
}

/// PINGs are allowed before AUTH, and do not make up for it.
#[test]
fn whoever_does_not_authenticate_in_time_is_told() {
    let options = ["--require-auth", "--auth-open", "--auth-timeout", "1s"];
    let engine = Engine::start_messages(&options);
    let mut silent = Client::connect(engine.messages());
    silent.ping(1);
    silent.expect_error(TIMEOUT);
    silent.expect_end();
    assert_eq!(stats(&engine)["faults_by_reason"]["auth_timeout"], 1);
}

/// A client that is cut while it still sends reads the reason: closing the socket at once would
/// reset the connection, and a reset discards what the client has not read.
#[test]
fn a_client_that_goes_on_sending_still_reads_why_it_was_cut() {
    let beside = beside(&["--frame-timeout", "100ms", "--linger", "1min"]);
    beside.counts("frame_timeout", 1, || {
        let mut client = beside.connect();
        let endless = frame(ECHO, &[7; 1000]);
        client.send(&endless[..20]);
        until("the client to be told", || is_told(&client.stream));
        // A socket that is closed by now resets the connection.
        let_run(&beside.engine, Duration::from_millis(300));
        endless[20..].iter().for_each(|byte| client.send(&[*byte]));
        client.expect_error(TIMEOUT);
        client.expect_end();
        assert_eq!(stats(&beside.engine)["connections_active"]["messages"], 2);
        // Once it closes, the engine does not wait for the rest of the minute.
    });
}

/// Where every type is cut in two, in whatever place, it is taken as if it had come whole.
#[test]
fn every_type_may_come_in_two_pieces() {
    // No healthy client here: every byte that the engine reads is one of these.
    let core = one_core();
    let options = [&UNLIMITED[..], &["--auth-open", "--cores", &core]].concat();
    let engine = Engine::start_messages(&options);
    let connect = || Client::connect(engine.messages());
    let mut sent = 0;
    let mut send = |client: &mut Client<TcpStream>, bytes: &[u8]| {
        client.send(bytes);
        sent += bytes.len() as u64;
        sent
    };
    for kind in [PING, ECHO, AUTH, DATA, CLOSE, ERROR] {
        let bytes = frame(kind, payload_of(kind));
        // All first halves are read before any of the second.
        let mut clients: Vec<_> = (1..bytes.len()).map(|cut| (connect(), cut)).collect();
        let sent = clients.iter_mut().map(|(client, cut)| send(client, &bytes[..*cut])).max();
        wait_for_bytes(&engine, "messages", sent.unwrap());
        for (client, cut) in &mut clients {
            send(client, &bytes[*cut..]);
            match kind {
                PING => client.expect(PONG, payload_of(PING)),
                ECHO => client.expect(ECHO_REPLY, payload_of(ECHO)),
                AUTH => assert_eq!(client.next().unwrap().payload[0], 1),
                DATA => client.expect(DATA_ACK, b"\0\0\0\x07"),
                _ => client.expect_end(),
            }
        }
    }
    let (mut sender, mut receiver) = (connect(), connect());
    send(&mut receiver, &ping());
    receiver.expect(PONG, payload_of(PING));
    let bytes = frame(BROADCAST, payload_of(BROADCAST));
    for cut in 1..bytes.len() {
        wait_for_bytes(&engine, "messages", send(&mut sender, &bytes[..cut]));
        send(&mut sender, &bytes[cut..]);
        receiver.expect(BROADCAST, payload_of(BROADCAST));
    }
    drop((sender, receiver));
    let stats = stats(&engine);
    let client_errors = (frame(ERROR, payload_of(ERROR)).len() - 1) as u64;
    assert_eq!(stats["faults_by_reason"]["client_error"], client_errors);
    assert_eq!(stats["faults"], client_errors);
}

#[test]
fn a_thousand_pings_at_once_are_answered_in_order() {
    let beside = Beside::start(&[]);
    beside.counts_nothing(|| {
        let mut client = beside.connect();
        client.send(&(0..1000u64).flat_map(|n| frame(PING, &n.to_be_bytes())).collect::<Vec<_>>());
        for number in 0..1000u64 {
            client.expect(PONG, &number.to_be_bytes());
        }
    });
}

/// What goes beyond the limit is answered, in its place, and the connection goes on.
#[test]
fn messages_beyond_the_rate_are_refused_one_by_one() {
    let beside = Beside::start(&["--rate-limit", "100", "--global-rate-limit", "0"]);
    let before = crate::common::beside::wrongs(&beside.engine);
    let mut client = beside.connect();
    client.send(&(0..1000u64).flat_map(|n| frame(PING, &n.to_be_bytes())).collect::<Vec<_>>());
    let replies: Vec<Frame> = (0..1000).map(|_| client.next().unwrap()).collect();
    let mut refused = 0;
    for (number, reply) in (0..1000u64).zip(replies) {
        match reply.kind {
            PONG => assert_eq!(reply.payload, number.to_be_bytes(), "in its place"),
            _ => {
                assert_eq!(reply.error_code(), RATE_LIMIT_EXCEEDED);
                refused += 1;
            }
        }
    }
    assert!((1..=900).contains(&refused), "{refused} of 1000 were refused");
    assert_added(&beside.engine, &before, &[("rate_limited".to_owned(), refused)].into());
    client.send(&frame(CLOSE, b""));
    client.expect_end();
    beside.assert_well();
}

#[test]
fn closing_or_resetting_within_a_frame_is_counted() {
    let beside = beside(&[]);
    for bytes in [1, 7, 8, 19] {
        beside.counts("closed_in_frame", 1, || {
            assert_eq!(answers_to(&beside, &ping()[..bytes]), []);
        });
    }
    beside.counts("reset", 1, || {
        let mut client = beside.connect();
        client.ping(1);
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    // To close between frames, or without any, is no error.
    beside.counts_nothing(|| assert_eq!(answers_to(&beside, &[]), []));
    beside.counts_nothing(|| assert_eq!(answers_to(&beside, &ping()).len(), 1));
    beside.counts_nothing(|| drop(TcpStream::connect(beside.engine.messages()).unwrap()));
}

/// After a fault nothing is understood any more, however right it is.
#[test]
fn what_follows_a_fault_is_not_looked_at() {
    let beside = beside(&[]);
    let mut bad = ping();
    bad[19] ^= 1;
    let bytes = [ping(), bad, ping().repeat(2000)].concat();
    beside.counts("crc_mismatch", 1, || {
        let replies = answers_to(&beside, &bytes);
        assert_eq!(replies.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [PONG, ERROR]);
        assert_eq!(replies[1].payload, b"\x05CRC checksum mismatch");
    });
}
