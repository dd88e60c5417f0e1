//! The plain reading of a whole record stream, against which fuzz targets compare the engine: one
//! pass over all bytes, record by record. Shares no code with it.

use crate::engine::decode::texts::TextLimit;
use crate::engine::oracle::cells::{NaiveCell, read};
use crate::engine::stream::intake::Refused;
use crate::wire::records::packets::{StreamCut, Violation};
use crate::wire::schema::{End, Endian, Length, Schema};
use std::collections::BTreeSet;

/// The limits of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadingLimits {
    pub packet_bytes: u64,
    /// Of one table, which takes `rows` rows; `None` where groups are not made.
    pub groups: Option<usize>,
    pub rows: usize,
    pub texts: usize,
    pub text_bytes: usize,
}

/// What a stream holds.
#[derive(Debug, Default)]
pub(super) struct Reading<'a> {
    pub records: Vec<&'a [u8]>,
    pub packets: u64,
    pub refused: Option<Refused>,
    /// Whether the end record was read.
    pub ended: bool,
    pub bytes_after_end: usize,
    /// Where it is cut off, if it is neither refused nor complete.
    pub cut: Option<StreamCut>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(schema: &Schema, bytes: &'a [u8], limits: &ReadingLimits) -> Self {
        let mut reading = Reading::default();
        let (mut rest, mut keeper) = (bytes, LimitKeeper::new(schema, limits));
        reading.cut = loop {
            match reading.packet(schema, rest, limits, &mut keeper) {
                Ok(taken) if reading.ended => {
                    reading.bytes_after_end = rest.len() - taken;
                    break after_end(schema, reading.bytes_after_end);
                }
                Ok(taken) => rest = &rest[taken..],
                Err(PacketEnd::Refused(refused)) => {
                    reading.refused = Some(refused);
                    break None;
                }
                Err(PacketEnd::Cut(cut)) => {
                    let between = cut == StreamCut::BetweenPackets;
                    let complete = between && schema.framing().end == End::Close;
                    let nothing = between && bytes.is_empty();
                    let cut = if nothing { StreamCut::BeforeData } else { cut };
                    break (nothing || !complete).then_some(cut);
                }
            }
        };
        reading
    }

    /// Reads a packet, or a record where records have no packets; returns its bytes.
    fn packet(
        &mut self,
        schema: &Schema,
        bytes: &'a [u8],
        limits: &ReadingLimits,
        keeper: &mut LimitKeeper<'_>,
    ) -> Result<usize, PacketEnd> {
        if bytes.is_empty() {
            return Err(PacketEnd::Cut(StreamCut::BetweenPackets));
        }
        let record_bytes = schema.record_bytes();
        let (header, body) = match schema.framing().length {
            Length::None => (0, record_bytes),
            _ => body_of(schema, bytes, limits.packet_bytes)?,
        };
        let mut at = header;
        while at < header + body {
            let Some(record) = bytes.get(at..at + record_bytes) else {
                let within = at < bytes.len();
                let cut = if within { StreamCut::InRecord } else { StreamCut::InPacket };
                return Err(PacketEnd::Cut(cut));
            };
            at += record_bytes;
            let is_end = record.iter().all(|&byte| byte == 0);
            if is_end && schema.framing().end == End::ZeroRecord {
                self.ended = true;
                break;
            }
            keeper.take(record).map_err(PacketEnd::Refused)?;
            self.records.push(record);
        }
        self.packets += 1;
        Ok(at)
    }
}

/// Why a packet is not whole.
enum PacketEnd {
    Cut(StreamCut),
    Refused(Refused),
}

/// Records without packets whose stream goes on after the end by less than a record are taken for
/// records of another size.
fn after_end(schema: &Schema, bytes: usize) -> Option<StreamCut> {
    let bare = schema.framing().length == Length::None;
    (bare && !bytes.is_multiple_of(schema.record_bytes())).then_some(StreamCut::InRecord)
}

/// Bytes of the length and of what it announces.
fn body_of(schema: &Schema, bytes: &[u8], limit: u64) -> Result<(usize, usize), PacketEnd> {
    let framing = schema.framing();
    let own = if framing.length == Length::U32 { 4 } else { 2 };
    let header = bytes.get(..own).ok_or(PacketEnd::Cut(StreamCut::InHeader))?;
    let add = |sum: u64, byte: &u8| sum * 256 + u64::from(*byte);
    let length = match framing.endian {
        Endian::Big => header.iter().fold(0, add),
        Endian::Little => header.iter().rev().fold(0, add),
    };
    let counted = if framing.includes_itself { own as u64 } else { 0 };
    let (record_bytes, sent) = (schema.record_bytes() as u64, length as u32);
    let refuse = |violation: Violation| Err(PacketEnd::Refused(violation.into()));
    if length < counted + record_bytes {
        return refuse(Violation::BelowMinimum { length: sent, min: counted + record_bytes });
    }
    let body = length - counted;
    if own as u64 + body > limit {
        return refuse(Violation::AboveLimit { length: sent, limit });
    }
    match body % record_bytes {
        0 => Ok((own, body as usize)),
        remainder => refuse(Violation::NotWholeRecords { length: sent, remainder, record_bytes }),
    }
}

/// What a key of a record is.
pub(super) type PlainKey = Vec<(i128, Vec<u8>)>;

pub(super) fn key_of(schema: &Schema, record: &[u8]) -> PlainKey {
    let cells = schema.keys().map(|field| match read(field, schema.endian(), record) {
        NaiveCell::Integer(number) => (number, Vec::new()),
        NaiveCell::Bytes(bytes) => (0, bytes),
        NaiveCell::Float(_) => panic!("a key cannot be a float"),
    });
    cells.collect()
}

/// Counts groups and texts.
struct LimitKeeper<'a> {
    schema: &'a Schema,
    limits: &'a ReadingLimits,
    /// Distinct values of each key.
    texts: Vec<BTreeSet<Vec<u8>>>,
    text_bytes: usize,
    groups: BTreeSet<PlainKey>,
    rows: usize,
}

impl<'a> LimitKeeper<'a> {
    fn new(schema: &'a Schema, limits: &'a ReadingLimits) -> Self {
        let texts = vec![BTreeSet::new(); schema.keys().len()];
        LimitKeeper { schema, limits, texts, text_bytes: 0, groups: BTreeSet::new(), rows: 0 }
    }

    fn take(&mut self, record: &[u8]) -> Result<(), Refused> {
        let key = key_of(self.schema, record);
        for (i, field) in self.schema.keys().enumerate().filter(|(_, key)| key.kind.is_text()) {
            let (known, text) = (&mut self.texts[i], &key[i].1);
            if known.contains(text) {
                continue;
            }
            debug_assert!(text.len() <= field.kind.width());
            let ReadingLimits { texts, text_bytes, .. } = *self.limits;
            if known.len() == texts {
                return Err(TextLimit::Groups { limit: texts }.into());
            }
            if self.text_bytes + text.len() > text_bytes {
                return Err(TextLimit::Bytes { limit: text_bytes }.into());
            }
            self.text_bytes += text.len();
            known.insert(text.clone());
        }
        if let Some(limit) = self.limits.groups {
            if self.rows.is_multiple_of(self.limits.rows) {
                self.groups.clear();
            }
            if self.groups.len() == limit && !self.groups.contains(&key) {
                return Err(Refused::Groups { limit });
            }
            self.groups.insert(key);
        }
        self.rows += 1;
        Ok(())
    }
}
