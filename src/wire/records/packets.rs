//! Parses packets of records: finds runs of whole records and the end record in received bytes, and
//! rejects invalid lengths. Decodes no field, stores no bytes and performs no I/O.

use crate::wire::schema::{End, Endian, Framing, Length, Schema};
use crate::wire::text::counted;

/// The part of a schema that determines where records begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordForm {
    /// Bytes of a record.
    pub record_bytes: usize,
    /// How records are framed.
    pub framing: Framing,
}

impl RecordForm {
    /// The form of a schema's records.
    pub fn of(schema: &Schema) -> Self {
        RecordForm { record_bytes: schema.record_bytes(), framing: schema.framing() }
    }

    /// Bytes of a packet's length prefix; 0 if there is none.
    pub fn header_bytes(&self) -> usize {
        self.framing.length.bytes()
    }

    /// Whether each record is its own packet.
    pub fn is_bare(&self) -> bool {
        self.framing.length == Length::None
    }

    /// The length at the start of `bytes`, as it was sent; `None` until all of it has arrived.
    #[inline]
    fn length(&self, bytes: &[u8]) -> Option<u32> {
        let Framing { length, endian, .. } = self.framing;
        match (length, endian) {
            (Length::U32, Endian::Big) => bytes.first_chunk().map(|b| u32::from_be_bytes(*b)),
            (Length::U32, Endian::Little) => bytes.first_chunk().map(|b| u32::from_le_bytes(*b)),
            (Length::U16, Endian::Big) => {
                bytes.first_chunk().map(|b| u32::from(u16::from_be_bytes(*b)))
            }
            (Length::U16, Endian::Little) => {
                bytes.first_chunk().map(|b| u32::from(u16::from_le_bytes(*b)))
            }
            (Length::None, _) => None,
        }
    }

    /// Bytes of the body that a length announces.
    ///
    /// # Errors
    /// [`Violation`] if that is not a whole number of records or the packet is above the limit.
    #[inline]
    fn body_bytes(&self, length: u32, packet_bytes_limit: u64) -> Result<usize, Violation> {
        let (record_bytes, own) = (self.record_bytes as u64, self.header_bytes() as u64);
        let counted = if self.framing.includes_itself { own } else { 0 };
        let sent = u64::from(length);
        if sent < counted + record_bytes {
            return Err(Violation::BelowMinimum { length, min: counted + record_bytes });
        }
        let body = sent - counted;
        if body + own > packet_bytes_limit {
            return Err(Violation::AboveLimit { length, limit: packet_bytes_limit });
        }
        match body % record_bytes {
            0 => Ok(body as usize),
            remainder => Err(Violation::NotWholeRecords { length, remainder, record_bytes }),
        }
    }
}

/// Consecutive whole data records in the received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// First byte of the first record.
    pub offset: usize,
    /// Number of records from there on; at least one.
    pub records: usize,
    /// Which of them end a packet: at most the last one if packets have a length, else every one.
    pub ends: Ends,
}

/// Which records of a run end a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// None: the packet continues after the run.
    #[default]
    None,
    /// The last one.
    Last,
    /// Every one.
    Each,
}

const _: () = assert!(size_of::<Run>() == crate::config::RUN_BYTES);

impl Run {
    /// The bytes of the run, given the bytes it was found in.
    pub fn bytes<'a>(&self, received: &'a [u8], record_bytes: usize) -> &'a [u8] {
        &received[self.offset..self.offset + self.records * record_bytes]
    }

    /// Number of packets that end within its first `records` records.
    pub fn packets(&self, records: usize) -> usize {
        match self.ends {
            Ends::None => 0,
            Ends::Last => usize::from(records >= self.records),
            Ends::Each => records.min(self.records),
        }
    }
}

/// The runs of one pass. Allocates once.
#[derive(Debug)]
pub struct RunList {
    runs: Vec<Run>,
    limit: usize,
    records: usize,
}

impl RunList {
    /// A list of at most `limit` runs.
    pub fn with_limit(limit: usize) -> Self {
        RunList { runs: Vec::with_capacity(limit), limit, records: 0 }
    }

    /// The runs that were found, in the order of their bytes.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Data records in all runs.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Number of packets that end within the first `records` records.
    pub(crate) fn packets(&self, records: usize) -> usize {
        let mut left = records;
        let mut packets = 0;
        for run in &self.runs {
            packets += run.packets(left);
            if run.records >= left {
                break;
            }
            left -= run.records;
        }
        packets
    }

    fn clear(&mut self) {
        self.runs.clear();
        self.records = 0;
    }

    fn push(&mut self, run: Run) {
        self.records += run.records;
        self.runs.push(run);
    }
}

/// How a peer broke the protocol. All of these are detected from the header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The length is too small for a packet of one record.
    #[error("packet length {length} is below {min}, the length of a packet of one record")]
    BelowMinimum {
        /// The length that the peer sent.
        length: u32,
        /// The smallest valid length.
        min: u64,
    },
    /// The length does not cover a whole number of records.
    #[error(
        "packet length {length} leaves {} after whole records of {record_bytes}",
        counted(.remainder, "byte")
    )]
    NotWholeRecords {
        /// The length that the peer sent.
        length: u32,
        /// Bytes beyond the last whole record.
        remainder: u64,
        /// Bytes of a record.
        record_bytes: u64,
    },
    /// The length is above the configured limit.
    #[error("packet length {length} is above the limit of {limit} (--packet-bytes-limit)")]
    AboveLimit {
        /// The length that the peer sent.
        length: u32,
        /// The limit in force.
        limit: u64,
    },
}

/// Where a stream without an end was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCut {
    /// Before the first byte.
    BeforeData,
    /// After a whole packet.
    BetweenPackets,
    /// Within a packet's length.
    InHeader,
    /// Within a packet, after a whole record or immediately after the length.
    InPacket,
    /// Within a record.
    InRecord,
}

/// Why a pass stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The remaining bytes, if any, are the beginning of a length or a record.
    NeedMore,
    /// The list of runs is full or holds the requested number of records; process them and call
    /// again.
    RunsFull,
    /// The end record has been parsed. Anything after it is not data.
    End,
    /// The next bytes are an invalid length.
    Refused(Violation),
}

/// The result of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsePass {
    /// Bytes that were parsed, from the start of the input.
    pub bytes: usize,
    /// Why it stopped there.
    pub stop: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParserState {
    Header,
    /// Bytes of the packet's body still to come: a multiple of the record size, never zero.
    Body {
        bytes_left: usize,
    },
    /// Records without a packet length.
    Bare,
    Ended,
}

/// Parses one stream of packets. Its only state is the position within a packet.
#[derive(Clone, Debug)]
pub struct PacketParser {
    form: RecordForm,
    state: ParserState,
    packet_bytes_limit: u64,
}

impl PacketParser {
    /// A parser at the start of a stream. It rejects packets above `packet_bytes_limit`.
    pub fn new(form: RecordForm, packet_bytes_limit: u64) -> Self {
        let state = if form.is_bare() { ParserState::Bare } else { ParserState::Header };
        PacketParser { form, state, packet_bytes_limit }
    }

    /// Continues in `received[from..]` and replaces `list` with the runs found there, at most
    /// `records_limit` records in all. A run's offset counts from the start of `received`.
    pub fn parse(
        &mut self,
        received: &[u8],
        from: usize,
        records_limit: usize,
        list: &mut RunList,
    ) -> ParsePass {
        list.clear();
        let mut at = from;
        let stop = loop {
            let rest = &received[at..];
            let bytes_left = match self.state {
                ParserState::Ended => break Stop::End,
                ParserState::Header => {
                    let Some(length) = self.form.length(rest) else {
                        break Stop::NeedMore;
                    };
                    match self.form.body_bytes(length, self.packet_bytes_limit) {
                        Ok(bytes_left) => self.state = ParserState::Body { bytes_left },
                        Err(violation) => break Stop::Refused(violation),
                    }
                    at += self.form.header_bytes();
                    continue;
                }
                ParserState::Body { bytes_left } => bytes_left,
                ParserState::Bare => rest.len(),
            };
            let here = rest.len().min(bytes_left) / self.form.record_bytes;
            if here == 0 {
                break Stop::NeedMore;
            }
            let here = here.min(records_limit - list.records);
            if here == 0 || list.runs.len() == list.limit {
                break Stop::RunsFull;
            }
            at += self.take_records(&rest[..here * self.form.record_bytes], here, at, list);
        };
        ParsePass { bytes: at - from, stop }
    }

    /// Takes whole records, up to and including an end record. Returns the number of bytes taken.
    fn take_records(
        &mut self,
        whole: &[u8],
        count: usize,
        offset: usize,
        list: &mut RunList,
    ) -> usize {
        let record_bytes = self.form.record_bytes;
        let end = match self.form.framing.end {
            End::ZeroRecord => find_end_record(whole, record_bytes),
            End::Close => None,
        };
        let records = end.unwrap_or(count);
        let ends = match self.state {
            ParserState::Bare => Ends::Each,
            ParserState::Body { bytes_left } if bytes_left == whole.len() && end.is_none() => {
                Ends::Last
            }
            _ => Ends::None,
        };
        if records > 0 {
            list.push(Run { offset, records, ends });
        }
        if end.is_some() {
            self.state = ParserState::Ended;
            return (records + 1) * record_bytes;
        }
        if let ParserState::Body { bytes_left } = &mut self.state {
            *bytes_left -= whole.len();
            if *bytes_left == 0 {
                self.state = ParserState::Header;
            }
        }
        whole.len()
    }

    /// The form of its records.
    pub(crate) fn form(&self) -> &RecordForm {
        &self.form
    }

    /// Whether the end record has been parsed.
    pub fn ended(&self) -> bool {
        self.state == ParserState::Ended
    }

    /// Whether a packet has begun and is incomplete, with `unparsed_bytes` waiting for more.
    pub(crate) fn in_packet(&self, unparsed_bytes: usize) -> bool {
        match self.state {
            ParserState::Header | ParserState::Bare => unparsed_bytes > 0,
            ParserState::Body { .. } => true,
            ParserState::Ended => false,
        }
    }

    /// Where the stream is cut off if it stops now with `unparsed_bytes` left, or `None` if it is
    /// complete: after the end record, or after a whole packet if closing ends the stream.
    /// `any_bytes` distinguishes an empty stream from one between packets.
    pub(crate) fn cut(&self, unparsed_bytes: usize, any_bytes: bool) -> Option<StreamCut> {
        let ends_by_closing = self.form.framing.end == End::Close;
        match (self.state, unparsed_bytes) {
            (ParserState::Ended, _) => None,
            (ParserState::Header | ParserState::Bare, 0) if !any_bytes => {
                Some(StreamCut::BeforeData)
            }
            (ParserState::Header | ParserState::Bare, 0) if ends_by_closing => None,
            (ParserState::Header | ParserState::Bare, 0) => Some(StreamCut::BetweenPackets),
            (ParserState::Header, _) => Some(StreamCut::InHeader),
            (ParserState::Body { .. }, 0) => Some(StreamCut::InPacket),
            (ParserState::Body { .. } | ParserState::Bare, _) => Some(StreamCut::InRecord),
        }
    }
}

/// Why a payload that is meant as packets is not whole packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadFault {
    /// A packet length breaks the protocol.
    #[error(transparent)]
    Packet(#[from] Violation),
    /// The payload ends within a packet.
    #[error(
        "{} left after {}, where the next one needs at least {need}; each DATA must be whole \
         packets",
        counted(.left, "byte"), counted(.packets, "whole packet")
    )]
    CutOff {
        /// Bytes after the last whole packet.
        left: usize,
        /// Whole packets before them.
        packets: usize,
        /// Bytes of the packet that they begin, or of the smallest one if its length is cut off.
        need: usize,
    },
}

/// Whether a payload is meant as packets of this form: it begins with a valid length, of a packet
/// that is within the limit or all there. Without packet lengths, whether it is whole records.
pub fn begins_with_packet(form: &RecordForm, payload: &[u8], packet_bytes_limit: u64) -> bool {
    if form.is_bare() {
        return !payload.is_empty() && payload.len().is_multiple_of(form.record_bytes);
    }
    let limit = packet_bytes_limit.max(payload.len() as u64);
    form.length(payload).is_some_and(|length| form.body_bytes(length, limit).is_ok())
}

/// Checks that a payload consists of whole packets.
///
/// # Errors
/// `PayloadFault`, that of the first packet that is wrong.
pub fn check_whole_packets(
    form: &RecordForm,
    payload: &[u8],
    packet_bytes_limit: u64,
) -> Result<(), PayloadFault> {
    if form.is_bare() {
        let (packets, left) =
            (payload.len() / form.record_bytes, payload.len() % form.record_bytes);
        let cut_off = PayloadFault::CutOff { left, packets, need: form.record_bytes };
        return if left == 0 { Ok(()) } else { Err(cut_off) };
    }
    let (mut rest, mut packets) = (payload, 0);
    while !rest.is_empty() {
        let need = match form.length(rest) {
            Some(length) => form.header_bytes() + form.body_bytes(length, packet_bytes_limit)?,
            None => form.header_bytes() + form.record_bytes,
        };
        let Some(after) = rest.get(need..) else {
            return Err(PayloadFault::CutOff { left: rest.len(), packets, need });
        };
        rest = after;
        packets += 1;
    }
    Ok(())
}

/// Index of the first all-zero record of `whole`.
fn find_end_record(whole: &[u8], record_bytes: usize) -> Option<usize> {
    let is_zero = |record: &[u8]| record.iter().all(|&byte| byte == 0);
    let mut records = whole.chunks_exact(record_bytes);
    match record_bytes {
        0..8 => records.position(is_zero),
        // One load rules out nearly every data record.
        8.. => records.position(|record| record.first_chunk() == Some(&[0; 8]) && is_zero(record)),
    }
}

#[cfg(test)]
#[path = "packets_tests.rs"]
mod tests;
