//! The outcome of a finished connection as the receiver sees it: status, reason, counts. Formatting
//! results is up to others.

use super::intake::{Counts, Refused};
use super::latency::{Latency, SmallLatency};
use crate::engine::decode::texts::{TextLimit, Texts};
use crate::engine::memory::account::ShareOwner;
use crate::engine::memory::held::HeldBytes;
use crate::wire::records::packets::{PayloadFault, StreamCut, Violation};
use crate::wire::text::counted;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// Whether a result holds what the peer meant to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The stream ended as its schema requires: the result holds every record.
    Complete,
    /// The stream ended early: the result holds the records received until then.
    Incomplete,
    /// The peer broke the protocol or exceeded a limit: the result holds the records before that.
    Rejected,
}

impl Status {
    /// The name used in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Complete => "complete",
            Status::Incomplete => "incomplete",
            Status::Rejected => "rejected",
        }
    }
}

/// Why a connection did not end properly, or what its result lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A packet length is too small for one record.
    PacketLengthBelowMinimum,
    /// A packet length does not cover a whole number of records.
    PacketLengthNotWholeRecords,
    /// A packet length is above `--packet-bytes-limit`.
    PacketLengthAboveLimit,
    /// A DATA message that is meant as records is not whole packets.
    DataNotWholePackets,
    /// A DATA message goes on after the end record.
    DataAfterEnd,
    /// The stream has more groups than `--groups-limit`.
    GroupsLimit,
    /// Its distinct texts have more bytes than `--strings-bytes-limit`.
    StringsBytesLimit,
    /// The engine reached `--memory-limit`, and this stream held the most.
    MemoryLimit,
    /// A sum does not fit into 64 bits and is null. The stream is complete nevertheless.
    SumOverflow,
    /// No slot was free (`--max-connections`, `--max-streams`).
    ConnectionsLimit,
    /// The peer closed without sending a byte.
    ClosedBeforeData,
    /// The peer closed after a whole packet.
    ClosedBeforeEnd,
    /// The peer closed within a packet's length.
    ClosedInHeader,
    /// The peer closed within a packet, between two records.
    ClosedInPacket,
    /// The peer closed within a record.
    ClosedInRecord,
    /// The TLS connection of a stream that ends by closing was cut: close_notify is missing.
    ClosedWithoutCloseNotify,
    /// The peer reset the connection.
    Reset,
    /// Nothing arrived for `--idle-timeout`.
    IdleTimeout,
    /// A packet was not finished within `--packet-timeout`.
    PacketTimeout,
    /// The TLS handshake or connection failed.
    TlsFailed,
    /// The TLS handshake was not finished in time, or the peer did not read what TLS sends.
    TlsTimeout,
    /// The engine was stopped.
    Shutdown,
    /// Reading failed in another way; the log has the system's error.
    ReadFailed,
    /// A bug in the engine; the log says more.
    InternalError,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Reason; 24] = [
        Reason::PacketLengthBelowMinimum,
        Reason::PacketLengthNotWholeRecords,
        Reason::PacketLengthAboveLimit,
        Reason::DataNotWholePackets,
        Reason::DataAfterEnd,
        Reason::GroupsLimit,
        Reason::StringsBytesLimit,
        Reason::MemoryLimit,
        Reason::SumOverflow,
        Reason::ConnectionsLimit,
        Reason::ClosedBeforeData,
        Reason::ClosedBeforeEnd,
        Reason::ClosedInHeader,
        Reason::ClosedInPacket,
        Reason::ClosedInRecord,
        Reason::ClosedWithoutCloseNotify,
        Reason::Reset,
        Reason::IdleTimeout,
        Reason::PacketTimeout,
        Reason::TlsFailed,
        Reason::TlsTimeout,
        Reason::Shutdown,
        Reason::ReadFailed,
        Reason::InternalError,
    ];

    /// The stable name used in results and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::PacketLengthBelowMinimum => "packet_length_below_minimum",
            Reason::PacketLengthNotWholeRecords => "packet_length_not_whole_records",
            Reason::PacketLengthAboveLimit => "packet_length_above_limit",
            Reason::DataNotWholePackets => "data_not_whole_packets",
            Reason::DataAfterEnd => "data_after_end",
            Reason::GroupsLimit => "groups_limit",
            Reason::StringsBytesLimit => "strings_bytes_limit",
            Reason::MemoryLimit => "memory_limit",
            Reason::SumOverflow => "sum_overflow",
            Reason::ConnectionsLimit => "connections_limit",
            Reason::ClosedBeforeData => "closed_before_data",
            Reason::ClosedBeforeEnd => "closed_before_end",
            Reason::ClosedInHeader => "closed_in_header",
            Reason::ClosedInPacket => "closed_in_packet",
            Reason::ClosedInRecord => "closed_in_record",
            Reason::ClosedWithoutCloseNotify => "closed_without_close_notify",
            Reason::Reset => "reset",
            Reason::IdleTimeout => "idle_timeout",
            Reason::PacketTimeout => "packet_timeout",
            Reason::TlsFailed => "tls_failed",
            Reason::TlsTimeout => "tls_timeout",
            Reason::Shutdown => "shutdown",
            Reason::ReadFailed => "read_failed",
            Reason::InternalError => "internal_error",
        }
    }

    /// The status of a connection with this reason.
    pub fn status(self) -> Status {
        match self {
            Reason::PacketLengthBelowMinimum
            | Reason::PacketLengthNotWholeRecords
            | Reason::PacketLengthAboveLimit
            | Reason::DataNotWholePackets
            | Reason::DataAfterEnd
            | Reason::GroupsLimit
            | Reason::StringsBytesLimit
            | Reason::MemoryLimit
            | Reason::ConnectionsLimit
            | Reason::TlsFailed => Status::Rejected,
            // Every record is in the result; the sum is null.
            Reason::SumOverflow => Status::Complete,
            _ => Status::Incomplete,
        }
    }
}

impl From<Violation> for Reason {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::BelowMinimum { .. } => Reason::PacketLengthBelowMinimum,
            Violation::NotWholeRecords { .. } => Reason::PacketLengthNotWholeRecords,
            Violation::AboveLimit { .. } => Reason::PacketLengthAboveLimit,
        }
    }
}

impl From<PayloadFault> for Reason {
    fn from(fault: PayloadFault) -> Self {
        match fault {
            PayloadFault::Packet(violation) => violation.into(),
            PayloadFault::CutOff { .. } => Reason::DataNotWholePackets,
        }
    }
}

impl From<TextLimit> for Reason {
    fn from(limit: TextLimit) -> Self {
        match limit {
            TextLimit::Bytes { .. } => Reason::StringsBytesLimit,
            TextLimit::Groups { .. } => Reason::GroupsLimit,
            TextLimit::Memory => Reason::MemoryLimit,
        }
    }
}

impl From<Refused> for Reason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Packet(violation) => violation.into(),
            Refused::Text(limit) => limit.into(),
            Refused::Groups { .. } => Reason::GroupsLimit,
        }
    }
}

impl From<StreamCut> for Reason {
    fn from(cut: StreamCut) -> Self {
        match cut {
            StreamCut::BeforeData => Reason::ClosedBeforeData,
            StreamCut::BetweenPackets => Reason::ClosedBeforeEnd,
            StreamCut::InHeader => Reason::ClosedInHeader,
            StreamCut::InPacket => Reason::ClosedInPacket,
            StreamCut::InRecord => Reason::ClosedInRecord,
        }
    }
}

/// The kind of memory of a connection's receive window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferKind {
    /// Registered with the worker's ring.
    Registered,
    /// Plain memory, because all registered buffers were in use.
    Plain,
    /// None: the connection was rejected before anything was read.
    None,
}

impl BufferKind {
    /// The name used in results.
    pub fn as_str(self) -> &'static str {
        match self {
            BufferKind::Registered => "registered",
            BufferKind::Plain => "plain",
            BufferKind::None => "none",
        }
    }
}

/// A finished batch of a stream, whose records have all been handed over.
#[derive(Debug)]
pub struct ClosedBatch {
    /// Its number, from 0.
    pub number: u32,
    /// When it began on the wall clock; not before the previous batch of its stream.
    pub began: SystemTime,
    /// Records, packets and bytes of this batch.
    pub counts: Counts,
    /// Latency of its packets.
    pub latency: Latency,
    /// The texts that are new since the previous batch, for each text key.
    pub texts: Vec<Texts>,
}

/// What a stream holds of the engine's memory from its first byte until it has been reported.
#[derive(Debug, Default)]
pub(crate) struct StreamMemory {
    /// Its share of the account; `None` if it was never counted.
    pub owner: Option<ShareOwner>,
    /// The parts that do not count their memory themselves.
    pub held: Vec<HeldBytes>,
}

/// The capture of a stream's raw bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The file with the bytes, if any.
    pub path: Option<PathBuf>,
    /// Bytes in that file.
    pub bytes: u64,
    /// Why bytes are missing, if any are.
    pub lack: Option<CaptureLack>,
}

/// Why a capture lacks bytes of its stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureLack {
    /// All captures together reached their limit.
    #[error("cut: all captures together have {} (--capture-bytes-limit)", counted(.0, "byte"))]
    Limit(u64),
    /// The file could not be written and was removed.
    #[error("{0}")]
    Failed(String),
}

/// Batches of a stream that are missing in its partials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialsLack {
    /// How many there are.
    pub failed: u64,
    /// Why the first could not be written.
    pub error: Option<String>,
}

impl PartialsLack {
    /// Counts one more.
    pub fn add(&mut self, error: String) {
        self.failed += 1;
        self.error.get_or_insert(error);
    }

    /// Counts those of another count, too.
    pub fn merge(&mut self, other: PartialsLack) {
        self.failed += other.failed;
        if self.error.is_none() {
            self.error = other.error;
        }
    }
}

/// The outcome of a connection once its socket is finished.
#[derive(Debug)]
pub struct Received {
    /// Number of the connection, from 1, in the order of acceptance.
    pub connection: u64,
    /// Address of the sender.
    pub peer: SocketAddr,
    /// Why the stream is not complete, or what its result lacks nevertheless.
    pub reason: Option<Reason>,
    /// The reason in words and numbers, for people: one line of printable characters.
    pub detail: Option<String>,
    /// Records, packets and bytes.
    pub counts: Counts,
    /// When the first byte was read, or the connection accepted if there was none.
    pub first_byte: Instant,
    /// The same time on the wall clock.
    pub started: SystemTime,
    /// When the socket was finished.
    pub last_byte: Instant,
    /// Latency of the packets.
    pub latency: Latency,
    /// How long bytes may have waited in the kernel for more before the latency of their packet
    /// began: one value for each read that was made to wait.
    pub coalesce_waits: SmallLatency,
    /// The kind of memory it was read into.
    pub buffer: BufferKind,
    /// The capture of its raw bytes; `None` if they are not captured.
    pub capture: Option<Captured>,
    /// Its last batch, if partials are written for it.
    pub batch: Option<Box<ClosedBatch>>,
    /// Its batches that could not be written.
    pub partials: PartialsLack,
    /// The distinct values of each text key, by code.
    pub texts: Vec<Texts>,
    /// What it holds of the engine's memory until it has been reported.
    pub(crate) memory: StreamMemory,
}

impl Received {
    /// A connection from which nothing has been read yet.
    pub fn nothing(connection: u64, peer: SocketAddr, now: Instant) -> Self {
        Received {
            connection,
            peer,
            reason: None,
            detail: None,
            counts: Counts::default(),
            first_byte: now,
            started: SystemTime::now(),
            last_byte: now,
            latency: Latency::default(),
            coalesce_waits: SmallLatency::default(),
            buffer: BufferKind::None,
            capture: None,
            batch: None,
            partials: PartialsLack::default(),
            texts: Vec::new(),
            memory: StreamMemory::default(),
        }
    }

    /// The status, which follows from the reason.
    pub fn status(&self) -> Status {
        self.reason.map_or(Status::Complete, Reason::status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_distinct_snake_case_words() {
        let words: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for word in words {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        }
    }
}
