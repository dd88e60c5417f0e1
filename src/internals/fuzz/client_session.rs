//! What a message client reads: frames of a server that answers, refuses, or makes things up. Where
//! they are cut must not matter, and each request is answered once at most.

use super::input::FuzzInput;
use crate::client::messages::session::{ClientSession, ReceivedMessage, describe_error};
use crate::wire::messages::frame::{self, FrameType};
use crate::wire::messages::payload::{Credentials, Request};

/// Bytes by which a message of a server could steer a terminal.
fn is_shown(character: char) -> bool {
    !character.is_control()
}

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let requests: Vec<u8> = input.take(8).to_vec();
    let piece_bytes = 1 + usize::from(input.byte());
    let from_server = from_server(&mut input);
    let whole = heard(&requests, &from_server, usize::MAX);
    assert_eq!(heard(&requests, &from_server, piece_bytes), whole);
}

/// Frames with payloads of the input, right answers, and bytes that are no frame.
fn from_server(input: &mut FuzzInput<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let what = input.below(FrameType::ALL.len() + 7);
        if let Some(&kind) = FrameType::ALL.get(what) {
            let length = input.below(32);
            frame::encode(kind, &[input.take(length)], &mut bytes);
            continue;
        }
        let limited = |name: &str| [b"\x08rate limit exceeded for ", name.as_bytes()].concat();
        match what - FrameType::ALL.len() {
            0 => frame::encode(FrameType::Pong, &[b"12345678"], &mut bytes),
            1 => frame::encode(FrameType::EchoReply, &[b"hello"], &mut bytes),
            2 => frame::encode(FrameType::DataAck, &[&[0, 0, 0, 7]], &mut bytes),
            3 => frame::encode(FrameType::AuthReply, &[b"\x01id"], &mut bytes),
            4 => {
                let kind = FrameType::ALL[input.below(FrameType::ALL.len())];
                frame::encode(FrameType::Error, &[&limited(kind.name())], &mut bytes);
            }
            5 => frame::encode(FrameType::Error, &[b"\x07authenticate first"], &mut bytes),
            _ => {
                let length = input.below(32);
                bytes.extend_from_slice(input.take(length));
            }
        }
    }
    bytes
}

/// What a client hears that has sent these requests.
fn heard(requests: &[u8], from_server: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut session = ClientSession::default();
    for (tag, &request) in (0..).zip(requests) {
        let request = match request % 5 {
            0 => Request::Ping(b"12345678"),
            1 => Request::Echo(b"hello"),
            2 => Request::Data { sequence: 7, body: b"" },
            3 => Request::Auth(Credentials { user: "ann", token: "x" }),
            _ => Request::Broadcast(b"all"),
        };
        session.send(request, tag).expect("the session is open");
    }
    let (mut heard, mut due) = (Vec::new(), session.outstanding_tags().collect::<Vec<_>>());
    due.reverse();
    let mut failed = false;
    for piece in from_server.chunks(piece_bytes) {
        session.receive(piece);
        loop {
            match session.poll() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    note(&message, &mut due);
                    heard.push(format!("{message:?}"));
                }
                Err(error) => {
                    failed = true;
                    assert!(error.to_string().chars().all(is_shown), "{error}");
                    heard.push(error.to_string());
                }
            }
        }
    }
    assert!(failed || session.outstanding() == due.len());
    heard
}

/// Takes the request that a message answers; `due` has the oldest last.
fn note(message: &ReceivedMessage<'_>, due: &mut Vec<u64>) {
    match message {
        ReceivedMessage::Answer { tag, .. }
        | ReceivedMessage::Differs { tag, .. }
        | ReceivedMessage::Refused { tag: Some(tag), .. } => {
            assert_eq!(due.pop(), Some(*tag), "answers come in the order of the requests");
        }
        ReceivedMessage::Failed { code, message } => {
            assert!(describe_error(*code, message).chars().all(is_shown));
        }
        ReceivedMessage::Refused { tag: None, .. } | ReceivedMessage::Broadcast(_) => {}
    }
}
