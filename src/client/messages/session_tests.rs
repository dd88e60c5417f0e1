//! Tests the client's session against frames written out in hex. Opens no socket.

use super::*;
use crate::wire::messages::payload::Credentials;
use proptest::prelude::*;

const PING: &str = "deadbeef010100080000018bcfe56800c8bc9ec8";
const PONG: &str = "deadbeef010200080000018bcfe56800515ef8c9";
const ECHO: &str = "deadbeef0103000e48656c6c6f2c20536572766572211a24c8fb";
const ECHO_REPLY: &str = "deadbeef0104000e48656c6c6f2c20536572766572213ab6b4b0";
const ECHO_EMPTY: &str = "deadbeef010300006077f2de";
const BROADCAST: &str = "deadbeef010500026869185f10b4";
const AUTH: &str = "deadbeef0106000c05616c6963657333637265741107bcdb";
const AUTH_REFUSED: &str = "deadbeef01070001002570c1ba";
const DATA: &str = "deadbeef0108000b000000077061796c6f61648d1103c3";
const DATA_ACK: &str = "deadbeef0109000400000007b3d7544c";
const CLOSE: &str = "deadbeef010a00006fa6c951";
const ERROR_CRC: &str = "deadbeef01ff00160543524320636865636b73756d206d69736d6174636845856623";

const TIMESTAMP: [u8; 8] = 1_700_000_000_000_u64.to_be_bytes();
const HELLO: &[u8] = b"Hello, Server!";

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn frame_of(kind: FrameType, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind, &[payload], &mut out);
    out
}

fn error_of(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    payload::encode_error(code, text, &mut out);
    out
}

/// A session that has sent one request for each type of answer, and an empty ECHO.
fn asked() -> ClientSession {
    let mut session = ClientSession::default();
    let alice = Credentials { user: "alice", token: "s3cret" };
    session.send(Request::Auth(alice), 0).unwrap();
    session.send(Request::Ping(&TIMESTAMP), 1).unwrap();
    session.send(Request::Echo(HELLO), 2).unwrap();
    session.send(Request::Data { sequence: 7, body: b"payload" }, 3).unwrap();
    session.send(Request::Echo(b""), 4).unwrap();
    session
}

/// Appends everything the session returns, as `Debug` text; an error ends it.
fn digest(session: &mut ClientSession, found: &mut Vec<String>) {
    loop {
        match session.poll() {
            Ok(Some(received)) => found.push(format!("{received:?}")),
            Ok(None) => return,
            Err(error) => return found.push(format!("{error:?}")),
        }
    }
}

fn understood(mut session: ClientSession, stream: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    session.receive(stream);
    digest(&mut session, &mut found);
    found
}

/// The answers to [`asked`], with broadcasts before, between and after them.
fn answers() -> Vec<u8> {
    let hi = bytes(BROADCAST);
    let believed = frame_of(FrameType::AuthReply, b"\x01f00d");
    let empty = frame_of(FrameType::EchoReply, b"");
    let (pong, echo, ack) = (bytes(PONG), bytes(ECHO_REPLY), bytes(DATA_ACK));
    [&hi, &believed, &pong, &hi, &hi, &echo, &ack, &empty, &hi].map(Vec::as_slice).concat()
}

#[test]
fn requests_are_the_frames_of_the_protocol() {
    let mut session = asked();
    session.send(Request::Broadcast(b"hi"), 5).unwrap();
    session.send(Request::Close, 6).unwrap();
    let expected = [AUTH, PING, ECHO, DATA, ECHO_EMPTY, BROADCAST, CLOSE].concat();
    assert_eq!(session.outbox(), bytes(&expected));
    assert!(!format!("{session:?}").contains("115"), "the token's bytes are shown");
    assert_eq!(session.outstanding(), 5);
    assert_eq!(session.outstanding_tags().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(session.send(Request::Ping(&TIMESTAMP), 0), Err(Unsendable::Ended));
}

#[test]
fn answers_are_matched_in_order_with_broadcasts_in_between() {
    let mut session = asked();
    session.receive(&answers());
    let hi = ReceivedMessage::Broadcast(b"hi");
    let answer = |tag, reply| ReceivedMessage::Answer { tag, reply };
    for expected in [
        hi,
        answer(0, Reply::AuthReply(Some("f00d"))),
        answer(1, Reply::Pong(&TIMESTAMP)),
        hi,
        hi,
        answer(2, Reply::EchoReply(HELLO)),
        answer(3, Reply::DataAck(7)),
        answer(4, Reply::EchoReply(b"")),
        hi,
    ] {
        assert_eq!(session.poll(), Ok(Some(expected)));
    }
    assert_eq!(session.poll(), Ok(None));
    assert!(session.authenticated() && session.outstanding() == 0 && !session.in_frame());
}

#[test]
fn cuts_of_the_stream_do_not_matter() {
    let stream = [answers(), bytes(ERROR_CRC)].concat();
    let whole = understood(asked(), &stream);
    assert_eq!(whole.len(), 10);
    for cut in 0..=stream.len() {
        let (mut session, mut found) = (asked(), Vec::new());
        for part in [&stream[..cut], &stream[cut..]] {
            session.receive(part);
            digest(&mut session, &mut found);
        }
        assert_eq!(found, whole, "cut at {cut}");
    }
    let (mut session, mut found) = (asked(), Vec::new());
    for &byte in &stream {
        session.receive(&[byte]);
        digest(&mut session, &mut found);
    }
    assert_eq!(found, whole);
}

#[test]
fn refused_credentials_are_an_answer() {
    let mut session = asked();
    session.receive(&bytes(AUTH_REFUSED));
    let refused = ReceivedMessage::Answer { tag: 0, reply: Reply::AuthReply(None) };
    assert_eq!(session.poll(), Ok(Some(refused)));
    assert!(!session.authenticated());
}

#[test]
fn a_refusal_takes_the_place_of_the_answer() {
    let refusal =
        |name| error_of(ErrorCode::RateLimitExceeded, &format!("rate limit exceeded for {name}"));
    let mut session = asked();
    session.send(Request::Broadcast(b"hi"), 0).unwrap();
    session.receive(&refusal("AUTH"));
    session.receive(&refusal("PING"));
    // The BROADCAST was sent last, but its refusal may come at any time.
    session.receive(&refusal("BROADCAST"));
    session.receive(&refusal("ECHO"));
    session.receive(&bytes(DATA_ACK));
    session.receive(&refusal("ECHO"));
    let code = ErrorCode::RateLimitExceeded;
    for (tag, kind) in [
        (Some(0), FrameType::Auth),
        (Some(1), FrameType::Ping),
        (None, FrameType::Broadcast),
        (Some(2), FrameType::Echo),
    ] {
        assert_eq!(session.poll(), Ok(Some(ReceivedMessage::Refused { tag, kind, code })));
    }
    let acknowledged = ReceivedMessage::Answer { tag: 3, reply: Reply::DataAck(7) };
    assert_eq!(session.poll(), Ok(Some(acknowledged)));
    let last = ReceivedMessage::Refused { tag: Some(4), kind: FrameType::Echo, code };
    assert_eq!(session.poll(), Ok(Some(last)));
    // The payload of a refused ECHO is not compared with the next answer.
    session.send(Request::Echo(b"abc"), 9).unwrap();
    session.receive(&frame_of(FrameType::EchoReply, b"abc"));
    let answer = ReceivedMessage::Answer { tag: 9, reply: Reply::EchoReply(b"abc") };
    assert_eq!(session.poll(), Ok(Some(answer)));
}

#[test]
fn refusals_that_fit_nothing_end_the_session() {
    let refused = |text: &str| {
        let mut session = ClientSession::default();
        session.send(Request::Ping(&TIMESTAMP), 0).unwrap();
        session.receive(&error_of(ErrorCode::RateLimitExceeded, text));
        session.poll().map(|_| ())
    };
    let (got, due) = (FrameType::Echo, FrameType::Ping);
    let out_of_order = Err(SessionError::OutOfOrder { got, due });
    assert_eq!(refused("rate limit exceeded for ECHO"), out_of_order);
    assert_eq!(refused("rate limit exceeded for PONG?"), Err(SessionError::UnclearRefusal));
    assert_eq!(refused("slow down"), Err(SessionError::UnclearRefusal));
    assert_eq!(refused("rate limit exceeded for PING"), Ok(()));
}

#[test]
fn a_message_before_authentication_is_refused_by_itself() {
    let text = "authenticate first";
    let mut session = ClientSession::default();
    session.send(Request::Echo(HELLO), 1).unwrap();
    session.receive(&error_of(ErrorCode::AuthenticationFailed, text));
    let code = ErrorCode::AuthenticationFailed;
    let refused = ReceivedMessage::Refused { tag: Some(1), kind: FrameType::Echo, code };
    assert_eq!(session.poll(), Ok(Some(refused)));
    // If it may refer to a BROADCAST or be final, the session ends.
    for (broadcast, text) in [(true, text), (false, "too many failed attempts")] {
        let mut session = ClientSession::default();
        if broadcast {
            session.send(Request::Broadcast(b""), 0).unwrap();
        }
        session.send(Request::Echo(HELLO), 1).unwrap();
        session.receive(&error_of(code, text));
        let failed = ReceivedMessage::Failed { code: 6, message: text.as_bytes() };
        assert_eq!(session.poll(), Ok(Some(failed)));
    }
}

#[test]
fn every_other_error_ends_the_session() {
    let mut session = asked();
    session.receive(&bytes(ERROR_CRC));
    session.receive(&bytes(PONG));
    let failed = ReceivedMessage::Failed { code: 5, message: b"CRC checksum mismatch" };
    assert_eq!(session.poll(), Ok(Some(failed)));
    assert_eq!(session.poll(), Ok(None));
    assert_eq!(session.send(Request::Ping(&TIMESTAMP), 0), Err(Unsendable::Ended));
    // A code unknown to this version.
    let found = understood(asked(), &frame_of(FrameType::Error, b"\x42what\x1b"));
    assert!(found[0].starts_with("Failed { code: 66"), "{found:?}");
    assert_eq!(describe_error(0x42, b"what\x1b"), r"error 0x42 (what\x1b)");
    assert_eq!(describe_error(9, b"idle"), "TIMEOUT (idle)");
}

#[test]
fn bytes_that_are_no_answer_are_an_error_once() {
    let mut wrong_crc = bytes(PONG);
    *wrong_crc.last_mut().unwrap() ^= 1;
    let due = FrameType::Auth;
    let cases = [
        (b"HTTP/1.1 200 OK".to_vec(), "Frame(Magic { at: 0, got: 72 })"),
        (b"\x15\x03\x03\x00\x02\x02\x32".to_vec(), "SpeaksTls"),
        (b"\xDE\xAD\xBE\xEF\x02".to_vec(), "Frame(Version { got: 2 })"),
        (b"\xDE\xAD\xBE\xEF\x01\x0B".to_vec(), "Frame(Type { got: 11 })"),
        (wrong_crc, "Frame(Crc { got: 1365178568, computed: 1365178569 })"),
        (bytes(PING), "Reply(ClientType(Ping))"),
        (frame_of(FrameType::Error, b""), "Reply(Malformed(Malformed { kind: Error,"),
        (bytes(PONG), &format!("{:?}", SessionError::OutOfOrder { got: FrameType::Pong, due })),
    ];
    for (stream, expected) in cases {
        let found = understood(asked(), &[stream, answers()].concat());
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?} for {expected}");
    }
    for (answer, kind) in [
        (PONG, FrameType::Pong),
        (ECHO_REPLY, FrameType::EchoReply),
        (DATA_ACK, FrameType::DataAck),
        (AUTH_REFUSED, FrameType::AuthReply),
    ] {
        let found = understood(ClientSession::default(), &bytes(answer));
        assert_eq!(found, [format!("{:?}", SessionError::Unasked(kind))]);
    }
}

#[test]
fn an_answer_with_other_content_is_noticed_and_the_session_goes_on() {
    let cases = [
        (Request::Ping(&TIMESTAMP), frame_of(FrameType::Pong, b"12345678")),
        (Request::Echo(HELLO), frame_of(FrameType::EchoReply, b"Hello, server!")),
        (Request::Echo(HELLO), frame_of(FrameType::EchoReply, b"Hello, Server")),
        (Request::Echo(b""), frame_of(FrameType::EchoReply, b"!")),
        (Request::Data { sequence: 8, body: b"" }, bytes(DATA_ACK)),
    ];
    for (request, answer) in cases {
        let mut session = ClientSession::default();
        session.send(request, 1).unwrap();
        session.send(Request::Echo(b"next"), 2).unwrap();
        session.receive(&answer);
        session.receive(&frame_of(FrameType::EchoReply, b"next"));
        let differs = matches!(session.poll(), Ok(Some(ReceivedMessage::Differs { tag: 1, .. })));
        assert!(differs, "{request:?}");
        let next = ReceivedMessage::Answer { tag: 2, reply: Reply::EchoReply(b"next") };
        assert_eq!(session.poll(), Ok(Some(next)));
    }
}

#[test]
fn what_cannot_be_sent_is_not_begun() {
    let long = vec![0; PAYLOAD_BYTES_MAX + 1];
    let text = "x".repeat(PAYLOAD_BYTES_MAX);
    let mut session = ClientSession::default();
    for request in [
        Request::Echo(&long),
        Request::Broadcast(&long),
        Request::Data { sequence: 0, body: &long[..DATA_BYTES_MAX + 1] },
        Request::Auth(Credentials { user: "u", token: &text }),
        Request::Auth(Credentials { user: &text[..256], token: "" }),
        Request::Error,
    ] {
        session.send(request, 0).unwrap_err();
    }
    assert!(session.outbox().is_empty() && session.outstanding() == 0);
    session.send(Request::Echo(&long[1..]), 0).unwrap();
    session.send(Request::Data { sequence: 0, body: &long[..DATA_BYTES_MAX] }, 0).unwrap();
    assert_eq!(session.outbox().len(), 2 * frame::FRAME_BYTES_MAX);
}

#[test]
fn the_outbox_is_written_in_any_pieces() {
    for piece in 1..30 {
        let mut session = ClientSession::default();
        let (mut written, mut expected) = (Vec::<u8>::new(), Vec::<u8>::new());
        for _ in 0..10 {
            session.send(Request::Ping(&TIMESTAMP), 0).unwrap();
            expected.extend(bytes(PING));
            let out = session.outbox();
            let now = piece.min(out.len());
            written.extend(&out[..now]);
            session.wrote(now);
        }
        written.extend(session.outbox());
        assert_eq!(written, expected);
    }
}

proptest! {
    /// Arbitrary bytes from a server are understood or rejected; nothing panics.
    #[test]
    fn arbitrary_bytes(stream: Vec<u8>, kind in prop::sample::select(&FrameType::ALL[..])) {
        understood(asked(), &stream);
        understood(asked(), &frame_of(kind, &stream));
    }

    /// ECHOs of any size are compared correctly, wherever the ring buffer wraps around.
    #[test]
    fn echoes_of_any_sizes(sizes in prop::collection::vec(0..50_u8, 0..40)) {
        let payloads: Vec<Vec<u8>> =
            sizes.iter().map(|&bytes| (0..bytes).map(|i| i ^ bytes).collect()).collect();
        let mut session = ClientSession::default();
        for pair in payloads.chunks(3) {
            for (tag, payload) in pair.iter().enumerate() {
                session.send(Request::Echo(payload), tag as u64).unwrap();
            }
            for (tag, payload) in pair.iter().enumerate() {
                session.receive(&frame_of(FrameType::EchoReply, payload));
                let reply = Reply::EchoReply(payload);
                let answer = ReceivedMessage::Answer { tag: tag as u64, reply };
                prop_assert_eq!(session.poll(), Ok(Some(answer)));
            }
        }
    }
}
