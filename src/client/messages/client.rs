//! The blocking client of the message protocol: one connection, a deadline on every call.
//! Understands no frame itself ([`ClientSession`] does) and starts no thread: a server that closes
//! silent connections wants a [`ping`](MessageClient::ping) from time to time.

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

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Requests are written at once, in the end or when so many bytes of them wait.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes of requests that may wait; beyond them [`MessageClient::send`] waits.
const OUTBOX_BYTES_MAX: usize = 1 << 20;
/// Bytes of broadcasts that are kept until they are asked for; beyond them the oldest are dropped.
pub const BROADCAST_BYTES_KEPT: usize = 16 << 20;

/// Why a call came to nothing. Only [`RateLimited`](Self::RateLimited),
/// [`NotAuthenticated`](Self::NotAuthenticated), [`Refused`](Self::Refused),
/// [`Unsendable`](Self::Unsendable) and [`Timeout`](Self::Timeout) leave a connection that is of
/// further use.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// No such host.
    #[error("{0}")]
    Resolve(String),
    /// No connection.
    #[error("cannot connect to {address}: {source}; is a server listening there?")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// No TLS.
    #[error(
        "TLS with {address} failed: {source}; does that port speak TLS, and is its certificate \
         of the authority that was given, and for this name?"
    )]
    Tls {
        /// Where to.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// The deadline has passed. An answer that still comes is handed out by
    /// [`receive`](MessageClient::receive).
    #[error("{doing}: nothing within {limit:?}; the server may be busy or out of reach")]
    Timeout {
        /// What was waited for.
        doing: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The server closed, or the way to it is broken.
    #[error(
        "the connection is closed with {unanswered} requests unanswered{}; connect again",
        .source.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    Closed {
        /// Requests without an answer.
        unanswered: usize,
        /// The system's error; `None` where the server closed in the usual way.
        source: Option<io::Error>,
    },
    /// The server ended the connection and said why.
    #[error("the server ended the connection: {}", describe_error(*.code, .message))]
    Server {
        /// Number of the error; see [`ErrorCode`].
        code: u8,
        /// The server's words, as they came.
        message: Vec<u8>,
    },
    /// Too many messages; this one was not processed.
    #[error("the server refused {}: too many messages; send fewer, or try again later", .0.name())]
    RateLimited(FrameType),
    /// The server wants to know who this is first.
    #[error("the server refused {}: authenticate first", .0.name())]
    NotAuthenticated(FrameType),
    /// The user is unknown or the token is not the user's; a server does not say which.
    #[error("the server refused user {user:?}; check its name and token")]
    Refused {
        /// The user.
        user: String,
    },
    /// The answer does not carry what it must.
    #[error("the server answered {} with other content than it must", .0.name())]
    Differs(FrameType),
    /// The request cannot be sent.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// What came is no session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The system refuses what the client needs.
    #[error("cannot wait for the socket: {0}; are there too many open files?")]
    Wait(io::Error),
}

/// How the server answered a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// To PING: the same eight bytes.
    Pong([u8; PING_BYTES]),
    /// To ECHO: the same bytes.
    Echo(Vec<u8>),
    /// To DATA: its sequence.
    Acknowledged(u32),
    /// To AUTH: the session id, or `None` where the user was not believed.
    Session(Option<String>),
    /// It was not processed: too many messages.
    RateLimited(FrameType),
    /// It was not processed: the server wants authentication first.
    NotAuthenticated(FrameType),
    /// The answer was of the right type and carried something else than it must.
    Differs(FrameType),
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What [`send`](MessageClient::send) returned; `None` for a refused BROADCAST, of which it
    /// is not known which one it was.
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
/// println!("session {session}, {:?} away", client.ping()?);
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
    /// What the server said when it ended the connection.
    failure: Option<(u8, Vec<u8>)>,
}

/// Without the bytes that went through it.
impl fmt::Debug for MessageClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageClient")
            .field("address", &self.address)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl MessageClient {
    /// Connects to the first address of `host` that accepts, with TLS if so asked. `timeout` holds
    /// for connecting and for each later call.
    ///
    /// # Errors
    /// [`MessageError`].
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

    /// How long each later call may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    // ---- one request at a time ----

    /// Asks whether the server is there. Returns how long the answer took.
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

    /// Has the server send bytes back, and returns them.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn echo(&mut self, payload: &[u8]) -> Result<Vec<u8>, MessageError> {
        match self.ask(Request::Echo(payload), "ECHO")? {
            RequestOutcome::Echo(payload) => Ok(payload),
            _ => Err(MessageError::Differs(FrameType::Echo)),
        }
    }

    /// Sends bytes to every other client. There is no answer to it: a server that refuses it says
    /// so later, and [`receive`](Self::receive) hands that out.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn broadcast(&mut self, payload: &[u8]) -> Result<(), MessageError> {
        self.send(Request::Broadcast(payload))?;
        self.flush()
    }

    /// Says who this is. Returns the session id.
    ///
    /// # Errors
    /// [`MessageError::Refused`] where the server does not believe it; [`MessageError`].
    pub fn authenticate(&mut self, user: &str, token: &str) -> Result<String, MessageError> {
        match self.ask(Request::Auth(Credentials { user, token }), "AUTH")? {
            RequestOutcome::Session(Some(session)) => Ok(session),
            _ => Err(MessageError::Refused { user: user.to_owned() }),
        }
    }

    /// Sends data under the next sequence, from 0, and waits until the server has taken it in.
    /// Returns the sequence.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn send_data(&mut self, body: &[u8]) -> Result<u32, MessageError> {
        let sequence = self.sequence;
        self.send_data_as(sequence, body)?;
        Ok(sequence)
    }

    /// Sends data under a sequence of the caller's; the next one follows it.
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

    /// Sends a request and does not wait for its answer. Returns the number that the answer will
    /// carry. It may stay in memory until [`flush`](Self::flush) or a call that waits.
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

    /// Writes all that is to be sent, and takes in what comes meanwhile.
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

    /// The next answer, in the order in which the requests were sent.
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

    /// Requests whose answers have not come.
    pub fn outstanding(&self) -> usize {
        self.session.outstanding()
    }

    /// The next message of another client; `None` where none came within `timeout`.
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

    /// Broadcasts that were dropped because nobody asked for them; see [`BROADCAST_BYTES_KEPT`].
    pub fn broadcasts_dropped(&self) -> u64 {
        self.broadcasts.dropped
    }

    /// Says CLOSE and waits until the server has sent what it owes and closed.
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

    /// Writes what there is to write, then takes in what comes, and waits for it where nothing is
    /// there. So requests and answers pass each other, and neither side waits for the other.
    fn exchange(&mut self, deadline: Deadline) -> Result<(), MessageError> {
        self.check_failure()?;
        loop {
            // What a server said before it closed stands in the socket: it tells more than the
            // write's error.
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

    /// Writes what fits; returns whether nothing is left.
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

    /// Sorts what has come: answers, broadcasts, the end.
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

/// The request that has such an answer.
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

/// Until when a call may take, and what it is doing.
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

    /// The time that is left, never none.
    fn left(&self) -> Result<Duration, MessageError> {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        if left.is_zero() {
            return Err(MessageError::Timeout { doing: self.doing, limit: self.limit });
        }
        Ok(left)
    }
}

/// Messages of others that nobody has asked for yet, the newest at least.
#[derive(Debug, Default)]
struct BroadcastQueue {
    kept: VecDeque<Vec<u8>>,
    /// With what each costs beside its payload.
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
