//! The blocking client of the message protocol: one connection, with a timeout for every call.
//!
//! [`ClientSession`] implements the protocol. The client starts no thread; to stay connected to a
//! server that closes idle connections, call [`ping`](MessageClient::ping) from time to time.

use super::session::{ClientSession, ReceivedMessage, SessionError, Unsendable, describe_error};
use super::transport::{ClientTls, ClientTransport, resolve};
use crate::wire::messages::frame::FrameType;
use crate::wire::messages::payload::{Credentials, ErrorCode, PING_BYTES, Reply, Request};
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Maximum bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Requests are collected until this many bytes of them are waiting, and then written.
const WRITE_BYTES: usize = 64 << 10;
/// Maximum bytes of waiting requests; at this point [`MessageClient::send`] blocks.
const OUTBOX_BYTES_MAX: usize = 1 << 20;
/// Maximum bytes of received broadcasts kept for [`MessageClient::next_broadcast`]. When there are
/// more, the oldest are dropped.
pub const BROADCAST_BYTES_KEPT: usize = 16 << 20;

/// Why a call failed. The connection remains usable only after [`RateLimited`](Self::RateLimited),
/// [`NotAuthenticated`](Self::NotAuthenticated), [`Refused`](Self::Refused),
/// [`Unsendable`](Self::Unsendable) and [`Timeout`](Self::Timeout).
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The host cannot be resolved.
    #[error("{0}")]
    Resolve(String),
    /// The connection could not be made.
    #[error("cannot connect to {address}: {source}; is a server listening there?")]
    Connect {
        /// Address of the server.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error(
        "TLS with {address} failed: {source}; does that port use TLS, and is its certificate \
         valid for this name and issued by the given authority?"
    )]
    Tls {
        /// Address of the server.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The call took too long. If an answer arrives later, [`receive`](MessageClient::receive)
    /// returns it.
    #[error("{doing}: no response within {limit:?}; the server may be busy or unreachable")]
    Timeout {
        /// What the call was doing.
        doing: &'static str,
        /// The timeout.
        limit: Duration,
    },
    /// The server closed the connection, or it broke.
    #[error(
        "the connection was closed with {unanswered} requests unanswered{}; connect again",
        .source.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Closed {
        /// Number of requests without an answer.
        unanswered: usize,
        /// The operating system's error; `None` if the server closed the connection normally.
        source: Option<io::Error>,
    },
    /// The server ended the connection with an ERROR.
    #[error("the server ended the connection: {}", describe_error(*.code, .message))]
    Server {
        /// Code of the error; see [`ErrorCode`].
        code: u8,
        /// The server's text, as received.
        message: Vec<u8>,
    },
    /// The rate limit was exceeded; the message was not processed.
    #[error("the server refused {}: too many messages; send fewer, or try again later", .0.name())]
    RateLimited(FrameType),
    /// The server requires authentication first; the message was not processed.
    #[error("the server refused {}: authenticate first", .0.name())]
    NotAuthenticated(FrameType),
    /// The user is unknown or the token is wrong; the server does not say which.
    #[error("the server refused user {user:?}; check its name and token")]
    Refused {
        /// Name of the user.
        user: String,
    },
    /// The answer has the wrong content.
    #[error("the server answered {} with the wrong content", .0.name())]
    Differs(FrameType),
    /// The request cannot be sent.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// The server violated the protocol.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The client cannot wait for its socket.
    #[error("cannot wait for the socket: {0}; are too many files open?")]
    Wait(io::Error),
}

/// How the server answered a request, or that it refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Answer to PING: the same eight bytes.
    Pong([u8; PING_BYTES]),
    /// Answer to ECHO: the same bytes.
    Echo(Vec<u8>),
    /// Answer to DATA: its sequence.
    Acknowledged(u32),
    /// Answer to AUTH: the session ID, or `None` if the credentials were rejected.
    Session(Option<String>),
    /// Not processed: the rate limit was exceeded.
    RateLimited(FrameType),
    /// Not processed: the server requires authentication first.
    NotAuthenticated(FrameType),
    /// The answer has the right type but the wrong content.
    Differs(FrameType),
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number that [`send`](MessageClient::send) returned; `None` for a refused BROADCAST,
    /// since the server does not say which one it refused.
    pub request: Option<u64>,
    /// How it was answered.
    pub outcome: RequestOutcome,
}

/// A connection to a message server.
///
/// ```no_run
/// use ringest::client::MessageClient;
/// use std::time::Duration;
///
/// let mut client = MessageClient::connect("localhost", 5000, Duration::from_secs(5), None)?;
/// let session = client.authenticate("alice", "token")?;
/// println!("session {session}, round trip {:?}", client.ping()?);
/// assert_eq!(client.echo(b"hello")?, b"hello");
/// client.close()?;
/// # Ok::<(), ringest::client::MessageError>(())
/// ```
pub struct MessageClient {
    address: SocketAddr,
    transport: ClientTransport,
    poll: Poll,
    events: Events,
    session: ClientSession,
    buffer: Box<[u8]>,
    timeout: Duration,
    requests: u64,
    sequence: u32,
    answers: VecDeque<Answer>,
    broadcasts: BroadcastQueue,
    /// Code and text with which the server ended the connection.
    failure: Option<(u8, Vec<u8>)>,
}

/// Omits buffers, which may contain a token.
impl fmt::Debug for MessageClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageClient")
            .field("address", &self.address)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl MessageClient {
    /// Connects to the first address of `host` that accepts the connection, with TLS if `tls` is
    /// given. `timeout` applies to connecting, the TLS handshake included, and to each later call.
    ///
    /// # Errors
    /// [`MessageError::Resolve`], [`Connect`](MessageError::Connect), [`Tls`](MessageError::Tls),
    /// [`Timeout`](MessageError::Timeout) or [`Wait`](MessageError::Wait).
    pub fn connect(
        host: &str,
        port: u16,
        timeout: Duration,
        tls: Option<&ClientTls>,
    ) -> Result<Self, MessageError> {
        let deadline = Deadline::new("connecting", timeout);
        let mut refused = MessageError::Resolve(format!("{host} has no address"));
        for address in resolve(host, port).map_err(MessageError::Resolve)? {
            match connect_tcp(address, deadline.left()?) {
                Ok(stream) => return Self::over(stream, address, deadline, tls),
                Err(source) => refused = MessageError::Connect { address, source },
            }
        }
        Err(refused)
    }

    fn over(
        stream: mio::net::TcpStream,
        address: SocketAddr,
        deadline: Deadline,
        tls: Option<&ClientTls>,
    ) -> Result<Self, MessageError> {
        let failed = |source| MessageError::Tls { address, source };
        let transport =
            ClientTransport::new(stream, tls).map_err(|e| failed(io::Error::other(e)))?;
        let mut client = MessageClient {
            address,
            transport,
            poll: Poll::new().map_err(MessageError::Wait)?,
            events: Events::with_capacity(4),
            session: ClientSession::default(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            timeout: deadline.limit,
            requests: 0,
            sequence: 0,
            answers: VecDeque::new(),
            broadcasts: BroadcastQueue::default(),
            failure: None,
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = client.poll.registry();
        registry.register(&mut client.transport, Token(0), both).map_err(MessageError::Wait)?;
        while !client.transport.handshake().map_err(failed)? {
            client.wait(deadline)?;
        }
        Ok(client)
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets how long each later call may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    // ---- one request at a time ----

    /// Sends a PING and waits for its PONG. Returns the round-trip time.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn ping(&mut self) -> Result<Duration, MessageError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let begun = Instant::now();
        self.ask(Request::Ping(&timestamp), "PING")?;
        Ok(begun.elapsed())
    }

    /// Sends an ECHO and returns the server's answer: the same bytes.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn echo(&mut self, payload: &[u8]) -> Result<Vec<u8>, MessageError> {
        match self.ask(Request::Echo(payload), "ECHO")? {
            RequestOutcome::Echo(payload) => Ok(payload),
            _ => Err(MessageError::Differs(FrameType::Echo)),
        }
    }

    /// Sends a BROADCAST to every other client. It has no answer; if the server refuses it, a later
    /// [`receive`](Self::receive) returns the refusal.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn broadcast(&mut self, payload: &[u8]) -> Result<(), MessageError> {
        self.send(Request::Broadcast(payload))?;
        self.flush()
    }

    /// Authenticates with AUTH. Returns the session ID.
    ///
    /// # Errors
    /// [`MessageError::Refused`] if the server rejects the credentials; other [`MessageError`]s.
    pub fn authenticate(&mut self, user: &str, token: &str) -> Result<String, MessageError> {
        match self.ask(Request::Auth(Credentials { user, token }), "AUTH")? {
            RequestOutcome::Session(Some(session)) => Ok(session),
            _ => Err(MessageError::Refused { user: user.to_owned() }),
        }
    }

    /// Sends DATA with the next sequence, counting from 0, and waits for its acknowledgement.
    /// Returns the sequence.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn send_data(&mut self, body: &[u8]) -> Result<u32, MessageError> {
        let sequence = self.sequence;
        self.send_data_as(sequence, body)?;
        Ok(sequence)
    }

    /// Sends DATA with the given sequence and waits for its acknowledgement. Later calls of
    /// [`send_data`](Self::send_data) continue from there.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn send_data_as(&mut self, sequence: u32, body: &[u8]) -> Result<(), MessageError> {
        self.sequence = sequence.wrapping_add(1);
        self.ask(Request::Data { sequence, body }, "DATA").map(|_| ())
    }

    fn ask(
        &mut self,
        request: Request<'_>,
        doing: &'static str,
    ) -> Result<RequestOutcome, MessageError> {
        let deadline = Deadline::new(doing, self.timeout);
        let id = self.send_by(request, deadline)?;
        loop {
            if let Some(at) = self.answers.iter().rposition(|answer| answer.request == Some(id)) {
                let answer = self.answers.remove(at).expect("it was found there");
                return match answer.outcome {
                    RequestOutcome::RateLimited(kind) => Err(MessageError::RateLimited(kind)),
                    RequestOutcome::NotAuthenticated(kind) => {
                        Err(MessageError::NotAuthenticated(kind))
                    }
                    RequestOutcome::Differs(kind) => Err(MessageError::Differs(kind)),
                    outcome => Ok(outcome),
                };
            }
            self.exchange(deadline)?;
        }
    }

    // ---- many requests in flight ----

    /// Sends a request without waiting for its answer. Returns a number that identifies it in
    /// [`Answer::request`]. The request may stay in memory until [`flush`](Self::flush) or a call
    /// that waits.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn send(&mut self, request: Request<'_>) -> Result<u64, MessageError> {
        self.send_by(request, Deadline::new("sending", self.timeout))
    }

    fn send_by(&mut self, request: Request<'_>, deadline: Deadline) -> Result<u64, MessageError> {
        self.check_failure()?;
        let id = self.requests;
        self.session.send(request, id)?;
        self.requests += 1;
        if self.session.outbox().len() >= WRITE_BYTES {
            self.write()?;
        }
        while self.session.outbox().len() >= OUTBOX_BYTES_MAX {
            self.exchange(deadline)?;
        }
        Ok(id)
    }

    /// Writes all buffered requests. Answers that arrive meanwhile are kept for
    /// [`receive`](Self::receive).
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn flush(&mut self) -> Result<(), MessageError> {
        let deadline = Deadline::new("sending", self.timeout);
        while !self.write()? {
            self.exchange(deadline)?;
        }
        Ok(())
    }

    /// Waits for the next answer. Answers come in the order of the requests.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn receive(&mut self) -> Result<Answer, MessageError> {
        let deadline = Deadline::new("waiting for an answer", self.timeout);
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            self.exchange(deadline)?;
        }
    }

    /// Number of requests whose answers have not arrived.
    pub fn outstanding(&self) -> usize {
        self.session.outstanding()
    }

    /// Waits for the next broadcast of another client; `None` if there was none within `timeout`.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn next_broadcast(&mut self, timeout: Duration) -> Result<Option<Vec<u8>>, MessageError> {
        let deadline = Deadline::new("waiting for a broadcast", timeout);
        loop {
            if let Some(payload) = self.broadcasts.pop() {
                return Ok(Some(payload));
            }
            match self.exchange(deadline) {
                Err(MessageError::Timeout { .. }) => return Ok(None),
                done => done?,
            }
        }
    }

    /// Number of broadcasts dropped because too many were waiting; see [`BROADCAST_BYTES_KEPT`].
    pub fn broadcasts_dropped(&self) -> u64 {
        self.broadcasts.dropped
    }

    /// Sends CLOSE and waits until the server has answered all requests and closed the connection.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn close(mut self) -> Result<(), MessageError> {
        let deadline = Deadline::new("closing", self.timeout);
        self.send_by(Request::Close, deadline)?;
        loop {
            match self.exchange(deadline) {
                Err(MessageError::Closed { unanswered: 0, source: None }) => return Ok(()),
                done => done?,
            }
        }
    }

    // ---- bytes ----

    /// Writes what it can, then reads, waiting if there is nothing to read. Since it always does
    /// both, client and server cannot block each other.
    fn exchange(&mut self, deadline: Deadline) -> Result<(), MessageError> {
        self.check_failure()?;
        loop {
            // A failed write is reported only after reading: an ERROR that the server sent before
            // it closed explains more.
            let written = self.write();
            match self.transport.read(&mut self.buffer) {
                Ok(0) => return Err(self.closed(None)),
                Ok(bytes) => {
                    self.session.receive(&self.buffer[..bytes]);
                    return self.digest();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.closed(Some(error))),
            }
            written?;
            self.wait(deadline)?;
        }
    }

    /// Writes what fits. Returns whether everything is written.
    fn write(&mut self) -> Result<bool, MessageError> {
        while !self.session.outbox().is_empty() {
            match self.transport.write(self.session.outbox()) {
                Ok(bytes) => self.session.wrote(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(self.closed(Some(error))),
            }
        }
        self.transport.flush().map_err(|error| self.closed(Some(error)))
    }

    fn wait(&mut self, deadline: Deadline) -> Result<(), MessageError> {
        let left = deadline.left()?;
        match self.poll.poll(&mut self.events, Some(left)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(MessageError::Wait(error)),
            _ => Ok(()),
        }
    }

    /// Sorts received messages into answers, broadcasts and the server's final ERROR.
    fn digest(&mut self) -> Result<(), MessageError> {
        while let Some(received) = self.session.poll()? {
            let (request, outcome) = match received {
                ReceivedMessage::Answer { tag, reply } => (Some(tag), outcome_of(reply)),
                ReceivedMessage::Differs { tag, reply } => {
                    (Some(tag), RequestOutcome::Differs(asked_by(reply)))
                }
                ReceivedMessage::Refused { tag, kind, code } => (tag, refusal(kind, code)),
                ReceivedMessage::Broadcast(payload) => {
                    self.broadcasts.push(payload);
                    continue;
                }
                ReceivedMessage::Failed { code, message } => {
                    self.failure = Some((code, message.to_vec()));
                    break;
                }
            };
            self.answers.push_back(Answer { request, outcome });
        }
        Ok(())
    }

    fn check_failure(&self) -> Result<(), MessageError> {
        match &self.failure {
            Some((code, message)) => {
                Err(MessageError::Server { code: *code, message: message.clone() })
            }
            None => Ok(()),
        }
    }

    fn closed(&self, source: Option<io::Error>) -> MessageError {
        MessageError::Closed { unanswered: self.session.outstanding(), source }
    }
}

fn connect_tcp(address: SocketAddr, timeout: Duration) -> io::Result<mio::net::TcpStream> {
    let stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(mio::net::TcpStream::from_std(stream))
}

fn outcome_of(reply: Reply<'_>) -> RequestOutcome {
    match reply {
        Reply::Pong(timestamp) => RequestOutcome::Pong(*timestamp),
        Reply::EchoReply(payload) => RequestOutcome::Echo(payload.to_vec()),
        Reply::DataAck(sequence) => RequestOutcome::Acknowledged(sequence),
        Reply::AuthReply(session) => RequestOutcome::Session(session.map(str::to_owned)),
        Reply::Broadcast(_) | Reply::Error { .. } => unreachable!("these answer no request"),
    }
}

/// The type of request that `reply` answers.
fn asked_by(reply: Reply<'_>) -> FrameType {
    match reply {
        Reply::Pong(_) => FrameType::Ping,
        Reply::EchoReply(_) => FrameType::Echo,
        Reply::DataAck(_) => FrameType::Data,
        Reply::AuthReply(_) => FrameType::Auth,
        Reply::Broadcast(_) | Reply::Error { .. } => unreachable!("these answer no request"),
    }
}

fn refusal(kind: FrameType, code: ErrorCode) -> RequestOutcome {
    match code {
        ErrorCode::AuthenticationFailed => RequestOutcome::NotAuthenticated(kind),
        _ => RequestOutcome::RateLimited(kind),
    }
}

/// The time limit of a call, and what it is doing.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    doing: &'static str,
    limit: Duration,
    begun: Instant,
}

impl Deadline {
    fn new(doing: &'static str, limit: Duration) -> Self {
        Deadline { doing, limit, begun: Instant::now() }
    }

    /// The time left, which is never zero.
    fn left(&self) -> Result<Duration, MessageError> {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        if left.is_zero() {
            return Err(MessageError::Timeout { doing: self.doing, limit: self.limit });
        }
        Ok(left)
    }
}

/// Broadcasts not yet asked for. The oldest are dropped when they take too much memory.
#[derive(Debug, Default)]
struct BroadcastQueue {
    kept: VecDeque<Vec<u8>>,
    /// Memory they take: the payloads plus a fixed overhead for each.
    bytes: usize,
    dropped: u64,
}

impl BroadcastQueue {
    const EACH_BYTES: usize = size_of::<Vec<u8>>();

    fn push(&mut self, payload: &[u8]) {
        self.bytes += Self::EACH_BYTES + payload.len();
        self.kept.push_back(payload.to_vec());
        while self.bytes > BROADCAST_BYTES_KEPT {
            self.pop();
            self.dropped += 1;
        }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let payload = self.kept.pop_front()?;
        self.bytes -= Self::EACH_BYTES + payload.len();
        Some(payload)
    }
}
