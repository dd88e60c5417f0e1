//! What each type does in each state of a session, as a table: a second writing of the rules, plain
//! and slow. Knows nothing of timing, cuts and runs.

use super::*;
use crate::wire::messages::payload::from_client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    MustAuthenticate,
    Authenticated,
    ClientLimited,
    AllLimited,
    AfterClose,
    AfterFault,
}

impl State {
    const ALL: [State; 7] = [
        State::Fresh,
        State::MustAuthenticate,
        State::Authenticated,
        State::ClientLimited,
        State::AllLimited,
        State::AfterClose,
        State::AfterFault,
    ];

    fn session(self) -> Session {
        let mut session = match self {
            State::Fresh | State::AfterClose | State::AfterFault => session(false, 0),
            State::MustAuthenticate | State::Authenticated => session(true, 0),
            State::ClientLimited => session(false, 1),
            State::AllLimited => {
                let policy = policy(false, TokenBucket::new(1, 1));
                Session::new(policy, Arc::new(unlimited()), at(0))
            }
        };
        let mut out = Vec::new();
        match self {
            State::Fresh | State::MustAuthenticate => {}
            State::Authenticated => session.believed("id", None, &mut out),
            State::ClientLimited | State::AllLimited => {
                session.poll(&frame(Ping, payload_of(Ping)), at(0), &mut out);
            }
            State::AfterClose => {
                session.poll(&frame(Close, b""), at(0), &mut out);
            }
            State::AfterFault => session.fail(Fault::CrcMismatch, &mut out),
        }
        session.take_counts();
        session
    }
}

/// What one frame leads to.
#[derive(Debug)]
struct Effect {
    reply: Vec<u8>,
    next: &'static str,
    end: Option<End>,
    counts: FrameCounts,
}

impl Effect {
    fn silent(next: &'static str, end: Option<End>) -> Effect {
        Effect { reply: Vec::new(), next, end, counts: FrameCounts::default() }
    }

    fn answered(reply: Vec<u8>) -> Effect {
        let counts = FrameCounts { replies: 1, ..FrameCounts::default() };
        Effect { reply, next: "read", end: None, counts }
    }

    fn failed(fault: Fault, reply: Vec<u8>) -> Effect {
        Effect { reply, ..Effect::silent("end", Some(End::Fault(fault))) }
    }
}

/// What the protocol says that `kind` does in `state`.
fn expected(state: State, kind: FrameType) -> Effect {
    match state {
        State::AfterClose => return Effect::silent("end", Some(End::Closed)),
        State::AfterFault => {
            return Effect::silent("end", Some(End::Fault(Fault::CrcMismatch)));
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

fn expected_of_clients(state: State, kind: FrameType) -> Effect {
    match kind {
        Close => Effect::silent("end", Some(End::Closed)),
        FrameType::Error => Effect::failed(Fault::ClientError, Vec::new()),
        _ if matches!(state, State::ClientLimited | State::AllLimited) => {
            let message = format!("rate limit exceeded for {}", kind.name());
            let mut effect = Effect::answered(error(ErrorCode::RateLimitExceeded, &message));
            effect.counts.rate_limited = 1;
            effect
        }
        Ping => Effect::answered(frame(Pong, payload_of(Ping))),
        Auth if state == State::Authenticated => {
            Effect::failed(Fault::RepeatedAuth, error(ErrorCode::Unknown, "already authenticated"))
        }
        Auth => Effect::silent("authenticate", None),
        _ if state == State::MustAuthenticate => {
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
    for state in State::ALL {
        for kind in FrameType::ALL {
            let case = format!("{} in {state:?}", kind.name());
            let mut session = state.session();
            let received = frame(kind, payload_of(kind));
            let mut out = Vec::new();
            let pass = session.poll(&received, at(0), &mut out);
            let expected = expected(state, kind);
            let (next, end) = match &pass.next {
                Next::Read => ("read", None),
                Next::Broadcast { frames, messages } => {
                    assert_eq!((*frames, *messages), (&received[..], 1), "{case}");
                    ("broadcast", None)
                }
                Next::Authenticate(credentials) => {
                    let alice = Credentials { user: "alice", token: "s3cret" };
                    assert_eq!(*credentials, alice, "{case}");
                    ("authenticate", None)
                }
                Next::Data { sequence, body } => {
                    assert_eq!((*sequence, *body), (7, &b"payload"[..]), "{case}");
                    ("data", None)
                }
                Next::End(end) => ("end", Some(*end)),
            };
            assert_eq!((next, end), (expected.next, expected.end), "{case}");
            assert_eq!(out, expected.reply, "{case}");
            assert_eq!(session.take_counts(), expected.counts, "{case}");
            let whole = expected.counts.frames[kind.index()] == 1;
            assert_eq!(pass.bytes, if whole { received.len() } else { 0 }, "{case}");
        }
    }
}
