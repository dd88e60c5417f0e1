//! Checks the columns of decoded records against the oracle, which reads them byte by byte.

use super::*;
use crate::engine::blocks::number::Wide;
use crate::engine::groups::plan::KeyBits;
use crate::engine::oracle::any::{self, records_of};
use crate::engine::oracle::{NaiveCell, read};
use crate::wire::records::packets::{PacketParser, RunList, Stop};
use crate::wire::schema::{Endian, Framing, Schema};
use crate::wire::text::Padding;
use proptest::prelude::*;

const RECORD_BYTES: usize = 267;

type DecodedRow = (u32, u16, f32, i8, Vec<u8>);

fn encode(row: &DecodedRow) -> Vec<u8> {
    let mut bytes = row.0.to_be_bytes().to_vec();
    bytes.extend(row.1.to_be_bytes());
    bytes.extend(row.2.to_be_bytes());
    bytes.extend(row.3.to_be_bytes());
    bytes.extend(&row.4);
    bytes.resize(RECORD_BYTES, b' ');
    bytes
}

fn decoder(schema: Arc<Schema>, config: &Config) -> Decoder {
    Decoder::new(&Plan::new(schema), config)
}

/// Splits consecutive records into runs of `run_records`.
fn runs_of(records: usize, record_bytes: usize, run_records: usize) -> Vec<Run> {
    let begins = (0..records).step_by(run_records);
    let run = |first: usize| Run {
        offset: first * record_bytes,
        records: run_records.min(records - first),
        ends: crate::wire::records::packets::Ends::Last,
    };
    begins.map(run).collect()
}

/// The value that a column holds for a field.
fn value_of(source: &Source, cell: NaiveCell) -> Wide {
    match cell {
        NaiveCell::Float(value) => Wide::Float(value),
        NaiveCell::Integer(value) if source.kind.is_signed() => Wide::Signed(value as i64),
        NaiveCell::Integer(value) => Wide::Unsigned(value as u64),
        NaiveCell::Bytes(bytes) => panic!("{bytes:?} is not a number"),
    }
}

fn is_same(column: &Column, row: usize, expected: Wide) -> bool {
    match (column, expected) {
        (Column::Unsigned(column), Wide::Unsigned(value)) => column[row] == value,
        (Column::Signed(column), Wide::Signed(value)) => column[row] == value,
        (Column::Float(column), Wide::Float(value)) => {
            column[row].to_bits() == value.to_bits() || column[row].is_nan() && value.is_nan()
        }
        _ => false,
    }
}

/// Compares every key and value of a set with the records it must hold.
fn assert_holds(decoder: &Decoder, set: &ColumnSet, records: &[Vec<u8>]) {
    let plan = decoder.plan();
    let schema = plan.schema();
    assert_eq!(set.rows(), records.len());
    assert!(set.values.iter().all(|column| column.len() == records.len()));
    for (row, record) in records.iter().enumerate() {
        let mut texts = decoder.texts();
        for (field, &bits) in schema.keys().zip(plan.key_bits()) {
            let KeyBits { word, bits, shift } = bits;
            let found = u128::from(set.keys[word][row] >> shift) % (1 << bits);
            match read(field, schema.endian(), record) {
                NaiveCell::Bytes(value) => {
                    assert_eq!(texts.next().unwrap().get(found as usize), value, "{field:?}");
                }
                // Shifted so that the smallest value is zero: words compare as numbers do.
                NaiveCell::Integer(value) if field.kind.is_signed() => {
                    assert_eq!(found as i128, value + (1 << (bits - 1)), "{field:?}");
                }
                NaiveCell::Integer(value) => assert_eq!(found as i128, value, "{field:?}"),
                NaiveCell::Float(value) => panic!("{value} is a key"),
            }
        }
        for (source, column) in plan.sources().iter().zip(&set.values) {
            let field = schema.fields().iter().find(|field| field.offset == source.offset);
            let expected = value_of(source, read(field.unwrap(), schema.endian(), record));
            assert!(is_same(column, row, expected), "{source:?} of {row}: {expected:?}");
        }
    }
}

/// Decodes records in runs of `run_records` and compares.
fn check(schema: Arc<Schema>, records: &[Vec<u8>], run_records: usize) {
    let mut decoder = decoder(schema, &Config::default());
    let mut set = ColumnSet::with_rows(decoder.plan(), records.len());
    let record_bytes = decoder.plan().form().record_bytes;
    let runs = runs_of(records.len(), record_bytes, run_records);
    let decoded = decoder.decode(&records.concat(), &runs, &mut set);
    assert_eq!(decoded, Decoded { records: records.len(), limit: None });
    assert_holds(&decoder, &set, records);
}

#[test]
fn extremes_are_kept() {
    let rows: Vec<DecodedRow> = vec![
        (0, 0, 0.0, 1, vec![]),
        (u32::MAX, u16::MAX, f32::MAX, i8::MIN, vec![b'x'; 256]),
        (1, 2, f32::INFINITY, i8::MAX, b"in\0ner".to_vec()),
        (1, 2, f32::NEG_INFINITY, -1, vec![0xff, 0xfe]),
        (1, 2, f32::NAN, 0, b"nan".to_vec()),
        (1, 2, -0.0, 0, b"zero".to_vec()),
        (1, 2, f32::MIN_POSITIVE / 4.0, 0, b"subnormal".to_vec()),
    ];
    let records: Vec<Vec<u8>> = rows.iter().map(encode).collect();
    check(Schema::built_in(), &records, 10);
    // The oracle reads back what was written.
    let schema = Schema::built_in();
    let cell =
        |record: usize, field: usize| read(&schema.fields()[field], Endian::Big, &records[record]);
    assert_eq!(cell(1, 0), NaiveCell::Integer(u32::MAX.into()));
    assert_eq!(cell(1, 3), NaiveCell::Integer(-128));
    assert_eq!(cell(6, 2), NaiveCell::Float((f32::MIN_POSITIVE / 4.0).into()));
    assert_eq!(cell(2, 4), NaiveCell::Bytes(b"in\0ner".to_vec()));
}

/// Numbers of records around the size of a block, in runs that end elsewhere.
#[test]
fn blocks_and_runs_end_anywhere() {
    let record = |n: usize| encode(&(n as u32, n as u16, n as f32, n as i8, vec![n as u8; n]));
    let records: Vec<Vec<u8>> = (1..200).map(record).collect();
    for count in [1, 63, 64, 65, 127, 128, 129, 199] {
        for run_records in [1, 3, 64, 1000] {
            check(Schema::built_in(), &records[..count.min(199)], run_records);
        }
    }
}

/// Goes through the parser, with room for only a few rows in each pass.
#[test]
fn passes_append_to_earlier_rows() {
    let rows: Vec<DecodedRow> =
        (0..40u32).map(|i| (i, 0, 0.0, 0, format!("{i}").into_bytes())).collect();
    let records: Vec<Vec<u8>> = rows.iter().map(encode).collect();
    let stream: Vec<u8> = records
        .chunks(3)
        .flat_map(|packet| {
            let body = packet.concat();
            [&((4 + body.len()) as u32).to_be_bytes()[..], &body].concat()
        })
        .collect();
    for batch_rows in 1..9 {
        let mut decoder = decoder(Schema::built_in(), &Config::default());
        let mut set = ColumnSet::with_rows(decoder.plan(), 100);
        let mut parser = PacketParser::new(*decoder.plan().form(), 1 << 20);
        let mut list = RunList::with_limit(3);
        let mut at = 0;
        loop {
            let pass = parser.parse(&stream, at, batch_rows, &mut list);
            at += pass.bytes;
            decoder.decode(&stream, list.runs(), &mut set);
            if pass.stop != Stop::RunsFull {
                break;
            }
        }
        assert_holds(&decoder, &set, &records);
    }
}

#[test]
fn a_text_beyond_the_limit_stops_before_its_record() {
    let rows: Vec<DecodedRow> =
        (0..6u32).map(|i| (i, 0, 0.0, 0, format!("text {i}").into_bytes())).collect();
    let records: Vec<Vec<u8>> = rows.iter().map(encode).collect();
    let received = records.concat();
    let runs = runs_of(6, RECORD_BYTES, 2);
    let by_groups = Config { groups_limit: 3, ..Config::default() };
    let by_bytes = Config { strings_bytes_limit: 6 * 3 + 5, ..Config::default() };
    for (config, limit) in
        [(by_groups, TextLimit::Groups { limit: 3 }), (by_bytes, TextLimit::Bytes { limit: 23 })]
    {
        let expected = Decoded { records: 3, limit: Some(RowLimit::Text(limit)) };
        let mut columns = decoder(Schema::built_in(), &config);
        let mut set = ColumnSet::with_rows(columns.plan(), 100);
        assert_eq!(columns.decode(&received, &runs, &mut set), expected);
        assert_holds(&columns, &set, &records[..3]);
        let mut folded = decoder(Schema::built_in(), &config);
        let mut groups = GroupTable::with_limits(folded.plan(), 100, 100);
        assert_eq!(folded.fold(&received, &runs, &mut groups), expected);
        assert_eq!((groups.groups(), groups.rows()), (3, 3));
    }
}

/// Numbers alone exhaust the limit of groups; no text is new.
#[test]
fn a_group_beyond_the_limit_stops_before_its_record() {
    let records: Vec<Vec<u8>> =
        (0..200u32).map(|i| encode(&(i / 2, 0, 0.0, 0, b"text".to_vec()))).collect();
    let (received, runs) = (records.concat(), runs_of(200, RECORD_BYTES, 7));
    for limit in [1, 32, 50, 99, 100] {
        let config = Config { groups_limit: limit, ..Config::default() };
        let mut decoder = decoder(Schema::built_in(), &config);
        let mut groups = GroupTable::with_limits(decoder.plan(), limit, 1000);
        let decoded = decoder.fold(&received, &runs, &mut groups);
        let limited = (limit < 100).then_some(RowLimit::Groups);
        assert_eq!(decoded, Decoded { records: 2 * limit, limit: limited });
        assert_eq!((groups.groups(), groups.rows()), (limit, 2 * limit as u64));
    }
}

/// A schema with two texts of eight bytes as keys.
fn two_texts() -> Arc<Schema> {
    let text = || Kind::Text { bytes: 8, padding: Padding::BOTH };
    let fields = vec![("left".to_owned(), text()), ("right".to_owned(), text())];
    let (name, framing) = ("texts".to_owned(), Framing::default());
    let schema = Schema::new(name, Endian::Big, framing, fields, vec![0, 1], Vec::new());
    Arc::new(schema.unwrap())
}

fn pairs(texts: &[(&str, &str)]) -> Vec<Vec<u8>> {
    texts.iter().map(|(left, right)| format!("{left:<8}{right:<8}").into_bytes()).collect()
}

/// Decodes with a limit on the bytes of all texts, in columns and in groups.
fn taken(records: &[Vec<u8>], bytes_limit: usize, run_records: usize) -> Decoded {
    let config = Config { strings_bytes_limit: bytes_limit, ..Config::default() };
    let runs = runs_of(records.len(), 16, run_records);
    let mut columns = decoder(two_texts(), &config);
    let mut set = ColumnSet::with_rows(columns.plan(), 100);
    let decoded = columns.decode(&records.concat(), &runs, &mut set);
    assert_holds(&columns, &set, &records[..decoded.records]);
    let mut folded = decoder(two_texts(), &config);
    let mut groups = GroupTable::with_limits(folded.plan(), 100, 100);
    assert_eq!(folded.fold(&records.concat(), &runs, &mut groups), decoded);
    assert_eq!(groups.rows(), decoded.records as u64);
    decoded
}

/// All text keys share one limit, which is exact whichever text exceeds it.
#[test]
fn texts_of_several_keys_share_the_bytes_limit() {
    // The texts take 3, 6 and 8 bytes in all.
    let records = pairs(&[("a", "bb"), ("a", "ccc"), ("dd", "bb")]);
    for (limit, records_taken) in [(100, 3), (8, 3), (7, 2), (6, 2), (5, 1), (3, 1), (2, 0)] {
        for run_records in [1, 10] {
            let decoded = taken(&records, limit, run_records);
            assert_eq!(decoded.records, records_taken, "limit {limit}");
            assert_eq!(decoded.limit.is_some(), records_taken < 3, "limit {limit}");
        }
    }
    // Equal texts of two keys count separately.
    assert_eq!(taken(&pairs(&[("same", "same")]), 8, 1).limit, None);
    assert_eq!(taken(&pairs(&[("same", "same")]), 7, 1).records, 0);
}

/// The error names the configured limit, not the share that other texts left.
#[test]
fn a_rejected_text_names_the_whole_limit() {
    let decoded = taken(&pairs(&[("left", "right")]), 8, 1);
    let limit = Some(RowLimit::Text(TextLimit::Bytes { limit: 8 }));
    assert_eq!(decoded, Decoded { records: 0, limit });
}

proptest! {
    #[test]
    fn any_bytes_decode_as_the_oracle_reads_them(
        records in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), RECORD_BYTES), 0..20),
        run_records in 1usize..9,
    ) {
        check(Schema::built_in(), &records, run_records);
    }

    #[test]
    fn any_schema_decodes_as_the_oracle_reads_it(
        schema in any::schema(),
        choices in any::choices(100),
        run_records in 1usize..80,
    ) {
        let records = records_of(&schema, &choices);
        check(Arc::new(schema), &records, run_records);
    }
}
