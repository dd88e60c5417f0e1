//! Tests what each frame type does in each state of a session, against a second, plain
//! implementation of the rules. Timing, split frames and runs are tested elsewhere.

use super::*;
use crate::wire::messages::payload::from_client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableState {
    Fresh,
    MustAuthenticate,
    Authenticated,
    ClientLimited,
    AllLimited,
    AfterClose,
    AfterFault,
}

impl TableState {
    const ALL: [TableState; 7] = [
        TableState::Fresh,
        TableState::MustAuthenticate,
        TableState::Authenticated,
        TableState::ClientLimited,
        TableState::AllLimited,
        TableState::AfterClose,
        TableState::AfterFault,
    ];

    fn session(self) -> Session {
        let mut session = match self {
            TableState::Fresh | TableState::AfterClose | TableState::AfterFault => {
                session(false, 0)
            }
            TableState::MustAuthenticate | TableState::Authenticated => session(true, 0),
            TableState::ClientLimited => session(false, 1),
            TableState::AllLimited => {
                let policy = policy(false, TokenBucket::new(1, 1));
                Session::new(policy, SharedBucket::new(unlimited()), at(0))
            }
        };
        let mut out = Vec::new();
        match self {
            TableState::Fresh | TableState::MustAuthenticate => {}
            TableState::Authenticated => session.believed("id", None, &mut out),
            TableState::ClientLimited | TableState::AllLimited => {
                session.poll(&frame(Ping, payload_of(Ping)), at(0), &mut out);
            }
            TableState::AfterClose => {
                session.poll(&frame(Close, b""), at(0), &mut out);
            }
            TableState::AfterFault => session.fail(Fault::CrcMismatch, &mut out),
        }
        session.take_counts();
        session
    }
}

/// The effect of one frame.
#[derive(Debug)]
struct Effect {
    reply: Vec<u8>,
    next: &'static str,
    end: Option<SessionEnd>,
    counts: FrameCounts,
}

impl Effect {
    fn silent(next: &'static str, end: Option<SessionEnd>) -> Effect {
        Effect { reply: Vec::new(), next, end, counts: FrameCounts::default() }
    }

    fn answered(reply: Vec<u8>) -> Effect {
        let counts = FrameCounts { replies: 1, ..FrameCounts::default() };
        Effect { reply, next: "read", end: None, counts }
    }

    fn failed(fault: Fault, reply: Vec<u8>) -> Effect {
        Effect { reply, ..Effect::silent("end", Some(SessionEnd::Fault(fault))) }
    }
}

/// The effect that the protocol requires of `kind` in `state`.
fn expected(state: TableState, kind: FrameType) -> Effect {
    match state {
        TableState::AfterClose => return Effect::silent("end", Some(SessionEnd::Closed)),
        TableState::AfterFault => {
            return Effect::silent("end", Some(SessionEnd::Fault(Fault::CrcMismatch)));
        }
        _ => {}
    }
    if !from_client(kind) {
        let reply = error(ErrorCode::InvalidMessageType, "invalid message type");
        return Effect::failed(Fault::InvalidMessageType, reply);
    }
    let mut effect = expected_of_clients(state, kind);
    effect.counts.frames[kind.index()] = 1;
    effect
}

fn expected_of_clients(state: TableState, kind: FrameType) -> Effect {
    match kind {
        Close => Effect::silent("end", Some(SessionEnd::Closed)),
        FrameType::Error => Effect::failed(Fault::ClientError, Vec::new()),
        _ if matches!(state, TableState::ClientLimited | TableState::AllLimited) => {
            let message = format!("rate limit exceeded for {}", kind.name());
            let mut effect = Effect::answered(error(ErrorCode::RateLimitExceeded, &message));
            effect.counts.rate_limited = 1;
            effect
        }
        Ping => Effect::answered(frame(Pong, payload_of(Ping))),
        Auth if state == TableState::Authenticated => {
            Effect::failed(Fault::RepeatedAuth, error(ErrorCode::Unknown, "already authenticated"))
        }
        Auth => Effect::silent("authenticate", None),
        _ if state == TableState::MustAuthenticate => {
            let message = "authenticate first";
            let mut effect = Effect::answered(error(ErrorCode::AuthenticationFailed, message));
            effect.counts.auth_failures = 1;
            effect
        }
        Echo => Effect::answered(frame(EchoReply, payload_of(Echo))),
        Broadcast => Effect::silent("broadcast", None),
        Data => Effect::silent("data", None),
        Pong | EchoReply | AuthReply | DataAck => unreachable!("a server's"),
    }
}

#[test]
fn every_type_in_every_state() {
    for state in TableState::ALL {
        for kind in FrameType::ALL {
            let case = format!("{} in {state:?}", kind.name());
            let mut session = state.session();
            let received = frame(kind, payload_of(kind));
            let mut out = Vec::new();
            let pass = session.poll(&received, at(0), &mut out);
            let expected = expected(state, kind);
            let (next, end) = match &pass.next {
                NextEvent::Read => ("read", None),
                NextEvent::Broadcast { frames, messages } => {
                    assert_eq!((*frames, *messages), (&received[..], 1), "{case}");
                    ("broadcast", None)
                }
                NextEvent::Authenticate(credentials) => {
                    let alice = Credentials { user: "alice", token: "s3cret" };
                    assert_eq!(*credentials, alice, "{case}");
                    ("authenticate", None)
                }
                NextEvent::Data { sequence, body } => {
                    assert_eq!((*sequence, *body), (7, &b"payload"[..]), "{case}");
                    ("data", None)
                }
                NextEvent::End(end) => ("end", Some(*end)),
            };
            assert_eq!((next, end), (expected.next, expected.end), "{case}");
            assert_eq!(out, expected.reply, "{case}");
            assert_eq!(session.take_counts(), expected.counts, "{case}");
            let whole = expected.counts.frames[kind.index()] == 1;
            assert_eq!(pass.bytes, if whole { received.len() } else { 0 }, "{case}");
        }
    }
}
