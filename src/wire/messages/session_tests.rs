//! Tests the rules of a session one by one and as properties; `table` covers every type in every
//! state. Opens no socket and never waits: time is a number.

use super::*;
use crate::config::PAYLOAD_BYTES_BEFORE_AUTH;
use FrameType::{Auth, AuthReply, Broadcast, Close, Data, DataAck, Echo, EchoReply, Ping, Pong};
use proptest::prelude::*;
use std::sync::LazyLock;

#[path = "session_table_tests.rs"]
mod table;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
const IDLE: u64 = 60_000;
const FRAME: u64 = 10_000;
const AUTH: u64 = 5_000;

fn at(ms: u64) -> Instant {
    *EPOCH + Duration::from_millis(ms)
}

fn policy(require_auth: bool, all: TokenBucket) -> Arc<Policy> {
    Arc::new(Policy {
        require_auth,
        idle_timeout: Duration::from_millis(IDLE),
        frame_timeout: Duration::from_millis(FRAME),
        auth_timeout: Duration::from_millis(AUTH),
        all,
        strangers: unlimited(),
        epoch: *EPOCH,
    })
}

/// Both shared limits let one message pass for each of their numbers, and then none for a second.
fn limited(all: u32, strangers: u32) -> Arc<Policy> {
    let bucket = |messages| TokenBucket::new(1, messages);
    let mut policy = policy(true, bucket(all));
    Arc::get_mut(&mut policy).unwrap().strangers = bucket(strangers);
    policy
}

/// What strangers send has a limit over all of them, which neither uses up that of the users nor
/// keeps anybody from authenticating.
#[test]
fn strangers_share_a_limit_of_their_own() {
    let policy = limited(3, 2);
    let begin = || Session::new(Arc::clone(&policy), SharedBucket::new(unlimited()), at(0));
    let ping = frame(Ping, b"12345678");
    let refused = error(ErrorCode::RateLimitExceeded, "rate limit exceeded for PING");
    let pong = frame(Pong, b"12345678");
    assert_eq!(play(begin(), &[&ping]).replies, pong);
    assert_eq!(play(begin(), &[&ping]).replies, pong);
    assert_eq!(play(begin(), &[&ping]).replies, refused);
    // Nor may they have errors for messages that they must not send.
    let echo = error(ErrorCode::RateLimitExceeded, "rate limit exceeded for ECHO");
    assert_eq!(play(begin(), &[&frame(Echo, b"x")]).replies, echo);
    let user = [&frame(Auth, ALICE)[..], &ping.repeat(4)].concat();
    let played = play(begin(), &[&user]);
    let expected = [&frame(AuthReply, b"\x01id")[..], &pong.repeat(3), &refused].concat();
    assert_eq!(played.replies, expected);
    assert_eq!(played.counts.rate_limited, 1);
}

fn unlimited() -> TokenBucket {
    TokenBucket::new(0, 0)
}

/// A session that begins at time 0 and may send `messages` messages, or any number if that is 0.
fn session(require_auth: bool, messages: u32) -> Session {
    let bucket = if messages == 0 { unlimited() } else { TokenBucket::new(1, messages) };
    Session::new(policy(require_auth, unlimited()), SharedBucket::new(bucket), at(0))
}

fn frame(kind: FrameType, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind, &[payload], &mut out);
    out
}

fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    frame(FrameType::Error, &[&[code as u8], message.as_bytes()].concat())
}

const ALICE: &[u8] = b"\x05alices3cret";

/// A valid payload for the type.
fn payload_of(kind: FrameType) -> &'static [u8] {
    match kind {
        Ping | Pong => b"12345678",
        Auth => ALICE,
        AuthReply => b"\x01id",
        Data => b"\0\0\0\x07payload",
        DataAck => b"\0\0\0\x07",
        Close => b"",
        Echo | EchoReply | Broadcast | FrameType::Error => b"any bytes",
    }
}

/// The effect of a stream of bytes, which must not depend on how it is split.
#[derive(Debug, Default, PartialEq, Eq)]
struct Played {
    replies: Vec<u8>,
    broadcasts: Vec<u8>,
    broadcast_count: u32,
    data: Vec<u8>,
    end: Option<SessionEnd>,
    counts: FrameCounts,
    left: usize,
}

/// Plays a server that accepts alice and nobody else.
fn play(mut session: Session, pieces: &[&[u8]]) -> Played {
    let mut played = Played::default();
    let mut received = Vec::new();
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            let out = &mut played.replies;
            let pass = session.poll(&received, at(1), out);
            let done = pass.bytes;
            let again = match pass.next {
                NextEvent::Read => false,
                NextEvent::End(end) => {
                    played.end = Some(end);
                    false
                }
                NextEvent::Broadcast { frames, messages } => {
                    played.broadcasts.extend_from_slice(frames);
                    played.broadcast_count += messages;
                    true
                }
                NextEvent::Authenticate(credentials) => {
                    match credentials.token == "s3cret" {
                        true => session.believed("id", None, out),
                        false => session.refused(out),
                    }
                    true
                }
                NextEvent::Data { sequence, body } => {
                    played.data.extend_from_slice(body);
                    session.acknowledge(sequence, out);
                    true
                }
            };
            received.drain(..done);
            if !again {
                break;
            }
        }
    }
    played.counts = session.take_counts();
    // Bytes after the end are not examined.
    played.left = if played.end.is_none() { received.len() } else { 0 };
    played
}

/// A conversation with every type that a client may send, and its outcome.
fn conversation() -> (Vec<u8>, Played) {
    let sent = [
        (Ping, &b"12345678"[..]),
        (Echo, b""),
        (Broadcast, b"one"),
        (Broadcast, b"two"),
        (Echo, b"between"),
        (Broadcast, b"three"),
        (Auth, b"\x03bobguess"),
        (Auth, ALICE),
        (Data, b"\0\0\0\x01opaque"),
        (Data, b"\xff\xff\xff\xff"),
        (Ping, b"87654321"),
        (Close, b""),
    ];
    let replies = [
        (Pong, &b"12345678"[..]),
        (EchoReply, b""),
        (EchoReply, b"between"),
        (AuthReply, b"\0"),
        (AuthReply, b"\x01id"),
        (DataAck, b"\0\0\0\x01"),
        (DataAck, b"\xff\xff\xff\xff"),
        (Pong, b"87654321"),
    ];
    let concat =
        |frames: &[(FrameType, &[u8])]| frames.iter().flat_map(|(k, p)| frame(*k, p)).collect();
    let mut counts = FrameCounts { replies: 8, auth_failures: 1, ..FrameCounts::default() };
    for (kind, _) in sent {
        counts.frames[kind.index()] += 1;
    }
    let played = Played {
        replies: concat(&replies),
        broadcasts: concat(&[(Broadcast, b"one"), (Broadcast, b"two"), (Broadcast, b"three")]),
        broadcast_count: 3,
        data: b"opaque".to_vec(),
        end: Some(SessionEnd::Closed),
        counts,
        left: 0,
    };
    (concat(&sent), played)
}

#[test]
fn a_conversation_cut_anywhere_is_the_same() {
    let (bytes, expected) = conversation();
    assert_eq!(play(session(false, 0), &[&bytes]), expected);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(play(session(false, 0), &[head, tail]), expected, "cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(play(session(false, 0), &single), expected);
}

/// One read full of small frames is answered by one write.
#[test]
fn many_frames_are_answered_at_once() {
    let pings: Vec<u8> = (0..1000u64).flat_map(|n| frame(Ping, &n.to_be_bytes())).collect();
    let pongs: Vec<u8> = (0..1000u64).flat_map(|n| frame(Pong, &n.to_be_bytes())).collect();
    let mut session = session(false, 0);
    let mut out = Vec::new();
    let pass = session.poll(&pings, at(0), &mut out);
    assert_eq!(pass, SessionPass { bytes: pings.len(), next: NextEvent::Read });
    assert_eq!(out, pongs);
    let counts = session.take_counts();
    assert_eq!((counts.frames[Ping.index()], counts.replies), (1000, 1000));
    assert_eq!(session.take_counts(), FrameCounts::default());
}

/// Polls once. Returns the bytes consumed, the messages of the run and whether the session ended.
fn poll_run(session: &mut Session, received: &[u8], out: &mut Vec<u8>) -> (usize, u32, bool) {
    out.clear();
    let pass = session.poll(received, at(0), out);
    match pass.next {
        NextEvent::Broadcast { frames, messages } => {
            let expected = frame(Broadcast, b"same").repeat(messages as usize);
            assert_eq!(frames, expected, "whole frames, end to end");
            (pass.bytes, messages, false)
        }
        NextEvent::Read => (pass.bytes, 0, false),
        NextEvent::End(_) => (pass.bytes, 0, true),
        next => panic!("{next:?}"),
    }
}

#[test]
fn broadcasts_in_a_row_are_one_run() {
    let (one, ping) = (frame(Broadcast, b"same"), frame(Ping, b"12345678"));
    let length = one.len();
    let received = [one.repeat(3), ping.clone(), one.repeat(2), one[..5].to_vec()].concat();
    let mut session = session(false, 0);
    let mut out = Vec::new();
    assert_eq!(poll_run(&mut session, &received, &mut out), (3 * length, 3, false));
    assert!(out.is_empty());
    let rest = &received[3 * length..];
    let done = ping.len() + 2 * length;
    assert_eq!(poll_run(&mut session, rest, &mut out), (done, 2, false));
    assert_eq!(out, frame(Pong, b"12345678"));
    assert_eq!(poll_run(&mut session, &rest[done..], &mut out), (0, 0, false));
    assert!(session.in_frame());
}

#[test]
fn a_run_ends_before_an_invalid_frame() {
    let one = frame(Broadcast, b"same");
    let length = one.len();
    let mut broken = one.clone();
    broken[length - 1] ^= 1;
    let faults = [
        (broken, Fault::CrcMismatch),
        (b"GET / HTTP/1.1".to_vec(), Fault::InvalidMagic),
        (frame(Pong, b"12345678"), Fault::InvalidMessageType),
        (frame(Ping, b"short"), Fault::MalformedPayload),
    ];
    for (bad, fault) in faults {
        let received = [one.repeat(2), bad].concat();
        let mut session = session(false, 0);
        let mut out = Vec::new();
        assert_eq!(poll_run(&mut session, &received, &mut out), (2 * length, 2, false));
        assert!(out.is_empty(), "{fault:?}");
        session.poll(&received[2 * length..], at(0), &mut out);
        assert_eq!(out, error(fault.code().unwrap(), fault.message()));
        assert_eq!(session.take_counts().frames[Broadcast.index()], 2);
    }
    // A CLOSE after a run does not swallow it.
    let mut session = session(false, 0);
    let received = [one.clone(), frame(Close, b"")].concat();
    let mut out = Vec::new();
    assert_eq!(poll_run(&mut session, &received, &mut out), (length, 1, false));
    assert_eq!(poll_run(&mut session, &received[length..], &mut out), (12, 0, true));
}

/// Broadcasts beyond the limit are answered and not forwarded; those before and after are.
#[test]
fn a_rate_limit_cuts_a_run() {
    let one = frame(Broadcast, b"same");
    let length = one.len();
    let refusal = error(ErrorCode::RateLimitExceeded, "rate limit exceeded for BROADCAST");
    let mut session = session(false, 2);
    let received = one.repeat(5);
    let mut out = Vec::new();
    assert_eq!(poll_run(&mut session, &received, &mut out), (3 * length, 2, false));
    assert_eq!(out, refusal);
    assert_eq!(poll_run(&mut session, &received[3 * length..], &mut out), (2 * length, 0, false));
    assert_eq!(out, refusal.repeat(2));
    let counts = session.take_counts();
    assert_eq!((counts.frames[Broadcast.index()], counts.rate_limited, counts.replies), (5, 3, 3));
    // A second later there is one more token.
    out.clear();
    let pass = session.poll(&received, at(1000), &mut out);
    assert_eq!(pass.next, NextEvent::Broadcast { frames: &one, messages: 1 });
    assert_eq!((pass.bytes, out), (2 * length, refusal));
}

#[test]
fn a_user_has_one_limit_on_all_connections() {
    let shared = SharedBucket::new(TokenBucket::new(1, 3));
    let mut passed = 0;
    for _ in 0..2 {
        let mut session = session(false, 100);
        let mut out = Vec::new();
        session.believed("id", Some(SharedBucket::clone(&shared)), &mut out);
        out.clear();
        session.poll(&frame(Ping, b"12345678").repeat(5), at(0), &mut out);
        let counts = session.take_counts();
        passed += counts.frames[Ping.index()] - counts.rate_limited;
    }
    assert_eq!(passed, 3);
}

#[test]
fn each_invalid_frame_has_its_fault() {
    let good = frame(Ping, b"12345678");
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let mut cases = vec![
        (with(4, 0), Fault::InvalidVersion),
        (with(4, 2), Fault::InvalidVersion),
        (with(5, 0x00), Fault::InvalidMessageType),
        (with(5, 0x0B), Fault::InvalidMessageType),
        (with(5, 0xFE), Fault::InvalidMessageType),
        (with(9, 0xFF), Fault::CrcMismatch),
        (with(19, 0xFF), Fault::CrcMismatch),
        (frame(Ping, b""), Fault::MalformedPayload),
        (frame(Ping, b"123456789"), Fault::MalformedPayload),
        (frame(Data, b"123"), Fault::MalformedPayload),
        (frame(Auth, b""), Fault::MalformedPayload),
        (frame(Auth, b"\x0aalices3cr"), Fault::MalformedPayload),
        (frame(Auth, b"\x02\xff\xfetoken"), Fault::MalformedPayload),
        (frame(Close, b"x"), Fault::MalformedPayload),
    ];
    for bit in 0..32 {
        cases.push((with(bit / 8, good[bit / 8] ^ 1 << (bit % 8)), Fault::InvalidMagic));
    }
    for (bad, fault) in cases {
        let (code, message) = (fault.code().unwrap(), fault.message());
        let played = play(session(false, 0), &[&good, &bad, &good]);
        let expected = [frame(Pong, b"12345678"), error(code, message)].concat();
        assert_eq!(
            (played.replies, played.end),
            (expected, Some(SessionEnd::Fault(fault))),
            "{bad:x?}"
        );
    }
}

#[test]
fn payloads_are_limited_before_authentication() {
    let short = vec![7; PAYLOAD_BYTES_BEFORE_AUTH];
    let long = vec![7; PAYLOAD_BYTES_BEFORE_AUTH + 1];
    let too_large = Fault::PayloadTooLarge;
    let refusal = error(ErrorCode::PayloadTooLarge, too_large.message());
    // The header alone is enough.
    let played = play(session(true, 0), &[&frame(Echo, &long)[..8]]);
    assert_eq!((played.replies, played.end), (refusal, Some(SessionEnd::Fault(too_large))));
    let played = play(session(true, 0), &[&frame(Echo, &short)]);
    let locked = error(ErrorCode::AuthenticationFailed, "authenticate first");
    assert_eq!((played.replies, played.end), (locked, None));
    let stream = [frame(Auth, ALICE), frame(Echo, &long)].concat();
    let played = play(session(true, 0), &[&stream]);
    let replies = [frame(AuthReply, b"\x01id"), frame(EchoReply, &long)].concat();
    assert_eq!((played.replies, played.end), (replies, None));
    let longest = vec![7; frame::PAYLOAD_BYTES_MAX];
    let played = play(session(false, 0), &[&frame(Echo, &longest)]);
    assert_eq!(played.replies, frame(EchoReply, &longest));
}

#[test]
fn the_third_failure_to_authenticate_is_the_last() {
    let guess = frame(Auth, b"\x05aliceguess");
    let refused = frame(AuthReply, b"\0");
    let last = error(ErrorCode::AuthenticationFailed, "too many failed attempts");
    let played = play(session(true, 0), &[&guess.repeat(5)]);
    assert_eq!(played.replies, [refused.repeat(3), last.clone()].concat());
    assert_eq!(played.end, Some(SessionEnd::Unauthenticated));
    assert_eq!((played.counts.auth_failures, played.counts.frames[Auth.index()]), (3, 3));
    // A message that needs authentication is also a failure.
    let locked = error(ErrorCode::AuthenticationFailed, "authenticate first");
    let stream = [frame(Echo, b"x"), frame(Data, b"\0\0\0\x01"), guess.clone()].concat();
    let played = play(session(true, 0), &[&stream]);
    assert_eq!(played.replies, [locked.repeat(2), refused.clone(), last].concat());
    assert_eq!(played.end, Some(SessionEnd::Unauthenticated));
    let played = play(session(true, 0), &[&[guess.repeat(2), frame(Broadcast, b"x")].concat()]);
    assert_eq!(played.replies, [refused.repeat(2), locked].concat());
    assert_eq!((played.end, played.broadcast_count), (Some(SessionEnd::Unauthenticated), 0));
    // Two failures are allowed.
    let played = play(session(true, 0), &[&[guess.repeat(2), frame(Auth, ALICE)].concat()]);
    assert_eq!(played.replies, [refused.repeat(2), frame(AuthReply, b"\x01id")].concat());
    assert_eq!(played.end, None);
}

#[test]
fn only_authenticated_clients_receive_broadcasts_if_required() {
    assert!(session(false, 0).may_receive());
    let mut locked = session(true, 0);
    assert!(!locked.may_receive() && !locked.authenticated());
    locked.believed("id", None, &mut Vec::new());
    assert!(locked.may_receive() && locked.authenticated());
}

#[test]
fn only_whole_frames_count_as_activity() {
    let ping = frame(Ping, b"12345678");
    let mut session = session(false, 0);
    let mut out = Vec::new();
    assert_eq!(session.deadline(), (at(IDLE), Fault::IdleTimeout));
    session.poll(&ping[..1], at(100), &mut out);
    assert_eq!(session.deadline(), (at(100 + FRAME), Fault::FrameTimeout));
    for (bytes, now) in [(2, 4000), (19, 9999)] {
        session.poll(&ping[..bytes], at(now), &mut out);
        assert_eq!(session.deadline(), (at(100 + FRAME), Fault::FrameTimeout), "{bytes} bytes");
    }
    session.poll(&ping, at(10_000), &mut out);
    assert_eq!(session.deadline(), (at(10_000 + IDLE), Fault::IdleTimeout));
    assert!(!session.in_frame());
    // A frame that begins after another one ends has its own deadline.
    session.poll(&[&ping[..], &ping[..3]].concat(), at(20_000), &mut out);
    assert_eq!(session.deadline(), (at(20_000 + FRAME), Fault::FrameTimeout));
    assert!(session.in_frame());
}

#[test]
fn authentication_has_its_own_deadline() {
    let mut session = session(true, 0);
    let mut out = Vec::new();
    assert_eq!(session.deadline(), (at(AUTH), Fault::AuthTimeout));
    // Neither a PING nor the beginning of a frame extends it.
    session.poll(&frame(Ping, b"12345678"), at(4000), &mut out);
    assert_eq!(session.deadline(), (at(AUTH), Fault::AuthTimeout));
    session.poll(&frame(Ping, b"12345678")[..7], at(4500), &mut out);
    assert_eq!(session.deadline(), (at(AUTH), Fault::AuthTimeout));
    session.poll(&frame(Auth, ALICE), at(4600), &mut out);
    session.believed("id", None, &mut out);
    assert_eq!(session.deadline(), (at(4600 + IDLE), Fault::IdleTimeout));
}

#[test]
fn time_spent_by_the_server_does_not_count() {
    let ping = frame(Ping, b"12345678");
    let mut session = session(false, 0);
    let mut out = Vec::new();
    session.poll(&ping, at(1000), &mut out);
    session.forgive(Duration::from_millis(700));
    assert_eq!(session.deadline(), (at(1700 + IDLE), Fault::IdleTimeout));
    session.poll(&ping[..4], at(2000), &mut out);
    session.forgive(Duration::from_millis(300));
    assert_eq!(session.deadline(), (at(2300 + FRAME), Fault::FrameTimeout));
}

#[test]
fn a_session_ends_once() {
    let mut first = session(false, 0);
    let mut out = Vec::new();
    first.fail(Fault::IdleTimeout, &mut out);
    assert_eq!(out, error(ErrorCode::Timeout, Fault::IdleTimeout.message()));
    out.clear();
    first.fail(Fault::InternalError, &mut out);
    let ping = frame(Ping, b"12345678");
    let pass = first.poll(&ping, at(0), &mut out);
    assert_eq!(pass.next, NextEvent::End(SessionEnd::Fault(Fault::IdleTimeout)));
    assert!(out.is_empty());
    for fault in Fault::ALL {
        let (mut other, mut out) = (session(false, 0), Vec::new());
        other.fail(fault, &mut out);
        let told = fault.code().map(|code| error(code, fault.message())).unwrap_or_default();
        assert_eq!(out, told, "{fault:?}");
    }
}

#[test]
fn rejected_records_end_the_session() {
    let mut session = session(false, 0);
    let mut out = Vec::new();
    session.reject("1 byte left", &mut out);
    assert_eq!(out, error(ErrorCode::Unknown, "records rejected: 1 byte left"));
    let pass = session.poll(b"", at(0), &mut out);
    assert_eq!(pass, SessionPass { bytes: 0, next: NextEvent::End(SessionEnd::StreamRejected) });
}

/// Mostly a valid frame; sometimes one of any type with any payload, one with a flipped bit, or
/// arbitrary bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let kinds = proptest::sample::select(&FrameType::ALL[..]);
    let client_kinds = proptest::sample::select(vec![Ping, Echo, Broadcast, Auth, Data]);
    let any_payload = proptest::collection::vec(any::<u8>(), 0..40);
    let fitting = client_kinds.prop_map(|kind| frame(kind, payload_of(kind)));
    let arbitrary = (kinds, any_payload).prop_map(|(kind, payload)| frame(kind, &payload));
    let flipped = (fitting.clone(), any::<proptest::sample::Index>()).prop_map(|(frame, index)| {
        let mut flipped = frame;
        let bit = index.index(flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    prop_oneof![
        12 => fitting,
        2 => arbitrary,
        1 => flipped,
        1 => proptest::collection::vec(any::<u8>(), 0..30),
    ]
}

proptest! {
    /// Splitting any input does not change the outcome, and nothing panics.
    #[test]
    fn cuts_change_nothing(
        pieces in proptest::collection::vec(piece(), 0..20),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        require_auth: bool,
        messages in 0u32..12,
    ) {
        let bytes = pieces.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            parts.push(&bytes[from..cut]);
            from = cut;
        }
        let whole = play(session(require_auth, messages), &[&bytes]);
        prop_assert_eq!(play(session(require_auth, messages), &parts), whole);
    }

    #[test]
    fn arbitrary_bytes_are_rejected_or_incomplete(bytes: Vec<u8>) {
        let played = play(session(false, 0), &[&bytes]);
        prop_assert!(played.end.is_some() || played.left <= bytes.len());
        prop_assert!(played.broadcast_count == 0 && played.data.is_empty());
    }
}
