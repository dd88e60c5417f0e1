//! One connection of a load run: its states, reads and writes. Never blocks, and borrows the state
//! that the connections of a thread share.

use super::schedule::Schedule;
use super::settings::{LoadError, Traffic};
use super::shared::{Shared, nanoseconds};
use super::tally::{LoadTally, MeasuredTime};
use super::traffic::MessageSource;
use crate::client::messages::session::{
    ClientSession, ReceivedMessage, SessionError, describe_error,
};
use crate::client::messages::transport::ClientTransport;
use crate::wire::messages::frame::FrameType;
use crate::wire::messages::payload::{Credentials, Reply, Request};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long making a connection may take, including TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Unsent messages of a connection whose latencies are recorded one by one; with more, several are
/// recorded as one.
const SETTLED_SINGLY: u64 = 1 << 16;
/// Bytes of messages that may wait to be written, where there is no other limit.
const OUTBOX_BYTES_MAX: usize = 256 << 10;

/// When messages may be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoadPace {
    /// Not now.
    Rest,
    /// Whenever fewer than `pipeline` are in flight.
    Closed {
        /// Messages to keep in flight.
        pipeline: usize,
    },
    /// When they are due, with a limit on those in flight.
    Open {
        /// When messages are due.
        schedule: Schedule,
        /// Maximum number in flight.
        messages: usize,
    },
}

/// The state that the connections of a thread share.
pub(crate) struct Core<'a> {
    pub shared: &'a Shared<'a>,
    pub tally: LoadTally,
    pub window: MeasuredTime,
    pub messages: MessageSource,
    pub pace: LoadPace,
    /// The thread's last reading of the clock, in nanoseconds.
    pub now: u64,
    /// Messages awaiting their answer, over all connections of the thread.
    pub in_flight: u64,
    /// Messages that are due but not sent, over all connections of the thread.
    pub backlog: u64,
    /// Answers and deliveries not yet reported to the other threads.
    pub answers_untold: u64,
    /// The deliveries among them.
    pub deliveries_untold: u64,
    /// Buffer for a single read.
    pub buffer: Box<[u8]>,
}

impl Core<'_> {
    /// Reads the clock.
    #[inline]
    pub(crate) fn tick(&mut self) -> u64 {
        self.now = self.shared.now();
        self.now
    }
}

/// Why a connection was lost.
#[derive(Debug, thiserror::Error)]
enum Loss {
    #[error("closed by the server")]
    Closed,
    #[error("not established within {CONNECT_TIMEOUT:?}")]
    Late,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("the first message was refused or answered with the wrong content")]
    Greeting,
    #[error("ended by the server: {0}")]
    Server(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    Connecting,
    Handshake,
    Authenticating,
    /// Waiting for the first PONG, which shows that the server has registered the connection for
    /// broadcasts.
    Greeting,
    Open,
    Lost,
}

/// One connection.
pub(crate) struct LoadPeer {
    /// Its index among all connections of the run.
    number: usize,
    transport: Option<ClientTransport>,
    session: ClientSession,
    state: PeerState,
    /// When connecting began.
    begun: u64,
    /// Messages that have become due, in an open loop.
    due: u64,
    /// Messages sent.
    sent: u64,
    /// BROADCASTs refused by the server.
    refused: u64,
    /// BROADCASTs received.
    deliveries: u64,
}

impl LoadPeer {
    /// Starts connecting. A failure is counted and leaves the peer lost.
    pub(crate) fn connect(
        number: usize,
        token: Token,
        registry: &Registry,
        core: &mut Core<'_>,
    ) -> Self {
        let mut peer = LoadPeer {
            number,
            transport: None,
            session: ClientSession::default(),
            state: PeerState::Connecting,
            begun: core.now,
            due: 0,
            sent: 0,
            refused: 0,
            deliveries: 0,
        };
        match peer.begin(token, registry, core) {
            Ok(transport) => peer.transport = Some(transport),
            Err(error) => peer.lose(&error.into(), core),
        }
        peer
    }

    fn begin(&self, token: Token, to: &Registry, core: &Core<'_>) -> io::Result<ClientTransport> {
        let settings = core.shared.settings;
        let stream = match &settings.found {
            Some(found) if self.number == 0 => {
                found.set_nonblocking(true)?;
                TcpStream::from_std(found.try_clone()?)
            }
            _ => TcpStream::connect(settings.address)?,
        };
        let transport = ClientTransport::new(stream, settings.tls.as_ref());
        let mut transport = transport.map_err(io::Error::other)?;
        to.register(&mut transport, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(transport)
    }

    /// Its index among all connections of the run.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Whether it is still being established: neither ready for messages nor lost.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.state, PeerState::Open | PeerState::Lost)
    }

    /// Whether it is ready for messages.
    pub(crate) fn is_open(&self) -> bool {
        self.state == PeerState::Open
    }

    /// Gives up if connecting has taken too long.
    pub(crate) fn check_age(&mut self, core: &mut Core<'_>) {
        if self.is_pending() && core.now.saturating_sub(self.begun) > nanoseconds(CONNECT_TIMEOUT) {
            self.lose(&Loss::Late, core);
        }
    }

    /// Handles a ready socket: establishes the connection, reads, sends and writes.
    #[inline]
    pub(crate) fn ready(&mut self, readable: bool, core: &mut Core<'_>) {
        if let Err(loss) = self.advance(readable, core) {
            self.lose(&loss, core);
        }
    }

    #[inline]
    fn advance(&mut self, readable: bool, core: &mut Core<'_>) -> Result<(), Loss> {
        let established = !matches!(self.state, PeerState::Connecting | PeerState::Handshake);
        if !established && !self.establish(core)? {
            return Ok(());
        }
        if readable {
            self.read(core)?;
        } else {
            // Write what did not fit before; this makes room.
            self.write(core)?;
        }
        loop {
            self.fill(core);
            self.write(core)?;
            // A socket that was never full raises no further event, so keep going here.
            if !self.may_send_more(core) {
                return Ok(());
            }
        }
    }

    /// Advances connecting and the TLS handshake, then sends the first message. Returns whether
    /// that point was reached.
    #[cold]
    fn establish(&mut self, core: &mut Core<'_>) -> Result<bool, Loss> {
        let Some(transport) = &mut self.transport else { return Ok(false) };
        if self.state == PeerState::Connecting {
            if !transport.connected()? {
                return Ok(false);
            }
            self.state = PeerState::Handshake;
        }
        if !transport.handshake()? {
            return Ok(false);
        }
        match &core.shared.settings.login {
            Some(login) => {
                let credentials = Credentials { user: &login.user, token: &login.token };
                self.state = PeerState::Authenticating;
                self.ask(Request::Auth(credentials))?;
            }
            None => self.greet()?,
        }
        Ok(true)
    }

    fn greet(&mut self) -> Result<(), Loss> {
        self.state = PeerState::Greeting;
        self.ask(Request::Ping(b"greeting"))
    }

    fn ask(&mut self, request: Request<'_>) -> Result<(), Loss> {
        self.session.send(request, 0).map_err(|error| Loss::Io(io::Error::other(error)))
    }

    // ---- receiving ----

    #[inline]
    fn read(&mut self, core: &mut Core<'_>) -> Result<(), Loss> {
        while let Some(transport) = &mut self.transport {
            match transport.read(&mut core.buffer) {
                Ok(0) => return Err(Loss::Closed),
                Ok(bytes) => {
                    let now = core.tick();
                    let drained = transport.drained(bytes, &core.buffer);
                    self.session.receive(&core.buffer[..bytes]);
                    if core.window.contains(now) {
                        core.tally.bytes_received += bytes as u64;
                    }
                    self.digest(core)?;
                    if drained {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    #[inline]
    fn digest(&mut self, core: &mut Core<'_>) -> Result<(), Loss> {
        while let Some(received) = self.session.poll()? {
            match received {
                ReceivedMessage::Answer { reply, .. } if self.state != PeerState::Open => {
                    let believed = !matches!(reply, Reply::AuthReply(None));
                    self.greeted(believed, core)?;
                }
                ReceivedMessage::Answer { tag, .. } => {
                    core.in_flight -= 1;
                    core.answers_untold += 1;
                    core.tally.answered(tag, core.now, core.window);
                }
                ReceivedMessage::Broadcast(payload) => {
                    if core.shared.settings.traffic == Traffic::Broadcast {
                        self.deliveries += u64::from(take_delivery(payload, core));
                    }
                }
                ReceivedMessage::Differs { .. } => {
                    core.tally.mismatches += 1;
                    if self.state != PeerState::Open {
                        return Err(Loss::Greeting);
                    }
                    core.in_flight -= 1;
                }
                ReceivedMessage::Refused { tag, kind, code } => {
                    core.tally.error(code as u8, core.now, core.window);
                    if kind == FrameType::Broadcast {
                        self.refused += 1;
                        core.shared.flow.refuse();
                    } else if self.state != PeerState::Open {
                        return Err(Loss::Greeting);
                    } else {
                        core.in_flight -= u64::from(tag.is_some());
                    }
                }
                ReceivedMessage::Failed { code, message } => {
                    // It ends the connection, for the time after the warm-up as well.
                    core.tally.error(code, core.now, MeasuredTime::NEVER);
                    return Err(Loss::Server(describe_error(code, message)));
                }
            }
        }
        Ok(())
    }

    /// Handles the answer to AUTH or to the first PING.
    #[cold]
    fn greeted(&mut self, believed: bool, core: &mut Core<'_>) -> Result<(), Loss> {
        match self.state {
            PeerState::Authenticating if believed => return self.greet(),
            PeerState::Authenticating => {
                if let Some(login) = &core.shared.settings.login {
                    core.shared.abort(LoadError::Refused { user: login.user.clone() });
                }
            }
            _ => {
                self.state = PeerState::Open;
                core.shared.progress.connected.fetch_add(1, Ordering::Relaxed);
                core.shared.flow.join();
            }
        }
        Ok(())
    }

    // ---- sending ----

    /// Handles a message becoming due: puts it into the outbox, unless something holds it back.
    /// Returns whether the outbox was empty and now needs a [`flush`](Self::flush).
    pub(crate) fn become_due(&mut self, due_ns: u64, core: &mut Core<'_>) -> bool {
        if self.state != PeerState::Open {
            core.tally.unsent += 1;
            return false;
        }
        let LoadPace::Open { messages, .. } = core.pace else { return false };
        let written = self.session.outbox().is_empty();
        let waits = self.due > self.sent || !self.has_room(messages);
        self.due += 1;
        core.backlog += 1;
        if waits {
            core.tally.held_back += u64::from(core.window.contains(due_ns));
            return false;
        }
        let late = core.now.saturating_sub(due_ns);
        if core.window.contains(due_ns) {
            core.tally.lateness.saturating_record(late.max(1));
        }
        core.backlog -= 1;
        self.send(due_ns, core);
        written
    }

    /// Handles `count` messages becoming due at once, as ones that are held back. Sends those that
    /// may be sent.
    pub(crate) fn many_become_due(&mut self, count: u64, core: &mut Core<'_>) {
        if self.state != PeerState::Open {
            core.tally.unsent += count;
            return;
        }
        self.due += count;
        core.backlog += count;
        core.tally.held_back += count;
        self.fill(core);
        self.flush(core);
    }

    /// Puts all messages that may be sent now into the outbox.
    #[inline]
    pub(crate) fn fill(&mut self, core: &mut Core<'_>) {
        if self.state != PeerState::Open {
            return;
        }
        match core.pace {
            LoadPace::Rest => {}
            LoadPace::Closed { pipeline } => {
                while self.session.outstanding() < pipeline {
                    self.send(core.now, core);
                }
            }
            LoadPace::Open { schedule, messages } => {
                while self.sent < self.due && self.has_room(messages) {
                    let due_ns = schedule.due_ns(self.number as u64, self.sent);
                    core.backlog -= 1;
                    self.send(due_ns, core);
                }
            }
        }
    }

    /// Whether messages are waiting that only a full outbox held back.
    #[inline]
    fn may_send_more(&self, core: &Core<'_>) -> bool {
        match core.pace {
            LoadPace::Open { messages, .. } => {
                self.is_open() && self.sent < self.due && self.has_room(messages)
            }
            LoadPace::Rest | LoadPace::Closed { .. } => false,
        }
    }

    fn has_room(&self, messages: usize) -> bool {
        self.session.outstanding() < messages && self.session.outbox().len() < OUTBOX_BYTES_MAX
    }

    /// Puts one BROADCAST into the outbox if there is room. Returns whether there was.
    pub(crate) fn broadcast(&mut self, core: &mut Core<'_>) -> bool {
        let takes = self.is_open() && self.session.outbox().len() < OUTBOX_BYTES_MAX;
        if takes {
            self.send(core.now, core);
        }
        takes
    }

    #[inline]
    fn send(&mut self, sent_ns: u64, core: &mut Core<'_>) {
        let sent = core.messages.send(&mut self.session, self.sent, sent_ns);
        // Lengths were checked before, and a peer whose session has ended is lost.
        sent.expect("the session accepts the message");
        self.sent += 1;
        core.tally.sent += u64::from(core.window.contains(sent_ns));
        if core.shared.settings.traffic == Traffic::Broadcast {
            core.shared.flow.send(1);
        } else {
            core.in_flight += 1;
        }
    }

    /// Writes the outbox, as far as the socket accepts it.
    pub(crate) fn flush(&mut self, core: &mut Core<'_>) {
        if let Err(loss) = self.write(core) {
            self.lose(&loss, core);
        }
    }

    #[inline]
    fn write(&mut self, core: &mut Core<'_>) -> Result<(), Loss> {
        let Some(transport) = &mut self.transport else { return Ok(()) };
        while !self.session.outbox().is_empty() {
            match transport.write(self.session.outbox()) {
                Ok(bytes) => {
                    self.session.wrote(bytes);
                    if core.window.contains(core.now) {
                        core.tally.bytes_sent += bytes as u64;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // Anything the server said before it closed explains more than this error.
                    self.read(core)?;
                    return Err(error.into());
                }
            }
        }
        transport.flush()?;
        Ok(())
    }

    // ---- the end ----

    /// Sends CLOSE if that is possible without waiting, and closes.
    pub(crate) fn close(&mut self, core: &mut Core<'_>) {
        if self.state == PeerState::Open && self.session.send(Request::Close, 0).is_ok() {
            // The run is over; a failure no longer matters.
            let _ = self.write(core);
        }
        self.transport = None;
        self.state = PeerState::Lost;
    }

    /// Counts the messages that are unanswered or were due and never sent.
    pub(crate) fn settle(&mut self, core: &mut Core<'_>) {
        for sent in self.session.outstanding_tags() {
            core.tally.never_answered(sent, core.now, core.window, 1);
            core.tally.unanswered += 1;
            core.in_flight = core.in_flight.saturating_sub(1);
        }
        if let LoadPace::Open { schedule, .. } = core.pace {
            let unsent = self.due - self.sent;
            // There may be billions. They were due at equal distances.
            let at_once = unsent.div_ceil(SETTLED_SINGLY).max(1);
            for message in (self.sent..self.due).step_by(at_once as usize) {
                let due_ns = schedule.due_ns(self.number as u64, message);
                let count = at_once.min(self.due - message);
                core.tally.never_answered(due_ns, core.now, core.window, count);
            }
            core.tally.unsent += unsent;
            core.backlog -= unsent;
            self.due = self.sent;
        }
    }

    #[cold]
    fn lose(&mut self, loss: &Loss, core: &mut Core<'_>) {
        if self.state == PeerState::Lost {
            return;
        }
        let was_open = self.state == PeerState::Open;
        self.state = PeerState::Lost;
        self.transport = None;
        if was_open {
            core.tally.lost += 1;
            core.shared.flow.leave(self.sent - self.refused.min(self.sent), self.deliveries);
            self.settle(core);
        } else {
            core.tally.failed += 1;
        }
        core.tally.invalid += u64::from(matches!(loss, Loss::Session(_)));
        core.tally.first_problem.get_or_insert_with(|| loss.to_string());
        self.session = ClientSession::default();
    }
}

/// Counts a received BROADCAST. Returns whether it belongs to this run.
#[inline]
fn take_delivery(payload: &[u8], core: &mut Core<'_>) -> bool {
    let Ok(sent) = core.messages.check_delivery(payload) else {
        core.tally.mismatches += 1;
        return false;
    };
    core.answers_untold += 1;
    core.deliveries_untold += 1;
    match sent {
        Some(sent) => core.tally.answered(sent, core.now, core.window),
        None => core.tally.answers += u64::from(core.window.contains(core.now)),
    }
    true
}
