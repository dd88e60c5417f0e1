//! Aggregates the column sets of one connection into mergeable partials, and partials into a
//! result.
//!
//! Each batch is grouped by its packed keys into partials: the count, and the parts that the
//! schema's aggregates need. A batch consists of rows, or of partials into which a worker has
//! folded its records (`groups`). Partials are collected until they outnumber the groups known so
//! far, then merged into one. So memory depends on the number of groups, not on the number of
//! records, and each row is merged a bounded number of times.
//!
//! Polars blocks and distributes work to its own threads, so call this from a plain thread, never
//! from a worker.

use super::grouped::Grouped;
use super::keys::{self, key_name, key_names};
use super::partial_file::{self, Origin, PartialFileError};
use super::parts;
use super::row_groups::RowGroups;
use crate::config::PENDING_ROWS;
use crate::engine::blocks::paged::SlotWords;
use crate::engine::decode::texts::Texts;
use crate::engine::groups::columns::{Column as Numbers, ColumnSet, PartialSet};
use crate::engine::groups::plan::Plan;
use polars::prelude::*;
use std::io::Write;
use std::sync::Arc;

/// Partials that are collected before they are merged, however small they are.
const PENDING_PARTIALS_LIMIT: usize = 256;

/// Polars failed. Nothing that a peer sends can cause this; it would be a bug.
#[derive(Debug, thiserror::Error)]
#[error("aggregation failed: {0}")]
pub struct AggregateError(#[from] PolarsError);

/// Sets the size of Polars' thread pool and creates it. Its threads inherit the affinity of the
/// caller, so call it before any thread is pinned.
///
/// Polars does about half of its work on the calling thread and half in the pool, so aggregation
/// threads would contend for a pool of one thread: give it one per aggregation thread.
///
/// # Safety
/// It sets an environment variable, so no other thread may be running yet.
pub unsafe fn create_pool(threads: usize) {
    const NAME: &str = "POLARS_MAX_THREADS";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: the caller guarantees that this is the only thread.
        unsafe { std::env::set_var(NAME, threads.max(1).to_string()) };
    }
    // Aggregates one row, so that Polars initialises whatever it creates on first use.
    let row = DataFrame::new_infer_height(vec![Column::new("key".into(), [0u64])]);
    let _ = row.and_then(|row| Ok(RowGroups::of(&row, ["key"])?.sum(row.column("key")?)));
}

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
    /// [`AggregateError`]; the set is cleared and its rows are lost.
    pub fn add(&mut self, set: &mut ColumnSet) -> Result<(), AggregateError> {
        if set.is_empty() {
            return Ok(());
        }
        let partial = group_rows(&self.plan, set);
        set.clear();
        self.keep(partial?)?;
        self.merge_if_due()
    }

    /// Adds the partials of one table, which has each group once, one set at a time. Clears the
    /// set and keeps its memory. From the second table on, merges at once, so that the number of
    /// groups is exact: on a long stream unmerged partials would keep growing.
    ///
    /// # Errors
    /// [`AggregateError`]; the set is cleared.
    pub fn add_partials<'a>(
        &mut self,
        partials: impl Iterator<Item = &'a SlotWords>,
        set: &mut PartialSet,
    ) -> Result<(), AggregateError> {
        let first = self.merged.is_none() && self.pending.is_empty();
        let mut partials = partials.peekable();
        while partials.peek().is_some() {
            let free = set.rows_free();
            partials.by_ref().take(free).for_each(|partial| set.push(partial));
            let grouped = group_partials(&self.plan, set);
            set.clear();
            self.keep(grouped?)?;
        }
        // The groups of one table are distinct, so merging would not shrink them.
        if first { Ok(()) } else { self.merge() }
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
    /// [`AggregateError`] if Polars fails.
    pub fn take_batch(&mut self) -> Result<BatchGroups, AggregateError> {
        self.merge()?;
        Ok(BatchGroups { plan: Arc::clone(&self.plan), frame: self.merged.take() })
    }

    /// Adds the groups of a later batch and merges, so that the number of groups is exact.
    ///
    /// # Errors
    /// [`AggregateError`] if Polars fails.
    pub fn add_batch(&mut self, batch: BatchGroups) -> Result<(), AggregateError> {
        let Some(frame) = batch.frame else { return Ok(()) };
        self.keep(frame)?;
        self.merge()
    }

    /// The result, sorted by the keys. `texts` are the values of each text key, by code.
    ///
    /// # Errors
    /// [`AggregateError`] if Polars fails.
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
    let words = (0..plan.key_words()).map(|word| (key_name(word), DataType::UInt64));
    let parts = schema.parts().into_iter().map(|(field, part)| {
        let dtype = parts::part_type(schema.fields()[field].kind, part);
        (schema.part_name(field, part), dtype)
    });
    let columns = words.chain([("count".to_owned(), DataType::UInt64)]).chain(parts);
    let columns = columns.map(|(name, dtype)| Column::new_empty(name.into(), &dtype));
    DataFrame::new(0, columns.collect())
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

/// Groups rows, each of which counts as one record.
fn group_rows(plan: &Plan, set: &mut ColumnSet) -> Result<DataFrame, AggregateError> {
    let keys = set.keys.iter_mut().enumerate().map(|(word, keys)| lend_word(word, keys));
    let mut lent: Vec<Lent<'_>> = keys.collect();
    for (source, values) in plan.sources().iter().zip(&mut set.values) {
        lent.push(lend(source.name.clone(), values));
    }
    group(lent, |rows| parts::gathered(plan.schema(), rows, key_names(plan)))
}

/// Groups partials, each of which counts as many records as it covers.
fn group_partials(plan: &Plan, set: &mut PartialSet) -> Result<DataFrame, AggregateError> {
    let schema = plan.schema();
    let keys = set.keys.iter_mut().enumerate().map(|(word, keys)| lend_word(word, keys));
    let mut lent: Vec<Lent<'_>> = keys.collect();
    lent.push(lend_vec("count".to_owned(), &mut set.counts));
    for (lane, part) in plan.lanes().iter().zip(&mut set.parts) {
        lent.push(lend(schema.part_name(lane.field, lane.part), part));
    }
    group(lent, |rows| parts::merged(schema, rows, key_names(plan)))
}

/// A column lent to Polars, and a closure that takes its memory back.
struct Lent<'a> {
    column: Column,
    give_back: Box<dyn FnOnce() + 'a>,
}

fn lend_word(word: usize, words: &mut Vec<u64>) -> Lent<'_> {
    lend_vec(key_name(word), words)
}

fn lend(name: String, numbers: &mut Numbers) -> Lent<'_> {
    match numbers {
        Numbers::Unsigned(numbers) => lend_vec(name, numbers),
        Numbers::Signed(numbers) => lend_vec(name, numbers),
        Numbers::Float(numbers) => lend_vec(name, numbers),
    }
}

fn lend_vec<N: NumericNative>(name: String, numbers: &mut Vec<N>) -> Lent<'_>
where
    N::PolarsType: PolarsNumericType<Native = N>,
    ChunkedArray<N::PolarsType>: IntoColumn,
{
    let lent = ChunkedArray::<N::PolarsType>::from_vec(name.into(), std::mem::take(numbers));
    let column = lent.clone().into_column();
    Lent { column, give_back: Box::new(move || *numbers = take_back(lent)) }
}

/// Groups one batch. The columns are lent without copying and taken back.
fn group(
    lent: Vec<Lent<'_>>,
    group: impl FnOnce(&DataFrame) -> PolarsResult<DataFrame>,
) -> Result<DataFrame, AggregateError> {
    let (columns, give_back): (Vec<Column>, Vec<_>) =
        lent.into_iter().map(|lent| (lent.column, lent.give_back)).unzip();
    let grouped = DataFrame::new_infer_height(columns).and_then(|frame| group(&frame));
    give_back.into_iter().for_each(|give_back| give_back());
    Ok(grouped?)
}

/// The memory of a column that Polars no longer uses; an empty vector if it still does.
fn take_back<T: PolarsNumericType>(column: ChunkedArray<T>) -> Vec<T::Native> {
    let mut chunks = column.downcast_into_iter();
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
