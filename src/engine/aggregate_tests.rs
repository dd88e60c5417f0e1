//! The aggregate against plain Rust over the same rows: shares no code with what it checks.

use super::*;
use crate::engine::columns::PartialSet;
use crate::engine::groups::{GroupTable, Partial};
use crate::engine::intern::Interner;
use crate::engine::text_tag::FIELD_BYTES;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Row = (u32, Vec<u8>, u16, f32, i8);

/// What a group must be: sum of B, the values of C, minimum of D, count.
type Naive = BTreeMap<(u32, Vec<u8>), (u64, Vec<f64>, i8, u64)>;

fn naive(rows: &[Row]) -> Naive {
    let mut groups = Naive::new();
    for (a, e, b, c, d) in rows {
        let group = groups.entry((*a, e.clone())).or_insert((0, Vec::new(), i8::MAX, 0));
        group.0 += u64::from(*b);
        group.1.push(f64::from(*c));
        group.2 = group.2.min(*d);
        group.3 += 1;
    }
    groups
}

/// Aggregates rows in batches of `batch_rows`.
fn aggregate(rows: &[Row], batch_rows: usize) -> Grouped {
    let mut interner = Interner::with_limits(1 << 20, 64 << 20);
    let mut aggregate = Aggregate::default();
    let mut set = ColumnSet::with_rows(batch_rows);
    for (a, e, b, c, d) in rows {
        let mut field = [b' '; FIELD_BYTES];
        field[..e.len()].copy_from_slice(e);
        let code = interner.code(&field).unwrap();
        let key = u64::from(*a) << 32 | u64::from(code);
        set.push_row(key, u64::from(*b), f64::from(*c), *d);
        if set.rows_free() == 0 {
            aggregate.add(&mut set).unwrap();
        }
    }
    aggregate.add(&mut set).unwrap();
    aggregate.finish(&interner.into_texts()).unwrap()
}

fn near(left: f64, right: f64) -> bool {
    left == right
        || left.is_nan() && right.is_nan()
        || (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
}

fn assert_equal(grouped: &Grouped, expected: &Naive) {
    assert_eq!(grouped.len(), expected.len());
    // A BTreeMap iterates by A, then by the bytes of E: the order that results promise.
    for (group, ((a, e), (b_sum, c, d_min, count))) in grouped.groups().zip(expected) {
        assert_eq!((group.a, group.e), (*a, &e[..]));
        assert_eq!((group.d_min, group.count), (*d_min, *count), "{group:?}");
        assert_eq!(group.b_mean, *b_sum as f64 / *count as f64, "{group:?}");
        assert!(near(group.c_sum, c.iter().sum()), "{group:?}");
    }
}

fn row(a: u32, e: &[u8], b: u16, c: f32, d: i8) -> Row {
    (a, e.to_vec(), b, c, d)
}

#[test]
fn nothing_gives_an_empty_result() {
    assert!(aggregate(&[], 4).is_empty());
    assert_eq!(aggregate(&[], 4).groups().count(), 0);
}

#[test]
fn columns_and_types_are_as_documented() {
    let grouped = aggregate(&[row(1, b"x", 1, 1.0, 1)], 4);
    let shown: Vec<String> =
        grouped.frame().schema().iter().map(|(name, dtype)| format!("{name} {dtype}")).collect();
    assert_eq!(shown, ["A u32", "E binary", "B_mean f64", "C_sum f64", "D_min i8", "count u64"]);
}

#[test]
fn extremes_follow_ieee_and_do_not_overflow() {
    let mut rows = vec![
        row(0, b"", 0, f32::MAX, i8::MIN),
        row(0, b"", 65_535, f32::MAX, i8::MAX),
        row(u32::MAX, &[0xff; 256], 1, f32::INFINITY, 0),
        row(u32::MAX, &[0xff; 256], 1, f32::INFINITY, 0),
        row(1, b"nan", 1, f32::NAN, 0),
        row(1, b"nan", 1, 1.0, 0),
        row(1, b"both", 1, f32::INFINITY, 0),
        row(1, b"both", 1, f32::NEG_INFINITY, 0),
        row(1, b"minus", 1, f32::NEG_INFINITY, 0),
        row(1, b"in\0ner", 1, -0.0, -1),
        row(1, b"in", 1, 5.0, -1),
    ];
    rows.extend((0..70_000).map(|_| row(2, b"b", 65_535, f32::MAX, 127)));
    for (batch_rows, rows_used) in [(1 << 16, rows.len()), (7, 2000), (1, 500)] {
        let rows = &rows[..rows_used];
        let grouped = aggregate(rows, batch_rows);
        assert_equal(&grouped, &naive(rows));
        let sum = |e: &[u8]| grouped.groups().find(|group| group.e == e).unwrap().c_sum;
        assert!(sum(b"nan").is_nan() && sum(b"both").is_nan());
        assert_eq!(sum(b"minus"), f64::NEG_INFINITY);
        assert_eq!(sum(&[0xff; 256]), f64::INFINITY);
        assert!(sum(b"b").is_finite());
    }
}

/// B 65535 times a million records: the sum leaves u32 behind. Each batch is one column set.
#[test]
fn a_million_of_the_largest_b_have_their_exact_mean() {
    let mut aggregate = Aggregate::default();
    let mut set = ColumnSet::with_rows(50_000);
    for _ in 0..20 {
        for _ in 0..50_000 {
            set.push_row(7 << 32, 65_535, f64::from(f32::MAX), -128);
        }
        aggregate.add(&mut set).unwrap();
        assert!(set.is_empty() && set.rows_free() == 50_000);
    }
    let mut interner = Interner::with_limits(1, 1000);
    interner.code(&[0; FIELD_BYTES]).unwrap();
    let grouped = aggregate.finish(&interner.into_texts()).unwrap();
    let group = grouped.groups().next().unwrap();
    assert_eq!((group.a, group.e, group.count), (7, &b""[..], 1_000_000));
    assert_eq!((group.b_mean, group.d_min), (65_535.0, -128));
    assert!(near(group.c_sum, f64::from(f32::MAX) * 1e6));
}

/// A set's columns come back from Polars with the same memory, batch after batch.
#[test]
fn columns_are_recycled() {
    let mut aggregate = Aggregate::default();
    let mut set = ColumnSet::with_rows(1000);
    let addresses = |set: &ColumnSet| (set.keys.as_ptr(), set.b.as_ptr(), set.c.as_ptr());
    let before = addresses(&set);
    for round in 0..5 {
        for i in 0..1000 {
            set.push_row(i % 10, round, 1.0, 1);
        }
        aggregate.add(&mut set).unwrap();
        assert_eq!(addresses(&set), before);
    }
}

#[test]
fn a_million_groups_are_all_there() {
    const GROUPS: u32 = 1_000_000;
    let mut interner = Interner::with_limits(GROUPS as usize, 64 << 20);
    let mut aggregate = Aggregate::default();
    let mut set = ColumnSet::with_rows(1 << 16);
    for round in 0..2u64 {
        for i in 0..GROUPS {
            let mut field = [b' '; FIELD_BYTES];
            let text = format!("{:07}", i / 2);
            field[..text.len()].copy_from_slice(text.as_bytes());
            let code = interner.code(&field).unwrap();
            set.push_row(u64::from(i % 2) << 32 | u64::from(code), round, 1.0, (i % 100) as i8);
            if set.rows_free() == 0 {
                aggregate.add(&mut set).unwrap();
            }
        }
    }
    aggregate.add(&mut set).unwrap();
    let grouped = aggregate.finish(&interner.into_texts()).unwrap();
    assert_eq!(grouped.len(), GROUPS as usize);
    for (number, group) in (0u32..).zip(grouped.groups()) {
        let (a, text) = (number / (GROUPS / 2), number % (GROUPS / 2));
        assert_eq!((group.a, group.e), (a, format!("{text:07}").as_bytes()));
        assert_eq!((group.count, group.b_mean, group.c_sum), (2, 0.5, 2.0));
        assert_eq!(group.d_min, ((text * 2 + a) % 100) as i8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_rows_in_any_batches_equal_plain_rust(
        rows in proptest::collection::vec(
            (
                0u32..4,
                prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), vec![], vec![0x80, 1]]),
                any::<u16>(),
                // Of one sign: the tolerance is for sums, not for what cancels out.
                any::<f32>().prop_map(f32::abs),
                any::<i8>(),
            ),
            0..300),
        batch_rows in 1usize..70,
    ) {
        assert_equal(&aggregate(&rows, batch_rows), &naive(&rows));
    }
}

/// Both ways from rows to a result: the counts, minima and means are the same, the sums as near
/// as two orders of adding can be. Small limits make tables be handed over in between.
fn two_phase(rows: &[Row], fold_rows: usize, table_rows: u64, set_rows: usize) -> Grouped {
    let mut interner = Interner::with_limits(1 << 20, 64 << 20);
    let mut aggregate = Aggregate::default();
    let mut set = PartialSet::with_rows(set_rows);
    let mut table = GroupTable::with_limits(1 << 20, table_rows);
    let mut scratch = ColumnSet::with_rows(fold_rows);
    let mut rows = rows.iter().peekable();
    while rows.peek().is_some() {
        if table.rows_free() == 0 {
            aggregate.add_partials(table.partials(), &mut set).unwrap();
            table = GroupTable::with_limits(1 << 20, table_rows);
        }
        for (a, e, b, c, d) in rows.by_ref().take(fold_rows.min(table.rows_free())) {
            let mut field = [b' '; FIELD_BYTES];
            field[..e.len()].copy_from_slice(e);
            let code = interner.code(&field).unwrap();
            let key = u64::from(*a) << 32 | u64::from(code);
            scratch.push_row(key, u64::from(*b), f64::from(*c), *d);
        }
        assert_eq!(table.fold(&scratch), scratch.rows());
        scratch.truncate(0);
    }
    aggregate.add_partials(table.partials(), &mut set).unwrap();
    aggregate.finish(&interner.into_texts()).unwrap()
}

#[test]
fn partials_of_many_tables_and_more_groups_than_a_set_holds() {
    let rows: Vec<Row> = (0..30_000u32)
        .map(|n| row(n % 5, format!("{}", n % 1999).as_bytes(), n as u16, n as f32, n as i8))
        .collect();
    let expected = naive(&rows);
    for (table_rows, set_rows) in [(1 << 20, 1 << 16), (7000, 1000), (700, 1)] {
        assert_equal(&two_phase(&rows, 512, table_rows, set_rows), &expected);
    }
    assert!(two_phase(&[], 1, 1, 1).is_empty());
}

/// The columns of the partials come back from Polars with the same memory.
#[test]
fn columns_of_partials_are_recycled() {
    let mut set = PartialSet::with_rows(100);
    let addresses = |set: &PartialSet| (set.sums.keys.as_ptr(), set.counts.as_ptr());
    let before = addresses(&set);
    let mut aggregate = Aggregate::default();
    for round in 0..3 {
        let partials: Vec<Partial> =
            (0..250).map(|key| Partial { key, b: round, c: 1.0, count: 3, d: 1 }).collect();
        aggregate.add_partials(partials.iter(), &mut set).unwrap();
        assert_eq!(addresses(&set), before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn both_ways_of_aggregating_give_the_same(
        rows in proptest::collection::vec(
            (
                0u32..3,
                prop::sample::select(vec![b"a".to_vec(), b"bc".to_vec(), vec![], vec![0x80, 1]]),
                any::<u16>(),
                any::<f32>().prop_map(f32::abs),
                any::<i8>(),
            ),
            0..300),
        batch_rows in 1usize..70,
        table_rows in 1u64..200,
        set_rows in 1usize..20,
    ) {
        let columns = aggregate(&rows, batch_rows);
        let folded = two_phase(&rows, batch_rows, table_rows, set_rows);
        prop_assert_eq!(columns.len(), folded.len());
        for (left, right) in columns.groups().zip(folded.groups()) {
            prop_assert_eq!((left.a, left.e, left.count), (right.a, right.e, right.count));
            prop_assert_eq!((left.d_min, left.b_mean), (right.d_min, right.b_mean));
            prop_assert!(near(left.c_sum, right.c_sum), "{:?} {:?}", left, right);
        }
    }
}
