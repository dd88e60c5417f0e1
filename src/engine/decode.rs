//! Runs of records into columns, one tight loop a field: finds no records, decides no limit and
//! touches no byte of what it reads.

use super::columns::{ColumnSet, key_of};
use super::intern::{Interner, TextLimit};
use super::text_tag::TextField;
use crate::wire::record::Run;
use crate::wire::schema::{self, RECORD_BYTES};

/// What a call of [`decode_runs`] added to the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Records, each one row.
    pub records: usize,
    /// Packets whose last record is among them.
    pub packets: usize,
    /// Why the rest of the runs was left out, if it was.
    pub limit: Option<TextLimit>,
}

/// Appends the records of `runs` to `set`, straight from where they landed in `received`.
///
/// The set must have room for them: [`PacketParser::parse`](crate::wire::record::PacketParser)
/// takes the number of free rows as its limit. Where a text goes beyond a limit, the records
/// before it are in the columns, and it and those after it are not.
pub fn decode_runs(
    received: &[u8],
    runs: &[Run],
    interner: &mut Interner,
    set: &mut ColumnSet,
) -> Decoded {
    #[cfg(target_arch = "x86_64")]
    if wide_registers() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { decode_runs_avx2(received, runs, interner, set) };
    }
    decode_runs_anywhere(received, runs, interner, set)
}

/// Whether the processor has what [`decode_runs_avx2`] is compiled for.
#[cfg(target_arch = "x86_64")]
fn wide_registers() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("bmi1")
        && std::is_x86_feature_detected!("bmi2")
        && std::is_x86_feature_detected!("lzcnt")
}

/// The same code with wider registers: texts are looked at 32 bytes at a time and not 16.
///
/// # Safety
/// The processor must have AVX2, and LZCNT, BMI1 and BMI2, which came with it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn decode_runs_avx2(
    received: &[u8],
    runs: &[Run],
    interner: &mut Interner,
    set: &mut ColumnSet,
) -> Decoded {
    decode_runs_anywhere(received, runs, interner, set)
}

#[inline(always)]
fn decode_runs_anywhere(
    received: &[u8],
    runs: &[Run],
    interner: &mut Interner,
    set: &mut ColumnSet,
) -> Decoded {
    let mut records = runs.iter().flat_map(|run| records_of(run.bytes(received)));
    let mut block = Block::new();
    let mut coded = 0;
    let mut limit = None;
    while limit.is_none() && block.fill(&mut records) {
        let first = set.rows();
        decode_block(block.records(), set);
        let rows;
        (rows, limit) = interner.code_keys(block.texts(), &mut set.keys[first..]);
        set.truncate(first + rows);
        coded += rows;
    }
    Decoded { records: coded, packets: packets_ended(runs, coded), limit }
}

/// Records that are decoded together: few enough that all their bytes stay in the core's first
/// cache from one field's loop to the next.
const BLOCK_RECORDS: usize = 64;

type Record = [u8; RECORD_BYTES];

/// Whole records, wherever in the received bytes their runs are.
struct Block<'a> {
    records: [&'a Record; BLOCK_RECORDS],
    filled: usize,
}

impl<'a> Block<'a> {
    fn new() -> Self {
        Block { records: [&[0; RECORD_BYTES]; BLOCK_RECORDS], filled: 0 }
    }

    /// Takes the next records in the place of those before; false where there are none.
    #[inline]
    fn fill(&mut self, records: &mut impl Iterator<Item = &'a Record>) -> bool {
        let mut filled = 0;
        for (place, record) in self.records.iter_mut().zip(records) {
            *place = record;
            filled += 1;
        }
        self.filled = filled;
        filled > 0
    }

    fn records(&self) -> &[&'a Record] {
        &self.records[..self.filled]
    }

    fn texts(&self) -> impl Iterator<Item = &'a TextField> {
        self.records().iter().map(|record| field::<{ schema::E.offset }, _>(record))
    }
}

/// The numbers of a block, one loop a field. Keys lack their texts.
#[inline(always)]
fn decode_block(records: &[&Record], set: &mut ColumnSet) {
    let a = |record: &&Record| u32::from_be_bytes(*field::<{ schema::A.offset }, _>(record));
    let b = |record: &&Record| u16::from_be_bytes(*field::<{ schema::B.offset }, _>(record));
    let c = |record: &&Record| f32::from_be_bytes(*field::<{ schema::C.offset }, _>(record));
    let d = |record: &&Record| i8::from_be_bytes(*field::<{ schema::D.offset }, _>(record));
    set.keys.extend(records.iter().map(|record| key_of(a(record))));
    set.b.extend(records.iter().map(|record| u64::from(b(record))));
    set.c.extend(records.iter().map(|record| f64::from(c(record))));
    set.d.extend(records.iter().map(d));
}

/// The records of a run.
#[inline]
fn records_of(run: &[u8]) -> impl Iterator<Item = &Record> {
    run.as_chunks::<RECORD_BYTES>().0.iter()
}

/// A field of a record, checked when compiled.
#[inline(always)]
fn field<const OFFSET: usize, const WIDTH: usize>(record: &Record) -> &[u8; WIDTH] {
    const { assert!(OFFSET + WIDTH <= RECORD_BYTES) };
    record[OFFSET..OFFSET + WIDTH].try_into().expect("WIDTH bytes")
}

/// Packets that end within the first `records` records of `runs`.
pub fn packets_ended(runs: &[Run], records: usize) -> usize {
    let mut left = records;
    runs.iter()
        .take_while(|run| {
            let whole = run.records <= left;
            left = left.saturating_sub(run.records);
            whole
        })
        .filter(|run| run.ends_packet)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::{END_RECORD, PacketParser, RunList, Stop};
    use proptest::prelude::*;

    type Row = (u32, u16, f32, i8, Vec<u8>);

    fn encode(row: &Row) -> Vec<u8> {
        let mut bytes = row.0.to_be_bytes().to_vec();
        bytes.extend(row.1.to_be_bytes());
        bytes.extend(row.2.to_be_bytes());
        bytes.extend(row.3.to_be_bytes());
        bytes.extend(&row.4);
        bytes.resize(RECORD_BYTES, b' ');
        bytes
    }

    /// The oracle: one record, byte by byte, with shifts.
    fn naive(record: &[u8]) -> Row {
        let a = (0..4).fold(0u32, |value, i| value << 8 | u32::from(record[i]));
        let b = u16::from(record[4]) << 8 | u16::from(record[5]);
        let c = (6..10).fold(0u32, |value, i| value << 8 | u32::from(record[i]));
        let d = i16::from(record[10]);
        let d = if d > 127 { d - 256 } else { d };
        let mut value = record[11..].to_vec();
        while matches!(value.last(), Some(0 | 32)) {
            value.pop();
        }
        (a, b, f32::from_bits(c), d as i8, value)
    }

    fn rows_of(set: &ColumnSet, interner: Interner) -> Vec<Row> {
        let texts = interner.into_texts();
        (0..set.rows())
            .map(|i| {
                let key = set.keys[i];
                let text = texts.get((key & 0xffff_ffff) as usize).to_vec();
                let b = u16::try_from(set.b[i]).unwrap();
                ((key >> 32) as u32, b, set.c[i] as f32, set.d[i], text)
            })
            .collect()
    }

    fn same(left: &[Row], right: &[Row]) -> bool {
        let bits = |rows: &[Row]| -> Vec<_> {
            rows.iter()
                .map(|r| (r.0, r.1, if r.2.is_nan() { 1 } else { r.2.to_bits() }, r.3, r.4.clone()))
                .collect()
        };
        bits(left) == bits(right)
    }

    fn decode_all(stream: &[u8], batch_rows: usize) -> Vec<Row> {
        let mut parser = PacketParser::new(1 << 20);
        let mut list = RunList::with_limit(3);
        let mut interner = Interner::with_limits(1000, 1 << 20);
        let mut all = ColumnSet::with_rows(10_000);
        let mut at = 0;
        loop {
            let pass = parser.parse(stream, at, batch_rows, &mut list);
            at += pass.bytes;
            decode_runs(stream, list.runs(), &mut interner, &mut all);
            if pass.stop != Stop::RunsFull {
                return rows_of(&all, interner);
            }
        }
    }

    #[test]
    fn extremes_are_kept() {
        let rows: Vec<Row> = vec![
            (0, 0, 0.0, 1, vec![]),
            (u32::MAX, u16::MAX, f32::MAX, i8::MIN, vec![b'x'; 256]),
            (1, 2, f32::INFINITY, i8::MAX, b"in\0ner".to_vec()),
            (1, 2, f32::NEG_INFINITY, -1, vec![0xff, 0xfe]),
            (1, 2, f32::NAN, 0, b"nan".to_vec()),
            (1, 2, -0.0, 0, b"zero".to_vec()),
            (1, 2, f32::MIN_POSITIVE / 4.0, 0, b"subnormal".to_vec()),
        ];
        let records: Vec<u8> = rows.iter().flat_map(encode).collect();
        let length = (4 + records.len()) as u32;
        let stream = [&length.to_be_bytes()[..], &records].concat();
        assert!(same(&decode_all(&stream, 10), &rows));
    }

    #[test]
    fn a_text_beyond_the_limit_stops_before_its_record() {
        let rows: Vec<Row> =
            (0..6u32).map(|i| (i, 0, 0.0, 0, format!("text {i}").into_bytes())).collect();
        let stream: Vec<u8> = rows
            .chunks(2)
            .flat_map(|pair| {
                let body: Vec<u8> = pair.iter().flat_map(encode).collect();
                [&((4 + body.len()) as u32).to_be_bytes()[..], &body].concat()
            })
            .collect();
        let mut list = RunList::with_limit(8);
        PacketParser::new(1 << 20).parse(&stream, 0, 100, &mut list);
        let mut interner = Interner::with_limits(3, 1000);
        let mut set = ColumnSet::with_rows(100);
        let decoded = decode_runs(&stream, list.runs(), &mut interner, &mut set);
        let limit = Some(TextLimit::Groups { limit: 3 });
        assert_eq!(decoded, Decoded { records: 3, packets: 1, limit });
        assert!(same(&rows_of(&set, interner), &rows[..3]));
        assert_eq!((set.b.len(), set.c.len(), set.d.len()), (3, 3, 3));
    }

    proptest! {
        #[test]
        fn any_records_equal_the_bytewise_decoder(
            packets in proptest::collection::vec(
                proptest::collection::vec(
                    proptest::collection::vec(any::<u8>(), RECORD_BYTES), 1..5),
                0..8),
            batch_rows in 1usize..9,
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for packet in &packets {
                stream.extend(((4 + packet.len() * RECORD_BYTES) as u32).to_be_bytes());
                for record in packet {
                    prop_assume!(record[..] != END_RECORD);
                    stream.extend(record);
                    expected.push(naive(record));
                }
            }
            prop_assert!(same(&decode_all(&stream, batch_rows), &expected));
        }
    }
}
