//! Checks parts against plain Rust over the same rows, which shares no code with them.

use super::*;
use crate::engine::oracle::any::NUMBERS;
use crate::engine::oracle::exact::{exact_mean, exact_spread, exact_sum};
use crate::wire::schema::{Endian, Field, Framing};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PartsValue {
    Integer(i128),
    Float(f64),
}

impl PartsValue {
    fn float(self) -> f64 {
        match self {
            PartsValue::Integer(value) => value as f64,
            PartsValue::Float(value) => value,
        }
    }
}

/// Any bits as a value of a kind: integers from their whole range, floats mostly moderate.
fn value(kind: Kind, bits: u64) -> PartsValue {
    let float = match bits % 67 {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => -0.0,
        _ => (bits % 20_001) as f64 / 8.0 - 1000.0,
    };
    match kind {
        Kind::U8 => PartsValue::Integer((bits as u8).into()),
        Kind::U16 => PartsValue::Integer((bits as u16).into()),
        Kind::U32 => PartsValue::Integer((bits as u32).into()),
        Kind::U64 => PartsValue::Integer(bits.into()),
        Kind::I8 => PartsValue::Integer((bits as i8).into()),
        Kind::I16 => PartsValue::Integer((bits as i16).into()),
        Kind::I32 => PartsValue::Integer((bits as i32).into()),
        Kind::I64 => PartsValue::Integer((bits as i64).into()),
        Kind::Bool => PartsValue::Integer((bits % 2).into()),
        _ => PartsValue::Float(float),
    }
}

fn schema(kinds: &[Kind], functions: &[(usize, Function)]) -> Schema {
    let key = ("key".to_owned(), Kind::U32);
    let fields = (0..).zip(kinds).map(|(i, &kind)| (format!("f{i}"), kind));
    let mut aggregates = Vec::new();
    for &(field, function) in functions {
        let aggregate = Aggregate::Of { field: 1 + field % kinds.len(), function };
        if !aggregates.contains(&aggregate) {
            aggregates.push(aggregate);
        }
    }
    let fields = [key].into_iter().chain(fields).collect();
    let framing = Framing::default();
    Schema::new("test".to_owned(), Endian::Big, framing, fields, vec![0], aggregates).unwrap()
}

type PartsRow = (u32, Vec<u64>);

/// The rows in the form that `gathered` expects.
fn rows_frame(schema: &Schema, rows: &[PartsRow]) -> DataFrame {
    let keys: Vec<u32> = rows.iter().map(|(key, _)| *key).collect();
    let mut columns = vec![UInt32Chunked::from_vec("key".into(), keys).into_column()];
    for (i, Field { name, kind, .. }) in schema.fields().iter().enumerate().skip(1) {
        let integers = || {
            rows.iter().map(|(_, bits)| match value(*kind, bits[i - 1]) {
                PartsValue::Integer(value) => value,
                PartsValue::Float(_) => unreachable!("an integer"),
            })
        };
        let unsigned = |name: String, values: Vec<u64>| {
            UInt64Chunked::from_vec(name.into(), values).into_column()
        };
        let signed = |name: String, values: Vec<i64>| {
            Int64Chunked::from_vec(name.into(), values).into_column()
        };
        if kind.is_float() {
            let values = rows.iter().map(|(_, bits)| value(*kind, bits[i - 1]).float()).collect();
            columns.push(Float64Chunked::from_vec(name.as_str().into(), values).into_column());
        } else if kind.is_signed() {
            columns.push(signed(name.clone(), integers().map(|v| v as i64).collect()));
        } else {
            columns.push(unsigned(name.clone(), integers().map(|v| v as u64).collect()));
        }
    }
    DataFrame::new(rows.len(), columns).unwrap()
}

fn gather(schema: &Schema, rows: &[PartsRow]) -> DataFrame {
    gathered(schema, &rows_frame(schema, rows), ["key"]).unwrap()
}

fn merge(schema: &Schema, mut parts: DataFrame) -> DataFrame {
    parts.rechunk_mut();
    merged(schema, &parts, ["key"]).unwrap()
}

/// The parts with the types that they have in files.
fn narrowed(schema: &Schema, frame: &DataFrame) -> DataFrame {
    let mut narrow = frame.clone();
    for (field, part) in schema.parts() {
        let name = schema.part_name(field, part);
        let dtype = dtype_of(ColumnType::of_part(part, schema.fields()[field].kind));
        narrow.with_column(frame.column(&name).unwrap().strict_cast(&dtype).unwrap()).unwrap();
    }
    narrow
}

fn stacked(frames: impl IntoIterator<Item = DataFrame>) -> DataFrame {
    let mut frames = frames.into_iter();
    let first = frames.next().unwrap();
    frames.fold(first, |mut all, frame| {
        all.vstack_mut(&frame).unwrap();
        all
    })
}

fn finished(schema: &Schema, parts: DataFrame) -> FinishedFrame {
    let sorted = parts.sort(["key"], SortMultipleOptions::default()).unwrap();
    finish(schema, &sorted).unwrap()
}

/// Functions of values that are not all finite, by IEEE 754.
fn special(function: Function, floats: &[f64]) -> Option<f64> {
    let special: Vec<f64> = floats.iter().copied().filter(|value| !value.is_finite()).collect();
    match function {
        _ if special.is_empty() => None,
        Function::Sum | Function::Mean => Some(special.iter().sum()),
        Function::Var | Function::Std => Some(f64::NAN),
        _ => None,
    }
}

/// The expected value of a function, `None` for null, and its relative tolerance.
fn expected(kind: Kind, function: Function, values: &[PartsValue]) -> (Option<f64>, f64) {
    const OFF: f64 = 1e-12;
    let floats: Vec<f64> = values.iter().map(|value| value.float()).collect();
    let n = floats.len() as f64;
    let exact: i128 =
        values.iter().map(|v| if let PartsValue::Integer(v) = v { *v } else { 0 }).sum();
    let fits = match kind {
        _ if kind.is_float() => true,
        _ if kind.is_signed() => i64::try_from(exact).is_ok(),
        _ => u64::try_from(exact).is_ok(),
    };
    if let Some(special) = special(function, &floats) {
        let is_null = floats.len() == 1 && matches!(function, Function::Var | Function::Std);
        return ((!is_null).then_some(special), 0.0);
    }
    let fold = |least: fn(f64, f64) -> f64| floats.iter().copied().reduce(least).unwrap();
    let spread = || {
        let pairs = values.iter().map(|value| match value {
            PartsValue::Integer(v) => (*v as f64, (v - (*v as f64) as i128) as f64),
            PartsValue::Float(v) => (*v, 0.0),
        });
        (floats.len() > 1).then(|| exact_spread(&pairs.collect::<Vec<_>>()))
    };
    match function {
        Function::Sum if kind.is_float() => (Some(exact_sum(&floats)), OFF),
        Function::Sum => (fits.then_some(exact as f64), 0.0),
        Function::Mean if kind.is_float() => (Some(exact_mean(&floats)), OFF),
        Function::Mean => (Some(exact as f64 / n), 0.0),
        Function::Min => (Some(fold(f64::min)), 0.0),
        Function::Max => (Some(fold(f64::max)), 0.0),
        Function::First => (Some(floats[0]), 0.0),
        Function::Last => (Some(*floats.last().unwrap()), 0.0),
        Function::Var => (spread().map(|(variance, _)| variance), OFF),
        Function::Std => (spread().map(|(_, deviation)| deviation), OFF),
    }
}

fn assert_expected(
    schema: &Schema,
    FinishedFrame { frame, overflowed }: &FinishedFrame,
    rows: &[PartsRow],
) {
    let mut groups: BTreeMap<u32, Vec<&PartsRow>> = BTreeMap::new();
    rows.iter().for_each(|row| groups.entry(row.0).or_default().push(row));
    let names: Vec<&str> = frame.get_column_names().iter().map(|name| name.as_str()).collect();
    assert_eq!(names, schema.column_names());
    let counts = frame.column("count").unwrap().u64().unwrap();
    assert!(counts.into_no_null_iter().eq(groups.values().map(|rows| rows.len() as u64)));
    for &aggregate in schema.aggregates() {
        let Aggregate::Of { field, function } = aggregate else { continue };
        let (name, kind) = (schema.column_name(aggregate), schema.fields()[field].kind);
        let column = frame.column(&name).unwrap();
        assert_eq!(*column.dtype(), result_type(kind, function), "{name} of {kind:?}");
        let found = column.cast(&DataType::Float64).unwrap();
        let mut nulls = false;
        for (found, rows) in found.f64().unwrap().iter().zip(groups.values()) {
            let values: Vec<PartsValue> =
                rows.iter().map(|r| value(kind, r.1[field - 1])).collect();
            let (expected, off) = expected(kind, function, &values);
            nulls |= expected.is_none();
            let same = match (found, expected) {
                (Some(found), Some(expected)) => {
                    found == expected
                        || found.is_nan() && expected.is_nan()
                        || (found - expected).abs() <= off * expected.abs()
                }
                (found, expected) => found == expected,
            };
            assert!(same, "{name} of {kind:?}: {found:?}, not {expected:?}: {values:?}");
        }
        assert_eq!(overflowed.contains(&name), nulls && function == Function::Sum, "{name}");
    }
}

fn result_type(kind: Kind, function: Function) -> DataType {
    match function {
        Function::Sum if kind.is_float() => DataType::Float64,
        Function::Sum if kind.is_signed() => DataType::Int64,
        Function::Sum => DataType::UInt64,
        Function::Mean | Function::Var | Function::Std => DataType::Float64,
        _ => match kind {
            Kind::U8 => DataType::UInt8,
            Kind::U16 => DataType::UInt16,
            Kind::U32 => DataType::UInt32,
            Kind::U64 => DataType::UInt64,
            Kind::I8 => DataType::Int8,
            Kind::I16 => DataType::Int16,
            Kind::I32 => DataType::Int32,
            Kind::I64 => DataType::Int64,
            Kind::F32 => DataType::Float32,
            Kind::F64 => DataType::Float64,
            _ => DataType::Boolean,
        },
    }
}

/// Every kind with every function.
fn everything() -> Schema {
    let each = |function| (0..NUMBERS.len()).map(move |field| (field, function));
    schema(&NUMBERS, &Function::ALL.into_iter().take(5).flat_map(each).collect::<Vec<_>>())
}

fn rest() -> Schema {
    let each = |function| (0..NUMBERS.len()).map(move |field| (field, function));
    schema(&NUMBERS, &Function::ALL.into_iter().skip(5).flat_map(each).collect::<Vec<_>>())
}

/// Checks the rows at once and in pieces that are merged, with wide and with narrow types.
fn check(schema: &Schema, rows: &[PartsRow], pieces: &[usize]) {
    let whole = gather(schema, rows);
    assert_expected(schema, &finished(schema, whole.clone()), rows);
    let mut rest = rows;
    let mut frames = vec![whole.head(Some(0))];
    for &piece in pieces.iter().chain([&rows.len()]) {
        let (rows, later) = rest.split_at(piece.min(rest.len()));
        frames.push(gather(schema, rows));
        rest = later;
    }
    let wide = merge(schema, stacked(frames.clone()));
    assert_expected(schema, &finished(schema, wide), rows);
    let frames: Vec<DataFrame> = frames.iter().map(|frame| narrowed(schema, frame)).collect();
    let narrow = merge(schema, stacked(frames.clone()));
    assert_expected(schema, &finished(schema, narrow.clone()), rows);
    // Merging in two steps gives the same as merging in one.
    let (front, back) = frames.split_at(frames.len() / 2);
    let steps = [front, back].into_iter().filter(|frames| !frames.is_empty()).map(|frames| {
        let merged = merge(schema, stacked(frames.to_vec()));
        narrowed(schema, &merged)
    });
    let twice = merge(schema, stacked(steps));
    assert_expected(schema, &finished(schema, twice), rows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn merging_pieces_gives_the_result_of_the_whole(
        kinds in proptest::collection::vec(prop::sample::select(NUMBERS.to_vec()), 1..5),
        functions in proptest::collection::vec(
            (0usize..5, prop::sample::select(Function::ALL.to_vec())), 0..10),
        rows in proptest::collection::vec(
            (0u32..5, proptest::collection::vec(
                prop_oneof![any::<u64>(), Just(u64::MAX), Just(1 << 63), 0u64..300], 5)),
            0..120),
        pieces in proptest::collection::vec(0usize..60, 0..5),
    ) {
        check(&schema(&kinds, &functions), &rows, &pieces);
    }
}

#[test]
fn every_function_of_every_kind_over_many_rows() {
    let mut random = fastrand::Rng::with_seed(7);
    let rows: Vec<PartsRow> = (0..6000)
        .map(|_| (random.u32(0..2000), NUMBERS.map(|_| random.u64(..)).to_vec()))
        .collect();
    for schema in [everything(), rest()] {
        check(&schema, &rows, &[1, 0, 700, 3000]);
        check(&schema, &rows[..1], &[]);
        check(&schema, &[], &[0]);
    }
}

#[test]
fn minimum_and_maximum_ignore_nan_unless_all_are_nan() {
    let nan = 67; // see `value`
    let (number, another) = (40, 41);
    let schema = schema(&[Kind::F64], &[(0, Function::Min), (0, Function::Max)]);
    let rows: Vec<PartsRow> =
        [(1, nan), (1, nan), (2, nan), (2, number), (2, another), (3, number)]
            .map(|(key, bits)| (key, vec![bits]))
            .to_vec();
    check(&schema, &rows, &[2, 1]);
    let FinishedFrame { frame, .. } = finished(&schema, gather(&schema, &rows));
    let least = frame.column("f0_min").unwrap().f64().unwrap();
    assert!(least.get(0).unwrap().is_nan() && least.get(1) == Some(40.0 / 8.0 - 1000.0));
}

/// Twice 2^63 exceeds 64 bits, and a value of the other sign brings the sum back.
#[test]
fn sums_may_exceed_64_bits_on_the_way() {
    let schema = schema(&[Kind::I64, Kind::U64], &[(0, Function::Sum), (1, Function::Mean)]);
    let (least, most) = (i64::MIN as u64, i64::MAX as u64);
    let rows: Vec<PartsRow> =
        [(1, least), (1, least), (2, most), (2, most), (2, least), (3, u64::MAX)]
            .map(|(key, bits)| (key, vec![bits, bits]))
            .to_vec();
    check(&schema, &rows, &[1, 1, 1, 1]);
}

/// A sum at its 64-bit limit, as after more than 2^32 records. On the way it may be larger.
#[test]
fn a_sum_that_exceeds_64_bits_is_null_and_named_and_its_mean_is_not() {
    let functions = [(0, Function::Sum), (1, Function::Mean), (1, Function::Sum)];
    let schema = schema(&[Kind::U32, Kind::I32], &functions);
    let parts = |sums: &[(u32, u64, i64)]| {
        let column = |name: &str, values: Vec<u64>| {
            UInt64Chunked::from_vec(name.into(), values).into_column()
        };
        let keys = sums.iter().map(|sum| sum.0).collect();
        let signed = sums.iter().map(|sum| sum.2 >> 32).collect();
        DataFrame::new(
            sums.len(),
            vec![
                UInt32Chunked::from_vec("key".into(), keys).into_column(),
                column("count", vec![2; sums.len()]),
                column("sum_f0", sums.iter().map(|sum| sum.1 >> 32).collect()),
                column("sum_low_f0", sums.iter().map(|sum| sum.1 & 0xffff_ffff).collect()),
                Int64Chunked::from_vec("sum_f1".into(), signed).into_column(),
                column("sum_low_f1", sums.iter().map(|sum| sum.2 as u64 & 0xffff_ffff).collect()),
            ],
        )
        .unwrap()
    };
    let most = u64::MAX;
    let (lowest, highest) = (i64::MIN, i64::MAX);
    let rows = [
        (1, most, lowest),
        (1, 0, 0),
        (2, most - 5, lowest + 5),
        (2, 5, -5),
        (3, most, lowest),
        (3, 1, -1),
        (4, most, highest),
        (4, most, highest),
        (5, 2, highest),
        (5, 2, lowest),
    ];
    let once = merge(&schema, parts(&rows));
    let twice = stacked([merge(&schema, parts(&rows[..7])), parts(&rows[7..])]);
    for merged_frame in [once, merge(&schema, twice)] {
        let FinishedFrame { frame, overflowed } = finished(&schema, merged_frame);
        assert_eq!(overflowed, ["f0_sum", "f1_sum"]);
        let unsigned: Vec<Option<u64>> =
            frame.column("f0_sum").unwrap().u64().unwrap().iter().collect();
        assert_eq!(unsigned, [Some(most), Some(most), None, None, Some(4)]);
        let signed: Vec<Option<i64>> =
            frame.column("f1_sum").unwrap().i64().unwrap().iter().collect();
        assert_eq!(signed, [Some(lowest), Some(lowest), None, None, Some(-1)]);
        let means = frame.column("f1_mean").unwrap().f64().unwrap();
        let exact = [-(2_f64.powi(61)), 2_f64.powi(62), -0.25];
        assert_eq!([2, 3, 4].map(|row| means.get(row).unwrap()), [exact[0], exact[1], exact[2]]);
    }
}

/// Values with a large common offset, such as timestamps.
#[test]
fn a_variance_far_from_zero_keeps_its_precision() {
    let schema = schema(&[Kind::U64], &[(0, Function::Var), (0, Function::Std)]);
    let begin = 1_795_000_000_000_000_u64;
    let rows: Vec<PartsRow> = (0..10_000).map(|n| (1, vec![begin + n % 10])).collect();
    for pieces in [&[][..], &[1, 2, 3, 500, 700]] {
        let mut rest = &rows[..];
        let mut frames = Vec::new();
        for &piece in pieces.iter().chain([&rows.len()]) {
            let (rows, later) = rest.split_at(piece.min(rest.len()));
            frames.push(gather(&schema, rows));
            rest = later;
        }
        let merged = merge(&schema, stacked(frames));
        let FinishedFrame { frame, .. } = finished(&schema, merged);
        let variance = frame.column("f0_var").unwrap().f64().unwrap().get(0).unwrap();
        assert!((variance - 8.25 * 10_000.0 / 9999.0).abs() < 1e-9, "{variance}");
    }
}

#[test]
fn impossible_parts_are_an_error() {
    let schema = schema(&[Kind::I8, Kind::U64], &[(0, Function::Min), (1, Function::Sum)]);
    let rows: Vec<PartsRow> = vec![(1, vec![1, 1])];
    let good = gather(&schema, &rows);
    let mut wide = good.clone();
    wide.with_column(Int64Chunked::from_vec("min_f0".into(), vec![128]).into_column()).unwrap();
    let mut null = good.clone();
    let nothing: UInt64Chunked = [None].into_iter().collect();
    null.with_column(nothing.into_column().with_name("sum_low_f1".into())).unwrap();
    for (bad, cause) in
        [(wide, "128"), (null, "sum_low_f1"), (good.drop("count").unwrap(), "count")]
    {
        let error = finish(&schema, &bad).unwrap_err().to_string();
        assert!(error.contains(cause), "{error}");
    }
}
