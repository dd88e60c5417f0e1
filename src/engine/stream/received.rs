//! What the receiving side knows of a finished connection: status, reason, counts. Prints nothing.

use super::intake::{Counts, Refused};
use super::latency::{Latency, SmallLatency};
use crate::engine::decode::texts::{TextLimit, Texts};
use crate::wire::records::packets::{StreamCut, Violation};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// Whether a result is what the peer meant to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The all-zero record came: the result holds every record.
    Complete,
    /// The stream ended before it: the result holds the records received until then.
    Incomplete,
    /// The peer broke the protocol or a limit: the result holds the records before that.
    Rejected,
}

impl Status {
    /// The word that stands in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Complete => "complete",
            Status::Incomplete => "incomplete",
            Status::Rejected => "rejected",
        }
    }
}

/// Why a connection did not end as it should, or what is missing in its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A packet length below a header and one record.
    PacketLengthBelowMinimum,
    /// A packet length that leaves a part of a record.
    PacketLengthNotWholeRecords,
    /// A packet length above `--packet-bytes-limit`.
    PacketLengthAboveLimit,
    /// More groups than `--groups-limit`.
    GroupsLimit,
    /// More bytes of distinct texts than `--strings-bytes-limit`.
    StringsBytesLimit,
    /// A sum does not fit 64 bits, and is null. The stream is complete all the same.
    SumOverflow,
    /// No slot was free (`--max-connections`, `--max-streams`).
    ConnectionsLimit,
    /// The peer closed without having sent a byte.
    ClosedBeforeData,
    /// The peer closed after a whole packet.
    ClosedBeforeEnd,
    /// The peer closed within a packet's length.
    ClosedInHeader,
    /// The peer closed within a packet, between two records.
    ClosedInPacket,
    /// The peer closed within a record.
    ClosedInRecord,
    /// The peer reset the connection.
    Reset,
    /// Nothing came for `--idle-timeout`.
    IdleTimeout,
    /// A packet was not finished within `--packet-timeout`.
    PacketTimeout,
    /// TLS could not be agreed on, or was broken.
    TlsFailed,
    /// The TLS handshake was not finished in time.
    TlsTimeout,
    /// The engine was told to stop.
    Shutdown,
    /// The read failed in another way; the log has the system's error.
    ReadFailed,
    /// A defect of the engine; the log says more.
    InternalError,
}

impl Reason {
    /// Every reason, in the order of the documents.
    pub const ALL: [Reason; 20] = [
        Reason::PacketLengthBelowMinimum,
        Reason::PacketLengthNotWholeRecords,
        Reason::PacketLengthAboveLimit,
        Reason::GroupsLimit,
        Reason::StringsBytesLimit,
        Reason::SumOverflow,
        Reason::ConnectionsLimit,
        Reason::ClosedBeforeData,
        Reason::ClosedBeforeEnd,
        Reason::ClosedInHeader,
        Reason::ClosedInPacket,
        Reason::ClosedInRecord,
        Reason::Reset,
        Reason::IdleTimeout,
        Reason::PacketTimeout,
        Reason::TlsFailed,
        Reason::TlsTimeout,
        Reason::Shutdown,
        Reason::ReadFailed,
        Reason::InternalError,
    ];

    /// The stable word that stands in results and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::PacketLengthBelowMinimum => "packet_length_below_minimum",
            Reason::PacketLengthNotWholeRecords => "packet_length_not_whole_records",
            Reason::PacketLengthAboveLimit => "packet_length_above_limit",
            Reason::GroupsLimit => "groups_limit",
            Reason::StringsBytesLimit => "strings_bytes_limit",
            Reason::SumOverflow => "sum_overflow",
            Reason::ConnectionsLimit => "connections_limit",
            Reason::ClosedBeforeData => "closed_before_data",
            Reason::ClosedBeforeEnd => "closed_before_end",
            Reason::ClosedInHeader => "closed_in_header",
            Reason::ClosedInPacket => "closed_in_packet",
            Reason::ClosedInRecord => "closed_in_record",
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

    /// The status that a connection with this reason has.
    pub fn status(self) -> Status {
        match self {
            Reason::PacketLengthBelowMinimum
            | Reason::PacketLengthNotWholeRecords
            | Reason::PacketLengthAboveLimit
            | Reason::GroupsLimit
            | Reason::StringsBytesLimit
            | Reason::ConnectionsLimit
            | Reason::TlsFailed => Status::Rejected,
            // Every record is in the result; a cell that says nothing says so.
            Reason::SumOverflow => Status::Complete,
            _ => Status::Incomplete,
        }
    }
}

impl From<Violation> for Reason {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::LengthBelowMinimum { .. } => Reason::PacketLengthBelowMinimum,
            Violation::LengthNotWholeRecords { .. } => Reason::PacketLengthNotWholeRecords,
            Violation::LengthAboveLimit { .. } => Reason::PacketLengthAboveLimit,
        }
    }
}

impl From<TextLimit> for Reason {
    fn from(limit: TextLimit) -> Self {
        match limit {
            TextLimit::Bytes { .. } => Reason::StringsBytesLimit,
            TextLimit::Groups { .. } => Reason::GroupsLimit,
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

/// What the window of a connection was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferKind {
    /// Registered with the worker's ring.
    Registered,
    /// Plain memory, because all registered buffers were taken.
    Plain,
    /// None: the connection was refused before it was read.
    None,
}

impl BufferKind {
    /// The word that stands in results.
    pub fn as_str(self) -> &'static str {
        match self {
            BufferKind::Registered => "registered",
            BufferKind::Plain => "plain",
            BufferKind::None => "none",
        }
    }
}

/// A batch of a stream whose records have all been handed over.
#[derive(Debug)]
pub struct ClosedBatch {
    /// Its number, from 0.
    pub number: u32,
    /// When it began.
    pub began: Instant,
    /// Records, packets and bytes of this batch.
    pub counts: Counts,
    /// Latency of its packets.
    pub latency: Latency,
    /// The texts that are new since the batch before, for each key that is text.
    pub texts: Vec<Texts>,
}

/// What became of a stream's raw bytes, where they are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The file that they are in; `None` where there is none.
    pub path: Option<PathBuf>,
    /// Bytes in that file.
    pub bytes: u64,
    /// Why it does not have all of them.
    pub lack: Option<CaptureLack>,
}

/// Why a capture does not have all bytes of its stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureLack {
    /// All captures together had as many as they may.
    #[error("cut: all captures together have {0} bytes (--capture-bytes-limit)")]
    Limit(u64),
    /// The file could not be written, and is gone.
    #[error("{0}")]
    Failed(String),
}

/// What the receiving side knows of a connection when its socket is done.
#[derive(Debug)]
pub struct Received {
    /// Number of the connection, from 1, in the order of acceptance.
    pub connection: u64,
    /// Address of the sender.
    pub peer: SocketAddr,
    /// Why the stream is not complete, or what its result lacks all the same.
    pub reason: Option<Reason>,
    /// The reason in words and numbers, for people: printable, of one line.
    pub detail: Option<String>,
    /// Records, packets and bytes.
    pub counts: Counts,
    /// When the first byte was taken over, or the connection where none came.
    pub first_byte: Instant,
    /// The same moment as the calendar has it.
    pub started: SystemTime,
    /// When the socket was done.
    pub last_byte: Instant,
    /// Latency of the packets.
    pub latency: Latency,
    /// How long bytes can have waited in the kernel for more, before the latency of their packet
    /// began: one value for each read that was made to wait.
    pub coalesce_waits: SmallLatency,
    /// What it was read into.
    pub buffer: BufferKind,
    /// Where its raw bytes are; `None` where none are captured.
    pub capture: Option<Captured>,
    /// Its last batch, where partials are kept of it.
    pub batch: Option<Box<ClosedBatch>>,
    /// The distinct values of each key that is text, by code.
    pub texts: Vec<Texts>,
}

impl Received {
    /// A connection of which nothing has been read so far.
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
            texts: Vec::new(),
        }
    }

    /// Complete, incomplete or rejected.
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
