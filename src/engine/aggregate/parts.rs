//! Parts of groups: made of rows, merged with each other, and made into a result, as Polars
//! expressions over any keys. Reads no files, keeps nothing, and knows no codes of texts.
//!
//! A *part* is what a function needs of a field's values so that two pieces of a group can be
//! merged: a sum for a mean, mean and squared distances for a variance. Integers and sums of them
//! are exact. A 64-bit field has its sum in two columns, `sum_X * 2^32 + sum_low_X`, each of which
//! is far from its own end; both are put together in 128 bits.

use crate::wire::schema::partial::Part;
use crate::wire::schema::{Aggregate, Field, Function, Kind, Schema};
use polars::prelude::*;

/// What a 64-bit integer is cut at.
const HALF: u64 = 1 << 32;
/// The same where the upper half has a sign.
const SIGNED_HALF: i64 = 1 << 32;

/// A result's columns.
#[derive(Clone, Debug)]
pub(crate) struct FinishedFrame {
    /// The columns in the order of the schema, with their final types. Rows are as they came.
    pub frame: DataFrame,
    /// The columns with a sum, or a mean of one, that does not fit 64 bits and is null.
    pub overflowed: Vec<String>,
}

/// Parts merged with parts of the same groups: `count` and each part, for `group_by`.
///
/// Within a group the rows stand in the order of time, of which the first and last values are.
pub(crate) fn merged(schema: &Schema) -> Vec<Expr> {
    let parts = schema.parts().into_iter().map(|(field, part)| {
        let name = schema.part_name(field, part);
        let of = |part| col(schema.part_name(field, part));
        let own = of(part);
        let merged = match (part, schema.fields()[field].kind) {
            (Part::Sum, Kind::U64) => upper_unsigned(own, of(Part::SumLow)),
            (Part::Sum, Kind::I64) => upper_signed(own, of(Part::SumLow)),
            (Part::Sum, Kind::U32) => checked_unsigned(own),
            (Part::Sum, Kind::I32) => checked_signed(own),
            // 2^48 records of the largest value do not reach the end of 64 bits.
            (Part::Sum, _) => own.sum(),
            (Part::SumLow, _) => lower(own),
            (Part::Min, kind) => comparable(own, kind).min(),
            (Part::Max, kind) => comparable(own, kind).max(),
            (Part::First, _) => own.first(),
            (Part::Last, _) => own.last(),
            (Part::Mean, _) => merged_mean(own),
            (Part::M2, _) => merged_m2(of(Part::Mean), own),
        };
        merged.alias(name)
    });
    std::iter::once(col("count").sum()).chain(parts).collect()
}

/// Parts of rows: `count` and each part, for `group_by`.
///
/// Columns are named as their fields, of u64, i64 or f64, bool as u64. A 64-bit integer that is
/// summed has its halves beside it: `X.high` is `v >> 32`, `X.low` the rest as u64.
pub(crate) fn gathered(schema: &Schema) -> Vec<Expr> {
    let parts = schema.parts().into_iter().map(|(field, part)| {
        let Field { name, kind, .. } = &schema.fields()[field];
        let values = || col(name.as_str());
        let half = |which| col(format!("{name}.{which}"));
        let gathered = match (part, kind) {
            (Part::Sum, Kind::U64) => upper_unsigned(half("high"), half("low")),
            (Part::Sum, Kind::I64) => upper_signed(half("high"), half("low")),
            (Part::Sum, _) => values().sum(),
            (Part::SumLow, _) => lower(half("low")),
            (Part::Min, _) => values().min(),
            (Part::Max, _) => values().max(),
            (Part::First, _) => values().first(),
            (Part::Last, _) => values().last(),
            (Part::Mean, _) => mean_of(values()),
            (Part::M2, _) => {
                let distance = values().cast(DataType::Float64) - mean_of(values());
                (distance.clone() * distance).sum()
            }
        };
        gathered.alias(schema.part_name(field, part))
    });
    std::iter::once(len().cast(DataType::UInt64).alias("count")).chain(parts).collect()
}

/// Sum of upper halves, with what the lower ones carry over.
fn upper_unsigned(upper: Expr, low: Expr) -> Expr {
    upper.sum() + carry(low)
}

fn upper_signed(upper: Expr, low: Expr) -> Expr {
    upper.sum() + carry(low).cast(DataType::Int64)
}

/// Sum of lower halves, without what is carried over.
fn lower(low: Expr) -> Expr {
    (low % lit(HALF)).sum() % lit(HALF)
}

/// What sums of lower halves carry over to the upper ones. Each is cut before it is added, so
/// that 2^32 of them fit.
fn carry(low: Expr) -> Expr {
    (low.clone() / lit(HALF)).sum() + (low % lit(HALF)).sum() / lit(HALF)
}

/// A sum of sums in 64 bits; null where it does not fit, and of null for good.
fn checked_unsigned(sums: Expr) -> Expr {
    let upper = upper_unsigned(sums.clone() / lit(HALF), sums.clone() % lit(HALF));
    let fits = upper.clone().lt(lit(HALF)).and(sums.clone().null_count().eq(lit(0)));
    let sum = (upper % lit(HALF)) * lit(HALF) + lower(sums);
    when(fits).then(sum).otherwise(lit(NULL))
}

fn checked_signed(sums: Expr) -> Expr {
    // The remainder goes down, so the lower half is none below zero; what is left divides evenly.
    let low = sums.clone() % lit(SIGNED_HALF);
    let upper = (sums.clone() - low.clone()) / lit(SIGNED_HALF);
    let low = low.cast(DataType::UInt64);
    let upper = upper_signed(upper, low.clone());
    let least = -(SIGNED_HALF / 2);
    let fits = upper.clone().gt_eq(lit(least)).and(upper.clone().lt(lit(SIGNED_HALF / 2)));
    let fits = fits.and(sums.null_count().eq(lit(0)));
    // What does not fit is not multiplied: that would overflow on the way to null.
    let kept = when(fits.clone()).then(upper).otherwise(lit(0_i64));
    let sum = kept * lit(SIGNED_HALF) + lower(low).cast(DataType::Int64);
    when(fits).then(sum).otherwise(lit(NULL))
}

/// Values of which Polars knows the least: bool as a number.
fn comparable(values: Expr, kind: Kind) -> Expr {
    match kind {
        Kind::Bool => values.cast(DataType::UInt8),
        _ => values,
    }
}

/// Mean around the first value: what the values have in common takes no digits from it.
fn mean_of(values: Expr) -> Expr {
    let values = values.cast(DataType::Float64);
    let first = values.clone().first();
    first.clone() + (values - first).mean()
}

/// Chan, Golub and LeVeque 1983, of any number of pieces at once.
fn merged_mean(mean: Expr) -> Expr {
    let count = || col("count").cast(DataType::Float64);
    let first = mean.clone().first();
    let beyond = ((mean - first.clone()) * count()).sum();
    first + beyond.true_div(count().sum())
}

fn merged_m2(mean: Expr, m2: Expr) -> Expr {
    let distance = mean.clone() - merged_mean(mean);
    m2.sum() + (distance.clone() * distance * col("count").cast(DataType::Float64)).sum()
}

/// The result of merged parts: `frame` has the keys under their names with their final types,
/// `count`, and the parts; numbers may be wider than their fields.
///
/// # Errors
/// Where a column is missing, or has values that its field cannot have: a defect, or partials
/// that something else has written.
pub(crate) fn finish(schema: &Schema, frame: &DataFrame) -> PolarsResult<FinishedFrame> {
    let count = frame.column("count")?.strict_cast(&DataType::UInt64)?;
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

    fn part(&self, part: Part, dtype: &DataType) -> PolarsResult<Column> {
        let name = self.schema.part_name(self.field, part);
        let column = self.frame.column(&name)?.strict_cast(dtype)?;
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

    /// A value of the field, in the field's own type.
    fn value(&self, part: Part) -> PolarsResult<Column> {
        self.part(part, &type_of(self.kind()))
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
            kind => self.part(Part::Sum, &sum_type(kind))?,
        })
    }

    /// The sums of a 64-bit field.
    fn wide_sums(&self) -> PolarsResult<Vec<i128>> {
        let low = self.part(Part::SumLow, &DataType::UInt64)?;
        let join = |upper: i128, low: u64| upper * i128::from(HALF) + i128::from(low);
        let low = low.u64()?.into_no_null_iter();
        let upper = self.part(Part::Sum, &sum_type(self.kind()))?;
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

    /// The exact sum, or that of floats, converted and divided once.
    fn mean(&self) -> PolarsResult<Column> {
        let counts = self.count.into_no_null_iter();
        if matches!(self.kind(), Kind::U64 | Kind::I64) {
            let sums = self.wide_sums()?.into_iter().zip(counts);
            let means: Vec<f64> = sums.map(|(sum, count)| sum as f64 / count as f64).collect();
            return Ok(Float64Chunked::from_vec("".into(), means).into_column());
        }
        let sums = self.part(Part::Sum, &sum_type(self.kind()))?.cast(&DataType::Float64)?;
        let divided = sums.f64()?.iter().zip(counts).map(|(sum, count)| Some(sum? / count as f64));
        Ok(divided.collect::<Float64Chunked>().into_column())
    }

    /// The variance of a sample, or what is made of it; null for one record.
    fn variance(&self, made: impl Fn(f64) -> f64) -> PolarsResult<Column> {
        let m2 = self.part(Part::M2, &DataType::Float64)?;
        let groups = m2.f64()?.into_no_null_iter().zip(self.count.into_no_null_iter());
        let variances =
            groups.map(|(m2, count)| (count > 1).then(|| made(m2 / (count - 1) as f64)));
        Ok(variances.collect::<Float64Chunked>().into_column())
    }
}

/// The type of a field's column in results and of its values in partials.
pub(crate) fn type_of(kind: Kind) -> DataType {
    match kind {
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
        Kind::Bool => DataType::Boolean,
        Kind::Text { .. } => DataType::String,
        Kind::Bytes { .. } | Kind::Skip { .. } => DataType::Binary,
    }
}

/// The type of a sum of such values.
pub(super) fn sum_type(kind: Kind) -> DataType {
    match kind {
        _ if kind.is_float() => DataType::Float64,
        _ if kind.is_signed() => DataType::Int64,
        _ => DataType::UInt64,
    }
}

/// The type that a part has in partials.
pub(crate) fn part_type(kind: Kind, part: Part) -> DataType {
    match part {
        Part::Sum => sum_type(kind),
        Part::SumLow => DataType::UInt64,
        Part::Min | Part::Max | Part::First | Part::Last => type_of(kind),
        Part::Mean | Part::M2 => DataType::Float64,
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
