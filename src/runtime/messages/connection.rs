//! Drives one message connection. The protocol is in
//! [`wire::messages::session`](crate::wire::messages::session), writing in [`super::peer`] and the
//! delivery of broadcasts in [`super::hub`].

use super::carried::{CarriedRecords, DataTaken};
use super::input::Input;
use super::peer::Peer;
use super::shared::MessageShared;
use super::stream_care::StreamCare;
use crate::config::{AUTH_FAILURE_DELAY, Config, SMALL_WINDOW_BYTES};
use crate::engine::messages::outbox::Broadcasts;
use crate::engine::messages::token;
use crate::engine::observe::counters::{Protocol, TallyWriter};
use crate::engine::stream::received::Reason;
use crate::runtime::clock;
use crate::runtime::connection::accepted::Accepted;
use crate::runtime::connection::caught::caught;
use crate::runtime::connection::deadlines::{DeadlineCut, SocketReads};
use crate::runtime::connection::presence::Presence;
use crate::runtime::connection::slots::Slot;
use crate::runtime::failpoint::failpoint;
use crate::runtime::records::stream::Failure;
use crate::runtime::records::transport::ReadError;
use crate::runtime::ring::{self, ReadBuffer, TcpStream};
use crate::runtime::tls::session::{Tls, TlsError};
use crate::wire::messages::fault::Fault;
use crate::wire::messages::limiter::{SharedBucket, TokenBucket};
use crate::wire::messages::payload::Credentials;
use crate::wire::messages::session::{NextEvent, Session, SessionEnd};
use crate::wire::text::Escaped;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// A message connection on its worker.
pub(crate) struct MessageConnection {
    shared: Rc<MessageShared>,
    address: SocketAddr,
    _presence: Presence,
    stream: Rc<TcpStream>,
    peer: Rc<Peer>,
    input: Input,
    session: Session,
    records: CarriedRecords,
    begun: Instant,
    messages: u64,
    _slot: Slot,
}

/// How a connection ended.
#[derive(Debug)]
enum Over {
    /// The session ended it.
    Session(SessionEnd),
    /// The client closed between two frames.
    Closed,
    /// The client closed without sending a byte, as health checks and port scans do.
    Empty,
    /// The engine ended it.
    Cut(DeadlineCut),
    /// Reading failed.
    Failed(Fault),
}

impl MessageConnection {
    /// Takes over a socket. Must run on the worker's runtime.
    ///
    /// # Errors
    /// If TLS cannot be started.
    pub(crate) fn start(accepted: Accepted, shared: Rc<MessageShared>) -> Result<Self, TlsError> {
        let Accepted { number, stream, peer: address, slot, tls, .. } = accepted;
        let tls = tls.map(Tls::accept).transpose()?;
        // Reading a non-blocking socket fails at once instead of waiting in the ring, and with
        // Nagle's algorithm a reply could wait for the client's acknowledgement. If this fails, the
        // first read fails as well and reports its error.
        let _ = stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true));
        let stream = Rc::new(TcpStream::from_std(stream));
        let now = clock::now();
        let worker = &shared.worker;
        let reads = SocketReads { end: ring::cancel, nothing_waits: ring::has_nothing_to_read };
        let control = worker.deadlines.add(number, &stream, reads);
        control.set_dispensable(true);
        let encrypted = tls.is_some();
        let peer = Peer::new(number, Rc::clone(&stream), control, tls, Rc::clone(&shared.peers));
        let presence = worker.presence(Protocol::Messages, number);
        tracing::debug!(connection = number, peer = %address, "connected");
        let rate = worker.config.rate_limit;
        let bucket = SharedBucket::new(TokenBucket::new(rate, rate));
        let connection = MessageConnection {
            address,
            _presence: presence,
            input: Input::new(Rc::clone(&stream), encrypted).count_in(peer.share()),
            session: Session::new(Arc::clone(&shared.policy), bucket, now),
            stream,
            peer,
            records: CarriedRecords::new(Rc::clone(worker), Arc::clone(slot.slots()), address),
            begun: now,
            messages: 0,
            _slot: slot,
            shared,
        };
        connection.note_standing();
        Ok(connection)
    }

    fn tally(&self) -> &TallyWriter {
        self.shared.worker.tally()
    }

    fn config(&self) -> &Config {
        &self.shared.worker.config
    }

    /// Serves the connection until it ends.
    pub(crate) async fn run(&mut self) {
        let over = match caught(self.converse()).await {
            Ok(over) => over,
            Err(panic) => {
                let connection = self.peer.number();
                tracing::error!(connection, "its task {panic}: this is a bug, please report it");
                Over::Failed(Fault::InternalError)
            }
        };
        self.end_records(&over).await;
        self.say_goodbye(&over).await;
        self.log(&over);
    }

    async fn converse(&mut self) -> Over {
        loop {
            // Cancelling ends only a read that is under way.
            if let Some(cut) = self.peer.control.cut() {
                return Over::Cut(cut);
            }
            self.arm_deadline();
            let read = self.read().await;
            let taken_over = clock::now();
            self.peer.control.disarm();
            if let Some(cut) = self.peer.control.cut() {
                return Over::Cut(cut);
            }
            match read {
                Ok(0) => return self.end_of_stream(),
                Ok(bytes) => {
                    self.tally().add(
                        |tally| &tally.bytes_received[Protocol::Messages as usize],
                        bytes as u64,
                    );
                }
                Err(error) => return self.read_failed(&error),
            }
            self.note_standing();
            failpoint("message_connection");
            if let Some(end) = self.digest(taken_over).await {
                return Over::Session(end);
            }
            if !self.peer.has_room() {
                let begun = clock::now();
                if let Some(at) = self.session.auth_deadline() {
                    self.peer.control.arm(at, DeadlineCut::Unauthenticated);
                }
                self.wait_for_room().await;
                self.session.forgive(clock::since(begun));
                self.records.forgive(clock::since(begun));
            }
        }
    }

    /// Reads, and meanwhile looks after the record stream.
    async fn read(&mut self) -> Result<usize, ReadError> {
        let MessageConnection { input, records, session, peer, shared, .. } = self;
        let read = pin!(input.read(&shared.worker.buffers, peer));
        StreamCare { records, session, control: &peer.control, idle_ends: true }.during(read).await
    }

    /// Waits until the client has taken most of its replies, and meanwhile looks after the record
    /// stream. It does not end: its records may be waiting to be read.
    async fn wait_for_room(&mut self) {
        let MessageConnection { records, session, peer, .. } = self;
        let room = pin!(peer.wait_for_room());
        StreamCare { records, session, control: &peer.control, idle_ends: false }
            .during(room)
            .await;
    }

    /// Processes the bytes of a read, and answers with one write.
    async fn digest(&mut self, taken_over: Instant) -> Option<SessionEnd> {
        let mut out = self.shared.peers.take_scratch();
        // Most reads are answered without waiting, and then the clock need not be read.
        let mut waited = false;
        let end = loop {
            let pass = self.session.poll(self.input.bytes(), taken_over, &mut out);
            let bytes = pass.bytes;
            waited |= !matches!(pass.next, NextEvent::Read | NextEvent::End(_));
            match pass.next {
                NextEvent::Read => {
                    self.input.consume(bytes);
                    break None;
                }
                NextEvent::End(end) => break Some(end),
                NextEvent::Broadcast { frames, messages } => {
                    let from = self.peer.number();
                    let piece = Broadcasts { from, frames: Arc::from(frames), messages };
                    self.shared.hub.publish(piece).await;
                }
                NextEvent::Authenticate(credentials) => {
                    let user = Judged::new(&self.shared, credentials, taken_over);
                    self.tell_judgement(user, taken_over, &mut out).await;
                }
                NextEvent::Data { sequence, body } => {
                    let mut taken = self.records.take_in(body, taken_over).await;
                    if taken == DataTaken::NoStream {
                        // Most connections never wait, and need no room for it.
                        let ended = self.peer.control.ended();
                        if Box::pin(self.records.wait_for_slot(ended)).await {
                            taken = self.records.take_in(body, taken_over).await;
                        }
                    }
                    match taken {
                        DataTaken::In => self.session.acknowledge(sequence, &mut out),
                        DataTaken::Rejected(why) => self.session.reject(&why, &mut out),
                        DataTaken::NoStream => self.session.fail(Fault::StreamsLimit, &mut out),
                    }
                    self.peer.control.set_dispensable(!self.records.is_open());
                }
            }
            self.input.consume(bytes);
        };
        self.flush(&mut out, taken_over);
        self.shared.peers.put_scratch(out);
        if waited {
            self.session.forgive(clock::since(taken_over));
            self.records.forgive(clock::since(taken_over));
        }
        end
    }

    /// Counts what the session did and sends what it wrote.
    fn flush(&mut self, out: &mut Vec<u8>, taken_over: Instant) {
        let counts = self.session.take_counts();
        let tally = self.tally();
        for (kind, &frames) in counts.frames.iter().enumerate() {
            if frames > 0 {
                tally.add(|tally| &tally.messages[kind], u64::from(frames));
            }
        }
        if counts.rate_limited > 0 {
            tally.add(|tally| &tally.rate_limited, u64::from(counts.rate_limited));
        }
        if counts.auth_failures > 0 {
            tally.add(|tally| &tally.auth_failures, u64::from(counts.auth_failures));
            self.shared.gate.log_failure(
                self.peer.number(),
                self.address,
                &"authentication failed: wrong user or token, or a message before AUTH",
            );
        }
        self.messages += counts.frames.iter().map(|&frames| u64::from(frames)).sum::<u64>();
        if !self.input.has_failed() {
            self.peer.send(out, taken_over, counts.replies);
        }
        out.clear();
    }

    /// Answers an AUTH. A refusal is delayed, to slow down guessing.
    async fn tell_judgement(&mut self, judged: Judged, taken_over: Instant, out: &mut Vec<u8>) {
        match judged {
            Judged::Believed { id, bucket } => {
                self.session.believed(&id, bucket, out);
                self.note_standing();
            }
            Judged::Refused => {
                self.flush(out, taken_over);
                clock::sleep(AUTH_FAILURE_DELAY).await;
                self.session.refused(out);
                // The delay does not count as latency.
                self.flush(out, clock::now());
            }
            Judged::Defect => self.session.fail(Fault::InternalError, out),
        }
    }

    /// Updates whether this client receives broadcasts.
    fn note_standing(&self) {
        self.peer.set_receives(self.session.may_receive() && !self.handshaking());
    }

    fn handshaking(&self) -> bool {
        self.peer.tls.as_ref().is_some_and(|tls| tls.borrow().handshaking())
    }

    fn arm_deadline(&self) {
        let (at, fault) = self.session.deadline();
        let cut = match fault {
            Fault::FrameTimeout => DeadlineCut::Unfinished,
            Fault::AuthTimeout => DeadlineCut::Unauthenticated,
            _ => DeadlineCut::Idle,
        };
        let (at, cut) = match self.handshaking() {
            true => (self.begun + self.config().handshake_timeout, DeadlineCut::Handshake),
            false => (at, cut),
        };
        self.peer.control.arm(at, cut);
    }

    fn end_of_stream(&self) -> Over {
        if !self.input.touched() {
            Over::Empty
        } else if self.handshaking() {
            Over::Failed(Fault::TlsFailed)
        } else if self.session.in_frame() {
            Over::Failed(Fault::ClosedInFrame)
        } else {
            Over::Closed
        }
    }

    fn read_failed(&self, error: &ReadError) -> Over {
        let connection = self.peer.number();
        match error {
            ReadError::Tls(error @ TlsError::ClientCertificate(_)) => {
                self.shared.gate.log_failure(connection, self.address, error);
            }
            _ => tracing::debug!(connection, %error, "cannot read"),
        }
        Over::Failed(match error {
            // A health check may end with a reset.
            ReadError::Io(error)
                if error.kind() == io::ErrorKind::ConnectionReset && !self.input.touched() =>
            {
                return Over::Empty;
            }
            ReadError::Tls(_) => Fault::TlsFailed,
            ReadError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => Fault::Reset,
            ReadError::Io(_) => Fault::IoFailed,
        })
    }

    /// Ends and reports an open record stream. CLOSE is a proper end.
    async fn end_records(&mut self, over: &Over) {
        if !self.records.is_open() {
            return;
        }
        let reason = match over {
            Over::Session(SessionEnd::Closed) => None,
            Over::Cut(DeadlineCut::Idle) => Some(Reason::IdleTimeout),
            Over::Cut(DeadlineCut::Unfinished) => Some(Reason::PacketTimeout),
            Over::Cut(DeadlineCut::Shutdown) => Some(Reason::Shutdown),
            Over::Cut(DeadlineCut::Memory) => Some(Reason::MemoryLimit),
            Over::Cut(DeadlineCut::Broken) | Over::Failed(Fault::Reset) => Some(Reason::Reset),
            Over::Failed(Fault::IoFailed) => Some(Reason::ReadFailed),
            Over::Cut(DeadlineCut::Defect) | Over::Failed(Fault::InternalError) => {
                Some(Reason::InternalError)
            }
            _ => Some(Reason::ClosedBeforeEnd),
        };
        let ended = match reason {
            None => Ok(()),
            Some(reason) => Err(Failure::of(reason, "its message connection ended before CLOSE")),
        };
        self.records.end(ended).await;
    }

    /// Tells the client the reason, flushes its replies, and waits a moment for it to close.
    /// Closing first, with unread bytes, would reset the connection and could lose the last reply.
    async fn say_goodbye(&mut self, over: &Over) {
        self.peer.set_receives(false);
        let fault = over.fault();
        if let Some(fault) = fault {
            self.tally().count_fault(fault);
        }
        match over {
            Over::Empty => {
                return self.tally().add(|tally| &tally.empty[Protocol::Messages as usize], 1);
            }
            Over::Cut(DeadlineCut::SlowConsumer) => {
                return self.tally().add(|tally| &tally.slow_consumers, 1);
            }
            Over::Cut(DeadlineCut::Broken | DeadlineCut::Defect)
            | Over::Failed(Fault::Reset | Fault::IoFailed) => return,
            // It does not read, and what waits for it is needed now.
            Over::Cut(DeadlineCut::Memory) if self.peer.drop_waiting() => return,
            Over::Cut(_) | Over::Session(_) | Over::Failed(_) | Over::Closed => {}
        }
        let mut out = self.shared.peers.take_scratch();
        if let (Some(fault), false) = (fault, self.handshaking()) {
            // Adds nothing if the session has already reported it.
            self.session.fail(fault, &mut out);
            self.flush(&mut out, clock::now());
        }
        if let Some(tls) = &self.peer.tls {
            tls.borrow_mut().close_notify(&mut out);
            self.peer.send_sealed(&out);
        }
        self.shared.peers.put_scratch(out);
        self.peer.finish_writing().await;
        if self.peer.control.cut() == Some(DeadlineCut::SlowConsumer) {
            if fault.is_none() {
                self.tally().add(|tally| &tally.slow_consumers, 1);
            }
            return;
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        if !matches!(over, Over::Closed) {
            self.wait_for_close().await;
        }
    }

    /// Reads and discards until the client closes or the time is up: shutting the socket down does
    /// not stop a client that keeps sending, and closing it would cost the client the last reply.
    async fn wait_for_close(&mut self) {
        let end = clock::now() + self.config().linger;
        self.peer.control.linger(end);
        let mut dropped = ReadBuffer::Plain(vec![0; SMALL_WINDOW_BYTES]);
        let mut read = Ok(1);
        while read.is_ok_and(|bytes| bytes > 0) && clock::now() < end {
            (read, dropped) = ring::read(&self.stream, dropped, 0..SMALL_WINDOW_BYTES).await;
        }
    }

    fn log(&self, over: &Over) {
        let (connection, peer, messages) = (self.peer.number(), self.address, self.messages);
        let seconds = clock::since(self.begun).as_secs_f64();
        let latency = self.peer.latency().summary();
        let end = over.as_str();
        let tls = self.peer.tls.as_ref().map(|tls| tls.borrow().peer());
        let tls = tls.as_ref().map(tracing::field::debug);
        tracing::debug!(
            connection, %peer, messages, seconds, end, tls,
            "closed; latency of {} replies: p50 {:.1} µs, p90 {:.1} µs, p99 {:.1} µs, \
             p99.9 {:.1} µs, max {:.1} µs",
            latency.count, latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max,
        );
    }
}

impl Drop for MessageConnection {
    /// Also if the connection's task panicked.
    fn drop(&mut self) {
        self.shared.peers.forget(&self.peer);
    }
}

impl Over {
    /// The fault to count, if any. Slow consumers and failed authentication are counted separately.
    fn fault(&self) -> Option<Fault> {
        match self {
            Over::Session(SessionEnd::Fault(fault)) | Over::Failed(fault) => Some(*fault),
            Over::Cut(DeadlineCut::Idle) => Some(Fault::IdleTimeout),
            Over::Cut(DeadlineCut::Unfinished) => Some(Fault::FrameTimeout),
            Over::Cut(DeadlineCut::Unauthenticated) => Some(Fault::AuthTimeout),
            Over::Cut(DeadlineCut::Handshake) => Some(Fault::TlsTimeout),
            Over::Cut(DeadlineCut::Broken) => Some(Fault::Reset),
            Over::Cut(DeadlineCut::Defect) => Some(Fault::InternalError),
            Over::Cut(DeadlineCut::Memory) => Some(Fault::MemoryLimit),
            Over::Cut(DeadlineCut::Linger | DeadlineCut::Shutdown | DeadlineCut::SlowConsumer)
            | Over::Session(
                SessionEnd::Closed | SessionEnd::Unauthenticated | SessionEnd::StreamRejected,
            )
            | Over::Closed
            | Over::Empty => None,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Over::Session(SessionEnd::Closed) => "close",
            Over::Session(SessionEnd::Unauthenticated) => "unauthenticated",
            Over::Session(SessionEnd::StreamRejected) => "stream_rejected",
            Over::Closed => "closed_by_peer",
            Over::Empty => "empty",
            Over::Cut(DeadlineCut::SlowConsumer) => "slow_consumer",
            Over::Cut(DeadlineCut::Shutdown) => "shutdown",
            over => over.fault().map_or("linger", Fault::as_str),
        }
    }
}

/// The outcome of checking credentials.
enum Judged {
    Believed { id: String, bucket: Option<SharedBucket> },
    Refused,
    Defect,
}

impl Judged {
    fn new(shared: &MessageShared, credentials: Credentials<'_>, now: Instant) -> Self {
        let user = Escaped(credentials.user.as_bytes());
        if !shared.gate.judge(credentials) {
            tracing::debug!(%user, "credentials refused");
            return Judged::Refused;
        }
        match token::session_id() {
            Ok(id) => {
                let bucket = shared.gate.bucket(credentials.user, shared.policy.ns(now));
                tracing::debug!(%user, "authenticated");
                Judged::Believed { id, bucket }
            }
            Err(error) => {
                tracing::error!("{error}");
                Judged::Defect
            }
        }
    }
}
