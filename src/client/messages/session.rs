//! The client's half of a message session: requests become bytes, bytes become answers, each
//! matched with its request. Performs no I/O, reads no clock and starts nothing.
//!
//! ```text
//!   send(request, tag) ──▶ outbox ──▶ the caller writes ──▶ wrote(bytes)
//!   the caller reads ──▶ receive(bytes) ──▶ poll() ──▶ Answer { tag, … }, Refused, Broadcast, …
//! ```
//!
//! A server answers PING, ECHO, DATA and AUTH in the order in which they were sent; broadcasts of
//! others may come in between at any time. So a queue of what is expected is all there is to know.

use crate::wire::messages::frame::{self, FrameError, FrameType, PAYLOAD_BYTES_MAX};
use crate::wire::messages::payload;
use crate::wire::messages::payload::{
    ErrorCode, PING_BYTES, Reply, ReplyError, Request, SEQUENCE_BYTES,
};
use crate::wire::text::Escaped;
use std::collections::VecDeque;
use std::fmt;

/// The longest body of a DATA message.
pub const DATA_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - SEQUENCE_BYTES;

/// What the text of a RATE_LIMIT_EXCEEDED begins with; the type of the refused message follows.
const RATE_REFUSAL: &[u8] = b"rate limit exceeded for ";
/// The text of the AUTHENTICATION_FAILED that refuses one message and nothing else.
const AUTH_REFUSAL: &[u8] = b"authenticate first";

/// Why a request cannot be sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// More than a frame can carry.
    #[error("{} of {bytes} bytes: at most {limit} fit; send it in parts", .kind.name())]
    TooLong {
        /// What was to be sent.
        kind: FrameType,
        /// Bytes of its body.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A user or token that AUTH cannot carry.
    #[error("AUTH: {0}")]
    Credentials(&'static str),
    /// A client has no reason to send one.
    #[error("an ERROR is for servers to send; end the session with CLOSE")]
    Error,
    /// After CLOSE, or after the server said that it closes.
    #[error("the session has ended; connect again to go on")]
    Ended,
}

/// Why received bytes are no session any more. The connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// They are no frame.
    #[error("the server sent no valid frame: {0}; is it a message server, and TLS as expected?")]
    Frame(#[from] FrameError),
    /// The frame is no message of a server.
    #[error("the server sent a message that it may not send: {0}")]
    Reply(#[from] ReplyError),
    /// Nothing is outstanding.
    #[error("the server answered with {}, and nothing was asked", .0.name())]
    Unasked(FrameType),
    /// The oldest request has another answer.
    #[error("the server answered with {}, due was the answer to {}", .got.name(), .due.name())]
    OutOfOrder {
        /// The answer, or the type that a refusal names.
        got: FrameType,
        /// The oldest request.
        due: FrameType,
    },
    /// RATE_LIMIT_EXCEEDED that does not name a type: it cannot be known what was refused.
    #[error("the server refused a message and did not say which")]
    UnclearRefusal,
}

/// What [`ClientSession::poll`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivedMessage<'a> {
    /// The answer to a request: PONG with the bytes of its PING, ECHO_REPLY with those of its ECHO,
    /// DATA_ACK with its sequence, AUTH_REPLY.
    Answer {
        /// What was given with the request.
        tag: u64,
        /// The answer.
        reply: Reply<'a>,
    },
    /// An answer of the right type that carries something else than it must.
    Differs {
        /// What was given with the request.
        tag: u64,
        /// The answer.
        reply: Reply<'a>,
    },
    /// A message that was not processed; the session goes on.
    Refused {
        /// What was given with the request; `None` for a BROADCAST, which has no answer.
        tag: Option<u64>,
        /// What it was.
        kind: FrameType,
        /// Why: RATE_LIMIT_EXCEEDED or AUTHENTICATION_FAILED.
        code: ErrorCode,
    },
    /// A message of another client.
    Broadcast(&'a [u8]),
    /// The server ends the session. What is outstanding is not answered any more.
    Failed {
        /// Number of the error.
        code: u8,
        /// In the server's words, as they came.
        message: &'a [u8],
    },
}

/// An error as the server put it, fit to be shown: `CRC_MISMATCH (CRC checksum mismatch)`.
pub fn describe_error(code: u8, message: &[u8]) -> String {
    match ErrorCode::from_byte(code) {
        Some(code) => format!("{} ({})", code.name(), Escaped(message)),
        None => format!("error {code:#04x} ({})", Escaped(message)),
    }
}

/// One client's state. The tags are the caller's: a time, a number; they come back with the
/// answers.
///
/// ```
/// use ringest::client::messages::session::{ClientSession, ReceivedMessage};
/// use ringest::protocol::{frame, frame::FrameType, payload::{Reply, Request}};
///
/// let mut session = ClientSession::default();
/// session.send(Request::Ping(b"12345678"), 7)?;
/// let written = session.outbox().len();
/// session.wrote(written);
///
/// let mut from_server = Vec::new();
/// frame::encode(FrameType::Pong, &[b"12345678"], &mut from_server);
/// session.receive(&from_server);
/// let answer = ReceivedMessage::Answer { tag: 7, reply: Reply::Pong(b"12345678") };
/// assert_eq!(session.poll(), Ok(Some(answer)));
/// assert_eq!(session.poll(), Ok(None));
/// # Ok::<(), ringest::client::messages::session::Unsendable>(())
/// ```
#[derive(Default)]
pub struct ClientSession {
    outbox: Vec<u8>,
    /// Bytes of the outbox that have been written.
    written: usize,
    inbox: Vec<u8>,
    /// Bytes of the inbox that are done with.
    parsed: usize,
    pending: Pending,
    /// CLOSE was sent.
    closing: bool,
    /// The server's bytes are not read any more.
    ended: bool,
}

/// Without the bytes: a token may be among them.
impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSession")
            .field("outstanding", &self.outstanding())
            .field("authenticated", &self.authenticated())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl ClientSession {
    /// Appends a request to the outbox. `tag` comes back with its answer; a BROADCAST and a CLOSE
    /// have none.
    ///
    /// # Errors
    /// [`Unsendable`].
    #[inline]
    pub fn send(&mut self, request: Request<'_>, tag: u64) -> Result<(), Unsendable> {
        if self.closing || self.ended {
            return Err(Unsendable::Ended);
        }
        let out = &mut self.outbox;
        match request {
            Request::Ping(timestamp) => {
                frame::encode(FrameType::Ping, &[timestamp], out);
                self.pending.expect(ExpectedReply::Pong(*timestamp), tag);
            }
            Request::Echo(payload) => {
                check_length(FrameType::Echo, payload, PAYLOAD_BYTES_MAX)?;
                frame::encode(FrameType::Echo, &[payload], out);
                self.pending.echoes.extend(payload);
                self.pending.expect(ExpectedReply::EchoReply { bytes: payload.len() as u32 }, tag);
            }
            Request::Broadcast(payload) => {
                check_length(FrameType::Broadcast, payload, PAYLOAD_BYTES_MAX)?;
                frame::encode(FrameType::Broadcast, &[payload], out);
                self.pending.broadcasts_sent = true;
            }
            Request::Auth(credentials) => {
                payload::encode_auth(credentials, out).map_err(Unsendable::Credentials)?;
                self.pending.expect(ExpectedReply::AuthReply, tag);
            }
            Request::Data { sequence, body } => {
                check_length(FrameType::Data, body, DATA_BYTES_MAX)?;
                frame::encode(FrameType::Data, &[&sequence.to_be_bytes(), body], out);
                self.pending.expect(ExpectedReply::DataAck(sequence), tag);
            }
            Request::Close => {
                frame::encode(FrameType::Close, &[], out);
                self.closing = true;
            }
            Request::Error => return Err(Unsendable::Error),
        }
        Ok(())
    }

    /// Bytes that are to be written.
    #[inline]
    pub fn outbox(&self) -> &[u8] {
        &self.outbox[self.written..]
    }

    /// The first `bytes` of the outbox have been written.
    ///
    /// # Panics
    /// Where there are not so many.
    #[inline]
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        assert!(self.written <= self.outbox.len(), "no more was written than there is");
        if self.written == self.outbox.len() {
            self.outbox.clear();
            self.written = 0;
        } else if self.written > self.outbox.len() / 2 {
            // Moves fewer bytes than were written, so each byte is moved once at most.
            self.outbox.drain(..self.written);
            self.written = 0;
        }
    }

    /// Takes bytes of the server. Then [`poll`](Self::poll) until there is nothing more.
    #[inline]
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.parsed > 0 {
            self.inbox.drain(..self.parsed);
            self.parsed = 0;
        }
        self.inbox.extend_from_slice(bytes);
    }

    /// The next message of the server, once all of it has come.
    ///
    /// # Errors
    /// [`SessionError`], once; there is nothing to be had afterwards.
    #[inline]
    pub fn poll(&mut self) -> Result<Option<ReceivedMessage<'_>>, SessionError> {
        if self.ended {
            return Ok(None);
        }
        match self.pending.next(&self.inbox[self.parsed..]) {
            Ok(Some((bytes, received))) => {
                self.parsed += bytes;
                self.ended = matches!(received, ReceivedMessage::Failed { .. });
                Ok(Some(received))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// Requests that wait for their answer.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.pending.queue.len()
    }

    /// Their tags, the oldest first.
    pub fn outstanding_tags(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.queue.iter().map(|request| request.tag)
    }

    /// Whether the beginning of a frame waits for its rest.
    pub fn in_frame(&self) -> bool {
        self.parsed < self.inbox.len()
    }

    /// Whether the server believed the credentials.
    pub fn authenticated(&self) -> bool {
        self.pending.authenticated
    }
}

fn check_length(kind: FrameType, body: &[u8], limit: usize) -> Result<(), Unsendable> {
    let bytes = body.len();
    if bytes <= limit { Ok(()) } else { Err(Unsendable::TooLong { kind, bytes, limit }) }
}

/// What answers a request.
#[derive(Clone, Copy)]
enum ExpectedReply {
    Pong([u8; PING_BYTES]),
    /// So many bytes, those that are first in `Pending::echoes`.
    EchoReply {
        bytes: u32,
    },
    DataAck(u32),
    AuthReply,
}

impl ExpectedReply {
    fn request(self) -> FrameType {
        match self {
            ExpectedReply::Pong(_) => FrameType::Ping,
            ExpectedReply::EchoReply { .. } => FrameType::Echo,
            ExpectedReply::DataAck(_) => FrameType::Data,
            ExpectedReply::AuthReply => FrameType::Auth,
        }
    }
}

#[derive(Clone, Copy)]
struct Outstanding {
    expected: ExpectedReply,
    tag: u64,
}

/// What has been asked and not yet answered.
#[derive(Default)]
struct Pending {
    queue: VecDeque<Outstanding>,
    /// Payloads of the outstanding ECHOs, end to end, to be compared with what comes back.
    echoes: VecDeque<u8>,
    broadcasts_sent: bool,
    authenticated: bool,
}

impl Pending {
    #[inline]
    fn expect(&mut self, expected: ExpectedReply, tag: u64) {
        self.queue.push_back(Outstanding { expected, tag });
    }

    /// The first message of `unread` and how many bytes it has.
    #[inline]
    fn next<'a>(
        &mut self,
        unread: &'a [u8],
    ) -> Result<Option<(usize, ReceivedMessage<'a>)>, SessionError> {
        let Some(frame) = frame::decode(unread)? else { return Ok(None) };
        let received = match Reply::parse(frame)? {
            Reply::Broadcast(payload) => ReceivedMessage::Broadcast(payload),
            Reply::Error { code, message } => self.judge_error(code, message)?,
            reply => self.answer(frame.kind, reply)?,
        };
        Ok(Some((frame.bytes.len(), received)))
    }

    #[inline]
    fn answer<'a>(
        &mut self,
        got: FrameType,
        reply: Reply<'a>,
    ) -> Result<ReceivedMessage<'a>, SessionError> {
        let Outstanding { expected, tag } =
            self.queue.pop_front().ok_or(SessionError::Unasked(got))?;
        let agrees = match (expected, reply) {
            (ExpectedReply::Pong(sent), Reply::Pong(came)) => sent == *came,
            (ExpectedReply::EchoReply { bytes }, Reply::EchoReply(came)) => {
                take_if_equal(&mut self.echoes, bytes as usize, came)
            }
            (ExpectedReply::DataAck(sent), Reply::DataAck(came)) => sent == came,
            (ExpectedReply::AuthReply, Reply::AuthReply(session)) => {
                self.authenticated |= session.is_some();
                true
            }
            _ => return Err(SessionError::OutOfOrder { got, due: expected.request() }),
        };
        Ok(if agrees {
            ReceivedMessage::Answer { tag, reply }
        } else {
            ReceivedMessage::Differs { tag, reply }
        })
    }

    #[cold]
    fn judge_error<'a>(
        &mut self,
        code: u8,
        message: &'a [u8],
    ) -> Result<ReceivedMessage<'a>, SessionError> {
        match ErrorCode::from_byte(code) {
            Some(code @ ErrorCode::RateLimitExceeded) => {
                let named = message.strip_prefix(RATE_REFUSAL);
                let kind = named.and_then(|name| {
                    FrameType::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
                });
                self.refuse(kind.ok_or(SessionError::UnclearRefusal)?, code)
            }
            // It does not name what it refuses, so a BROADCAST before makes it unclear.
            Some(code @ ErrorCode::AuthenticationFailed)
                if message == AUTH_REFUSAL && !self.broadcasts_sent =>
            {
                match self.queue.front() {
                    Some(due) => self.refuse(due.expected.request(), code),
                    None => Ok(ReceivedMessage::Failed { code: code as u8, message }),
                }
            }
            _ => Ok(ReceivedMessage::Failed { code, message }),
        }
    }

    /// The oldest request is not answered, if it is of `kind`.
    fn refuse(
        &mut self,
        kind: FrameType,
        code: ErrorCode,
    ) -> Result<ReceivedMessage<'static>, SessionError> {
        if kind == FrameType::Broadcast {
            return Ok(ReceivedMessage::Refused { tag: None, kind, code });
        }
        let Outstanding { expected, tag } =
            self.queue.pop_front().ok_or(SessionError::Unasked(FrameType::Error))?;
        let due = expected.request();
        if due != kind {
            return Err(SessionError::OutOfOrder { got: kind, due });
        }
        if let ExpectedReply::EchoReply { bytes } = expected {
            self.echoes.drain(..bytes as usize);
        }
        Ok(ReceivedMessage::Refused { tag: Some(tag), kind, code })
    }
}

/// Takes the first `bytes` and says whether they are `came`.
#[inline]
fn take_if_equal(sent: &mut VecDeque<u8>, bytes: usize, came: &[u8]) -> bool {
    let agrees = came.len() == bytes && {
        let (first, second) = sent.as_slices();
        let (came_first, came_second) = came.split_at(bytes.min(first.len()));
        first.starts_with(came_first) && second.starts_with(came_second)
    };
    sent.drain(..bytes);
    agrees
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
