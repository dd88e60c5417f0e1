//! One socket that sends records: a short list of calls. Understands no byte itself (`wire` does)
//! and aggregates nothing (`engine` does, on another thread).

use super::aggregator::Job;
use super::deadlines::Control;
use super::pool::PooledSet;
use super::ring::{ReadBuffer, read};
use super::worker::WorkerContext;
use crate::config::{END_LINGER, RUNS_LIMIT};
use crate::engine::decode::decode_runs;
use crate::engine::intern::Interner;
use crate::engine::report::{BufferKind, Reason, Received};
use crate::wire::record::{PacketParser, RunList, Stop};
use crate::wire::window::Window;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio_uring::net::TcpStream;

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
    context: Rc<WorkerContext>,
    stream: Rc<TcpStream>,
    control: Rc<Control>,
    buffer: ReadBuffer,
    window: Window,
    parser: PacketParser,
    runs: RunList,
    interner: Interner,
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
        context: Rc<WorkerContext>,
    ) -> Self {
        // A read of a socket that does not block fails at once instead of waiting in the ring.
        // Where this fails, so does the first read, with its own error.
        let _ = stream.set_nonblocking(false);
        let stream = Rc::new(TcpStream::from_std(stream));
        let config = &context.config;
        let now = Instant::now();
        let buffer = context.buffers.take();
        let mut received = Received::nothing(connection, peer, now);
        received.buffer = match buffer {
            ReadBuffer::Registered(_) => BufferKind::Registered,
            ReadBuffer::Plain(_) => BufferKind::Plain,
        };
        RecordConnection {
            control: context.deadlines.add(connection, &stream),
            stream,
            buffer,
            window: Window::new(config.buffer_bytes),
            parser: PacketParser::new(config.packet_bytes_limit),
            runs: RunList::with_limit(RUNS_LIMIT),
            interner: Interner::with_limits(config.groups_limit, config.strings_bytes_limit),
            set: None,
            over_groups: Arc::new(AtomicBool::new(false)),
            received,
            packet_begun: now,
            last_arrival: now,
            context,
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
        self.received.texts = self.interner.into_texts();
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
        let (result, buffer) = read(&self.stream, buffer, self.window.free()).await;
        self.buffer = buffer;
        result
    }

    /// Decodes what a read brought. A latency begins here, where the completion is taken over.
    async fn digest(&mut self, bytes: usize) -> Result<(), Failure> {
        let taken_over = Instant::now();
        if self.received.bytes == 0 {
            self.received.first_byte = taken_over;
        }
        self.received.bytes += bytes as u64;
        let packets_before = self.received.packets;
        let in_packet_before = self.parser.in_packet(self.window.unparsed().len());
        let ended_before = self.parser.ended();
        self.window.fill(bytes);
        while !self.parser.ended() {
            self.make_room().await?;
            if self.digest_pass(taken_over)? != Stop::RunsFull {
                break;
            }
        }
        if self.parser.ended() {
            self.skip_after_end();
            self.hand_over().await;
        }
        self.window.compact(&mut self.buffer);

        // The peer is not held to account for the time that was spent here.
        let now = Instant::now();
        self.last_arrival = now;
        if self.received.packets > packets_before || !(in_packet_before || ended_before) {
            self.packet_begun = now;
        } else if in_packet_before {
            self.packet_begun += now - taken_over;
        }
        Ok(())
    }

    /// One pass: parse, decode, count. Nothing in it waits.
    fn digest_pass(&mut self, taken_over: Instant) -> Result<Stop, Failure> {
        let set = self.set.as_mut().expect("make_room comes first");
        let bytes = &self.buffer[self.window.received()];
        let from = self.window.unparsed().start;
        let pass = self.parser.parse(bytes, from, set.rows_free(), &mut self.runs);
        let decoded = decode_runs(bytes, self.runs.runs(), &mut self.interner, set);
        self.window.parse(pass.bytes);
        self.window.consume_parsed();

        // The packet of the end record ends with it, unless a limit was met before.
        let ended = pass.stop == Stop::End && decoded.limit.is_none();
        let packets = decoded.packets + usize::from(ended);
        self.received.records += decoded.records as u64;
        self.received.packets += packets as u64;
        self.received.latency.record(taken_over.elapsed(), packets);
        match (decoded.limit, pass.stop) {
            (Some(limit), _) => Err(Failure::of(limit, limit)),
            (None, Stop::Refused(violation)) => Err(Failure::of(violation, violation)),
            (None, stop) => Ok(stop),
        }
    }

    /// Sees to it that there is a set with a free row, waiting for one where the aggregation is
    /// behind.
    async fn make_room(&mut self) -> Result<(), Failure> {
        if self.set.as_ref().is_some_and(|set| set.rows_free() == 0) {
            self.hand_over().await;
        }
        if self.over_groups.load(Ordering::Relaxed) {
            let limit = self.context.config.groups_limit;
            let detail = format!("more than {limit} groups (--groups-limit)");
            return Err(Failure::of(Reason::GroupsLimit, detail));
        }
        if self.set.is_none() {
            self.set = Some(self.context.pool.take().await);
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
        let _ = self.context.jobs.send(job).await;
    }

    /// Counts what came after the end record and drops it.
    fn skip_after_end(&mut self) {
        let bytes = self.window.unparsed().len();
        self.received.bytes_after_end += bytes as u64;
        self.window.parse(bytes);
        self.window.consume_parsed();
    }

    fn arm_deadline(&self) {
        let config = &self.context.config;
        let (at, reason) = if self.parser.ended() {
            // Nothing fails then; the engine closes for the peer.
            (self.packet_begun + END_LINGER, Reason::ClosedBeforeEnd)
        } else if self.parser.in_packet(self.window.unparsed().len()) {
            (self.packet_begun + config.packet_timeout, Reason::PacketTimeout)
        } else {
            (self.last_arrival + config.idle_timeout, Reason::IdleTimeout)
        };
        self.control.arm(at, reason);
    }

    /// The stream is over, because the peer closed it or because the engine cut it.
    fn end_of_stream(&self) -> Result<(), Failure> {
        let waiting = self.window.unparsed().len();
        let Some(cut) = self.parser.cut(waiting, self.received.bytes > 0) else {
            return Ok(());
        };
        let (packets, records) = (self.received.packets, self.received.records);
        let so_far = format!("after {packets} packets, {records} records and {waiting} more bytes");
        let config = &self.context.config;
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
        if self.parser.ended() {
            return Ok(());
        }
        let reason = match error.kind() {
            io::ErrorKind::ConnectionReset => Reason::Reset,
            _ => Reason::ReadFailed,
        };
        Err(Failure::of(reason, error))
    }
}
