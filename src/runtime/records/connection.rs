//! One socket that sends records: a short list of calls. Understands no byte itself (`wire` does)
//! and aggregates nothing (`engine` does, on another thread).

use super::coalescer::{Coalescer, Coalescing};
use super::stream::{Failure, RecordStream, Streams};
use super::transport::{ReadError, RecordTransport};
use crate::engine::observe::counters::Protocol;
use crate::engine::stream::intake::{Awaited, Counts};
use crate::engine::stream::received::{BufferKind, Reason, Received};
use crate::runtime::connection::deadlines::{Control, DeadlineCut, Deadlines};
use crate::runtime::connection::presence::Presence;
use crate::runtime::ring::{Buffers, ReadBuffer};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_uring::net::TcpStream;

/// What the record connections of one worker share.
pub(crate) struct RecordShared {
    /// What their streams share.
    pub streams: Rc<Streams>,
    /// The worker's registered windows.
    pub buffers: Rc<Buffers>,
    /// The worker's timer.
    pub deadlines: Rc<Deadlines>,
    /// The timer of gathered reads.
    pub coalescer: Rc<Coalescer>,
}

/// A record connection on its worker.
pub(crate) struct RecordConnection {
    shared: Rc<RecordShared>,
    _presence: Presence,
    transport: RecordTransport,
    /// Gathers small reads; not with TLS, and not where it is switched off.
    coalescing: Option<Coalescing>,
    control: Rc<Control>,
    buffer: ReadBuffer,
    stream: RecordStream,
    begun: Instant,
}

impl RecordConnection {
    /// Takes a socket over and receives until its stream ends; says what was received. Its rows
    /// are with the aggregation by then. Must run on the worker's runtime.
    pub(crate) async fn serve(
        number: u64,
        stream: std::net::TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        shared: Rc<RecordShared>,
    ) -> Received {
        // A read of a socket that does not block fails at once instead of waiting in the ring.
        // Where this fails, so does the first read, with its own error.
        let _ = stream.set_nonblocking(false);
        let socket = Rc::new(TcpStream::from_std(stream));
        let begun = Instant::now();
        let transport = match RecordTransport::new(Rc::clone(&socket), tls) {
            Ok(transport) => transport,
            Err(error) => {
                let mut received = Received::nothing(number, peer, begun);
                received.reason = Some(Reason::TlsFailed);
                received.detail = Some(error.to_string());
                return received;
            }
        };
        Self::start(number, peer, transport, &socket, shared, begun).run().await
    }

    fn start(
        number: u64,
        peer: SocketAddr,
        transport: RecordTransport,
        socket: &Rc<TcpStream>,
        shared: Rc<RecordShared>,
        begun: Instant,
    ) -> Self {
        let buffer = shared.buffers.take();
        let kind = match buffer {
            ReadBuffer::Registered(_) => BufferKind::Registered,
            ReadBuffer::Plain(_) => BufferKind::Plain,
        };
        tracing::debug!(connection = number, %peer, buffer = kind.as_str(), "connected");
        let streams = Rc::clone(&shared.streams);
        let counted = (&streams.counters, streams.worker);
        let presence = Presence::new(Protocol::Records, number, counted, &shared.deadlines);
        let coalescing = match transport.encrypted() {
            false => Coalescing::new(&shared.coalescer, socket, buffer.len()),
            true => None,
        };
        RecordConnection {
            coalescing,
            control: shared.deadlines.add(number, socket),
            _presence: presence,
            transport,
            stream: RecordStream::start(streams, number, peer, kind, buffer.len(), begun),
            buffer,
            begun,
            shared,
        }
    }

    async fn run(mut self) -> Received {
        let ended = self.receive().await;
        let waits = self.coalescing.take().map(Coalescing::into_waits);
        let mut received = self.stream.finish(ended).await;
        received.coalesce_waits = waits.unwrap_or_default();
        received
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        loop {
            self.arm_deadline();
            let read = self.read().await;
            self.control.disarm();
            match read {
                Ok(Some(0)) => return self.end_of_stream(),
                Ok(Some(bytes)) => self.digest(bytes).await?,
                Ok(None) => {}
                Err(error) => return self.read_failed(&error),
            }
            if self.control.cut().is_some() {
                return self.end_of_stream();
            }
        }
    }

    /// Reads, and meanwhile closes a batch whose time is up: a quiet stream keeps none open.
    async fn read(&mut self) -> Result<Option<usize>, ReadError> {
        let RecordConnection { coalescing, transport, buffer, stream, .. } = self;
        let batch_ends = stream.batch_ends();
        let mut read = pin!(read_into(buffer, stream.free(), transport, coalescing.as_mut()));
        if let Some(at) = batch_ends {
            tokio::select! {
                biased;
                read = &mut read => return read,
                () = tokio::time::sleep_until(at.into()) => {}
            }
            // The read goes on.
            Box::pin(stream.close_batch(Instant::now())).await;
        }
        read.await
    }

    /// Decodes what a read brought. A latency begins here, where the completion is taken over.
    async fn digest(&mut self, bytes: usize) -> Result<(), Failure> {
        let taken_over = Instant::now();
        let tally = self.shared.streams.tally();
        tally.bytes_received[Protocol::Records as usize].add(bytes as u64);
        tally.record_reads.add(1);
        if let Some(coalescing) = &mut self.coalescing
            && let Some(waited) =
                coalescing.handle_read(bytes, self.stream.free().len(), taken_over)
        {
            tally.coalesced_reads.add(1);
            tally.coalesce_wait_ns.add(waited.as_nanos() as u64);
        }
        let digested = self.stream.digest(&self.buffer, bytes, taken_over).await;
        self.stream.compact(&mut self.buffer);
        self.stream.forgive(taken_over.elapsed());
        digested
    }

    fn arm_deadline(&self) {
        let (at, awaited) = self.stream.intake().deadline();
        let (at, reason) = match awaited {
            _ if self.transport.handshaking() => {
                let limit = self.shared.streams.config.handshake_timeout;
                (self.begun + limit, DeadlineCut::Handshake)
            }
            // Nothing fails then; the engine closes for the peer.
            Awaited::Close => (at, DeadlineCut::Linger),
            Awaited::RestOfPacket => (at, DeadlineCut::Unfinished),
            Awaited::Packet => (at, DeadlineCut::Idle),
        };
        // The peer is not held to account for bytes that came in time and were left to wait.
        let delay = self.coalescing.as_ref().map_or(Duration::ZERO, Coalescing::delay);
        self.control.arm(at + delay, reason);
    }

    /// The stream is over, because the peer closed it or because the engine cut it.
    fn end_of_stream(&self) -> Result<(), Failure> {
        let intake = self.stream.intake();
        let Some(cut) = intake.cut() else { return Ok(()) };
        let waiting = intake.waiting_bytes();
        let Counts { packets, records, .. } = intake.counts();
        let so_far = format!("after {packets} packets, {records} records and {waiting} more bytes");
        let config = &self.shared.streams.config;
        let time = |limit: Duration| humantime::format_duration(limit).to_string();
        Err(match self.control.cut() {
            Some(DeadlineCut::Idle) => {
                let limit = time(config.idle_timeout);
                let detail = format!("silent for {limit} (--idle-timeout) {so_far}");
                Failure::of(Reason::IdleTimeout, detail)
            }
            Some(DeadlineCut::Unfinished) => {
                let limit = time(config.packet_timeout);
                let detail = format!("packet not finished in {limit} (--packet-timeout) {so_far}");
                Failure::of(Reason::PacketTimeout, detail)
            }
            Some(DeadlineCut::Handshake) => {
                let limit = time(config.handshake_timeout);
                let detail = format!("TLS handshake not finished in {limit} (--handshake-timeout)");
                Failure::of(Reason::TlsTimeout, detail)
            }
            Some(DeadlineCut::Shutdown) => {
                Failure::of(Reason::Shutdown, format!("the engine stopped {so_far}"))
            }
            None if self.transport.handshaking() => {
                Failure::of(Reason::TlsFailed, "closed by the peer during the TLS handshake")
            }
            _ => Failure::of(cut, format!("closed by the peer {so_far}")),
        })
    }

    fn read_failed(&self, error: &ReadError) -> Result<(), Failure> {
        if self.stream.intake().ended() {
            return Ok(());
        }
        let reason = match error {
            ReadError::Tls(_) => Reason::TlsFailed,
            ReadError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => Reason::Reset,
            ReadError::Io(_) => Reason::ReadFailed,
        };
        Err(Failure::of(reason, error))
    }
}

/// One read into the free part of a window. The future must be run to its end.
async fn read_into(
    window: &mut ReadBuffer,
    free: Range<usize>,
    transport: &mut RecordTransport,
    coalescing: Option<&mut Coalescing>,
) -> Result<Option<usize>, ReadError> {
    if let Some(coalescing) = coalescing {
        coalescing.wait().await;
    }
    let (result, buffer) = transport.read(std::mem::take(window), free).await;
    *window = buffer;
    result
}
