//! Records of a seeded stream: what it consists of, and the bytes of each. Keeps none and sends
//! none.

use super::keys::{Keys, put, write_text};
use crate::config::limits::SEND_BLOCK_BYTES_MAX;
use crate::wire::schema::{self, End, Endian, Kind, Length, Schema};
use fastrand::Rng;
use std::sync::Arc;

/// How texts are padded, as far as the schema allows it: where it names one byte only, that is
/// used, and where it names none, a text is filled up with spaces that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentPadding {
    /// 0x20 only, as senders in the field do.
    Space,
    /// 0x00 only.
    Nul,
    /// 0x00 and then 0x20, in shares that change from record to record.
    Mixed,
}

/// What a stream consists of. Two streams of the same description and number are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// The records and how they come.
    pub schema: Arc<Schema>,
    /// Data records.
    pub records: u64,
    /// Records in each packet but the last, 1 or more. Bare records are packets of their own,
    /// whatever stands here.
    pub packet_records: usize,
    /// Padding of the texts.
    pub padding: SentPadding,
    /// Seed of everything random.
    pub seed: u64,
    /// Distinct keys, 1 or more. All of them occur where there are as many records.
    pub groups: u32,
}

/// Why there is no such stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The length of a packet cannot say so much.
    #[error(
        "{records} records of {record_bytes} bytes do not fit into a packet: those of schema \
         {name} have {limit} bytes at most; give --packet-records {fitting} or less"
    )]
    PacketTooLong {
        /// The schema's name.
        name: String,
        /// Records in a packet.
        records: usize,
        /// Bytes of each.
        record_bytes: usize,
        /// Bytes of a packet at most.
        limit: u64,
        /// Records that fit.
        fitting: u64,
    },
    /// The keys cannot tell so many groups apart.
    #[error(
        "{groups} groups, but the keys of schema {name} ({keys}) can tell {limit} apart; \
         give --groups {limit} or less"
    )]
    TooManyGroups {
        /// The schema's name.
        name: String,
        /// The types of its keys.
        keys: String,
        /// Groups that were asked for.
        groups: u32,
        /// Groups that there can be.
        limit: u64,
    },
    /// The packets do not fit into memory.
    #[error(
        "{bytes} bytes of packets, which are made before they are sent, allowed are \
         {SEND_BLOCK_BYTES_MAX}; give fewer --groups or --packet-records"
    )]
    TooLarge {
        /// Bytes of the packets.
        bytes: u128,
    },
    /// An engine takes a connection without a byte for one that never began.
    #[error(
        "no records, but schema {name} has no record that ends a stream, so nothing would be sent; \
         give --records 1 or more"
    )]
    NothingToSend {
        /// The schema's name.
        name: String,
    },
}

impl StreamSpec {
    /// The groups that a stream can have at all.
    pub(crate) fn groups_used(&self) -> u32 {
        u64::from(self.groups).min(self.records) as u32
    }

    /// Records in each packet but the last.
    pub(crate) fn records_per_packet(&self) -> usize {
        match self.schema.framing().length {
            Length::None => 1,
            _ => self.packet_records,
        }
    }

    pub(crate) fn record_bytes(&self) -> u128 {
        self.schema.record_bytes() as u128
    }

    /// Bytes of each packet but the last.
    pub(crate) fn packet_bytes(&self) -> u128 {
        let length_bytes = self.schema.framing().length.bytes() as u128;
        length_bytes + self.records_per_packet() as u128 * self.record_bytes()
    }

    /// Whether there are packets that hold what they should.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        let schema = &self.schema;
        let (name, record_bytes) = (schema.name().to_owned(), schema.record_bytes());
        let limit = schema.packet_bytes_max();
        let room = limit.saturating_sub(schema.framing().length.bytes() as u64);
        let fitting = room / record_bytes as u64;
        let records = self.records_per_packet();
        if records as u64 > fitting {
            return Err(SpecError::PacketTooLong { name, records, record_bytes, limit, fitting });
        }
        if self.records == 0 && schema.framing().end == End::Close {
            return Err(SpecError::NothingToSend { name });
        }
        Ok(())
    }
}

/// The groups of `records` records: all `groups` once, shuffled, and then any of them. So no
/// pattern tells a receiver which group comes next, and none is missing.
///
/// # Panics
/// Where there are fewer records than groups.
pub(crate) fn shuffled_groups(random: &mut Rng, groups: u32, records: usize) -> Vec<u32> {
    assert!(records >= groups as usize, "each group occurs");
    let mut order = Vec::with_capacity(records);
    order.extend(0..groups);
    random.shuffle(&mut order);
    order.resize_with(records, || random.u32(..groups));
    order
}

/// Makes the records of a stream.
#[derive(Debug)]
pub(crate) struct Generator {
    keys: Keys,
    steps: Vec<Step>,
    endian: Endian,
    record_bytes: usize,
    /// Whether a record that is all zero would end the stream.
    zeros_end: bool,
}

/// How one field is filled.
#[derive(Debug)]
struct Step {
    offset: usize,
    width: usize,
    fill: Fill,
}

#[derive(Debug)]
enum Fill {
    /// A number of this type, drawn evenly.
    Number(Kind),
    /// A text that is no key.
    Words,
    /// What follows a text.
    Padding(SentPadding),
    /// Any bytes.
    Bytes,
}

/// Values of text fields that are no keys.
const TEXTS: u64 = 125;

impl Generator {
    /// One for a stream of this description.
    ///
    /// # Errors
    /// Where its keys cannot tell its groups apart.
    pub(crate) fn new(spec: &StreamSpec) -> Result<Self, SpecError> {
        let schema = &spec.schema;
        let keys = Keys::new(schema, spec.groups).map_err(|limit| {
            let kinds: Vec<&str> = schema.keys().map(|key| key.kind.name()).collect();
            let (name, keys) = (schema.name().to_owned(), kinds.join(", "));
            SpecError::TooManyGroups { name, keys, groups: spec.groups, limit }
        })?;
        Ok(Generator {
            keys,
            steps: steps(schema, spec.padding),
            endian: schema.endian(),
            record_bytes: schema.record_bytes(),
            zeros_end: schema.framing().end == End::ZeroRecord,
        })
    }

    /// Appends a record of a group to `out`.
    pub(crate) fn write_record(&self, random: &mut Rng, group: u32, out: &mut Vec<u8>) {
        let begin = out.len();
        out.resize(begin + self.record_bytes, 0);
        let record = &mut out[begin..];
        self.fill(random, group, record);
        // Some value is no key, or the keys would not all be zero: it is drawn until it is not.
        while self.zeros_end && record.iter().all(|&byte| byte == 0) {
            self.fill(random, group, record);
        }
    }

    /// Fills a record that is all zero.
    fn fill(&self, random: &mut Rng, group: u32, record: &mut [u8]) {
        self.keys.write(group, record);
        for Step { offset, width, fill } in &self.steps {
            let field = &mut record[*offset..offset + width];
            match *fill {
                Fill::Number(kind) => put(self.endian, drawn(random, kind), field),
                Fill::Words => {
                    let texts = TEXTS.min(36_u64.saturating_pow(*width as u32));
                    write_text(texts, random.u64(..texts), field);
                }
                Fill::Padding(padding) => pad(random, padding, field),
                Fill::Bytes => random.fill(field),
            }
        }
    }
}

/// The order in which a record is drawn: integers, then floats, then texts and other bytes. Seeds
/// give the bytes of the built-in record that they always gave.
fn steps(schema: &Schema, padding: SentPadding) -> Vec<Step> {
    let is_key = |field: &schema::Field| schema.keys().any(|key| key.offset == field.offset);
    let (mut integers, mut floats, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for field in schema.fields() {
        let (offset, kind) = (field.offset, field.kind);
        let step = |fill| Step { offset, width: kind.width(), fill };
        match kind {
            Kind::Text { padding: declared, .. } => {
                others.extend((!is_key(field)).then(|| step(Fill::Words)));
                others.push(step(Fill::Padding(allowed(padding, declared))));
            }
            _ if is_key(field) => {}
            Kind::Bytes { .. } | Kind::Skip { .. } => others.push(step(Fill::Bytes)),
            Kind::F32 | Kind::F64 => floats.push(step(Fill::Number(kind))),
            _ => integers.push(step(Fill::Number(kind))),
        }
    }
    integers.into_iter().chain(floats).chain(others).collect()
}

fn allowed(wanted: SentPadding, declared: crate::wire::text::Padding) -> SentPadding {
    match (declared.nul, declared.space) {
        (true, true) => wanted,
        (true, false) => SentPadding::Nul,
        (false, _) => SentPadding::Space,
    }
}

/// The bits of any number of a type.
fn drawn(random: &mut Rng, kind: Kind) -> u64 {
    match kind {
        Kind::U8 | Kind::I8 => u64::from(random.u8(..)),
        Kind::U16 | Kind::I16 => u64::from(random.u16(..)),
        Kind::U32 | Kind::I32 => u64::from(random.u32(..)),
        Kind::U64 | Kind::I64 => random.u64(..),
        Kind::Bool => u64::from(random.bool()),
        // The range of the field's senders: a sum in f32 overflows after a few records.
        Kind::F32 => u64::from((random.f32() * 3.4e38).to_bits()),
        // So large that nothing smaller than an f64 holds it, and so small that the sum of 10¹⁸
        // squares, which a variance needs, is finite.
        Kind::F64 => (random.f64() * 1e140).to_bits(),
        Kind::Text { .. } | Kind::Bytes { .. } | Kind::Skip { .. } => {
            unreachable!("no number")
        }
    }
}

/// Pads a text, in which there is no 0x00, and behind which there is nothing else.
fn pad(random: &mut Rng, padding: SentPadding, field: &mut [u8]) {
    let text_end = memchr::memchr(0, field).unwrap_or(field.len());
    let nul_bytes = match padding {
        SentPadding::Space => 0,
        SentPadding::Nul => field.len(),
        SentPadding::Mixed => random.usize(..field.len()),
    };
    let nul_end = (text_end + nul_bytes).min(field.len());
    field[nul_end..].fill(0x20);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::Framing;
    use std::collections::BTreeSet;

    const RECORD_BYTES: usize = 267;
    const TEXT_OFFSET: usize = 11;

    fn spec(schema: Arc<Schema>, padding: SentPadding) -> StreamSpec {
        StreamSpec { schema, records: 1000, packet_records: 4, padding, seed: 1, groups: 200 }
    }

    fn record(spec: &StreamSpec, seed: u64, group: u32) -> Vec<u8> {
        let mut record = Vec::new();
        let mut random = Rng::with_seed(seed);
        Generator::new(spec).unwrap().write_record(&mut random, group, &mut record);
        record
    }

    #[test]
    fn each_group_comes_once_before_any_comes_twice() {
        let order = shuffled_groups(&mut Rng::with_seed(3), 1000, 5000);
        assert_eq!(order[..1000].iter().collect::<BTreeSet<_>>().len(), 1000);
        assert!(order.iter().all(|&group| group < 1000));
        // Neither ascending nor with one distance: 1000 shuffled numbers have about 500 ascents.
        let ascents = |order: &[u32]| order.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&ascents(&order[..1000])));
        assert_ne!(order[..1000], order[1000..2000]);
        assert!(shuffled_groups(&mut Rng::with_seed(3), 0, 0).is_empty());
    }

    #[test]
    fn a_record_has_its_fields_where_the_protocol_says() {
        for padding in [SentPadding::Space, SentPadding::Nul, SentPadding::Mixed] {
            let record = record(&spec(Schema::built_in(), padding), 9, 131);
            assert_eq!(record.len(), RECORD_BYTES);
            assert_eq!(record[..4], 42_u32.to_be_bytes());
            // Group 131 is text 26: the second pair of words, the second time.
            assert!(record[TEXT_OFFSET..].starts_with(b"pump north 1"));
            let pads = &record[TEXT_OFFSET + b"pump north 1".len()..];
            let nul_bytes = pads.iter().take_while(|&&byte| byte == 0).count();
            assert!(pads[nul_bytes..].iter().all(|&byte| byte == b' '));
            match padding {
                SentPadding::Space => assert_eq!(nul_bytes, 0),
                SentPadding::Nul => assert_eq!(nul_bytes, pads.len()),
                SentPadding::Mixed => {}
            }
            let mut again = Rng::with_seed(9);
            let (b, d) = (again.u16(..), again.i8(..));
            assert_eq!(record[4..6], b.to_be_bytes());
            assert_eq!(record[6..10], (again.f32() * 3.4e38).to_be_bytes());
            assert_eq!(record[10], d as u8);
        }
    }

    /// A text of which the schema says that it has no such padding would be another value.
    #[test]
    fn texts_are_padded_as_the_schema_has_it() {
        let padded = |nul, space, wanted| {
            let text = Kind::Text { bytes: 16, padding: crate::wire::text::Padding { nul, space } };
            let fields = vec![("E".to_owned(), text)];
            let framing = Framing { end: End::Close, ..Framing::default() };
            let schema = Schema::new("t".into(), Endian::Big, framing, fields, vec![0], Vec::new());
            let schema = Arc::new(schema.unwrap());
            let groups = 3;
            record(&StreamSpec { groups, ..spec(schema, wanted) }, 1, 1)
        };
        for wanted in [SentPadding::Space, SentPadding::Nul, SentPadding::Mixed] {
            assert_eq!(padded(true, false, wanted), b"pump north\0\0\0\0\0\0");
            assert_eq!(padded(false, true, wanted), b"pump north      ");
            assert_eq!(padded(false, false, wanted), b"pump north      ");
        }
        assert_eq!(padded(true, true, SentPadding::Nul), b"pump north\0\0\0\0\0\0");
    }

    /// With one bit beside the key, half of the records would be all zero.
    #[test]
    fn no_record_is_the_one_that_ends_the_stream() {
        let schema = |end| {
            let fields = [("k", Kind::Bool), ("v", Kind::Bool)];
            let fields = fields.map(|(name, kind)| (name.to_owned(), kind)).into();
            let framing = Framing { end, ..Framing::default() };
            Schema::new("t".into(), Endian::Big, framing, fields, vec![0], Vec::new())
        };
        let zeros = |end| {
            let spec = spec(Arc::new(schema(end).unwrap()), SentPadding::Space);
            let spec = StreamSpec { groups: 2, ..spec };
            (0..100).filter(|&seed| record(&spec, seed, 0) == [0, 0]).count()
        };
        assert_eq!(zeros(End::ZeroRecord), 0);
        assert!((20..80).contains(&zeros(End::Close)), "there it is data");
    }
}
