//! Computes the parts of groups from rows, merges parts, and turns them into a result, for any
//! keys. Stateless; reads no files and knows nothing of text codes.
//!
//! A *part* is what a function needs of a field's values so that two pieces of a group can be
//! merged: a sum for a mean, the sum and the sum of squared distances for a variance. Integers and
//! their sums are exact. A sum of integers of 32 or 64 bits has two columns that cannot overflow,
//! `sum_X * 2^32 + sum_low_X`; both are combined in 128 bits. A sum of floats is `count * mean_X +
//! rest_X`, which has twice the digits of one number, and is finite where the sum is not.

use super::column_types::dtype_of;
use super::row_groups::{GroupRows, RowGroups};
use crate::engine::blocks::number::Number;
use crate::engine::groups::moments::{Moments, Squares, merged_m2, sum_of};
use crate::wire::schema::columns::{COUNT, ColumnType, Part};
use crate::wire::schema::{Aggregate, Function, Kind, Schema};
use polars::prelude::*;

/// Bits of the lower half of a sum.
const HALF_BITS: u32 = 32;

/// The columns of a result.
#[derive(Clone, Debug)]
pub(crate) struct FinishedFrame {
    /// The columns in the order of the schema, with their final types. Rows keep their order.
    pub frame: DataFrame,
    /// The columns with a null because a sum, or the sum of a mean, does not fit.
    pub overflowed: Vec<String>,
}

/// Merges the parts of equal groups. Returns the keys, `count` and each part.
///
/// `frame` has the columns named by `keys`, `count` and each part. Within a group the rows are in
/// chronological order, which determines the first and last values.
///
/// # Errors
/// Fails if a column is missing or has another type.
pub(crate) fn merged(
    schema: &Schema,
    frame: &DataFrame,
    keys: impl IntoIterator<Item: AsRef<str>>,
) -> PolarsResult<DataFrame> {
    let groups = RowGroups::of(frame, keys)?;
    let count = frame.column(COUNT)?;
    let mut columns = groups.keys();
    columns.push(groups.sum(count).with_name(COUNT.into()));
    let mut statistics = Statistics::default();
    for (field, part) in schema.parts() {
        let name = schema.part_name(field, part);
        let own = || frame.column(&name);
        let column = match part {
            Part::Min | Part::Max => extremes(&groups, own()?, part)?,
            Part::First => groups.first(own()?),
            Part::Last => groups.last(own()?),
            _ => {
                let rows = || PartRows::of(schema, frame, field);
                statistics.column(schema, field, part, || rows()?.merged(&groups))?
            }
        };
        columns.push(column.with_name(name.into()));
    }
    DataFrame::new(groups.len(), columns)
}

/// Computes parts from rows. Returns the keys, `count` and each part.
///
/// Columns are named like their fields and have type u64, i64 or f64, with bool as u64.
///
/// # Errors
/// Fails if a column is missing or has another type.
pub(crate) fn gathered(
    schema: &Schema,
    frame: &DataFrame,
    keys: impl IntoIterator<Item: AsRef<str>>,
) -> PolarsResult<DataFrame> {
    let groups = RowGroups::of(frame, keys)?;
    let mut columns = groups.keys();
    columns.push(groups.counts()?.with_name(COUNT.into()));
    let mut statistics = Statistics::default();
    for (field, part) in schema.parts() {
        let values = frame.column(&schema.fields()[field].name)?;
        let column = match part {
            Part::Min | Part::Max => extremes(&groups, values, part)?,
            Part::First => groups.first(values),
            Part::Last => groups.last(values),
            _ => {
                let spread = schema.parts().contains(&(field, Part::M2));
                statistics.column(schema, field, part, || of_values(&groups, values, spread))?
            }
        };
        columns.push(column.with_name(schema.part_name(field, part).into()));
    }
    DataFrame::new(groups.len(), columns)
}

/// The least or the greatest values. Of floats, -0.0 is below 0.0, whatever their order.
fn extremes(groups: &RowGroups, values: &Column, part: Part) -> PolarsResult<Column> {
    let is_min = part == Part::Min;
    match values.dtype() {
        DataType::Float32 | DataType::Float64 => {
            let floats = numbers(values)?;
            let floats = floats.cont_slice()?;
            let best = |best: f64, value: f64| {
                if is_min { value.least(best) } else { value.greatest(best) }
            };
            let of = |rows: GroupRows<'_>| rows.iter().map(|row| floats[row]).fold(f64::NAN, best);
            float_column(groups.map(of)).cast(values.dtype())
        }
        // Polars compares numbers.
        DataType::Boolean if is_min => Ok(groups.min(&values.cast(&DataType::UInt8)?)),
        DataType::Boolean => Ok(groups.max(&values.cast(&DataType::UInt8)?)),
        _ if is_min => Ok(groups.min(values)),
        _ => Ok(groups.max(values)),
    }
}

/// A column of numbers as one piece of binary64.
fn numbers(column: &Column) -> PolarsResult<Float64Chunked> {
    Ok(column.cast(&DataType::Float64)?.f64()?.rechunk().into_owned())
}

/// A column of integers.
fn integers(column: &Column) -> PolarsResult<Vec<Option<i128>>> {
    Ok(match column.dtype() {
        DataType::Int64 => column.i64()?.iter().map(|one| one.map(i128::from)).collect(),
        _ => column.u64()?.iter().map(|one| one.map(i128::from)).collect(),
    })
}

fn float_column(numbers: Vec<f64>) -> Column {
    Float64Chunked::from_vec("".into(), numbers).into_column()
}

/// Sums and spread of one field: what its parts are made of.
enum FieldStatistics {
    /// Of integers, for each group the sum, if it is known, and the squared distances, if they are
    /// asked for.
    Integers(Vec<(Option<i128>, f64)>),
    /// Of floats.
    Floats(Vec<Moments>),
}

/// The statistics of the last field asked for, since several parts follow from them.
#[derive(Default)]
struct Statistics(Option<(usize, FieldStatistics)>);

impl Statistics {
    /// The column of a part. Parts of the same field come one after another.
    fn column(
        &mut self,
        schema: &Schema,
        field: usize,
        part: Part,
        compute: impl FnOnce() -> PolarsResult<FieldStatistics>,
    ) -> PolarsResult<Column> {
        if self.0.as_ref().is_none_or(|(of, _)| *of != field) {
            self.0 = Some((field, compute()?));
        }
        let Some((_, statistics)) = &self.0 else { unreachable!("just computed") };
        let halves = schema.parts().contains(&(field, Part::SumLow));
        Ok(match statistics {
            FieldStatistics::Floats(moments) => float_column(match part {
                Part::Mean => moments.iter().map(|one| one.mean).collect(),
                Part::Rest => moments.iter().map(|one| one.rest).collect(),
                Part::M2 => moments.iter().map(|one| one.m2).collect(),
                _ => moments.iter().map(|one| one.unit).collect(),
            }),
            FieldStatistics::Integers(groups) => match part {
                Part::M2 => float_column(groups.iter().map(|group| group.1).collect()),
                Part::SumLow => {
                    let low = |sum: Option<i128>| sum.unwrap_or(0) as u64 & u64::from(u32::MAX);
                    let low = groups.iter().map(|&(sum, _)| low(sum)).collect();
                    UInt64Chunked::from_vec("".into(), low).into_column()
                }
                _ => {
                    let own = |sum| if halves { sum >> HALF_BITS } else { sum };
                    let sums = groups.iter().map(|(sum, _)| sum.map(own));
                    sum_column(schema.fields()[field].kind, sums)
                }
            },
        })
    }
}

/// Sums of a type, null where 64 bits do not hold one or it is not known.
fn sum_column(kind: Kind, sums: impl Iterator<Item = Option<i128>>) -> Column {
    match kind.is_signed() {
        true => sums.map(|sum| i64::try_from(sum?).ok()).collect::<Int64Chunked>().into_column(),
        false => sums.map(|sum| u64::try_from(sum?).ok()).collect::<UInt64Chunked>().into_column(),
    }
}

/// The statistics of values.
fn of_values(groups: &RowGroups, values: &Column, spread: bool) -> PolarsResult<FieldStatistics> {
    if values.dtype().is_float() {
        let floats = numbers(values)?;
        let floats = floats.cont_slice()?;
        return Ok(FieldStatistics::Floats(groups.map(|rows| {
            let count = rows.iter().count() as u64;
            Moments::of(rows.iter().map(|row| floats[row]), count, spread)
        })));
    }
    let integers = integers(values)?;
    Ok(FieldStatistics::Integers(groups.map(|rows| {
        // Only sums can be unknown.
        let own = || rows.iter().filter_map(|row| integers[row]);
        let sum = own().sum();
        if !spread {
            return (Some(sum), 0.0);
        }
        let mut squares = Squares::default();
        own().for_each(|integer| squares.add(integer.unsigned_abs() as u64));
        (Some(sum), squares.m2(rows.iter().count() as u64, sum))
    })))
}

/// The parts of one field in the rows of a frame.
enum PartRows {
    Integers { counts: Vec<u64>, sums: Vec<Option<i128>>, m2: Option<Float64Chunked> },
    Floats(Vec<(u64, Moments)>),
}

/// The sums of integers in the rows of a frame; `None` where the parts have no room for one.
fn sums_of(schema: &Schema, frame: &DataFrame, field: usize) -> PolarsResult<Vec<Option<i128>>> {
    let of = |part| integers(frame.column(&schema.part_name(field, part))?);
    let sums = of(Part::Sum)?;
    if !schema.parts().contains(&(field, Part::SumLow)) {
        return Ok(sums);
    }
    let low = of(Part::SumLow)?;
    // Only an upper half can be too large.
    polars_ensure!(
        low.iter().all(Option::is_some),
        ComputeError: "{} has a null", schema.part_name(field, Part::SumLow)
    );
    let whole = |(high, low): (Option<i128>, Option<i128>)| Some((high? << HALF_BITS) + low?);
    Ok(sums.into_iter().zip(low).map(whole).collect())
}

impl PartRows {
    fn of(schema: &Schema, frame: &DataFrame, field: usize) -> PolarsResult<Self> {
        let of = |part| frame.column(&schema.part_name(field, part));
        let has = |part| schema.parts().contains(&(field, part));
        let counts = frame.column(COUNT)?.strict_cast(&DataType::UInt64)?;
        let counts = counts.u64()?.into_no_null_iter();
        let floats = |part, otherwise| match has(part) {
            true => Ok(numbers(of(part)?)?.into_no_null_iter().collect()),
            false => PolarsResult::Ok(vec![otherwise; frame.height()]),
        };
        if schema.fields()[field].kind.is_float() {
            let (means, rests) = (floats(Part::Mean, 0.0)?, floats(Part::Rest, 0.0)?);
            let (m2s, units) = (floats(Part::M2, 0.0)?, floats(Part::Unit, 1.0)?);
            let moments = |row| Moments {
                mean: means[row],
                rest: rests[row],
                m2: m2s[row],
                unit: units[row],
            };
            let rows = counts.enumerate().map(|(row, count)| (count, moments(row)));
            return Ok(PartRows::Floats(rows.collect()));
        }
        let sums = sums_of(schema, frame, field)?;
        let m2 = if has(Part::M2) { Some(numbers(of(Part::M2)?)?) } else { None };
        Ok(PartRows::Integers { counts: counts.collect(), sums, m2 })
    }

    /// The statistics of each group.
    fn merged(&self, groups: &RowGroups) -> PolarsResult<FieldStatistics> {
        Ok(match self {
            PartRows::Floats(rows) => FieldStatistics::Floats(
                groups.map(|of| Moments::merged(of.iter().map(|row| rows[row]))),
            ),
            PartRows::Integers { counts, sums, m2 } => {
                let m2 = m2.as_ref().map(|m2| m2.cont_slice()).transpose()?;
                FieldStatistics::Integers(groups.map(|of| {
                    let sum = of.iter().map(|row| sums[row]).sum::<Option<i128>>();
                    let sets = |m2: &[f64]| {
                        let sets =
                            of.iter().map(|row| (counts[row], sums[row].unwrap_or(0), m2[row]));
                        merged_m2(sets)
                    };
                    (sum, m2.map_or(0.0, sets))
                }))
            }
        })
    }
}

/// Computes the result from merged parts. `frame` has the keys under their names with their final
/// types, `count`, and the parts; numbers may be wider than their fields.
///
/// # Errors
/// Fails if a column is missing or has values that its field cannot have, because of a bug or
/// because something else wrote the partials.
pub(crate) fn finish(schema: &Schema, frame: &DataFrame) -> PolarsResult<FinishedFrame> {
    let count = frame.column(COUNT)?.strict_cast(&DataType::UInt64)?;
    let mut columns: Vec<Column> =
        schema.keys().map(|key| frame.column(&key.name).cloned()).collect::<Result<_, _>>()?;
    let mut overflowed = Vec::new();
    for &aggregate in schema.aggregates() {
        let name = schema.column_name(aggregate);
        let column = match aggregate {
            Aggregate::Count => count.clone(),
            Aggregate::Of { field, function } => {
                let group = FieldParts { schema, frame, field, count: count.u64()? };
                let column = group.column(function)?;
                // The spread of a single record is null, too.
                let nulls = match function {
                    Function::Var | Function::Std => group.sum_is_unknown()?,
                    _ => column.has_nulls(),
                };
                if nulls {
                    overflowed.push(name.clone());
                }
                column
            }
        };
        columns.push(column.with_name(name.into()));
    }
    let frame = DataFrame::new(frame.height(), columns)?;
    Ok(FinishedFrame { frame, overflowed })
}

/// The parts of one field.
struct FieldParts<'a> {
    schema: &'a Schema,
    frame: &'a DataFrame,
    field: usize,
    count: &'a UInt64Chunked,
}

impl FieldParts<'_> {
    fn kind(&self) -> Kind {
        self.schema.fields()[self.field].kind
    }

    fn part(&self, part: Part, of: ColumnType) -> PolarsResult<Column> {
        let name = self.schema.part_name(self.field, part);
        let column = self.frame.column(&name)?.strict_cast(&dtype_of(of))?;
        polars_ensure!(!column.has_nulls(), ComputeError: "{name} has a null");
        Ok(column)
    }

    fn column(&self, function: Function) -> PolarsResult<Column> {
        let is_float = self.kind().is_float();
        match function {
            Function::Sum if is_float => {
                self.of_moments(|of, count| Some(sum_of(count, of.mean, of.rest)))
            }
            Function::Sum => {
                let sums = sums_of(self.schema, self.frame, self.field)?;
                Ok(sum_column(self.kind(), sums.into_iter()))
            }
            Function::Mean if is_float => self.of_moments(|of, _| Some(of.mean)),
            Function::Mean => self.mean(),
            Function::Min => self.value(Part::Min),
            Function::Max => self.value(Part::Max),
            Function::First => self.value(Part::First),
            Function::Last => self.value(Part::Last),
            // Null for a single record.
            Function::Var => self.of_moments(|of, count| (count > 1).then(|| of.variance(count))),
            Function::Std => self.of_moments(|of, count| (count > 1).then(|| of.deviation(count))),
        }
    }

    /// A value of the field, in the field's type.
    fn value(&self, part: Part) -> PolarsResult<Column> {
        self.part(part, ColumnType::of_field(self.kind()))
    }

    /// The exact sum of integers, converted to a float and divided once.
    fn mean(&self) -> PolarsResult<Column> {
        let sums = sums_of(self.schema, self.frame, self.field)?.into_iter();
        let means = sums.zip(self.count.into_no_null_iter());
        let means = means.map(|(sum, count)| Some(sum? as f64 / count as f64));
        Ok(means.collect::<Float64Chunked>().into_column())
    }

    /// Whether a sum of integers is so large that its parts do not hold it, after 2^32 records or
    /// more.
    fn sum_is_unknown(&self) -> PolarsResult<bool> {
        let sum = self.schema.part_name(self.field, Part::Sum);
        Ok(!self.kind().is_float() && self.frame.column(&sum)?.has_nulls())
    }

    /// What `of` makes of the moments and the count of each group.
    fn of_moments(&self, of: impl Fn(Moments, u64) -> Option<f64>) -> PolarsResult<Column> {
        let part = |part, otherwise| match self.schema.parts().contains(&(self.field, part)) {
            true => Ok(numbers(&self.part(part, ColumnType::F64)?)?.into_no_null_iter().collect()),
            false => PolarsResult::Ok(vec![otherwise; self.frame.height()]),
        };
        let (means, rests) = (part(Part::Mean, 0.0)?, part(Part::Rest, 0.0)?);
        let (m2s, units) = (part(Part::M2, 0.0)?, part(Part::Unit, 1.0)?);
        let known = match self.sum_is_unknown()? {
            true => {
                sums_of(self.schema, self.frame, self.field)?.iter().map(Option::is_some).collect()
            }
            false => vec![true; self.frame.height()],
        };
        let groups = self.count.into_no_null_iter().enumerate().map(|(row, count)| {
            let (mean, rest) = (means[row], rests[row]);
            if !known[row] {
                return None;
            }
            of(Moments { mean, rest, m2: m2s[row], unit: units[row] }, count)
        });
        Ok(groups.collect::<Float64Chunked>().into_column())
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
