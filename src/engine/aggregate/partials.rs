//! Aggregates the column sets of one connection into mergeable partials, and partials into a
//! result.
//!
//! A stream arrives as column sets (`--aggregate columns`), or as tables of groups into which a
//! worker has folded its records (`groups`). Polars groups each set by its packed keys into
//! partials: the count, and the parts that the schema's aggregates need. A table has each group
//! once, so its columns become partials as they are; most streams have one table, and nothing is
//! grouped again. Partials are collected until they outnumber the groups known so far, then merged
//! into one. So memory depends on the number of groups, not on the number of records, and each row
//! is merged a bounded number of times.
//!
//! Polars blocks and distributes work to its own threads, so call this from a plain thread, never
//! from a worker.

use super::column_types::empty_frame;
use super::grouped::Grouped;
use super::keys::{self, key_name, key_names};
use super::partial_file::{self, Origin, PartialFileError};
use super::parts;
use crate::config::PENDING_ROWS;
use crate::engine::decode::texts::Texts;
use crate::engine::groups::columns::{Column as Numbers, ColumnSet, PartialSet};
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::wire::schema::columns::{COUNT, ColumnType};
use polars::prelude::*;
use std::io::Write;
use std::sync::Arc;

/// Partials that are collected before they are merged, however small they are.
const PENDING_PARTIALS_LIMIT: usize = 256;

/// Polars failed. Nothing that a peer sends can cause this; it would be a bug.
#[derive(Debug, thiserror::Error)]
#[error("aggregation failed: {0}")]
pub struct AggregateError(#[from] PolarsError);

/// The groups of one connection so far.
pub struct GroupAggregate {
    plan: Arc<Plan>,
    merged: Option<DataFrame>,
    pending: Vec<DataFrame>,
    pending_rows: usize,
}

impl GroupAggregate {
    /// An aggregate without groups.
    pub fn new(plan: &Arc<Plan>) -> Self {
        let plan = Arc::clone(plan);
        GroupAggregate { plan, merged: None, pending: Vec::new(), pending_rows: 0 }
    }

    /// Adds a batch and clears the set, keeping its memory.
    ///
    /// # Errors
    /// `AggregateError`; the set is cleared and its rows are lost.
    pub fn add(&mut self, set: &mut ColumnSet) -> Result<(), AggregateError> {
        if set.is_empty() {
            return Ok(());
        }
        let partial = group_rows(&self.plan, set);
        set.clear();
        self.keep(partial?)?;
        self.merge_if_due()
    }

    /// Adds the groups of one table. From the second table on, merges at once, so that the number
    /// of groups is exact: on a long stream unmerged partials would keep growing.
    ///
    /// # Errors
    /// `AggregateError`.
    pub fn add_table(&mut self, table: &GroupTable) -> Result<(), AggregateError> {
        if table.groups() == 0 {
            return Ok(());
        }
        let partial = partials_of(&self.plan, table)?;
        if self.merged.is_none() && self.pending.is_empty() {
            self.merged = Some(partial);
            return Ok(());
        }
        self.keep(partial)?;
        self.merge()
    }

    /// Keeps a partial until the next merge.
    fn keep(&mut self, partial: DataFrame) -> Result<(), AggregateError> {
        self.pending_rows += partial.height();
        self.pending.push(partial);
        match self.pending.len() > PENDING_PARTIALS_LIMIT {
            true => self.merge(),
            false => Ok(()),
        }
    }

    fn merge_if_due(&mut self) -> Result<(), AggregateError> {
        match self.pending_rows > self.groups_known().max(PENDING_ROWS) {
            true => self.merge(),
            false => Ok(()),
        }
    }

    /// Number of groups as of the last merge: a lower bound.
    pub fn groups_known(&self) -> usize {
        self.merged.as_ref().map_or(0, DataFrame::height)
    }

    /// Number of partials, merged or not.
    pub(crate) fn rows(&self) -> usize {
        self.groups_known() + self.pending_rows
    }

    /// Merges all partials into one.
    fn merge(&mut self) -> Result<(), AggregateError> {
        self.pending_rows = 0;
        let mut partials = self.merged.take().into_iter().chain(self.pending.drain(..));
        let Some(mut all) = partials.next() else {
            return Ok(());
        };
        let mut merged = true;
        for partial in partials {
            all.vstack_mut_owned(partial)?;
            merged = false;
        }
        self.merged = Some(if merged { all } else { merge_partials(&self.plan, all)? });
        Ok(())
    }

    /// Takes out all groups so far, merged.
    ///
    /// # Errors
    /// `AggregateError` if Polars fails.
    pub fn take_batch(&mut self) -> Result<BatchGroups, AggregateError> {
        self.merge()?;
        Ok(BatchGroups { plan: Arc::clone(&self.plan), frame: self.merged.take() })
    }

    /// Adds the groups of a later batch and merges, so that the number of groups is exact.
    ///
    /// # Errors
    /// `AggregateError` if Polars fails.
    pub fn add_batch(&mut self, batch: BatchGroups) -> Result<(), AggregateError> {
        let Some(frame) = batch.frame else { return Ok(()) };
        self.keep(frame)?;
        self.merge()
    }

    /// The result, sorted by the keys. `texts` are the values of each text key, by code.
    ///
    /// # Errors
    /// `AggregateError` if Polars fails.
    pub fn finish(mut self, texts: &[Texts]) -> Result<FinishedGroups, AggregateError> {
        self.merge()?;
        let schema = self.plan.schema();
        let Some(merged) = self.merged else { return Ok(FinishedGroups::empty(&self.plan)) };
        let frame = keys::with_keys(&self.plan, merged, texts)?;
        let parts::FinishedFrame { frame, overflowed } = parts::finish(schema, &frame)?;
        Ok(FinishedGroups { grouped: Grouped::new(Arc::clone(schema), frame), overflowed })
    }
}

/// The groups of a batch, with text keys as codes. Cloning is cheap.
#[derive(Clone)]
pub struct BatchGroups {
    plan: Arc<Plan>,
    /// `None` if there are no groups.
    frame: Option<DataFrame>,
}

impl BatchGroups {
    /// Writes them as a file of partials. `texts` are the values of each text key, by code.
    ///
    /// # Errors
    /// Returns the errors of the writer, or reports a bug.
    pub fn write(
        &self,
        texts: &[Texts],
        origin: &Origin,
        out: &mut impl Write,
    ) -> Result<(), PartialFileError> {
        let frame = match &self.frame {
            Some(frame) => frame.clone(),
            None => no_partials(&self.plan)?,
        };
        let frame = keys::with_keys(&self.plan, frame, texts)?;
        partial_file::write_groups(self.plan.schema(), &frame, origin, out)
    }
}

/// Partials without groups, with all columns.
fn no_partials(plan: &Plan) -> PolarsResult<DataFrame> {
    let schema = plan.schema();
    let words = (0..plan.key_words()).map(|word| (key_name(word), ColumnType::U64));
    let count = (COUNT.to_owned(), ColumnType::U64);
    empty_frame(words.chain([count]).chain(schema.part_columns()))
}

/// A result, and the columns in which values are missing.
#[derive(Debug)]
pub struct FinishedGroups {
    /// The groups.
    pub grouped: Grouped,
    /// Columns with sums that do not fit into 64 bits; those cells are null.
    pub overflowed: Vec<String>,
}

impl FinishedGroups {
    /// The result without records.
    pub fn empty(plan: &Plan) -> Self {
        FinishedGroups {
            grouped: Grouped::empty(Arc::clone(plan.schema())),
            overflowed: Vec::new(),
        }
    }
}

/// Groups rows, each of which counts as one record. The set's columns are lent to Polars without
/// copying, and taken back afterwards.
fn group_rows(plan: &Plan, set: &mut ColumnSet) -> Result<DataFrame, AggregateError> {
    let mut columns = Vec::with_capacity(set.keys.len() + set.values.len());
    for (word, words) in set.keys.iter_mut().enumerate() {
        columns.push(column_of(key_name(word), Numbers::Unsigned(std::mem::take(words))));
    }
    for (source, values) in plan.sources().iter().zip(&mut set.values) {
        columns.push(column_of(source.name.clone(), values.take()));
    }
    let rows = DataFrame::new_infer_height(columns)?;
    let grouped = parts::gathered(plan.schema(), &rows, key_names(plan));
    let mut columns = rows.into_columns().into_iter();
    for (words, column) in set.keys.iter_mut().zip(&mut columns) {
        *words = memory_of::<UInt64Type>(column);
    }
    for (values, column) in set.values.iter_mut().zip(columns) {
        match values {
            Numbers::Unsigned(values) => *values = memory_of::<UInt64Type>(column),
            Numbers::Signed(values) => *values = memory_of::<Int64Type>(column),
            Numbers::Float(values) => *values = memory_of::<Float64Type>(column),
        }
    }
    Ok(grouped?)
}

/// The groups of a table as partials, in columns that are allocated once.
fn partials_of(plan: &Arc<Plan>, table: &GroupTable) -> PolarsResult<DataFrame> {
    let mut set = PartialSet::with_rows(plan, table.groups());
    table.partials().for_each(|partial| set.push(partial, table.spills()));
    set.carry();
    let PartialSet { keys, counts, parts, .. } = set;
    let mut columns = Vec::with_capacity(keys.len() + 1 + parts.len());
    for (word, words) in keys.into_iter().enumerate() {
        columns.push(column_of(key_name(word), Numbers::Unsigned(words)));
    }
    columns.push(column_of(COUNT.to_owned(), Numbers::Unsigned(counts)));
    for (lane, part) in plan.lanes().iter().zip(parts) {
        columns.push(column_of(plan.schema().part_name(lane.field, lane.part), part));
    }
    DataFrame::new_infer_height(columns)
}

/// A column of numbers, which are not copied.
fn column_of(name: String, numbers: Numbers) -> Column {
    let name = name.into();
    match numbers {
        Numbers::Unsigned(numbers) => UInt64Chunked::from_vec(name, numbers).into_column(),
        Numbers::Signed(numbers) => Int64Chunked::from_vec(name, numbers).into_column(),
        Numbers::Float(numbers) => Float64Chunked::from_vec(name, numbers).into_column(),
    }
}

/// The memory of a column that Polars no longer uses; an empty vector if it still does.
fn memory_of<T: PolarsNumericType>(column: Column) -> Vec<T::Native> {
    let numbers: ChunkedArray<T> = column.take_materialized_series().take_inner();
    let mut chunks = numbers.downcast_into_iter();
    match (chunks.next(), chunks.next()) {
        (Some(chunk), None) => chunk.into_inner().1.into_mut().right().unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn merge_partials(plan: &Plan, mut all: DataFrame) -> Result<DataFrame, AggregateError> {
    all.rechunk_mut_par();
    Ok(parts::merged(plan.schema(), &all, key_names(plan))?)
}

#[cfg(test)]
#[path = "partials_tests.rs"]
mod tests;
