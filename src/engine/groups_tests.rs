//! The fold against a map of plain Rust over the same rows: shares no code with what it checks.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Row = (u64, u64, f64, i8);
type Sums = BTreeMap<u64, (u64, f64, u32, i8)>;

fn naive(rows: &[Row]) -> Sums {
    let mut sums = Sums::new();
    for &(key, b, c, d) in rows {
        let sum = sums.entry(key).or_insert((0, 0.0, 0, i8::MAX));
        *sum = (sum.0 + b, sum.1 + c, sum.2 + 1, sum.3.min(d));
    }
    sums
}

fn set_of(rows: &[Row]) -> ColumnSet {
    let mut set = ColumnSet::with_rows(rows.len());
    rows.iter().for_each(|&(key, b, c, d)| set.push_row(key, b, c, d));
    set
}

fn sums_of(groups: &GroupTable) -> Sums {
    groups.partials().map(|p| (p.key, (p.b, p.c, p.count, p.d))).collect()
}

/// Folds rows in batches of `batch_rows`; gives how many were folded.
fn fold(groups: &mut GroupTable, rows: &[Row], batch_rows: usize) -> usize {
    let mut all = 0;
    for batch in rows.chunks(batch_rows) {
        let folded = groups.fold(&set_of(batch));
        all += folded;
        if folded < batch.len() {
            break;
        }
    }
    all
}

fn row(key: u64, number: u64) -> Row {
    // Sums of these are exact in any order.
    (key, number % 65_536, (number % 1024) as f64 * 0.5, (number % 256) as u8 as i8)
}

/// Few pages, then many: both ways of folding, with splits in the midst of a batch.
#[test]
fn groups_equal_the_oracle_whatever_their_number() {
    let mut random = fastrand::Rng::with_seed(1);
    for groups in [1, 125, 10_000, 300_000] {
        let rows: Vec<Row> =
            (0..400_000).map(|n| row(random.u64(..groups) * 0x1_0000_0001, n)).collect();
        let mut table = GroupTable::with_limits(1 << 20, u64::from(u32::MAX));
        assert_eq!(fold(&mut table, &rows, FOLD_ROWS), rows.len());
        let expected = naive(&rows);
        assert_eq!((table.groups(), table.rows()), (expected.len(), 400_000));
        assert_eq!(sums_of(&table), expected);
    }
}

#[test]
fn the_groups_limit_holds_at_its_edge() {
    let rows: Vec<Row> =
        (0..10).map(|n| row([7, 7, 0, 9, 0, 8, 7, 8, 9, 0][n], n as u64)).collect();
    for (limit, folded) in [(1, 2), (2, 3), (3, 5), (4, 10)] {
        let mut table = GroupTable::with_limits(limit, 100);
        assert_eq!(table.fold(&set_of(&rows)), folded, "limit {limit}");
        assert_eq!(sums_of(&table), naive(&rows[..folded]));
        assert_eq!((table.groups(), table.groups_limit()), (limit, limit));
    }
}

/// The same where a table has many pages.
#[test]
fn the_groups_limit_holds_at_its_edge_in_a_large_table() {
    let limit = 50_000;
    let rows: Vec<Row> = (0..60_000).map(|n| row(n, n)).collect();
    let mut table = GroupTable::with_limits(limit, 1 << 20);
    assert_eq!(fold(&mut table, &rows, FOLD_ROWS), limit);
    assert_eq!(table.groups(), limit);
    // Rows of known groups are taken all the same.
    assert_eq!(fold(&mut table, &rows[..1000], 100), 1000);
}

#[test]
fn the_rows_limit_holds_at_its_edge() {
    let mut table = GroupTable::with_limits(10, FOLD_ROWS as u64 + 3);
    assert_eq!(table.rows_free(), FOLD_ROWS);
    table.fold(&set_of(&vec![row(1, 1); FOLD_ROWS]));
    assert_eq!(table.rows_free(), 3);
    table.fold(&set_of(&[row(1, 1); 3]));
    assert_eq!((table.rows_free(), table.rows()), (0, FOLD_ROWS as u64 + 3));
}

#[test]
#[should_panic(expected = "4 rows, 3 are free")]
fn more_rows_than_are_free_are_refused() {
    GroupTable::with_limits(10, 3).fold(&set_of(&[row(1, 1); 4]));
}

#[test]
fn sums_follow_ieee_and_counts_are_exact() {
    let rows = [
        (0, 65_535, f64::INFINITY, i8::MIN),
        (0, 65_535, f64::NEG_INFINITY, i8::MAX),
        (1, 1, f64::MAX, 0),
        (2, 1, -0.0, -1),
    ];
    let mut table = GroupTable::with_limits(10, 100);
    table.fold(&set_of(&rows));
    let sums = sums_of(&table);
    assert!(sums[&0].1.is_nan());
    assert_eq!((sums[&0].0, sums[&0].2, sums[&0].3), (131_070, 2, i8::MIN));
    assert_eq!((sums[&1], sums[&2].3), ((1, f64::MAX, 1, 0), -1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_rows_in_any_batches_equal_the_oracle(
        keys in proptest::collection::vec(prop_oneof![0u64..5, 0u64..3000, any::<u64>()], 0..4000),
        batch_rows in 1..=FOLD_ROWS,
    ) {
        let rows: Vec<Row> = (0u64..).zip(keys).map(|(n, key)| row(key, n)).collect();
        let mut table = GroupTable::with_limits(1 << 20, 1 << 20);
        prop_assert_eq!(fold(&mut table, &rows, batch_rows), rows.len());
        prop_assert_eq!(sums_of(&table), naive(&rows));
    }
}
