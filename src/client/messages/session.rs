//! The client side of a message session: encodes requests, decodes answers and matches each with
//! its request. Performs no I/O and reads no clock.
//!
//! ```text
//!   send(request, tag) ──▶ outbox ──▶ the caller writes ──▶ wrote(bytes)
//!   the caller reads ──▶ receive(bytes) ──▶ poll() ──▶ Answer { tag, … }, Refused, Broadcast, …
//! ```
//!
//! A server answers PING, ECHO, DATA and AUTH in the order in which they were sent; broadcasts of
//! other clients may arrive at any time. The only state is therefore a queue of expected answers.

use crate::wire::messages::frame::{self, FrameError, FrameType, PAYLOAD_BYTES_MAX};
use crate::wire::messages::payload;
use crate::wire::messages::payload::{
    ErrorCode, PING_BYTES, Reply, ReplyError, Request, SEQUENCE_BYTES,
};
use crate::wire::text::Escaped;
use std::collections::VecDeque;
use std::fmt;

/// The longest body of a DATA message, in bytes.
pub const DATA_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - SEQUENCE_BYTES;

/// Start of the text of a RATE_LIMIT_EXCEEDED; the type of the refused message follows.
const RATE_REFUSAL: &[u8] = b"rate limit exceeded for ";
/// Text of the AUTHENTICATION_FAILED that refuses a single message without ending the session.
const AUTH_REFUSAL: &[u8] = b"authenticate first";

/// Why a request cannot be sent. Nothing of it was added to the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The body does not fit into a frame.
    #[error("{} of {bytes} bytes exceeds the limit of {limit}; send it in parts", .kind.name())]
    TooLong {
        /// Type of the message.
        kind: FrameType,
        /// Size of its body in bytes.
        bytes: usize,
        /// Maximum size of a body in bytes.
        limit: usize,
    },
    /// AUTH cannot carry this user name or token.
    #[error("AUTH: {0}")]
    Credentials(&'static str),
    /// Clients do not send ERROR.
    #[error("only servers send ERROR; end the session with CLOSE")]
    Error,
    /// CLOSE was sent, or the server ended the session.
    #[error("the session has ended; connect again")]
    Ended,
}

/// How the server violated the protocol. The connection is unusable afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It sent bytes that are not a valid frame.
    #[error(
        "the server sent an invalid frame: {0}; is it a message server, and does it use TLS as \
         expected?"
    )]
    Frame(FrameError),
    /// It sent a TLS alert: it did not understand a client without TLS.
    #[error("the server speaks TLS and this client does not; use --tls")]
    SpeaksTls,
    /// It sent a message that servers do not send, or a malformed one.
    #[error("the server sent an invalid message: {0}")]
    Reply(#[from] ReplyError),
    /// It sent an answer while no request was outstanding.
    #[error("the server answered with {}, but no request was outstanding", .0.name())]
    Unasked(FrameType),
    /// It sent an answer that does not belong to the oldest outstanding request.
    #[error(
        "the server answered with {} out of order: the next answer was due to {}",
        .got.name(), .due.name()
    )]
    OutOfOrder {
        /// Type of the answer, or the type of message that a refusal names.
        got: FrameType,
        /// Type of the oldest outstanding request.
        due: FrameType,
    },
    /// It sent a RATE_LIMIT_EXCEEDED that does not name the type of the refused message.
    #[error("the server refused a message and did not say which")]
    UnclearRefusal,
}

/// A message returned by [`ClientSession::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceivedMessage<'a> {
    /// The answer to a request: PONG with the bytes of its PING, ECHO_REPLY with those of its ECHO,
    /// DATA_ACK with its sequence, AUTH_REPLY.
    Answer {
        /// The tag given with the request.
        tag: u64,
        /// The answer.
        reply: Reply<'a>,
    },
    /// An answer with the right type but the wrong content.
    Differs {
        /// The tag given with the request.
        tag: u64,
        /// The answer.
        reply: Reply<'a>,
    },
    /// The server did not process a message; the session continues.
    Refused {
        /// The tag given with the request; `None` for a BROADCAST, since the server does not say
        /// which one it refused.
        tag: Option<u64>,
        /// Type of the message.
        kind: FrameType,
        /// The reason: RATE_LIMIT_EXCEEDED or AUTHENTICATION_FAILED.
        code: ErrorCode,
    },
    /// The payload of another client's BROADCAST.
    Broadcast(&'a [u8]),
    /// The server ended the session. Outstanding requests will not be answered.
    Failed {
        /// Code of the ERROR; see [`ErrorCode`].
        code: u8,
        /// The server's text, as received.
        message: &'a [u8],
    },
}

/// First byte of a TLS record that holds an alert (RFC 8446, 5.1).
const TLS_ALERT: u8 = 0x15;

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Magic { at: 0, got: TLS_ALERT } => SessionError::SpeaksTls,
            error => SessionError::Frame(error),
        }
    }
}

/// Formats a server's error for display, escaping its text: `CRC_MISMATCH (CRC checksum mismatch)`.
pub fn describe_error(code: u8, message: &[u8]) -> String {
    match ErrorCode::from_byte(code) {
        Some(code) => format!("{} ({})", code.name(), Escaped(message)),
        None => format!("error {code:#04x} ({})", Escaped(message)),
    }
}

/// The state of one client's session.
///
/// Each request has a tag of the caller's choice, such as a number or a time, which comes back with
/// its answer.
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
    /// Bytes of the outbox that are already written.
    written: usize,
    inbox: Vec<u8>,
    /// Bytes of the inbox that are already parsed.
    parsed: usize,
    pending: Pending,
    /// Whether CLOSE was sent.
    closing: bool,
    /// Whether the session has ended; further bytes of the server are ignored.
    ended: bool,
}

/// Omits buffers, which may contain a token.
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
    /// Appends a request to the outbox. `tag` comes back with its answer; BROADCAST and CLOSE have
    /// no answer.
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

    /// Bytes to write to the server.
    #[inline]
    pub fn outbox(&self) -> &[u8] {
        &self.outbox[self.written..]
    }

    /// Removes the first `bytes` bytes from the outbox, once they are written.
    ///
    /// # Panics
    /// If the outbox has fewer bytes.
    #[inline]
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        assert!(self.written <= self.outbox.len(), "more bytes written than the outbox has");
        if self.written == self.outbox.len() {
            self.outbox.clear();
            self.written = 0;
        } else if self.written > self.outbox.len() / 2 {
            // Moves fewer bytes than were written, so each byte moves at most once.
            self.outbox.drain(..self.written);
            self.written = 0;
        }
    }

    /// Takes bytes received from the server. Call [`poll`](Self::poll) afterwards until it returns
    /// `None`.
    #[inline]
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.parsed > 0 {
            self.inbox.drain(..self.parsed);
            self.parsed = 0;
        }
        self.inbox.extend_from_slice(bytes);
    }

    /// The next message of the server; `None` if none has arrived completely.
    ///
    /// # Errors
    /// [`SessionError`]. It is returned once and ends the session; later calls return `None`.
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

    /// Number of requests awaiting an answer.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.pending.queue.len()
    }

    /// Tags of the requests awaiting an answer, oldest first.
    pub fn outstanding_tags(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.queue.iter().map(|request| request.tag)
    }

    /// Whether part of a frame has been received.
    pub fn in_frame(&self) -> bool {
        self.parsed < self.inbox.len()
    }

    /// Whether the server has accepted the credentials.
    pub fn authenticated(&self) -> bool {
        self.pending.authenticated
    }
}

fn check_length(kind: FrameType, body: &[u8], limit: usize) -> Result<(), Unsendable> {
    let bytes = body.len();
    if bytes <= limit { Ok(()) } else { Err(Unsendable::TooLong { kind, bytes, limit }) }
}

/// The answer that a request must have.
#[derive(Clone, Copy)]
enum ExpectedReply {
    Pong([u8; PING_BYTES]),
    /// The first `bytes` bytes of `Pending::echoes`.
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

/// The requests sent and not yet answered.
#[derive(Default)]
struct Pending {
    queue: VecDeque<Outstanding>,
    /// Payloads of the outstanding ECHOs, concatenated, to compare with the answers.
    echoes: VecDeque<u8>,
    broadcasts_sent: bool,
    authenticated: bool,
}

impl Pending {
    #[inline]
    fn expect(&mut self, expected: ExpectedReply, tag: u64) {
        self.queue.push_back(Outstanding { expected, tag });
    }

    /// The first message of `unread` and its size in bytes.
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
            // It does not name what it refuses, so an earlier BROADCAST would make it ambiguous.
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

    /// Takes the oldest request, which must be of `kind`, as refused. A BROADCAST has no entry.
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

/// Removes the first `bytes` bytes and returns whether they equal `came`.
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
