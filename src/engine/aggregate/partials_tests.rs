//! Checks aggregation against plain Rust over the same rows, which shares no code with it.

use super::*;
use crate::config::Config;
use crate::engine::aggregate::Value;
use crate::engine::blocks::number::Wide;
use crate::engine::blocks::text_tag::TextForm;
use crate::engine::decode::intern::Interner;
use crate::engine::groups::table::tests::fold_block;
use crate::engine::oracle::assert_same;
use crate::engine::oracle::streams::{NaiveStream, Path, through_columns, through_groups};
use crate::wire::schema::{Kind, Schema};
use crate::wire::text::Padding;
use proptest::prelude::*;

/// The fields of a record of the built-in schema.
type AggregatedRow = (u32, Vec<u8>, u16, f32, i8);

fn plan() -> Arc<Plan> {
    Plan::new(Schema::built_in())
}

/// The rows as records.
fn records(rows: &[AggregatedRow]) -> Vec<Vec<u8>> {
    let record = |(a, e, b, c, d): &AggregatedRow| {
        let mut record = a.to_be_bytes().to_vec();
        record.extend(b.to_be_bytes());
        record.extend(c.to_be_bytes());
        record.extend(d.to_be_bytes());
        record.extend(e);
        record.resize(267, b' ');
        record
    };
    rows.iter().map(record).collect()
}

/// Aggregates rows in batches of `batch_rows` and compares.
fn check(rows: &[AggregatedRow], batch_rows: usize) -> Grouped {
    let records = records(rows);
    let stream = NaiveStream::new(&Schema::built_in(), &records, &[7]);
    let path = Path { cuts: Vec::new(), window_bytes: 1 << 16, rows: batch_rows };
    let outcome = through_columns(&plan(), &Config::default(), &stream.bytes, &path);
    assert_same(&Schema::built_in(), &records, &outcome.finished);
    outcome.finished.grouped
}

/// The same through tables of `table_rows` rows.
fn check_two_phase(rows: &[AggregatedRow], table_rows: usize) -> Grouped {
    let records = records(rows);
    let stream = NaiveStream::new(&Schema::built_in(), &records, &[7]);
    let path = Path { cuts: Vec::new(), window_bytes: 1 << 16, rows: table_rows };
    let outcome = through_groups(&plan(), &Config::default(), &stream.bytes, &path);
    assert_same(&Schema::built_in(), &records, &outcome.finished);
    outcome.finished.grouped
}

fn row(a: u32, e: &[u8], b: u16, c: f32, d: i8) -> AggregatedRow {
    (a, e.to_vec(), b, c, d)
}

fn push_row(set: &mut ColumnSet, key: u64, b: u64, c: f64, d: i64) {
    set.keys[0].push(key);
    set.values[0].push(Wide::Unsigned(b));
    set.values[1].push(Wide::Float(c));
    set.values[2].push(Wide::Signed(d));
}

/// A cell of a result as text.
fn cell(grouped: &Grouped, column: usize, row: usize) -> String {
    grouped.columns()[column].value(row).to_string()
}

#[test]
fn no_records_give_an_empty_result() {
    assert!(check(&[], 4).is_empty());
    assert!(check_two_phase(&[], 1).is_empty());
    let columns = check(&[], 4).columns().len();
    assert_eq!(columns, 6);
}

#[test]
fn columns_and_types_are_as_documented() {
    let grouped = check(&[row(1, b"x", 1, 1.0, 1)], 4);
    let shown: Vec<String> =
        grouped.frame().schema().iter().map(|(name, dtype)| format!("{name} {dtype}")).collect();
    assert_eq!(shown, ["A u32", "E str", "B_mean f64", "C_sum f64", "D_min i8", "count u64"]);
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
        let grouped = check(&rows[..rows_used], batch_rows);
        let sum = |e: &str| {
            let row = (0..grouped.len()).find(|&row| cell(&grouped, 1, row) == e).unwrap();
            cell(&grouped, 3, row)
        };
        assert_eq!([sum("nan"), sum("both")], ["NaN", "NaN"]);
        assert_eq!([sum("minus"), sum(&"\\xff".repeat(256))], ["-inf", "inf"]);
        assert!(sum("b").parse::<f64>().unwrap().is_finite());
        assert_eq!(cell(&grouped, 1, 3), "in\\x00ner", "shown on one line");
    }
}

/// A million records with B = 65535, so that the sum exceeds u32. Each batch is one column set.
#[test]
fn a_million_of_the_largest_b_have_their_exact_mean() {
    let mut aggregate = GroupAggregate::new(&plan());
    let mut set = ColumnSet::with_rows(&plan(), 50_000);
    for _ in 0..20 {
        for _ in 0..50_000 {
            push_row(&mut set, 7 << 32, 65_535, f64::from(f32::MAX), -128);
        }
        aggregate.add(&mut set).unwrap();
        assert!(set.is_empty() && set.rows_free() == 50_000);
    }
    let grouped = aggregate.finish(&[texts_of([String::new()].into_iter())]).unwrap().grouped;
    let cells: Vec<String> = (0..6).map(|column| cell(&grouped, column, 0)).collect();
    assert_eq!([&cells[0], &cells[1], &cells[5]], ["7", "", "1000000"]);
    assert_eq!([&cells[2], &cells[4]], ["65535.0", "-128"]);
    let (sum, expected) = (cells[3].parse::<f64>().unwrap(), f64::from(f32::MAX) * 1e6);
    assert!((sum - expected).abs() <= 1e-9 * expected, "{sum}");
}

/// Distinct texts, by code.
fn texts_of(values: impl Iterator<Item = String>) -> Texts {
    let form = TextForm::of(Kind::Text { bytes: 256, padding: Padding::BOTH });
    let mut interner = Interner::with_limits(form, 1 << 20, 64 << 20);
    for (code, value) in (0..).zip(values) {
        let mut field = [b' '; 256];
        field[..value.len()].copy_from_slice(value.as_bytes());
        assert_eq!(interner.code(&field), Ok(code));
    }
    interner.into_texts()
}

/// Polars returns a set's columns with the same memory, batch after batch.
#[test]
fn columns_are_reused() {
    let mut aggregate = GroupAggregate::new(&plan());
    let mut set = ColumnSet::with_rows(&plan(), 1000);
    let before = addresses(&set.keys, &set.values);
    for round in 0..5 {
        for i in 0..1000 {
            push_row(&mut set, i % 10, round, 1.0, 1);
        }
        aggregate.add(&mut set).unwrap();
        assert_eq!(addresses(&set.keys, &set.values), before);
    }
}

/// The addresses of the columns.
fn addresses(keys: &[Vec<u64>], values: &[Numbers]) -> Vec<usize> {
    let keys = keys.iter().map(|words| words.as_ptr() as usize);
    let values = values.iter().map(|column| match column {
        Numbers::Unsigned(column) => column.as_ptr() as usize,
        Numbers::Signed(column) => column.as_ptr() as usize,
        Numbers::Float(column) => column.as_ptr() as usize,
    });
    keys.chain(values).collect()
}

#[test]
fn many_groups_are_kept() {
    assert_all_kept(50_000);
}

#[test]
#[ignore = "long: a million groups"]
fn a_million_groups_are_kept() {
    assert_all_kept(1_000_000);
}

/// Two rows of each of so many groups.
fn assert_all_kept(groups: u32) {
    let texts = texts_of((0..groups / 2).map(|text| format!("{text:07}")));
    let mut aggregate = GroupAggregate::new(&plan());
    let mut set = ColumnSet::with_rows(&plan(), 1 << 16);
    for round in 0..2u64 {
        for i in 0..groups {
            let key = u64::from(i % 2) << 32 | u64::from(i / 2);
            push_row(&mut set, key, round, 1.0, i64::from(i % 100));
            if set.rows_free() == 0 {
                aggregate.add(&mut set).unwrap();
            }
        }
    }
    aggregate.add(&mut set).unwrap();
    let grouped = aggregate.finish(&[texts]).unwrap().grouped;
    assert_eq!(grouped.len(), groups as usize);
    let columns = grouped.columns();
    for number in 0..groups {
        let (a, text) = (number / (groups / 2), number % (groups / 2));
        let value = |column: usize| columns[column].value(number as usize);
        assert_eq!(value(0), Value::Unsigned(a.into()));
        assert_eq!(value(1), Value::Text(&format!("{text:07}")));
        assert_eq!((value(2), value(3)), (Value::Float(0.5), Value::Float(2.0)));
        assert_eq!(value(4), Value::Signed(((text * 2 + a) % 100).into()));
        assert_eq!(value(5), Value::Unsigned(2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_rows_agree_with_plain_rust_both_ways(
        rows in proptest::collection::vec(
            (
                0u32..4,
                prop::sample::select(vec![b"a".to_vec(), b"bc".to_vec(), vec![], vec![0x80, 1]]),
                any::<u16>(),
                any::<f32>(),
                any::<i8>(),
            ),
            0..300),
        batch_rows in 1usize..70,
        table_rows in 1usize..200,
    ) {
        let columns = check(&rows, batch_rows);
        let folded = check_two_phase(&rows, table_rows);
        prop_assert_eq!(columns.len(), folded.len());
        // If values are added in the same order, results are equal to the last bit.
        for column in [0, 1, 2, 4, 5] {
            for row in 0..columns.len() {
                prop_assert_eq!(cell(&columns, column, row), cell(&folded, column, row));
            }
        }
    }
}

#[test]
fn one_table_and_many_are_aggregated() {
    let rows: Vec<AggregatedRow> = (0..12_000u32)
        .map(|n| row(n % 5, format!("{}", n % 1999).as_bytes(), n as u16, n as f32, n as i8))
        .collect();
    for table_rows in [1 << 20, 7000, 700] {
        check_two_phase(&rows, table_rows);
    }
    check_two_phase(&rows[..1000], 1);
}

/// A single table is not grouped, but its partials must be in the form that files have.
#[test]
fn sums_of_halves_are_carried_over() {
    let schema = "endian = 'big'\n\
         field = [{ name = 'K', type = 'u8' }, { name = 'U', type = 'u64' }, \
        { name = 'I', type = 'i64' }]\nresult.by = ['K']\n\
        result.aggregates = ['U:mean', 'I:sum']\n";
    let plan = Plan::new(Arc::new(Schema::from_toml(schema).unwrap()));
    let record = [&[7][..], &u64::MAX.to_be_bytes(), &(-1_i64).to_be_bytes()].concat();
    let mut table = GroupTable::with_limits(&plan, 10, 1000);
    assert_eq!(fold_block(&mut table, &record.repeat(3), record.len(), &[7 << 56; 3]), 3);
    let mut aggregate = GroupAggregate::new(&plan);
    aggregate.add_table(&table).unwrap();
    let one = aggregate.merged.clone().unwrap();
    let cells = |frame: &DataFrame| {
        ["sum_U", "sum_low_U", "sum_I", "sum_low_I", "count"].map(|name| {
            let column = frame.column(name).unwrap().get(0).unwrap();
            column.try_extract::<i128>().unwrap()
        })
    };
    let (half, three) = (1_i128 << 32, 3 * i128::from(u64::MAX));
    assert_eq!(cells(&one), [three >> 32, three & (half - 1), -1, half - 3, 3]);
    // Grouping changes nothing in them, nor does a second table but the sums.
    assert_eq!(
        cells(&merge_partials(&plan, one).unwrap()),
        cells(&aggregate.merged.clone().unwrap())
    );
    aggregate.add_table(&table).unwrap();
    assert_eq!(aggregate.groups_known(), 1);
    let two = cells(&aggregate.merged.unwrap());
    assert_eq!(two, [(2 * three) >> 32, (2 * three) & (half - 1), -1, half - 6, 6]);
}
