//! Drives one record connection. Decoding is in [`super::stream`] and the engine; aggregation runs
//! on another thread.

use super::coalescer::{Coalescer, Coalescing};
use super::stream::{self, Failure, RecordStream};
use super::transport::{ReadError, RecordTransport};
use crate::config::TLS_STREAM_BYTES;
use crate::engine::observe::counters::Protocol;
use crate::engine::stream::intake::{Awaited, Counts};
use crate::engine::stream::received::{BufferKind, Reason, Received, StreamMemory};
use crate::runtime::clock;
use crate::runtime::connection::caught::caught;
use crate::runtime::connection::deadlines::{Control, DeadlineCut, SocketReads};
use crate::runtime::connection::presence::Presence;
use crate::runtime::connection::quota::Ticket;
use crate::runtime::failpoint::failpoint;
use crate::runtime::network::NewSocket;
use crate::runtime::ring::{ReadBuffer, TcpStream, has_nothing_to_read};
use crate::runtime::tls::session::TlsError;
use crate::runtime::worker::Worker;
use crate::wire::text::{counted, time_text};
use rustls::ServerConfig;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A record connection on its worker.
pub(crate) struct RecordConnection {
    worker: Rc<Worker>,
    _presence: Presence,
    transport: RecordTransport,
    /// Gathers small reads; `None` with TLS or if coalescing is off.
    coalescing: Option<Coalescing>,
    control: Rc<Control>,
    buffer: ReadBuffer,
    stream: RecordStream,
    /// Until the first byte: the connection's place among those that `--exit-after` counts.
    ticket: Option<Ticket>,
    begun: Instant,
}

/// Which connection it is, and when its worker took it over.
struct Arrival {
    number: u64,
    peer: SocketAddr,
    begun: Instant,
}

impl RecordConnection {
    /// Takes over a socket and receives until its stream ends; returns what was received, or `None`
    /// if there is nothing to report. By then all rows have been passed to the aggregation. Must
    /// run on the worker's runtime.
    pub(crate) async fn serve(
        number: u64,
        stream: NewSocket,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        ticket: Option<Ticket>,
        worker: Rc<Worker>,
        coalescer: Rc<Coalescer>,
    ) -> Option<Received> {
        // Reading a non-blocking socket fails at once instead of waiting in the ring. If this
        // fails, the first read fails as well and reports its error.
        let _ = stream.set_nonblocking(false);
        let socket = Rc::new(TcpStream::from_std(stream));
        let begun = clock::now();
        let bytes = worker.config.memory(worker.counters.workers.len()).stream_at_start
            + tls.as_ref().map_or(0, |_| TLS_STREAM_BYTES);
        // Rare, and its state need not be part of every connection's.
        let memory = match Box::pin(stream::admit(&worker, bytes)).await {
            Ok(memory) => memory,
            Err(failure) => {
                ticket.into_iter().for_each(Ticket::count);
                return Some(failure.of_stream(Received::nothing(number, peer, begun)));
            }
        };
        // Its peer has the whole of its time, however long it waited for memory.
        let begun = clock::now();
        let came = Arrival { number, peer, begun };
        match Self::start(&came, tls, &socket, worker, &coalescer, memory) {
            Ok(mut connection) => {
                connection.ticket = ticket;
                connection.run(peer).await
            }
            Err(error) => {
                ticket.into_iter().for_each(Ticket::count);
                let failure = Failure::of(Reason::TlsFailed, error);
                Some(failure.of_stream(Received::nothing(number, peer, begun)))
            }
        }
    }

    fn start(
        &Arrival { number, peer, begun }: &Arrival,
        tls: Option<Arc<ServerConfig>>,
        socket: &Rc<TcpStream>,
        worker: Rc<Worker>,
        coalescer: &Rc<Coalescer>,
        memory: StreamMemory,
    ) -> Result<Self, TlsError> {
        let reads = SocketReads { end: shut_down_for_reading, nothing_waits: has_nothing_to_read };
        let control = worker.deadlines.add(number, socket, reads);
        memory.owner.iter().for_each(|owner| control.watch_memory(owner.share()));
        let presence = worker.presence(Protocol::Records, number);
        let write_timeout = worker.config.write_timeout;
        let transport = RecordTransport::new(Rc::clone(socket), tls, &control, write_timeout)?;
        let buffer = worker.buffers.take();
        let kind = match buffer {
            ReadBuffer::Registered(_) => BufferKind::Registered,
            ReadBuffer::Plain(_) => BufferKind::Plain,
        };
        tracing::debug!(connection = number, %peer, buffer = kind.as_str(), "connected");
        let coalescing = match transport.encrypted() {
            false => Coalescing::new(coalescer, socket, buffer.len()),
            true => None,
        };
        Ok(RecordConnection {
            coalescing,
            control,
            _presence: presence,
            transport,
            stream: RecordStream::start(
                Rc::clone(&worker),
                number,
                peer,
                kind,
                buffer.len(),
                begun,
                memory,
            ),
            buffer,
            ticket: None,
            begun,
            worker,
        })
    }

    async fn run(mut self, peer: SocketAddr) -> Option<Received> {
        let ended = caught(self.receive()).await.unwrap_or_else(|panic| Err(Failure::bug(&panic)));
        if self.is_empty(&ended) && !self.worker.config.report_empty {
            self.worker.tally().add(|tally| &tally.empty[Protocol::Records as usize], 1);
            tracing::debug!(connection = self.stream.number(), %peer, "closed without a byte");
            return None;
        }
        self.ticket.take().into_iter().for_each(Ticket::count);
        let waits = self.coalescing.take().map(Coalescing::into_waits);
        let number = self.stream.number();
        let finished = caught(self.stream.finish(ended)).await;
        let mut received = finished.unwrap_or_else(|panic| {
            Failure::bug(&panic).of_stream(Received::nothing(number, peer, self.begun))
        });
        received.coalesce_waits = waits.unwrap_or_default();
        Some(received)
    }

    /// Whether the peer closed without sending a byte, as health checks and port scans do. One that
    /// broke off a TLS handshake, or a TLS record after it, has sent some.
    fn is_empty(&self, ended: &Result<(), Failure>) -> bool {
        let reason = ended.as_ref().err().map(|failure| failure.reason);
        matches!(reason, Some(Reason::ClosedBeforeData | Reason::Reset))
            && self.stream.intake().counts().bytes == 0
            && !self.transport.in_handshake()
            && !self.transport.in_record()
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
                Err(error) if self.control.cut().is_none() => return self.read_failed(&error),
                Err(_) => {}
            }
            if self.control.cut().is_some() {
                return self.end_of_stream();
            }
        }
    }

    /// Reads, and meanwhile closes a batch whose time is up, so that a quiet stream leaves none
    /// open.
    async fn read(&mut self) -> Result<Option<usize>, ReadError> {
        let RecordConnection { coalescing, transport, buffer, stream, control, .. } = self;
        let batch_ends = stream.batch_ends();
        let mut read = pin!(read_into(buffer, stream.free(), transport, coalescing.as_mut()));
        if let Some(at) = batch_ends {
            tokio::select! {
                biased;
                read = &mut read => return read,
                () = clock::sleep_until(at) => {}
            }
            // The read is still in flight. What arrives while this waits for a slow disk is not
            // late, however long that takes.
            let armed = control.disarm();
            let begun = clock::now();
            Box::pin(stream.close_batch(begun)).await;
            let spent = clock::since(begun);
            stream.forgive(spent);
            control.rearm(armed, spent);
        }
        read.await
    }

    /// Decodes the bytes of a read. Latencies are measured from here, when the completion is taken
    /// over.
    async fn digest(&mut self, bytes: usize) -> Result<(), Failure> {
        let taken_over = clock::now();
        if let Some(ticket) = self.ticket.take() {
            ticket.count();
        }
        let tally = self.worker.tally();
        tally.add(|tally| &tally.bytes_received[Protocol::Records as usize], bytes as u64);
        tally.add(|tally| &tally.record_reads, 1);
        if let Some(coalescing) = &mut self.coalescing
            && let Some(waited) =
                coalescing.handle_read(bytes, self.stream.free().len(), taken_over)
        {
            tally.add(|tally| &tally.coalesced_reads, 1);
            tally.add(|tally| &tally.coalesce_wait_ns, waited.as_nanos() as u64);
        }
        let digested = self.stream.digest(&self.buffer, bytes, taken_over).await;
        failpoint("record_connection");
        self.stream.compact(&mut self.buffer);
        self.stream.forgive(clock::since(taken_over));
        digested
    }

    fn arm_deadline(&self) {
        let (at, awaited) = self.stream.intake().deadline();
        let (at, reason) = match awaited {
            _ if self.transport.handshaking() => {
                let limit = self.worker.config.handshake_timeout;
                (self.begun + limit, DeadlineCut::Handshake)
            }
            // This is not a failure; the engine just closes if the peer does not.
            Awaited::Close => (at, DeadlineCut::Linger),
            Awaited::RestOfPacket => (at, DeadlineCut::Unfinished),
            Awaited::Packet => (at, DeadlineCut::Idle),
        };
        // Bytes that arrived in time but were held back for coalescing do not count against the
        // peer.
        let delay = self.coalescing.as_ref().map_or(Duration::ZERO, Coalescing::delay);
        self.control.arm(at + delay, reason);
    }

    /// The stream has ended: the peer closed it or the engine cut it. Only the former may complete
    /// a stream without an end record.
    fn end_of_stream(&self) -> Result<(), Failure> {
        let intake = self.stream.intake();
        if self.control.cut() == Some(DeadlineCut::Memory)
            && let Some(failure) = self.stream.condemned().filter(|_| !intake.ended())
        {
            return Err(failure);
        }
        if intake.other_size() {
            let detail = format!(
                "{} came after the end record, no whole number of records: the sender's record has \
                 another size; see `ringest schema check --sample`",
                counted(intake.counts().bytes_after_end, "byte")
            );
            return Err(Failure::of(Reason::ClosedInRecord, detail));
        }
        if intake.ended() {
            return Ok(());
        }
        let waiting = intake.waiting_bytes();
        let Counts { packets, records, .. } = intake.counts();
        let so_far = format!(
            "after {}, {} and {}",
            counted(packets, "packet"),
            counted(records, "record"),
            counted(waiting, "more byte")
        );
        let config = &self.worker.config;
        let time = |limit: Duration| time_text(limit);
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
            Some(DeadlineCut::SlowConsumer) => {
                let limit = time(config.write_timeout);
                let detail = format!("took none of TLS's own bytes in {limit} (--write-timeout)");
                Failure::of(Reason::TlsTimeout, format!("{detail} {so_far}"))
            }
            None if self.transport.in_handshake() => {
                Failure::of(Reason::TlsFailed, "closed by the peer during the TLS handshake")
            }
            None if intake.counts().bytes == 0 && self.transport.in_record() => Failure::of(
                Reason::ClosedWithoutCloseNotify,
                "closed by the peer within its first TLS record: its bytes cannot be decrypted",
            ),
            _ => match intake.cut() {
                Some(cut) => Failure::of(cut, format!("closed by the peer {so_far}")),
                None if self.transport.may_be_cut() => Failure::of(
                    Reason::ClosedWithoutCloseNotify,
                    format!(
                        "closed without TLS close_notify {so_far}; the sender must end TLS before \
                         it closes"
                    ),
                ),
                None => return Ok(()),
            },
        })
    }

    fn read_failed(&self, error: &ReadError) -> Result<(), Failure> {
        if self.stream.intake().ended() {
            return self.end_of_stream();
        }
        let reason = match error {
            ReadError::Tls(_) => Reason::TlsFailed,
            ReadError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset => Reason::Reset,
            ReadError::Io(_) => Reason::ReadFailed,
        };
        Err(Failure::of(reason, error))
    }
}

/// Ends reads for good. Record connections send nothing that the peer could lose by a reset.
fn shut_down_for_reading(stream: &Rc<TcpStream>) {
    // Fails only if the peer is gone, which completes the read as well.
    let _ = stream.shutdown(Shutdown::Read);
}

/// Reads once into the free part of a window. The future must run to completion.
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

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
