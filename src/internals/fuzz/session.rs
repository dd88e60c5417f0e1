//! Message sessions: frames, damaged frames and any bytes, with and without limits and
//! authentication. Where the bytes are cut must not matter, and replies must be whole frames.

use super::input::FuzzInput;
use crate::wire::messages::frame::{self, FrameType, OVERHEAD_BYTES};
use crate::wire::messages::limiter::{SharedBucket, TokenBucket};
use crate::wire::messages::payload::Reply;
use crate::wire::messages::session::{FrameCounts, NextEvent, Policy, Session, SessionEnd};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

const TOKEN: &str = "s3cret";
const ALICE: &[u8] = b"\x05alices3cret";
/// Byte by byte only what is short.
const BYTE_BY_BYTE_MAX: usize = 2000;

#[derive(Clone, Copy)]
struct SessionRules {
    require_auth: bool,
    /// Messages of the client, of all and of strangers until none is allowed; 0 for no limit.
    messages: [u32; 3],
}

/// The effect of a stream of bytes.
#[derive(Debug, Default, PartialEq)]
struct SessionEffect {
    replies: Vec<u8>,
    broadcasts: Vec<u8>,
    broadcast_count: u32,
    data: Vec<u8>,
    end: Option<SessionEnd>,
    counts: FrameCounts,
    left: usize,
}

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let flags = input.byte();
    let limit = |on: bool, messages: usize| if on { 1 + messages as u32 } else { 0 };
    let rules = SessionRules {
        require_auth: flags & 1 == 1,
        messages: [2, 4, 8].map(|flag| limit(flags & flag != 0, input.below(6))),
    };
    let pieces: Vec<usize> = (0..1 + input.below(4)).map(|_| 1 + input.byte() as usize).collect();
    let sent = sent(&mut input);
    let whole = effect(rules, &[&sent]);
    check(&whole);
    assert_eq!(effect(rules, &cut(&sent, &pieces)), whole);
    if sent.len() <= BYTE_BY_BYTE_MAX {
        assert_eq!(effect(rules, &cut(&sent, &[1])), whole);
    }
}

/// Frames whose payloads come from the input, and bytes that are no frames.
fn sent(input: &mut FuzzInput<'_>) -> Vec<u8> {
    let mut sent = Vec::new();
    while !input.is_empty() {
        let what = input.below(FrameType::ALL.len() + 5);
        if let Some(&kind) = FrameType::ALL.get(what) {
            let bytes = input.below(64);
            frame::encode(kind, &[input.take(bytes)], &mut sent);
            continue;
        }
        match what - FrameType::ALL.len() {
            0 => frame::encode(FrameType::Auth, &[ALICE], &mut sent),
            1 => frame::encode(FrameType::Ping, &[b"12345678"], &mut sent),
            2 => {
                // A large one.
                let (bytes, byte) = (input.short(), input.byte());
                frame::encode(FrameType::Echo, &[&vec![byte; bytes]], &mut sent);
            }
            3 => {
                let begin = sent.len();
                frame::encode(FrameType::Echo, &[b"damaged"], &mut sent);
                let at = begin + input.below(sent.len() - begin);
                sent[at] ^= 1 << input.below(8);
            }
            _ => {
                let bytes = input.below(64);
                sent.extend_from_slice(input.take(bytes));
            }
        }
    }
    sent
}

fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    pieces
}

fn bucket(messages: u32) -> TokenBucket {
    TokenBucket::new(u32::from(messages > 0), messages)
}

/// A server that believes alice.
fn effect(rules: SessionRules, pieces: &[&[u8]]) -> SessionEffect {
    let [own, all, strangers] = rules.messages.map(bucket);
    let policy = Policy {
        require_auth: rules.require_auth,
        idle_timeout: Duration::from_secs(60),
        frame_timeout: Duration::from_secs(10),
        auth_timeout: Duration::from_secs(5),
        all,
        strangers,
        epoch: *EPOCH,
    };
    let mut session = Session::new(Arc::new(policy), SharedBucket::new(own), *EPOCH);
    let (mut effect, mut received) = (SessionEffect::default(), Vec::new());
    for piece in pieces {
        received.extend_from_slice(piece);
        while poll(&mut session, &mut received, &mut effect) {}
    }
    effect.counts = session.take_counts();
    // Bytes after the end are not examined.
    effect.left = if effect.end.is_none() { received.len() } else { 0 };
    effect
}

/// Whether to call again.
fn poll(session: &mut Session, received: &mut Vec<u8>, effect: &mut SessionEffect) -> bool {
    let out = &mut effect.replies;
    let pass = session.poll(received, *EPOCH, out);
    let taken = pass.bytes;
    let again = match pass.next {
        NextEvent::Read => false,
        NextEvent::End(end) => {
            assert!(effect.end.is_none_or(|known| known == end), "a session ends once");
            effect.end = Some(end);
            false
        }
        NextEvent::Broadcast { frames, messages } => {
            effect.broadcasts.extend_from_slice(frames);
            effect.broadcast_count += messages;
            true
        }
        NextEvent::Authenticate(credentials) => {
            match credentials.token == TOKEN {
                true => session.believed("id", None, out),
                false => session.refused(out),
            }
            true
        }
        NextEvent::Data { sequence, body } => {
            effect.data.extend_from_slice(body);
            session.acknowledge(sequence, out);
            true
        }
    };
    received.drain(..taken);
    again
}

/// What holds of every session.
fn check(effect: &SessionEffect) {
    let (mut rest, mut replies) = (&effect.replies[..], 0);
    let mut last_is_error = false;
    while !rest.is_empty() {
        let frame = frame::decode(rest).expect("a valid frame").expect("a whole frame");
        let reply = Reply::parse(frame).expect("what a server sends");
        assert!(!matches!(reply, Reply::Broadcast(_)), "its own broadcasts do not come back");
        last_is_error = matches!(reply, Reply::Error { .. });
        replies += 1;
        rest = &rest[frame.bytes.len()..];
    }
    // The last word of a session is not counted as a reply.
    let counted = effect.counts.replies;
    assert!(replies == counted || replies == counted + 1 && last_is_error, "{effect:?}");
    if replies > counted {
        let ended = matches!(effect.end, Some(SessionEnd::Fault(_) | SessionEnd::Unauthenticated));
        assert!(ended, "{effect:?}");
    }
    let mut broadcasts = 0;
    let mut rest = &effect.broadcasts[..];
    while !rest.is_empty() {
        let frame = frame::decode(rest).expect("a valid frame").expect("a whole frame");
        assert_eq!(frame.kind, FrameType::Broadcast);
        assert!(frame.bytes.len() >= OVERHEAD_BYTES);
        broadcasts += 1;
        rest = &rest[frame.bytes.len()..];
    }
    assert_eq!(broadcasts, effect.broadcast_count);
    assert!(broadcasts <= effect.counts.frames[FrameType::Broadcast.index()]);
}
