//! Sums, means and spreads of values that binary64 alone does not hold, in any order, in any
//! batches and both ways of aggregating. The right values come from exact arithmetic.

use crate::config::{Config, FOLD_ROWS_MAX};
use crate::engine::aggregate::{GroupAggregate, Value};
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::engine::oracle::exact::{exact_mean, exact_spread, exact_sum};
use crate::engine::oracle::streams::{NaiveStream, Path, packet, through_columns, through_groups};
use crate::engine::stream::intake::{NextStep, RecordIntake};
use crate::wire::schema::{Aggregate, End, Endian, Framing, Function, Kind, Schema};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Instant;

const FUNCTIONS: [Function; 6] =
    [Function::Sum, Function::Mean, Function::Var, Function::Std, Function::Min, Function::Max];

/// The most batches of a stream: each costs a grouping by Polars.
const BATCHES: usize = 60;

/// A schema with a key and one value, and these functions of it.
fn plan(kind: Kind, functions: &[Function]) -> Arc<Plan> {
    let fields = vec![("k".to_owned(), Kind::U8), ("v".to_owned(), kind)];
    let aggregates = functions.iter().map(|&function| Aggregate::Of { field: 1, function });
    let framing = Framing { end: End::Close, ..Framing::default() };
    let (name, aggregates) = ("exact".to_owned(), aggregates.collect());
    Plan::new(Arc::new(
        Schema::new(name, Endian::Big, framing, fields, vec![0], aggregates).unwrap(),
    ))
}

/// The functions of one group with these values, each as big-endian bytes, for each number of rows
/// in a batch and both ways.
fn results(kind: Kind, functions: &[Function], values: &[Vec<u8>]) -> Vec<Vec<f64>> {
    let plan = plan(kind, functions);
    let records: Vec<Vec<u8>> = values.iter().map(|value| [&[1][..], value].concat()).collect();
    let stream = NaiveStream::new(plan.schema(), &records, &[100]);
    let all = values.len();
    let mut batches = vec![1, 2, 3, all.div_ceil(40), all.div_ceil(2), all];
    batches.sort_unstable();
    batches.dedup();
    let mut found = Vec::new();
    for rows in batches.into_iter().filter(|&rows| all / rows <= BATCHES) {
        let path = Path { cuts: Vec::new(), window_bytes: 4096, rows };
        for through in [through_columns, through_groups] {
            let outcome = through(&plan, &Config::default(), &stream.bytes, &path);
            let columns = outcome.finished.grouped.columns();
            found.push(
                columns[1..=functions.len()]
                    .iter()
                    .map(|column| match column.value(0) {
                        Value::Float(value) => value,
                        Value::Signed(value) => value as f64,
                        Value::Unsigned(value) => value as f64,
                        other => panic!("{other:?}"),
                    })
                    .collect(),
            );
        }
    }
    found
}

/// Checks all functions, in both directions, and sum and mean where nothing else is asked for.
fn check(kind: Kind, values: &[Vec<u8>], expected: [f64; 6]) {
    let mut values = values.to_vec();
    for _ in 0..2 {
        for found in results(kind, &FUNCTIONS, &values) {
            assert_near(&found, &expected);
        }
        for found in results(kind, &FUNCTIONS[..2], &values) {
            assert_near(&found, &expected[..2]);
        }
        values.reverse();
    }
}

fn assert_near(found: &[f64], expected: &[f64]) {
    let near = |(found, expected): (&f64, &f64)| {
        found.to_bits() == expected.to_bits() || (found - expected).abs() <= 1e-13 * expected.abs()
    };
    assert!(found.iter().zip(expected).all(near), "{found:?}, expected {expected:?}");
}

fn check_doubles(values: &[f64]) {
    let pairs: Vec<(f64, f64)> = values.iter().map(|&value| (value, 0.0)).collect();
    let (variance, deviation) = exact_spread(&pairs);
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let expected = [
        exact_sum(values),
        exact_mean(values),
        variance,
        deviation,
        sorted[0],
        sorted[values.len() - 1],
    ];
    let bytes: Vec<Vec<u8>> = values.iter().map(|value| value.to_be_bytes().to_vec()).collect();
    check(Kind::F64, &bytes, expected);
}

fn check_integers(kind: Kind, integers: &[i128]) {
    // With each, what rounding it to binary64 leaves.
    let pairs = integers.iter().map(|&one| (one as f64, (one - (one as f64) as i128) as f64));
    let (variance, deviation) = exact_spread(&pairs.collect::<Vec<_>>());
    let mean = integers.iter().sum::<i128>() as f64 / integers.len() as f64;
    let width = kind.width();
    let mut values: Vec<Vec<u8>> =
        integers.iter().map(|integer| integer.to_be_bytes()[16 - width..].to_vec()).collect();
    for _ in 0..2 {
        for found in results(kind, &FUNCTIONS[1..4], &values) {
            assert_near(&found, &[mean, variance, deviation]);
        }
        values.reverse();
    }
}

#[test]
fn integers_keep_all_of_their_digits() {
    check_integers(Kind::U64, &[1 << 53, (1 << 53) + 1]);
    check_integers(Kind::U64, &[0, u64::MAX.into(), u64::MAX.into(), 1]);
    check_integers(Kind::I64, &[i64::MIN.into(), i64::MAX.into(), -1]);
    check_integers(Kind::I32, &[i32::MIN.into(), i32::MAX.into(), i32::MAX.into()]);
    check_integers(Kind::U32, &[u32::MAX.into(), (u32::MAX - 1).into()]);
    check_integers(Kind::I8, &[-128, 127, 0]);
    check_integers(Kind::U64, &[u64::MAX.into(); 5]);
    // Nanoseconds since 1970, a microsecond apart.
    let begin = 1_795_204_921_000_000_000;
    check_integers(Kind::U64, &(0..5000).map(|n| begin + 1000 * n).collect::<Vec<_>>());
}

#[test]
fn floats_far_from_zero_keep_their_spread() {
    check_doubles(&[1e16, 1e16 + 2.0, 1e16 + 4.0]);
    // Seconds since 1970, a microsecond apart.
    check_doubles(&(0..5000).map(|n| 1_795_204_921.0 + f64::from(n) * 1e-6).collect::<Vec<_>>());
    // The first value is far from the others, which are close together.
    let mut values = vec![1e9; 3000];
    values[0] = 0.0;
    values[7] = 1e9 + 1e-7;
    check_doubles(&values);
}

#[test]
fn sums_do_not_depend_on_the_order_of_their_values() {
    check_doubles(&[1e16, 1.0, -1e16]);
    check_doubles(&[1.0, 1e25, 1.0, -1e25]);
    check_doubles(&[0.1; 3000]);
    // Small values behind large ones that cancel, whatever else is asked for.
    let small = |far: f64| [far, -far].into_iter().chain([0.1; 3000]).collect::<Vec<_>>();
    check_doubles(&small(2e21));
    let single = |value: f32| value.to_be_bytes().to_vec();
    let values = [1e16_f32, 1.0, -1e16, 3e-20];
    let found = results(Kind::F32, &FUNCTIONS[..2], &values.map(single));
    let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
    found.iter().for_each(|found| assert_near(found, &[exact_sum(&wide), exact_mean(&wide)]));
    // Each value needs more digits than the sum so far leaves.
    let values: Vec<f32> =
        (0..3000_u32).map(|n| [16_777_215.0, 0.1, 1e-7][n as usize % 3]).collect();
    let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
    let values: Vec<Vec<u8>> = values.into_iter().map(single).collect();
    for found in results(Kind::F32, &FUNCTIONS[..2], &values) {
        assert_near(&found, &[exact_sum(&wide), exact_mean(&wide)]);
    }
}

#[test]
fn what_leaves_binary64_on_the_way_comes_back() {
    check_doubles(&[1e308, -1e308]);
    check_doubles(&[1.7e308; 3]);
    check_doubles(&[f64::MAX, f64::MAX, -f64::MAX, f64::MIN, 5.0, f64::MAX]);
    check_doubles(&[1e200, 3e200, 2e200]);
    check_doubles(&[1e-200, 3e-200, 2e-200]);
    check_doubles(&[1e-300, 1e-100, 0.0, 1e-160]);
    check_doubles(&[1e-300, 1e-300, 1e300, -1e-300]);
}

#[test]
fn zeros_have_an_order() {
    check_doubles(&[0.0, -0.0]);
    check_doubles(&[-0.0, -0.0]);
    let zero = |value: f32| value.to_be_bytes().to_vec();
    for values in [[0.0_f32, -0.0], [-0.0, 0.0]] {
        for found in results(Kind::F32, &FUNCTIONS[4..], &values.map(zero)) {
            let bits: Vec<u64> = found.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, [(-0.0_f64).to_bits(), 0.0_f64.to_bits()]);
        }
    }
}

/// Infinities and NaN as IEEE 754 adds them; the values after them change nothing.
#[test]
fn what_is_not_finite_stays() {
    let (infinity, nan) = (f64::INFINITY, f64::NAN);
    for (values, sum) in [
        (vec![1.0, infinity, 2.0, 1e308, 1e308], infinity),
        (vec![-infinity, 1.0, 1e308], -infinity),
        (vec![infinity, 3.0, -infinity, 1.0], nan),
        (vec![2.0, nan, infinity], nan),
        (vec![1e308, 1e308, 1e308, infinity, -1e308], infinity),
    ] {
        let bytes: Vec<Vec<u8>> = values.iter().map(|value| value.to_be_bytes().to_vec()).collect();
        for functions in [&FUNCTIONS[..2], &FUNCTIONS[..4]] {
            for found in results(Kind::F64, functions, &bytes) {
                let same = |value: f64| value == sum || value.is_nan() && sum.is_nan();
                assert!(found[..2].iter().all(|&value| same(value)), "{found:?} of {values:?}");
                assert!(found[2..].iter().all(|value| value.is_nan()), "{found:?} of {values:?}");
            }
        }
    }
}

/// 0.1 is 3,602,879,701,896,397 of 2^-55 in binary64, so that integers give the sum.
#[test]
#[ignore = "long: a hundred million records"]
fn a_hundred_million_tenths_keep_their_sum() {
    const PACKET: usize = 1000;
    const PACKETS: usize = 100_000;
    let (units, unit) = ((PACKET * PACKETS) as u128 * 3_602_879_701_896_397, 2_f64.powi(-55));
    assert_eq!(3_602_879_701_896_397_f64 * unit, 0.1);
    let plan = plan(Kind::F64, &FUNCTIONS[..2]);
    let record = [&[1][..], &0.1_f64.to_be_bytes()].concat();
    let bytes = packet(plan.schema(), &vec![record; PACKET]);
    let mut window = vec![0; 2 * bytes.len()];
    let mut intake = RecordIntake::new(&plan, &Config::default(), window.len(), Instant::now());
    let mut groups = GroupTable::with_limits(&plan, 1, FOLD_ROWS_MAX);
    for _ in 0..PACKETS {
        window[intake.free()][..bytes.len()].copy_from_slice(&bytes);
        intake.handle_read(bytes.len(), Instant::now());
        while intake.poll_groups(&window, &mut groups).unwrap() == NextStep::Rows {}
        intake.compact(&mut window);
    }
    assert_eq!(intake.counts().records, (PACKET * PACKETS) as u64);
    let mut aggregate = GroupAggregate::new(&plan);
    aggregate.add_table(&groups).unwrap();
    let finished = aggregate.finish(&intake.into_texts()).unwrap();
    let columns = &finished.grouped.columns()[1..=2];
    let found = columns.iter().map(|column| match column.value(0) {
        Value::Float(value) => value,
        other => panic!("{other:?}"),
    });
    assert_near(&found.collect::<Vec<_>>(), &[units as f64 * unit, 0.1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Any offset and spread, and a few values far away.
    #[test]
    fn floats_of_any_offset_and_spread(
        (offset, spread) in (-300_i32..300, -40_i32..20),
        values in prop::collection::vec((any::<i16>(), 0_u8..20), 2..60),
    ) {
        let unit = 10_f64.powi(offset);
        let value = |(number, kind)| match kind {
            0 => f64::from(number) * unit,
            1 => 0.0,
            _ => unit * (1.0 + f64::from(number) * 2_f64.powi(spread - 12)),
        };
        check_doubles(&values.into_iter().map(value).collect::<Vec<_>>());
    }

    #[test]
    fn any_integers(
        offset in any::<u64>(),
        bits in 1_u32..=64,
        values in prop::collection::vec(any::<u64>(), 2..40),
    ) {
        let near = |value: u64| offset.wrapping_add(value >> (64 - bits));
        let values: Vec<u64> = values.into_iter().map(near).collect();
        let of = |to: fn(u64) -> i128| values.iter().map(|&one| to(one)).collect::<Vec<_>>();
        check_integers(Kind::U64, &of(|one| one.into()));
        check_integers(Kind::I64, &of(|one| (one as i64).into()));
        check_integers(Kind::U32, &of(|one| (one as u32).into()));
        check_integers(Kind::I16, &of(|one| (one as i16).into()));
    }
}
