//! Checks whole streams of any schema, split anywhere, through both ways of aggregating, against
//! the oracle.

use crate::config::Config;
use crate::engine::groups::plan::Plan;
use crate::engine::oracle::any::{self, Choices, bytes_of};
use crate::engine::oracle::streams::{
    NaiveStream, Path, StreamOutcome, through_columns, through_groups,
};
use crate::engine::oracle::{assert_same, compare};
use crate::wire::schema::{Aggregate, End, Endian, Framing, Function, Kind, Length, Schema};
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::Arc;

type Through = fn(&Arc<Plan>, &Config, &[u8], &Path) -> StreamOutcome;

const WAYS: [(&str, Through); 2] = [("columns", through_columns), ("groups", through_groups)];

/// Fits cuts and sizes to a schema and a stream.
fn fitted(plan: &Plan, stream: &NaiveStream, (cuts, path): &(Vec<Index>, Path)) -> Path {
    let mut cuts: Vec<usize> = match stream.bytes.len() {
        0 => Vec::new(),
        bytes => cuts.iter().map(|cut| cut.index(bytes)).collect(),
    };
    cuts.sort_unstable();
    let window_bytes = plan.sizes().window_bytes_min() + path.window_bytes;
    Path { cuts, window_bytes, ..path.clone() }
}

/// Sends a stream both ways and describes any difference from the oracle.
fn differences(
    schema: Schema,
    choices: &[Choices],
    sizes: &[usize],
    path: &(Vec<Index>, Path),
) -> Result<(), String> {
    let records = any::records_of(&schema, choices);
    let plan = Plan::new(Arc::new(schema));
    let schema = plan.schema();
    let stream = NaiveStream::new(schema, &records, sizes);
    let path = fitted(&plan, &stream, path);
    for (way, through) in WAYS {
        let outcome = through(&plan, &Config::default(), &stream.bytes, &path);
        let said = |what: &str| format!("by {way}: {what}\n{path:?}\n{schema:#?}");
        compare(schema, &records, &outcome.finished).map_err(|difference| said(&difference))?;
        if outcome.counts != stream.counts {
            return Err(said(&format!("{:?}, expected {:?}", outcome.counts, stream.counts)));
        }
        // An empty stream is not complete.
        if outcome.is_complete == stream.bytes.is_empty() {
            return Err(said(&format!("complete: {}", outcome.is_complete)));
        }
    }
    Ok(())
}

/// A schema with these fields, of which the first `keys` are keys.
fn schema(
    framing: Framing,
    kinds: &[Kind],
    keys: usize,
    functions: &[(usize, Function)],
) -> Schema {
    let name = |i: usize, kind: &Kind| match kind {
        Kind::Skip { .. } => String::new(),
        _ => format!("f{i}"),
    };
    let fields = kinds.iter().enumerate().map(|(i, kind)| (name(i, kind), *kind)).collect();
    let made = functions.iter().map(|&(field, function)| Aggregate::Of { field, function });
    let keys = (0..keys).collect();
    Schema::new("test".to_owned(), framing.endian, framing, fields, keys, made.collect()).unwrap()
}

/// Sends records both ways, in packets of `packet` records, and compares with the oracle.
fn check(schema: Schema, records: &[Vec<u8>], packet: usize, path: &Path) -> [StreamOutcome; 2] {
    let plan = Plan::new(Arc::new(schema));
    let stream = NaiveStream::new(plan.schema(), records, &[packet]);
    WAYS.map(|(_, through)| {
        let outcome = through(&plan, &Config::default(), &stream.bytes, path);
        assert_same(plan.schema(), records, &outcome.finished);
        assert_eq!(outcome.counts, stream.counts);
        outcome
    })
}

/// Records with random values from a seed.
fn random_records(schema: &Schema, count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let record = |_| -> Vec<u8> {
        let fields = schema.fields().iter();
        fields.flat_map(|field| bytes_of(field.kind, schema.endian(), random.u16(..))).collect()
    };
    (0..count).map(record).filter(|record| record.iter().any(|&byte| byte != 0)).collect()
}

const WHOLE: Path = Path { cuts: Vec::new(), window_bytes: 1 << 20, rows: 1000 };

/// Twenty thousand groups with keys of five types and four words: pages are split, sets handed
/// over and tables merged.
#[test]
fn twenty_thousand_groups_of_wide_keys() {
    const HALF: usize = 10_000;
    let text = Kind::Text { bytes: 12, padding: any::PADDINGS[0] };
    let kinds = [Kind::U64, text, Kind::I16, Kind::Bool, Kind::Bytes { bytes: 40 }, Kind::I64];
    let made = [(5, Function::Sum), (5, Function::First), (5, Function::Max)];
    let framing = Framing { endian: Endian::Little, ..Framing::default() };
    let schema = schema(framing, &kinds, 5, &made);
    // Half of the groups differ in their text, half in their number; some are repeated.
    let mut records = random_records(&schema, 2 * HALF, 11);
    for (number, record) in (0..HALF as u64).zip(&mut records) {
        record[8..20].copy_from_slice(format!("{number:<12}").as_bytes());
        record[..8].copy_from_slice(&(number % 7).to_le_bytes());
    }
    for (number, record) in (7..).zip(&mut records[HALF..]) {
        record[..8].copy_from_slice(&u64::to_le_bytes(number));
    }
    records.extend_from_within(HALF - 1000..HALF + 1000);
    let path = Path { window_bytes: 1 << 16, rows: 9000, ..WHOLE };
    for StreamOutcome { finished, .. } in check(schema, &records, 100, &path) {
        assert_eq!(finished.grouped.len(), 2 * HALF);
    }
}

/// Sums beyond 64 bits are null and named. Sums that exceed 64 bits only on the way are exact, as
/// are all means.
#[test]
fn sums_beyond_64_bits_are_null_and_named() {
    let functions =
        [(1, Function::Sum), (1, Function::Mean), (2, Function::Mean), (2, Function::Sum)];
    let rows: [(u8, &[u64], &[i64]); 6] = [
        (0, &[u64::MAX, u64::MAX], &[i64::MIN, i64::MIN]),
        (1, &[u64::MAX, 0], &[i64::MIN, 0]),
        (2, &[u64::MAX, 1], &[i64::MAX, 1]),
        (3, &[u64::MAX - 1, 1], &[i64::MAX, i64::MIN]),
        (4, &[1 << 63; 3], &[i64::MIN, -1]),
        (5, &[1 << 32; 3], &[i64::MAX, i64::MAX, i64::MIN, i64::MIN, 2]),
    ];
    for endian in [Endian::Big, Endian::Little] {
        let framing = Framing { endian, ..Framing::default() };
        let records: Vec<Vec<u8>> = rows
            .iter()
            .flat_map(|&(key, unsigned, signed)| {
                (0..unsigned.len().max(signed.len())).map(move |i| {
                    let unsigned = unsigned.get(i).copied().unwrap_or(0);
                    let signed = signed.get(i).copied().unwrap_or(0);
                    match endian {
                        Endian::Big => {
                            [&[key][..], &unsigned.to_be_bytes(), &signed.to_be_bytes()].concat()
                        }
                        Endian::Little => {
                            [&[key][..], &unsigned.to_le_bytes(), &signed.to_le_bytes()].concat()
                        }
                    }
                })
            })
            .filter(|record| record[..] != [0; 17])
            .collect();
        for rows in [1, 2, 5, 1000] {
            let kinds = [Kind::U8, Kind::U64, Kind::I64];
            let path = Path { rows, ..WHOLE };
            for StreamOutcome { finished, .. } in
                check(schema(framing, &kinds, 1, &functions), &records, 3, &path)
            {
                assert_eq!(finished.overflowed, ["f1_sum", "f2_sum"]);
                let columns = finished.grouped.columns();
                let sums = |column: usize| -> Vec<String> {
                    (0..6).map(|row| columns[column].value(row).to_string()).collect()
                };
                let fitting = u64::MAX.to_string();
                assert_eq!(sums(1), ["null", &fitting, "null", &fitting, "null", "12884901888"]);
                let least = i64::MIN.to_string();
                assert_eq!(sums(4), ["null", &least, "null", "-1", "null", "0"]);
            }
        }
    }
}

/// Sums of whole columns of the largest 64-bit numbers, with carries from the lower halves.
#[test]
fn means_of_many_large_numbers_are_exact() {
    let framing = Framing::default();
    let kinds = [Kind::Bool, Kind::U64, Kind::I64];
    let made = [(1, Function::Mean), (1, Function::Sum), (2, Function::Mean), (2, Function::Var)];
    let record = |n: u64| {
        let (unsigned, signed) = (u64::MAX - n, i64::MIN + n as i64);
        [&[n as u8 % 2][..], &unsigned.to_be_bytes(), &signed.to_be_bytes()].concat()
    };
    let records: Vec<Vec<u8>> = (0..10_000).map(record).collect();
    for rows in [97, 100_000] {
        let path = Path { rows, ..WHOLE };
        check(schema(framing, &kinds, 1, &made), &records, 60, &path);
    }
}

/// The largest possible record, in the largest packet with a u16 length that does not count itself,
/// with the widest keys, through the smallest window for it.
#[test]
fn the_largest_record_with_the_widest_keys_is_aggregated() {
    let text = |padding| Kind::Text { bytes: 4095, padding };
    let widths = [text(any::PADDINGS[0]), Kind::Bytes { bytes: 4095 }, text(any::PADDINGS[3])];
    let rest = 65_535 - 3 * 4095 - 8;
    let kinds = [&widths[..], &[Kind::Skip { bytes: rest }, Kind::F64]].concat();
    let framing = Framing {
        length: Length::U16,
        includes_itself: false,
        endian: Endian::Little,
        end: End::Close,
    };
    let schema = schema(framing, &kinds, 3, &[(4, Function::Sum)]);
    assert_eq!((schema.record_bytes(), schema.packet_bytes_max()), (65_535, 65_537));
    let records = random_records(&schema, 24, 5);
    let cuts = (0..24).map(|i| i * 65_537 + i * 997 % 65_537).collect();
    let window_bytes = 2 * schema.packet_bytes_min();
    let path = Path { cuts, window_bytes, rows: 7 };
    check(schema, &records, 1, &path);
}

/// The most fields, keys and aggregates that are allowed.
#[test]
fn the_largest_schema_is_aggregated() {
    let numbers = any::NUMBERS.iter().copied().cycle();
    let kinds: Vec<Kind> = [Kind::U8, Kind::I64, Kind::Bool, Kind::U16, Kind::I8, Kind::U64]
        .into_iter()
        .chain([Kind::Bytes { bytes: 33 }, Kind::Text { bytes: 5, padding: any::PADDINGS[2] }])
        .chain(numbers.take(248))
        .collect();
    let made: Vec<(usize, Function)> = (0..63).map(|i| (8 + i * 3, Function::ALL[i % 8])).collect();
    for endian in [Endian::Big, Endian::Little] {
        let framing = Framing { endian, ..Framing::default() };
        let schema = schema(framing, &kinds, 8, &made);
        assert_eq!((schema.fields().len(), schema.aggregates().len()), (256, 64));
        let records = random_records(&schema, 500, 3);
        let twice = [&records[..], &records].concat();
        check(schema, &twice, 9, &Path { rows: 130, ..WHOLE });
    }
}

/// One-byte records, bare and in packets. Zero is data if closing ends the stream.
#[test]
fn one_byte_records_are_aggregated() {
    for (length, end) in [
        (Length::None, End::Close),
        (Length::None, End::ZeroRecord),
        (Length::U16, End::Close),
        (Length::U32, End::ZeroRecord),
    ] {
        let framing = Framing { length, end, ..Framing::default() };
        let schema = schema(framing, &[Kind::I8], 1, &[(0, Function::Mean)]);
        let first = u8::from(end == End::ZeroRecord);
        let records: Vec<Vec<u8>> =
            (0..5000u32).map(|n| vec![(n % 256).max(first.into()) as u8]).collect();
        let path = Path { window_bytes: 2 * schema.packet_bytes_min(), rows: 77, ..WHOLE };
        let outcomes = check(schema, &records, 1000, &path);
        assert!(outcomes.iter().all(|outcome| outcome.is_complete));
        let groups = 256 - usize::from(first);
        assert!(outcomes.iter().all(|outcome| outcome.finished.grouped.len() == groups));
    }
}

/// A stream that stops within a packet keeps the records before, and is not complete.
#[test]
fn a_stream_that_stops_anywhere_keeps_the_whole_records_before() {
    for length in [Length::U32, Length::U16, Length::None] {
        for end in [End::ZeroRecord, End::Close] {
            let framing = Framing { length, end, ..Framing::default() };
            let kinds = [Kind::U16, Kind::I32, Kind::Bool];
            let plan = Plan::new(Arc::new(schema(framing, &kinds, 1, &[(1, Function::Sum)])));
            let records: Vec<Vec<u8>> = (1..10u8).map(|n| vec![n; 7]).collect();
            let stream = NaiveStream::new(plan.schema(), &records, &[3]);
            for bytes in 0..stream.bytes.len() {
                let (header, packet) = (length.bytes(), length.bytes() + 21);
                let whole = match length {
                    Length::None => bytes / 7,
                    _ => bytes / packet * 3 + (bytes % packet).saturating_sub(header) / 7,
                };
                let at_end = match length {
                    Length::None => bytes > 0 && bytes % 7 == 0,
                    _ => bytes > 0 && bytes % packet == 0,
                };
                for (way, through) in WAYS {
                    let outcome =
                        through(&plan, &Config::default(), &stream.bytes[..bytes], &WHOLE);
                    assert_same(plan.schema(), &records[..whole.min(9)], &outcome.finished);
                    assert_eq!(outcome.counts.records as usize, whole.min(9), "{way} {bytes}");
                    assert_eq!(outcome.is_complete, end == End::Close && at_end, "{bytes}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_stream_of_any_schema_agrees_with_the_oracle(
        schema in any::schema(),
        choices in any::choices(90),
        sizes in prop::collection::vec(1usize..9, 1..4),
        path in any::path(),
    ) {
        if let Err(difference) = differences(schema, &choices, &sizes, &path) {
            prop_assert!(false, "{}", difference);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn any_long_stream_of_any_schema_agrees_with_the_oracle(
        schema in any::schema(),
        choices in any::choices(4000),
        sizes in prop::collection::vec(1usize..9, 1..4),
        (cuts, path) in any::path(),
    ) {
        let path = (cuts, Path { rows: 20 * path.rows, ..path });
        if let Err(difference) = differences(schema, &choices, &sizes, &path) {
            prop_assert!(false, "{}", difference);
        }
    }
}
