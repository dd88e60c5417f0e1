//! One socket that sends records: a short list of calls. Understands no byte itself (`wire` does)
//! and aggregates nothing (`engine` does, on another thread).

use super::aggregator::Job;
use super::deadlines::{Control, Deadlines};
use super::pool::{ColumnPool, PooledSet};
use super::ring::{Buffers, ReadBuffer, read};
use crate::config::{Config, END_LINGER};
use crate::engine::intake::{Counts, Next, RecordIntake};
use crate::engine::report::{BufferKind, Reason, Received};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_uring::net::TcpStream;

/// What the connections of one worker share.
pub struct Shared {
    /// The limits.
    pub config: Arc<Config>,
    /// Where column sets come from.
    pub pool: Arc<ColumnPool>,
    /// The worker's aggregation thread.
    pub jobs: mpsc::Sender<Job>,
    /// The worker's registered windows.
    pub buffers: Buffers,
    /// The worker's timer.
    pub deadlines: Deadlines,
}

/// Why a connection ends without its end record having come.
struct Failure {
    reason: Reason,
    detail: String,
}

impl Failure {
    fn of(reason: impl Into<Reason>, detail: impl ToString) -> Self {
        Failure { reason: reason.into(), detail: detail.to_string() }
    }
}

/// A record connection on its worker.
pub struct RecordConnection {
    shared: Rc<Shared>,
    stream: Rc<TcpStream>,
    control: Rc<Control>,
    buffer: ReadBuffer,
    intake: RecordIntake,
    /// The batch that is being filled; none before the first record and while waiting for one.
    set: Option<PooledSet>,
    /// Set by the aggregation when the connection has too many groups.
    over_groups: Arc<AtomicBool>,
    received: Received,
    /// When the packet that has begun was begun; after the end record, when that came.
    packet_begun: Instant,
    /// When bytes came last.
    last_arrival: Instant,
}

impl RecordConnection {
    /// Takes a socket over. Must run on the worker's runtime.
    pub fn start(
        connection: u64,
        stream: std::net::TcpStream,
        peer: SocketAddr,
        shared: Rc<Shared>,
    ) -> Self {
        // A read of a socket that does not block fails at once instead of waiting in the ring.
        // Where this fails, so does the first read, with its own error.
        let _ = stream.set_nonblocking(false);
        let stream = Rc::new(TcpStream::from_std(stream));
        let now = Instant::now();
        let buffer = shared.buffers.take();
        let mut received = Received::nothing(connection, peer, now);
        received.buffer = match buffer {
            ReadBuffer::Registered(_) => BufferKind::Registered,
            ReadBuffer::Plain(_) => BufferKind::Plain,
        };
        tracing::debug!(connection, %peer, buffer = received.buffer.as_str(), "connected");
        RecordConnection {
            control: shared.deadlines.add(connection, &stream),
            stream,
            buffer,
            intake: RecordIntake::new(&shared.config),
            set: None,
            over_groups: Arc::new(AtomicBool::new(false)),
            received,
            packet_begun: now,
            last_arrival: now,
            shared,
        }
    }

    /// Receives until the stream ends, and says what was received. Its rows are with the
    /// aggregation by then.
    pub async fn run(mut self) -> Received {
        let ended = self.receive().await;
        self.hand_over().await;
        if let Err(Failure { reason, detail }) = ended {
            self.received.reason = Some(reason);
            self.received.detail = Some(detail);
        }
        self.received.last_byte = Instant::now();
        self.received.counts = self.intake.counts();
        self.received.texts = self.intake.into_texts();
        self.received
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        loop {
            self.arm_deadline();
            let read = self.read().await;
            self.control.disarm();
            match read {
                Ok(0) => return self.end_of_stream(),
                Ok(bytes) => self.digest(bytes).await?,
                Err(error) => return self.read_failed(&error),
            }
            if self.control.cut().is_some() {
                return self.end_of_stream();
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let buffer = std::mem::take(&mut self.buffer);
        let (result, buffer) = read(&self.stream, buffer, self.intake.free()).await;
        self.buffer = buffer;
        result
    }

    /// Decodes what a read brought. A latency begins here, where the completion is taken over.
    async fn digest(&mut self, bytes: usize) -> Result<(), Failure> {
        let taken_over = Instant::now();
        let before = self.intake.counts();
        let (in_packet, ended) = (self.intake.in_packet(), self.intake.ended());
        if before.bytes == 0 {
            self.received.first_byte = taken_over;
        }
        self.intake.handle_read(bytes);
        while !self.intake.ended() && self.poll_rows(taken_over).await? == Next::Rows {}
        self.intake.compact(&mut self.buffer);
        if self.intake.ended() && !ended {
            self.hand_over().await;
        }

        // The peer is not held to account for the time that was spent here.
        let now = Instant::now();
        self.last_arrival = now;
        if self.intake.counts().packets > before.packets || !(in_packet || ended) {
            self.packet_begun = now;
        } else if in_packet {
            self.packet_begun += now - taken_over;
        }
        Ok(())
    }

    /// One pass over what has come in. Waits only for a column set.
    async fn poll_rows(&mut self, taken_over: Instant) -> Result<Next, Failure> {
        self.make_room().await?;
        let set = self.set.as_mut().expect("make_room leaves a set");
        let packets_before = self.intake.counts().packets;
        let next = self.intake.poll_rows(&self.buffer, set);
        // One reading of the clock for all packets of the pass.
        let packets = self.intake.counts().packets - packets_before;
        self.received.latency.record(taken_over.elapsed(), packets);
        next.map_err(|refused| Failure::of(refused, refused))
    }

    /// Sees to it that there is a set with a free row, waiting for one where the aggregation is
    /// behind.
    async fn make_room(&mut self) -> Result<(), Failure> {
        if self.set.as_ref().is_some_and(|set| set.rows_free() == 0) {
            self.hand_over().await;
        }
        if self.over_groups.load(Ordering::Relaxed) {
            let limit = self.shared.config.groups_limit;
            let detail = format!("more than {limit} groups (--groups-limit)");
            return Err(Failure::of(Reason::GroupsLimit, detail));
        }
        if self.set.is_none() {
            self.set = Some(self.shared.pool.take().await);
        }
        Ok(())
    }

    /// Gives the batch to the aggregation, waiting where its queue is full.
    async fn hand_over(&mut self) {
        let Some(set) = self.set.take() else { return };
        if set.is_empty() {
            return;
        }
        let over_groups = Arc::clone(&self.over_groups);
        let job = Job::Batch { connection: self.received.connection, set, over_groups };
        // Fails only where the aggregation thread is gone; finishing will say so.
        let _ = self.shared.jobs.send(job).await;
    }

    fn arm_deadline(&self) {
        let config = &self.shared.config;
        let (at, reason) = if self.intake.ended() {
            // Nothing fails then; the engine closes for the peer.
            (self.packet_begun + END_LINGER, Reason::ClosedBeforeEnd)
        } else if self.intake.in_packet() {
            (self.packet_begun + config.packet_timeout, Reason::PacketTimeout)
        } else {
            (self.last_arrival + config.idle_timeout, Reason::IdleTimeout)
        };
        self.control.arm(at, reason);
    }

    /// The stream is over, because the peer closed it or because the engine cut it.
    fn end_of_stream(&self) -> Result<(), Failure> {
        let Some(cut) = self.intake.cut() else { return Ok(()) };
        let waiting = self.intake.waiting_bytes();
        let Counts { packets, records, .. } = self.intake.counts();
        let so_far = format!("after {packets} packets, {records} records and {waiting} more bytes");
        let config = &self.shared.config;
        Err(match self.control.cut() {
            Some(reason @ Reason::IdleTimeout) => {
                let limit = humantime::format_duration(config.idle_timeout);
                Failure::of(reason, format!("silent for {limit} (--idle-timeout) {so_far}"))
            }
            Some(reason @ Reason::PacketTimeout) => {
                let limit = humantime::format_duration(config.packet_timeout);
                let detail = format!("packet not finished in {limit} (--packet-timeout) {so_far}");
                Failure::of(reason, detail)
            }
            Some(reason) => Failure::of(reason, format!("the engine stopped {so_far}")),
            None => Failure::of(cut, format!("closed by the peer {so_far}")),
        })
    }

    fn read_failed(&self, error: &io::Error) -> Result<(), Failure> {
        if self.intake.ended() {
            return Ok(());
        }
        let reason = match error.kind() {
            io::ErrorKind::ConnectionReset => Reason::Reset,
            _ => Reason::ReadFailed,
        };
        Err(Failure::of(reason, error))
    }
}
