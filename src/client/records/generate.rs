//! Generates the records of a seeded stream from its description. Stores none and sends none.

use super::keys::{Keys, put, write_text};
use crate::config::limits::SEND_BLOCK_BYTES_MAX;
use crate::wire::schema::{self, End, Endian, Kind, Length, Schema};
use crate::wire::text::counted;
use fastrand::Rng;
use std::sync::Arc;

/// How to pad texts, if the schema leaves the choice. If the schema names a single padding byte,
/// that one is used; if it names none, texts are filled up with spaces that are part of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentPadding {
    /// 0x20 only, as the devices in the field do.
    Space,
    /// 0x00 only.
    Nul,
    /// 0x00 followed by 0x20, in proportions that vary from record to record.
    Mixed,
}

/// Describes a stream. The same description and stream number always give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// The record format and its framing.
    pub schema: Arc<Schema>,
    /// Number of data records.
    pub records: u64,
    /// Records in each packet but the last; 1 or more. Without framing, each record is a packet and
    /// this is ignored.
    pub packet_records: usize,
    /// How texts are padded.
    pub padding: SentPadding,
    /// Seed of all random values.
    pub seed: u64,
    /// Number of distinct keys; 1 or more. All of them occur if there are at least as many records.
    pub groups: u32,
}

/// Why a [`StreamSpec`] describes no possible stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A packet would be longer than its length field can express.
    #[error(
        "{records} records of {} do not fit into one packet: schema {name} \
         allows {limit} bytes; use --packet-records {fitting} or less",
        counted(.record_bytes, "byte")
    )]
    PacketTooLong {
        /// The schema's name.
        name: String,
        /// Requested records in a packet.
        records: usize,
        /// Size of a record in bytes.
        record_bytes: usize,
        /// Maximum size of a packet in bytes.
        limit: u64,
        /// Number of records that fit.
        fitting: u64,
    },
    /// The keys have too few possible values.
    #[error(
        "{groups} groups requested, but the keys of schema {name} ({keys}) can distinguish only \
         {limit}; use --groups {limit} or less"
    )]
    TooManyGroups {
        /// The schema's name.
        name: String,
        /// The types of its keys.
        keys: String,
        /// Requested number of groups.
        groups: u32,
        /// Number of groups the keys can distinguish.
        limit: u64,
    },
    /// The block of packets would exceed its memory limit.
    #[error(
        "packets are built in memory before they are sent: these need {bytes} bytes, the limit is \
         {SEND_BLOCK_BYTES_MAX}; use fewer --groups or --packet-records"
    )]
    TooLarge {
        /// Size of the packets in bytes.
        bytes: u128,
    },
    /// The stream would be empty: no records and no end record. An engine does not count a
    /// connection that sends nothing as a stream.
    #[error(
        "nothing to send: there are no records, and schema {name} has no end record; \
         use --records 1 or more"
    )]
    NothingToSend {
        /// The schema's name.
        name: String,
    },
}

impl StreamSpec {
    /// Number of groups that occur in a stream.
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

    /// Checks that packets of the requested size are possible and that there is something to send.
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

/// The group of each of `records` records: every group once, shuffled, and then random ones. No
/// group is missing, and a receiver cannot predict which comes next.
///
/// # Panics
/// If there are fewer records than groups.
pub(crate) fn shuffled_groups(random: &mut Rng, groups: u32, records: usize) -> Vec<u32> {
    assert!(records >= groups as usize, "at least one record for each group");
    let mut order = Vec::with_capacity(records);
    order.extend(0..groups);
    random.shuffle(&mut order);
    order.resize_with(records, || random.u32(..groups));
    order
}

/// Generates the records of a stream.
#[derive(Debug)]
pub(crate) struct Generator {
    keys: Keys,
    steps: Vec<Step>,
    endian: Endian,
    record_bytes: usize,
    /// Whether an all-zero record would end the stream.
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
    /// A random number of this type, uniformly distributed.
    Number(Kind),
    /// A text that is not a key.
    Words,
    /// The padding after a text.
    Padding(SentPadding),
    /// Random bytes.
    Bytes,
}

/// Number of distinct values of text fields that are not keys.
const TEXTS: u64 = 125;

impl Generator {
    /// A generator for the streams of `spec`.
    ///
    /// # Errors
    /// [`SpecError::TooManyGroups`].
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
        // Keys alone are never all zero, so some field is random: draw until it is not zero.
        while self.zeros_end && record.iter().all(|&byte| byte == 0) {
            self.fill(random, group, record);
        }
    }

    /// Fills a record; its key fields must be zero.
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

/// The order in which fields are drawn: integers, then floats, then texts and other bytes. It must
/// not change, so that a seed keeps giving the same bytes for the built-in record.
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

/// The bits of a random number of a type.
fn drawn(random: &mut Rng, kind: Kind) -> u64 {
    match kind {
        Kind::U8 | Kind::I8 => u64::from(random.u8(..)),
        Kind::U16 | Kind::I16 => u64::from(random.u16(..)),
        Kind::U32 | Kind::I32 => u64::from(random.u32(..)),
        Kind::U64 | Kind::I64 => random.u64(..),
        Kind::Bool => u64::from(random.bool()),
        // The range that devices in the field send: a sum in f32 overflows after a few records.
        Kind::F32 => u64::from((random.f32() * 3.4e38).to_bits()),
        // Large enough to need an f64, and small enough that the sum of 10¹⁸ squares, which a
        // variance needs, is finite.
        Kind::F64 => (random.f64() * 1e140).to_bits(),
        Kind::Text { .. } | Kind::Bytes { .. } | Kind::Skip { .. } => {
            unreachable!("not a number")
        }
    }
}

/// Pads a text that contains no 0x00, in a field that is zero after it.
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
        // Neither ascending nor evenly spaced: 1000 shuffled numbers have about 500 ascents.
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
            // Group 131 has text 26: the second pair of words, used for the second time.
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

    /// Padding that the schema does not declare would be part of the value.
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

    /// With a single bit besides the key, half of the records would be all zero.
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
        assert!((20..80).contains(&zeros(End::Close)), "without an end record it is data");
    }
}
