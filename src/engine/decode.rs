//! Runs of records into columns, one tight loop a field: finds no records, decides no limit and
//! touches no byte of what it reads.

use super::columns::{ColumnSet, key_of};
use super::intern::{Interner, TextLimit};
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
    let first = set.rows();
    for run in runs {
        let a = field_of::<4>(run.bytes(received), schema::A.offset);
        set.keys.extend(a.map(|bytes| key_of(u32::from_be_bytes(*bytes))));
    }
    let texts = runs.iter().flat_map(|run| field_of(run.bytes(received), schema::E.offset));
    let (coded, limit) = interner.code_keys(texts, &mut set.keys[first..]);
    for run in runs {
        let b = field_of::<2>(run.bytes(received), schema::B.offset);
        set.b.extend(b.map(|bytes| u64::from(u16::from_be_bytes(*bytes))));
    }
    for run in runs {
        let c = field_of::<4>(run.bytes(received), schema::C.offset);
        set.c.extend(c.map(|bytes| f64::from(f32::from_be_bytes(*bytes))));
    }
    for run in runs {
        let d = field_of::<1>(run.bytes(received), schema::D.offset);
        set.d.extend(d.map(|bytes| i8::from_be_bytes(*bytes)));
    }
    set.truncate(first + coded);
    Decoded { records: coded, packets: packets_ended(runs, coded), limit }
}

/// One field of each record of a run.
#[inline(always)]
fn field_of<const WIDTH: usize>(
    run: &[u8],
    offset: usize,
) -> impl ExactSizeIterator<Item = &[u8; WIDTH]> {
    // Chunks from the field on: the last is short by `offset` and still holds the field, since
    // `schema` asserts that each field ends within the record.
    run[offset..]
        .chunks(RECORD_BYTES)
        .map(|chunk| chunk.first_chunk::<WIDTH>().expect("a field lies within its record"))
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
