//! Checks the fold against a plain map over the same rows, which shares no code with it.

use super::*;
use crate::engine::blocks::block::{BLOCK_RECORDS, BlockRecords};
use crate::engine::groups::columns::{Column, PartialSet};
use crate::engine::groups::moments::sum_of;
use crate::wire::records::packets::{Ends, Run};
use crate::wire::schema::{Endian, Framing, Kind, Schema};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A key with any bits, and the fields B, C and D of a record of the built-in schema.
type FoldedRow = (u64, u16, f32, i8);
type Sums = BTreeMap<u64, (u64, f64, u64, i64)>;

fn naive(rows: &[FoldedRow]) -> Sums {
    let mut sums = Sums::new();
    for &(key, b, c, d) in rows {
        let sum = sums.entry(key).or_insert((0, 0.0, 0, i64::MAX));
        *sum = (sum.0 + u64::from(b), sum.1 + f64::from(c), sum.2 + 1, sum.3.min(d.into()));
    }
    sums
}

fn table(groups_limit: usize, rows_limit: u64) -> GroupTable {
    GroupTable::with_limits(&Plan::new(Schema::built_in()), groups_limit, rows_limit)
}

/// A record; its fields A and E do not matter here.
fn record(&(_, b, c, d): &FoldedRow) -> [u8; 267] {
    let mut record = [b' '; 267];
    record[4..6].copy_from_slice(&b.to_be_bytes());
    record[6..10].copy_from_slice(&c.to_be_bytes());
    record[10] = d as u8;
    record
}

/// Folds rows in batches of `batch_rows`. Returns the number of rows folded.
fn fold(groups: &mut GroupTable, rows: &[FoldedRow], batch_rows: usize) -> usize {
    let mut all = 0;
    for batch in rows.chunks(batch_rows) {
        let records: Vec<u8> = batch.iter().flat_map(record).collect();
        let keys: Vec<u64> = batch.iter().map(|row| row.0).collect();
        let folded = fold_block(groups, &records, 267, &keys);
        all += folded;
        if folded < batch.len() {
            break;
        }
    }
    all
}

/// Folds consecutive records, at most one block of them.
pub(in crate::engine) fn fold_block(
    groups: &mut GroupTable,
    bytes: &[u8],
    record_bytes: usize,
    keys: &[u64],
) -> usize {
    let records = bytes.len() / record_bytes;
    let run = [Run { offset: 0, records, ends: Ends::None }];
    let mut block = Block::new();
    block.fill(&mut BlockRecords::of(&run, bytes, record_bytes));
    groups.fold(&block, records, keys)
}

fn partials(groups: &GroupTable) -> PartialSet {
    let mut set = PartialSet::with_rows(&groups.plan, groups.groups());
    groups.partials().for_each(|partial| set.push(partial, groups.spills()));
    set
}

fn sums_of(groups: &GroupTable) -> Sums {
    let set = partials(groups);
    let [Column::Unsigned(b), Column::Float(mean), Column::Float(rest), Column::Signed(d)] =
        &set.parts[..]
    else {
        panic!("sum of B, mean of C and the rest, minimum of D: {:?}", set.parts);
    };
    let c = |i: usize| sum_of(set.counts[i], mean[i], rest[i]);
    (0..set.counts.len()).map(|i| (set.keys[0][i], (b[i], c(i), set.counts[i], d[i]))).collect()
}

fn row(key: u64, number: u64) -> FoldedRow {
    // These values have exact sums in any order.
    (key, number as u16, (number % 1024) as f32 * 0.5, number as i8)
}

/// Few pages, then many: covers both code paths, and splits in the middle of a batch.
#[test]
fn any_number_of_groups_agrees_with_the_oracle() {
    const ROWS: u64 = 100_000;
    let mut random = fastrand::Rng::with_seed(1);
    for groups in [1, 125, 10_000, 80_000] {
        let rows: Vec<FoldedRow> =
            (0..ROWS).map(|n| row(random.u64(..groups) * 0x1_0000_0001, n)).collect();
        let mut table = table(1 << 20, u64::from(u32::MAX));
        assert_eq!(fold(&mut table, &rows, BLOCK_RECORDS), rows.len());
        let expected = naive(&rows);
        assert_eq!((table.groups(), table.rows()), (expected.len(), ROWS));
        assert_eq!(sums_of(&table), expected);
    }
}

#[test]
fn the_groups_limit_is_exact() {
    let rows: Vec<FoldedRow> =
        (0..10).map(|n| row([7, 7, 0, 9, 0, 8, 7, 8, 9, 0][n], n as u64)).collect();
    for (limit, folded) in [(1, 2), (2, 3), (3, 5), (4, 10)] {
        let mut table = table(limit, 100);
        assert_eq!(fold(&mut table, &rows, BLOCK_RECORDS), folded, "limit {limit}");
        assert_eq!(sums_of(&table), naive(&rows[..folded]));
        assert_eq!((table.groups(), table.groups_limit()), (limit, limit));
    }
}

/// The same with many pages.
#[test]
fn the_groups_limit_is_exact_in_a_large_table() {
    let limit = 50_000;
    let rows: Vec<FoldedRow> = (0..60_000).map(|n| row(n, n)).collect();
    let mut table = table(limit, 1 << 20);
    assert_eq!(fold(&mut table, &rows, BLOCK_RECORDS), limit);
    assert_eq!(table.groups(), limit);
    // Rows of existing groups are still accepted.
    assert_eq!(fold(&mut table, &rows[..1000], 50), 1000);
}

#[test]
fn the_rows_limit_is_exact() {
    let mut table = table(10, FOLD_ROWS as u64 + 3);
    assert_eq!(table.rows_free(), FOLD_ROWS);
    fold(&mut table, &vec![row(1, 1); FOLD_ROWS], BLOCK_RECORDS);
    assert_eq!(table.rows_free(), 3);
    fold(&mut table, &[row(1, 1); 3], BLOCK_RECORDS);
    assert_eq!((table.rows_free(), table.rows()), (0, FOLD_ROWS as u64 + 3));
}

#[test]
#[should_panic(expected = "4 rows, but only 3 free")]
fn more_rows_than_are_free_panic() {
    fold(&mut table(10, 3), &[row(1, 1); 4], BLOCK_RECORDS);
}

#[test]
#[should_panic(expected = "a partial counts in 32 bits")]
fn more_rows_than_can_be_counted_panic() {
    table(10, 1 << 32);
}

#[test]
fn sums_follow_ieee_and_counts_are_exact() {
    let rows = [
        (0, 65_535, f32::INFINITY, i8::MIN),
        (0, 65_535, f32::NEG_INFINITY, i8::MAX),
        (1, 1, f32::MAX, 0),
        (1, 1, f32::MAX, 0),
        (2, 1, -0.0, -1),
    ];
    let mut table = table(10, 100);
    fold(&mut table, &rows, BLOCK_RECORDS);
    let sums = sums_of(&table);
    assert!(sums[&0].1.is_nan());
    assert_eq!((sums[&0].0, sums[&0].2, sums[&0].3), (131_070, 2, -128));
    // Too large for binary32, but not for binary64.
    assert_eq!((sums[&1], sums[&2].3), ((2, 2.0 * f64::from(f32::MAX), 2, 0), -1));
}

/// Keys of two words up to the most that a schema can have, which differ in one word only, in a
/// table with split pages.
#[test]
fn every_word_of_a_key_distinguishes_groups() {
    for key_words in [2, 3, 8] {
        let fields = (0..key_words).map(|i| (format!("k{i}"), Kind::U64)).collect();
        let keys = (0..key_words).collect();
        let name = "wide".to_owned();
        let framing = Framing::default();
        let schema = Schema::new(name, Endian::Big, framing, fields, keys, Vec::new()).unwrap();
        let plan = Plan::new(Arc::new(schema));
        assert_eq!(plan.key_words(), key_words);
        let mut table = GroupTable::with_limits(&plan, 1 << 20, 1 << 20);
        let record = vec![0; plan.form().record_bytes];
        let rows: Vec<Vec<u64>> = (0..20_000)
            .map(|n| {
                let mut key = vec![u64::MAX; key_words];
                key[n % key_words] = (n / key_words % 2500) as u64;
                key
            })
            .collect();
        for batch in rows.chunks(61) {
            let keys: Vec<u64> = batch.concat();
            let records = record.repeat(batch.len());
            let folded = fold_block(&mut table, &records, record.len(), &keys);
            assert_eq!(folded, batch.len());
        }
        let mut expected = BTreeMap::new();
        for row in rows {
            *expected.entry(row).or_insert(0) += 1;
        }
        let set = partials(&table);
        let found: BTreeMap<Vec<u64>, u64> = (0..set.counts.len())
            .map(|i| (set.keys.iter().map(|words| words[i]).collect(), set.counts[i]))
            .collect();
        assert_eq!((table.groups(), found), (expected.len(), expected), "{key_words} words");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_rows_in_any_batches_equal_the_oracle(
        keys in proptest::collection::vec(prop_oneof![0u64..5, 0u64..3000, any::<u64>()], 0..4000),
        batch_rows in 1..=BLOCK_RECORDS,
    ) {
        let rows: Vec<FoldedRow> = (0u64..).zip(keys).map(|(n, key)| row(key, n)).collect();
        let mut table = table(1 << 20, 1 << 20);
        prop_assert_eq!(fold(&mut table, &rows, batch_rows), rows.len());
        prop_assert_eq!(sums_of(&table), naive(&rows));
    }
}

/// What does not fit into slots is kept beside them, by group, also when these move.
#[test]
fn spilled_sums_are_found_again() {
    let keys: Vec<u64> = (0..5000_u64).map(|n| n * 0x1_0000_0001).collect();
    // None of these can be added to the one before in binary64.
    let values = [1e10_f32, 1e-10, -1e10, 3e-10];
    let rows = |c: f32| keys.iter().map(move |&key| (key, 0, c, 0)).collect::<Vec<_>>();
    let mut table = table(10_000, 1 << 20);
    for value in values {
        fold(&mut table, &rows(value), BLOCK_RECORDS);
    }
    let exact = f64::from(1e-10_f32) + f64::from(3e-10_f32);
    let sums = sums_of(&table);
    assert_eq!(sums.len(), keys.len());
    for (_, (_, c, count, _)) in sums {
        assert_eq!(count, 4);
        assert!((c - exact).abs() <= 1e-15 * exact, "{c}, expected {exact}");
    }
}
