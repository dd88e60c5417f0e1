//! The protocol state of one message connection. Performs no I/O, reads no clock, stores no
//! received bytes and knows no other connection. Bytes and `now` come in; replies are appended to
//! the caller's buffer, and whatever the caller must handle is returned as [`NextEvent`].
//!
//! ```text
//!   bytes ──poll──▶ frame ▶ allowed now? ▶ within the rate limit? ▶ reply in the buffer
//!                                                                 └▶ NextEvent for the caller
//! ```

use super::fault::Fault;
use super::frame::{self, Frame, FrameError, FrameType, Header};
use super::limiter::{SharedBucket, TokenBucket};
use super::payload;
use super::payload::{Credentials, ErrorCode, Request};
use crate::config::{AUTH_FAILURES_MAX, PAYLOAD_BYTES_BEFORE_AUTH};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The settings that all sessions of a server share.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Whether a client must authenticate before it may do anything but PING.
    pub require_auth: bool,
    /// Longest time without a complete frame.
    pub idle_timeout: Duration,
    /// Longest time from a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// Longest time until the client authenticates, if that is required.
    pub auth_timeout: Duration,
    /// The rate limit for all clients together, except those that must authenticate first.
    pub all: TokenBucket,
    /// The rate limit for those together. A limit of their own, so that they cannot use up the one
    /// of the users.
    pub strangers: TokenBucket,
    /// The time that the buckets count from.
    pub epoch: Instant,
}

impl Policy {
    /// Nanoseconds from the epoch to `now`, the unit of the buckets.
    pub(crate) fn ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The result of [`Session::poll`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SessionPass<'a> {
    /// Bytes consumed, from the start of the input.
    pub bytes: usize,
    /// What the caller must do before the next call.
    pub next: NextEvent<'a>,
}

/// What a session needs from its caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextEvent<'a> {
    /// Read more bytes.
    Read,
    /// Forward these consecutive whole frames unchanged to all other clients.
    Broadcast {
        /// Their bytes.
        frames: &'a [u8],
        /// The number of frames.
        messages: u32,
    },
    /// Verify these credentials, then call [`Session::believed`] or [`Session::refused`].
    Authenticate(Credentials<'a>),
    /// Process this data, then call [`Session::acknowledge`].
    Data {
        /// The client's sequence number.
        sequence: u32,
        /// The data.
        body: &'a [u8],
    },
    /// Flush the replies and close the connection.
    End(SessionEnd),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The client sent CLOSE.
    Closed,
    /// The client failed to authenticate too often.
    Unauthenticated,
    /// DATA carried records that their stream rejected. The stream reports and counts the reason.
    StreamRejected,
    /// The connection failed. If this fault has an ERROR frame, it is among the replies.
    Fault(Fault),
}

/// The counts of a session since they were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameCounts {
    /// Complete frames received, in the order of [`FrameType::ALL`].
    pub frames: [u32; FrameType::ALL.len()],
    /// Replies written, including those to rate-limited messages.
    pub replies: u32,
    /// Messages rejected by a rate limit.
    pub rate_limited: u32,
    /// Wrong credentials, and messages that needed authentication.
    pub auth_failures: u32,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    policy: Arc<Policy>,
    /// This client's rate limit: the connection's, and after authentication the user's.
    bucket: SharedBucket,
    authenticated: bool,
    auth_failures: u8,
    ended: Option<SessionEnd>,
    begun: Instant,
    last_frame: Instant,
    /// When the current incomplete frame began.
    frame_begun: Option<Instant>,
    counts: FrameCounts,
}

impl Session {
    /// A session that begins `now`, with the connection's bucket.
    pub(crate) fn new(policy: Arc<Policy>, bucket: SharedBucket, now: Instant) -> Self {
        Session {
            policy,
            bucket,
            authenticated: false,
            auth_failures: 0,
            ended: None,
            begun: now,
            last_frame: now,
            frame_begun: None,
            counts: FrameCounts::default(),
        }
    }

    /// Processes `received` as far as it can without the caller. Bytes left over after
    /// [`NextEvent::Read`] begin a frame; pass them again, followed by more.
    pub(crate) fn poll<'a>(
        &mut self,
        received: &'a [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> SessionPass<'a> {
        let now_ns = self.policy.ns(now);
        // Consecutive broadcasts are forwarded in one piece.
        let mut run = BroadcastRun::default();
        let mut at = 0;
        let next = loop {
            if let Some(end) = self.ended {
                break NextEvent::End(end);
            }
            let frame = match self.next_frame(&received[at..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break NextEvent::Read,
                // The next call finds the fault again.
                Err(_) if run.messages > 0 => break NextEvent::Read,
                Err(fault) => {
                    self.fail(fault, out);
                    continue;
                }
            };
            if run.messages > 0 && frame.kind != FrameType::Broadcast {
                break NextEvent::Read;
            }
            let begin = at;
            at += frame.bytes.len();
            self.counts.frames[frame.kind.index()] += 1;
            match self.handle(frame, now_ns, out) {
                Ok(None) if run.messages > 0 && frame.kind == FrameType::Broadcast => {
                    break NextEvent::Read;
                }
                Ok(None) => {}
                Ok(Some(NextEvent::Broadcast { .. })) => run.extend(begin, at),
                Ok(Some(next)) => break next,
                Err(fault) => self.fail(fault, out),
            }
        };
        self.note_progress(at, received.len(), now);
        let next = match run.messages {
            0 => next,
            messages => NextEvent::Broadcast { frames: &received[run.begin..run.end], messages },
        };
        SessionPass { bytes: at, next }
    }

    /// The frame that `received` begins with, rejected as early as possible.
    #[inline]
    fn next_frame<'a>(&self, received: &'a [u8]) -> Result<Option<Frame<'a>>, Fault> {
        let Some(header) = Header::parse(received)? else { return Ok(None) };
        if !payload::from_client(header.kind) {
            return Err(Fault::InvalidMessageType);
        }
        if header.payload_bytes > PAYLOAD_BYTES_BEFORE_AUTH && self.must_authenticate() {
            // An ERROR is never answered with an ERROR.
            return Err(match header.kind {
                FrameType::Error => Fault::ClientError,
                _ => Fault::PayloadTooLarge,
            });
        }
        header.frame(received).map_err(|error: FrameError| error.into())
    }

    #[inline]
    fn must_authenticate(&self) -> bool {
        self.policy.require_auth && !self.authenticated
    }

    /// Answers a frame, or returns what the caller must do.
    #[inline]
    fn handle<'a>(
        &mut self,
        frame: Frame<'a>,
        now_ns: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<NextEvent<'a>>, Fault> {
        let request = Request::parse(frame)?;
        match request {
            Request::Close => {
                self.ended = Some(SessionEnd::Closed);
                return Ok(None);
            }
            Request::Error => return Err(Fault::ClientError),
            _ => {}
        }
        let shared = match (self.must_authenticate(), &request) {
            (false, _) => Some(&self.policy.all),
            // Three wrong ones end the connection. A limit that strangers can use up would keep
            // users from authenticating.
            (true, Request::Auth(_)) => None,
            (true, _) => Some(&self.policy.strangers),
        };
        if !self.bucket.try_take(now_ns) || shared.is_some_and(|shared| !shared.try_take(now_ns)) {
            self.refuse_for_rate(frame.kind, out);
            return Ok(None);
        }
        if self.must_authenticate() && !matches!(request, Request::Auth(_) | Request::Ping(_)) {
            self.counts.replies += 1;
            payload::encode_error(ErrorCode::AuthenticationFailed, "authenticate first", out);
            self.count_auth_failure(None);
            return Ok(None);
        }
        match request {
            Request::Ping(timestamp) => {
                self.reply(FrameType::Pong, timestamp, out);
                Ok(None)
            }
            Request::Echo(payload) => {
                self.reply(FrameType::EchoReply, payload, out);
                Ok(None)
            }
            Request::Broadcast(_) => {
                Ok(Some(NextEvent::Broadcast { frames: frame.bytes, messages: 1 }))
            }
            Request::Auth(_) if self.authenticated => Err(Fault::RepeatedAuth),
            Request::Auth(credentials) => Ok(Some(NextEvent::Authenticate(credentials))),
            Request::Data { sequence, body } => Ok(Some(NextEvent::Data { sequence, body })),
            Request::Close | Request::Error => Ok(None),
        }
    }

    #[inline]
    fn reply(&mut self, kind: FrameType, payload: &[u8], out: &mut Vec<u8>) {
        self.counts.replies += 1;
        frame::encode(kind, &[payload], out);
    }

    /// The error names the rejected type: a BROADCAST has no other reply, so the client must be
    /// able to tell its rejection from that of a message that expects one.
    fn refuse_for_rate(&mut self, kind: FrameType, out: &mut Vec<u8>) {
        self.counts.rate_limited += 1;
        self.counts.replies += 1;
        let code = [ErrorCode::RateLimitExceeded as u8];
        let parts = [&code[..], b"rate limit exceeded for ", kind.name().as_bytes()];
        frame::encode(FrameType::Error, &parts, out);
    }

    /// Counts a failure. The last one allowed ends the session, after an ERROR if `last_word` is
    /// given.
    fn count_auth_failure(&mut self, last_word: Option<&mut Vec<u8>>) {
        self.counts.auth_failures += 1;
        self.auth_failures += 1;
        if self.auth_failures >= AUTH_FAILURES_MAX {
            if let Some(out) = last_word {
                let message = "too many failed attempts";
                payload::encode_error(ErrorCode::AuthenticationFailed, message, out);
            }
            self.ended = Some(SessionEnd::Unauthenticated);
        }
    }

    fn note_progress(&mut self, done: usize, received: usize, now: Instant) {
        if done > 0 {
            self.last_frame = now;
            self.frame_begun = None;
        }
        if done < received && self.frame_begun.is_none() {
            self.frame_begun = Some(now);
        }
    }

    /// Ends the session with `fault` and appends its ERROR frame, if it has one.
    pub(crate) fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) {
        if self.ended.is_none() {
            self.ended = Some(SessionEnd::Fault(fault));
            if let Some(code) = fault.code() {
                payload::encode_error(code, fault.message(), out);
            }
        }
    }

    /// Accepts the credentials. From now on `bucket`, if given, limits this client, and `id` names
    /// the session.
    pub(crate) fn believed(&mut self, id: &str, bucket: Option<SharedBucket>, out: &mut Vec<u8>) {
        self.authenticated = true;
        self.counts.replies += 1;
        if let Some(bucket) = bucket {
            self.bucket = bucket;
        }
        frame::encode(FrameType::AuthReply, &[&[1], id.as_bytes()], out);
    }

    /// Rejects the credentials, without saying what was wrong with them.
    pub(crate) fn refused(&mut self, out: &mut Vec<u8>) {
        self.reply(FrameType::AuthReply, &[0], out);
        self.count_auth_failure(Some(out));
    }

    /// Acknowledges data that has been processed.
    pub(crate) fn acknowledge(&mut self, sequence: u32, out: &mut Vec<u8>) {
        self.reply(FrameType::DataAck, &sequence.to_be_bytes(), out);
    }

    /// Ends the session because the stream rejected the records in the data. `why` must have no
    /// bytes of the peer.
    pub(crate) fn reject(&mut self, why: &str, out: &mut Vec<u8>) {
        payload::encode_error(ErrorCode::Unknown, &format!("records rejected: {why}"), out);
        self.ended = Some(SessionEnd::StreamRejected);
    }

    /// Whether this client may receive broadcasts.
    pub(crate) fn may_receive(&self) -> bool {
        !self.must_authenticate()
    }

    /// Whether the client has authenticated.
    #[cfg(test)]
    pub(crate) fn authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether an incomplete frame has begun.
    pub(crate) fn in_frame(&self) -> bool {
        self.frame_begun.is_some()
    }

    /// Whether an incomplete frame has begun by `at`.
    pub(crate) fn in_frame_since(&self, at: Instant) -> bool {
        self.frame_begun.is_some_and(|begun| begun <= at)
    }

    /// When the session fails unless more bytes arrive, and with which fault.
    pub(crate) fn deadline(&self) -> (Instant, Fault) {
        let policy = &self.policy;
        let waiting = match self.frame_begun {
            Some(begun) => (begun + policy.frame_timeout, Fault::FrameTimeout),
            None => (self.last_frame + policy.idle_timeout, Fault::IdleTimeout),
        };
        match self.auth_deadline() {
            Some(at) if at < waiting.0 => (at, Fault::AuthTimeout),
            _ => waiting,
        }
    }

    /// When the session fails unless the client authenticates; `None` if it need not.
    pub(crate) fn auth_deadline(&self) -> Option<Instant> {
        self.must_authenticate().then(|| self.begun + self.policy.auth_timeout)
    }

    /// Extends the deadlines by time that the server spent.
    pub(crate) fn forgive(&mut self, spent: Duration) {
        self.last_frame += spent;
        self.frame_begun = self.frame_begun.map(|begun| begun + spent);
    }

    /// Returns the counts since the last call and resets them.
    pub(crate) fn take_counts(&mut self) -> FrameCounts {
        std::mem::take(&mut self.counts)
    }
}

/// Consecutive broadcasts.
#[derive(Default)]
struct BroadcastRun {
    begin: usize,
    end: usize,
    messages: u32,
}

impl BroadcastRun {
    fn extend(&mut self, begin: usize, end: usize) {
        if self.messages == 0 {
            self.begin = begin;
        }
        self.end = end;
        self.messages += 1;
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
