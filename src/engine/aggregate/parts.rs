//! Computes the parts of groups from rows, merges parts, and turns them into a result, for any
//! keys. Stateless; reads no files and knows nothing of text codes.
//!
//! A *part* is what a function needs of a field's values so that two pieces of a group can be
//! merged: a sum for a mean, the mean and the sum of squared deviations for a variance. Integers
//! and their sums are exact. The sum of a 64-bit field is split into two columns that cannot
//! overflow, `sum_X * 2^32 + sum_low_X`; both are combined in 128 bits.

use super::column_types::dtype_of;
use super::row_groups::RowGroups;
use crate::wire::schema::columns::{COUNT, ColumnType, Part};
use crate::wire::schema::{Aggregate, Field, Function, Kind, Schema};
use polars::prelude::*;

/// The divisor that splits a 64-bit integer into halves.
const HALF: u64 = 1 << 32;
/// The same for signed integers.
const SIGNED_HALF: i64 = 1 << 32;

/// The columns of a result.
#[derive(Clone, Debug)]
pub(crate) struct FinishedFrame {
    /// The columns in the order of the schema, with their final types. Rows keep their order.
    pub frame: DataFrame,
    /// The columns with a null because a sum, or the sum of a mean, does not fit into 64 bits.
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
    for (field, part) in schema.parts() {
        let name = schema.part_name(field, part);
        let kind = schema.fields()[field].kind;
        let of = |part| frame.column(&schema.part_name(field, part));
        let own = of(part)?;
        let column = match (part, kind) {
            (Part::Sum, Kind::U64 | Kind::I64) => upper(&groups, own, of(Part::SumLow)?.u64()?)?,
            (Part::Sum, Kind::U32) => checked_unsigned(&groups, own)?,
            (Part::Sum, Kind::I32) => checked_signed(&groups, own)?,
            // Even 2^48 records with the largest value do not overflow 64 bits.
            (Part::Sum, _) => groups.sum(own),
            (Part::SumLow, _) => lower(&groups, own.u64()?)?.into_column(),
            (Part::Min, _) => groups.min(&comparable(own)?),
            (Part::Max, _) => groups.max(&comparable(own)?),
            (Part::First, _) => groups.first(own),
            (Part::Last, _) => groups.last(own),
            (Part::Mean, _) => merged_mean(&groups, own, count)?,
            (Part::M2, _) => merged_m2(&groups, of(Part::Mean)?, own, count)?,
        };
        columns.push(column.with_name(name.into()));
    }
    DataFrame::new(groups.len(), columns)
}

/// Computes parts from rows. Returns the keys, `count` and each part.
///
/// Columns are named like their fields and have type u64, i64 or f64, with bool as u64. A 64-bit
/// integer that is summed also has its halves: `X.high` is `v >> 32`, `X.low` the rest as u64.
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
    for (field, part) in schema.parts() {
        let Field { name, kind, .. } = &schema.fields()[field];
        let values = || frame.column(name);
        let half = |which| frame.column(&format!("{name}.{which}"));
        let column = match (part, kind) {
            (Part::Sum, Kind::U64 | Kind::I64) => {
                upper(&groups, half("high")?, half("low")?.u64()?)?
            }
            (Part::Sum, _) => groups.sum(values()?),
            (Part::SumLow, _) => lower(&groups, half("low")?.u64()?)?.into_column(),
            (Part::Min, _) => groups.min(values()?),
            (Part::Max, _) => groups.max(values()?),
            (Part::First, _) => groups.first(values()?),
            (Part::Last, _) => groups.last(values()?),
            (Part::Mean, _) => mean(&groups, values()?)?,
            (Part::M2, _) => m2(&groups, values()?)?,
        };
        columns.push(column.with_name(schema.part_name(field, part).into()));
    }
    DataFrame::new(groups.len(), columns)
}

/// Sums of numbers without nulls.
fn sums(groups: &RowGroups, numbers: UInt64Chunked) -> PolarsResult<UInt64Chunked> {
    groups.sum(&numbers.into_column()).u64().cloned()
}

/// Sums of upper halves, including the carry from the lower ones.
fn upper(groups: &RowGroups, upper: &Column, low: &UInt64Chunked) -> PolarsResult<Column> {
    let upper = groups.sum(upper);
    let carry = carry(groups, low)?.into_column().cast(upper.dtype())?;
    upper + carry
}

/// Sums of lower halves, without the carry.
fn lower(groups: &RowGroups, low: &UInt64Chunked) -> PolarsResult<UInt64Chunked> {
    Ok(sums(groups, low.apply_values(|low| low % HALF))?.apply_values(|sum| sum % HALF))
}

/// The carry from sums of lower halves to the upper ones. Each value is split before it is added,
/// so that 2^32 of them fit.
fn carry(groups: &RowGroups, low: &UInt64Chunked) -> PolarsResult<UInt64Chunked> {
    let whole = sums(groups, low.apply_values(|low| low / HALF))?;
    let rest = sums(groups, low.apply_values(|low| low % HALF))?;
    Ok(whole + rest.apply_values(|rest| rest / HALF))
}

/// Sums of 64-bit sums; null if one does not fit or an addend is null.
fn checked_unsigned(groups: &RowGroups, sums: &Column) -> PolarsResult<Column> {
    let values = sums.u64()?;
    let high = values.apply_values(|value| value / HALF).into_column();
    let low = values.apply_values(|value| value % HALF);
    let wide = wide_sums(groups, &high.cast(&DataType::Int64)?, &low)?;
    let sums = wide.into_iter().map(|sum| u64::try_from(sum?).ok());
    Ok(sums.collect::<UInt64Chunked>().into_column())
}

fn checked_signed(groups: &RowGroups, sums: &Column) -> PolarsResult<Column> {
    let values = sums.i64()?;
    // Both round down, so the lower half is never negative.
    let high = values.apply_values(|value| value.div_euclid(SIGNED_HALF)).into_column();
    let low = values.apply_values(|value| value.rem_euclid(SIGNED_HALF)).into_column();
    let wide = wide_sums(groups, &high, low.cast(&DataType::UInt64)?.u64()?)?;
    let sums = wide.into_iter().map(|sum| i64::try_from(sum?).ok());
    Ok(sums.collect::<Int64Chunked>().into_column())
}

/// Sums in 128 bits of numbers given as halves; `None` if one of the numbers is null.
fn wide_sums(
    groups: &RowGroups,
    high: &Column,
    low: &UInt64Chunked,
) -> PolarsResult<Vec<Option<i128>>> {
    let nulls = groups.sum(&low.is_null().into_column().cast(&DataType::UInt64)?);
    let upper = upper(groups, high, low)?;
    let lower = lower(groups, low)?;
    let halves = upper.i64()?.into_no_null_iter().zip(lower.into_no_null_iter());
    let sums = halves.zip(nulls.u64()?.into_no_null_iter()).map(|((upper, lower), nulls)| {
        (nulls == 0).then(|| i128::from(upper) * i128::from(HALF) + i128::from(lower))
    });
    Ok(sums.collect())
}

/// Values for which Polars can compute minimum and maximum: bool as a number.
fn comparable(values: &Column) -> PolarsResult<Column> {
    match values.dtype() {
        DataType::Boolean => values.cast(&DataType::UInt8),
        _ => Ok(values.clone()),
    }
}

/// Computes the mean relative to the first value, so that a large common offset costs no precision.
fn mean(groups: &RowGroups, values: &Column) -> PolarsResult<Column> {
    let values = values.cast(&DataType::Float64)?;
    let (runs, first) = (groups.runs(), groups.first(&values));
    let distance = (runs.ordered(&values)? - runs.spread(&first)?)?;
    first + runs.mean(&distance)
}

fn m2(groups: &RowGroups, values: &Column) -> PolarsResult<Column> {
    let values = values.cast(&DataType::Float64)?;
    let (runs, mean) = (groups.runs(), mean(groups, &values)?);
    let distance = (runs.ordered(&values)? - runs.spread(&mean)?)?;
    Ok(runs.sum(&(&distance * &distance)?))
}

/// The method of Chan, Golub and LeVeque 1983, for any number of pieces at once.
fn merged_mean(groups: &RowGroups, mean: &Column, count: &Column) -> PolarsResult<Column> {
    let count = count.cast(&DataType::Float64)?;
    let (runs, first) = (groups.runs(), groups.first(mean));
    let distance = (runs.ordered(mean)? - runs.spread(&first)?)?;
    let beyond = runs.sum(&(distance * runs.ordered(&count)?)?);
    first + (beyond / groups.sum(&count))?
}

fn merged_m2(
    groups: &RowGroups,
    mean: &Column,
    m2: &Column,
    count: &Column,
) -> PolarsResult<Column> {
    let count = count.cast(&DataType::Float64)?;
    let (runs, merged) = (groups.runs(), merged_mean(groups, mean, &count)?);
    let distance = (runs.ordered(mean)? - runs.spread(&merged)?)?;
    let between = ((&distance * &distance)? * runs.ordered(&count)?)?;
    groups.sum(m2) + runs.sum(&between)
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
                if matches!(function, Function::Sum | Function::Mean) && column.has_nulls() {
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
        // Only a sum in 64 bits can be unknown, see `checked_unsigned`.
        let may_be_null = part == Part::Sum && !matches!(self.kind(), Kind::U64 | Kind::I64);
        polars_ensure!(may_be_null || !column.has_nulls(), ComputeError: "{name} has a null");
        Ok(column)
    }

    fn column(&self, function: Function) -> PolarsResult<Column> {
        match function {
            Function::Sum => self.sum(),
            Function::Mean => self.mean(),
            Function::Min => self.value(Part::Min),
            Function::Max => self.value(Part::Max),
            Function::First => self.value(Part::First),
            Function::Last => self.value(Part::Last),
            Function::Var => self.variance(|variance| variance),
            Function::Std => self.variance(f64::sqrt),
        }
    }

    /// A value of the field, in the field's type.
    fn value(&self, part: Part) -> PolarsResult<Column> {
        self.part(part, ColumnType::of_field(self.kind()))
    }

    fn sum(&self) -> PolarsResult<Column> {
        Ok(match self.kind() {
            Kind::U64 => {
                let sums = self.wide_sums()?.into_iter().map(|sum| u64::try_from(sum).ok());
                sums.collect::<UInt64Chunked>().into_column()
            }
            Kind::I64 => {
                let sums = self.wide_sums()?.into_iter().map(|sum| i64::try_from(sum).ok());
                sums.collect::<Int64Chunked>().into_column()
            }
            kind => self.part(Part::Sum, ColumnType::of_sum(kind))?,
        })
    }

    /// The sums of a 64-bit field.
    fn wide_sums(&self) -> PolarsResult<Vec<i128>> {
        let low = self.part(Part::SumLow, ColumnType::U64)?;
        let join = |upper: i128, low: u64| upper * i128::from(HALF) + i128::from(low);
        let low = low.u64()?.into_no_null_iter();
        let upper = self.part(Part::Sum, ColumnType::of_sum(self.kind()))?;
        Ok(match self.kind() {
            Kind::I64 => {
                let upper = upper.i64()?.into_no_null_iter();
                upper.zip(low).map(|(upper, low)| join(upper.into(), low)).collect()
            }
            _ => {
                let upper = upper.u64()?.into_no_null_iter();
                upper.zip(low).map(|(upper, low)| join(upper.into(), low)).collect()
            }
        })
    }

    /// The sum, exact for integers, converted to a float and divided once.
    fn mean(&self) -> PolarsResult<Column> {
        let counts = self.count.into_no_null_iter();
        if matches!(self.kind(), Kind::U64 | Kind::I64) {
            let sums = self.wide_sums()?.into_iter().zip(counts);
            let means: Vec<f64> = sums.map(|(sum, count)| sum as f64 / count as f64).collect();
            return Ok(Float64Chunked::from_vec("".into(), means).into_column());
        }
        let sums =
            self.part(Part::Sum, ColumnType::of_sum(self.kind()))?.cast(&DataType::Float64)?;
        let divided = sums.f64()?.iter().zip(counts).map(|(sum, count)| Some(sum? / count as f64));
        Ok(divided.collect::<Float64Chunked>().into_column())
    }

    /// The sample variance, transformed by `made`; null for a single record.
    fn variance(&self, made: impl Fn(f64) -> f64) -> PolarsResult<Column> {
        let m2 = self.part(Part::M2, ColumnType::F64)?;
        let groups = m2.f64()?.into_no_null_iter().zip(self.count.into_no_null_iter());
        let variances =
            groups.map(|(m2, count)| (count > 1).then(|| made(m2 / (count - 1) as f64)));
        Ok(variances.collect::<Float64Chunked>().into_column())
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
