//! The reference aggregation for tests: keeps groups in a map and sums in 128 bits. Shares no
//! decoding and no aggregation with the engine.

use super::cells::{NaiveCell, read};
use super::exact::{exact_mean, exact_spread, exact_sum};
use crate::engine::aggregate::{FinishedGroups, GroupColumn, Grouped, Value};
use crate::wire::schema::{Aggregate, Field, Function, Kind, Schema};
use crate::wire::text::{ShownText, TextEncoding};
use std::collections::BTreeMap;

/// Keys in the order of results: numbers by value, texts by their bytes.
type Key = Vec<(i128, Vec<u8>)>;

/// The records of each group in order of arrival, with the groups in order.
fn groups<'a>(schema: &Schema, records: &'a [Vec<u8>]) -> BTreeMap<Key, Vec<&'a [u8]>> {
    let mut groups: BTreeMap<Key, Vec<&[u8]>> = BTreeMap::new();
    for record in records {
        let key = schema.keys().map(|field| match read(field, schema.endian(), record) {
            NaiveCell::Integer(value) => (value, Vec::new()),
            NaiveCell::Bytes(bytes) => (0, bytes),
            NaiveCell::Float(_) => panic!("a key cannot be a float"),
        });
        groups.entry(key.collect()).or_default().push(record);
    }
    groups
}

/// The expected value of a cell.
#[derive(Debug)]
enum NaiveExpectation {
    /// Exactly this.
    Exact(NaiveCell),
    /// This number but for the last digits.
    Near(f64),
    /// Null.
    Null,
}

/// The relative error of sums, means and spreads of floats. A thousandth of what is promised.
const TOLERANCE: f64 = 1e-12;

/// Compares a result with the reference for these records.
///
/// # Errors
/// Describes the first difference.
pub(crate) fn compare(
    schema: &Schema,
    records: &[Vec<u8>],
    finished: &FinishedGroups,
) -> Result<(), String> {
    let grouped = &finished.grouped;
    let groups = groups(schema, records);
    let columns = grouped.columns();
    compare_columns(schema, grouped, &columns)?;
    if grouped.len() != groups.len() {
        return Err(format!("{} groups, expected {}", grouped.len(), groups.len()));
    }
    let mut overflowed = vec![false; columns.len()];
    for (row, records) in groups.values().enumerate() {
        let first = records[0];
        let keys = schema.keys().map(|field| {
            (field.kind, NaiveExpectation::Exact(read(field, schema.endian(), first)))
        });
        let made = schema.aggregates().iter().map(|&aggregate| expect(schema, aggregate, records));
        for (i, (kind, expected)) in keys.chain(made).enumerate() {
            let (column, value) = (columns[i], columns[i].value(row));
            if !is_as_expected(kind, &expected, value) {
                let name = column.name();
                return Err(format!(
                    "{name} of group {row} ({} records) is {value:?}, expected {expected:?}",
                    records.len()
                ));
            }
            let is_sum = column.name().ends_with("_sum");
            overflowed[i] |= is_sum && matches!(expected, NaiveExpectation::Null);
        }
    }
    let names = columns.iter().zip(overflowed).filter(|(_, over)| *over);
    let names: Vec<String> = names.map(|(column, _)| column.name().to_owned()).collect();
    if names != finished.overflowed {
        return Err(format!("overflowed are {:?}, expected {names:?}", finished.overflowed));
    }
    Ok(())
}

/// The same, but panics at a difference.
pub(crate) fn assert_same(schema: &Schema, records: &[Vec<u8>], finished: &FinishedGroups) {
    if let Err(difference) = compare(schema, records, finished) {
        panic!("{difference}\n{schema:#?}");
    }
}

/// Compares the names and types of the columns with the documented ones.
fn compare_columns(
    schema: &Schema,
    grouped: &Grouped,
    columns: &[GroupColumn<'_>],
) -> Result<(), String> {
    let mut expected: Vec<(String, &str)> =
        schema.keys().map(|key| (key.name.clone(), key.kind.name())).collect();
    for &aggregate in schema.aggregates() {
        expected.push(match aggregate {
            Aggregate::Count => ("count".to_owned(), "u64"),
            Aggregate::Of { field, function } => {
                let Field { name, kind, .. } = &schema.fields()[field];
                (format!("{name}_{}", function.name()), type_of(function, *kind))
            }
        });
    }
    let found: Vec<(String, &str)> = columns
        .iter()
        .map(|column| (column.name().to_owned(), column.column_type().name()))
        .collect();
    if found != expected {
        return Err(format!("columns are {found:?}, expected {expected:?}"));
    }
    // One chunk per column, as promised to readers.
    match grouped.frame().columns().iter().all(|column| column.n_chunks() == 1) {
        true => Ok(()),
        false => Err("a column has several chunks".to_owned()),
    }
}

fn type_of(function: Function, kind: Kind) -> &'static str {
    match (function, kind) {
        (Function::Mean | Function::Var | Function::Std, _) => "f64",
        (Function::Sum, Kind::F32 | Kind::F64) => "f64",
        (Function::Sum, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64) => "i64",
        (Function::Sum, _) => "u64",
        _ => kind.name(),
    }
}

/// The expected value of an aggregate of a group, and the type of its cell.
fn expect(schema: &Schema, aggregate: Aggregate, records: &[&[u8]]) -> (Kind, NaiveExpectation) {
    let Aggregate::Of { field, function } = aggregate else {
        return (Kind::U64, NaiveExpectation::Exact(NaiveCell::Integer(records.len() as i128)));
    };
    let field = &schema.fields()[field];
    let values: Vec<NaiveCell> =
        records.iter().map(|record| read(field, schema.endian(), record)).collect();
    let kind = field.kind;
    match function {
        Function::First => (kind, NaiveExpectation::Exact(values[0].clone())),
        Function::Last => (kind, NaiveExpectation::Exact(values[values.len() - 1].clone())),
        Function::Min => (kind, NaiveExpectation::Exact(extreme(kind, &values, |a, b| a < b))),
        Function::Max => (kind, NaiveExpectation::Exact(extreme(kind, &values, |a, b| a > b))),
        Function::Sum => sum(kind, &values),
        Function::Mean => (Kind::F64, mean(kind, &values)),
        Function::Var => (Kind::F64, spread(&values, |(variance, _)| variance)),
        Function::Std => (Kind::F64, spread(&values, |(_, deviation)| deviation)),
    }
}

/// The most extreme value. NaN counts only if there is no number.
fn extreme(kind: Kind, values: &[NaiveCell], is_beyond: impl Fn(f64, f64) -> bool) -> NaiveCell {
    if !kind.is_float() {
        let integers = || values.iter().map(NaiveCell::integer);
        // Tells whether the minimum or the maximum is asked for.
        let value = if is_beyond(0.0, 1.0) { integers().min() } else { integers().max() };
        return NaiveCell::Integer(value.expect("a group has a record"));
    }
    // Of -0.0 and 0.0 the first is less.
    let mut numbers: Vec<f64> =
        values.iter().map(NaiveCell::float).filter(|value| !value.is_nan()).collect();
    numbers.sort_by(f64::total_cmp);
    let found = if is_beyond(0.0, 1.0) { numbers.first() } else { numbers.last() };
    NaiveCell::Float(found.copied().unwrap_or(f64::NAN))
}

fn exact_sum_of(values: &[NaiveCell]) -> i128 {
    values.iter().map(NaiveCell::integer).sum()
}

fn sum(kind: Kind, values: &[NaiveCell]) -> (Kind, NaiveExpectation) {
    if kind.is_float() {
        return (Kind::F64, float_sum(values));
    }
    let sum = exact_sum_of(values);
    let (kind, fits) = match kind.is_signed() {
        true => (Kind::I64, i64::try_from(sum).is_ok()),
        false => (Kind::U64, u64::try_from(sum).is_ok()),
    };
    (
        kind,
        if fits {
            NaiveExpectation::Exact(NaiveCell::Integer(sum))
        } else {
            NaiveExpectation::Null
        },
    )
}

/// The sum of numbers that are not all finite, by IEEE 754.
fn special_sum(values: &[f64]) -> Option<NaiveExpectation> {
    let special: Vec<f64> = values.iter().copied().filter(|value| !value.is_finite()).collect();
    let sum = special.iter().sum();
    (!special.is_empty()).then_some(NaiveExpectation::Exact(NaiveCell::Float(sum)))
}

fn floats(values: &[NaiveCell]) -> Vec<f64> {
    values.iter().map(NaiveCell::float).collect()
}

fn float_sum(values: &[NaiveCell]) -> NaiveExpectation {
    let values = floats(values);
    special_sum(&values).unwrap_or_else(|| NaiveExpectation::Near(exact_sum(&values)))
}

fn mean(kind: Kind, values: &[NaiveCell]) -> NaiveExpectation {
    if !kind.is_float() {
        let mean = exact_sum_of(values) as f64 / values.len() as f64;
        return NaiveExpectation::Exact(NaiveCell::Float(mean));
    }
    let values = floats(values);
    special_sum(&values).unwrap_or_else(|| NaiveExpectation::Near(exact_mean(&values)))
}

/// The variance or the deviation, of which `of` takes one.
fn spread(values: &[NaiveCell], of: impl Fn((f64, f64)) -> f64) -> NaiveExpectation {
    if values.len() < 2 {
        return NaiveExpectation::Null;
    }
    if values.iter().any(|value| !value.float().is_finite()) {
        return NaiveExpectation::Exact(NaiveCell::Float(f64::NAN));
    }
    // What rounding to binary64 leaves of an integer is given with it.
    let pairs = values.iter().map(|value| match value {
        NaiveCell::Integer(value) => (*value as f64, (value - (*value as f64) as i128) as f64),
        value => (value.float(), 0.0),
    });
    NaiveExpectation::Near(of(exact_spread(&pairs.collect::<Vec<_>>())))
}

fn is_as_expected(kind: Kind, expected: &NaiveExpectation, value: Value<'_>) -> bool {
    match (expected, value) {
        (NaiveExpectation::Null, value) => value == Value::Null,
        (NaiveExpectation::Exact(cell), value) => is_cell(kind, cell, value),
        (NaiveExpectation::Near(value), Value::Float(found)) => {
            found == *value || (found - value).abs() <= TOLERANCE * value.abs()
        }
        _ => false,
    }
}

/// Whether a cell of this type holds exactly this value.
fn is_cell(kind: Kind, cell: &NaiveCell, value: Value<'_>) -> bool {
    match (kind, cell, value) {
        (Kind::Text { .. }, NaiveCell::Bytes(bytes), Value::Text(found)) => {
            ShownText(bytes, TextEncoding::Utf8).to_string() == found
        }
        (Kind::Bytes { .. }, NaiveCell::Bytes(bytes), Value::Bytes(found)) => bytes == found,
        (Kind::Bool, &NaiveCell::Integer(value), Value::Bool(found)) => (value == 1) == found,
        (_, &NaiveCell::Integer(value), Value::Signed(found)) => {
            kind.is_signed() && i128::from(found) == value
        }
        (_, &NaiveCell::Integer(value), Value::Unsigned(found)) => {
            !kind.is_signed() && i128::from(found) == value
        }
        (_, &NaiveCell::Float(value), Value::Float(found)) => {
            // Also distinguishes -0.0 and 0.0.
            value.to_bits() == found.to_bits() || value.is_nan() && found.is_nan()
        }
        _ => false,
    }
}
