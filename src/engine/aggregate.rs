//! Column sets to mergeable partials, partials to one result: receives no bytes and decodes
//! nothing. The one module that names Polars.
//!
//! Each batch is grouped by its packed key into a partial: count, sum of B, sum of C, minimum of D.
//! A batch is of rows, or of partials that a worker has folded its rows into (`groups`). Partials
//! are kept side by side until they outweigh the groups known so far, then merged into
//! one by the same sums and minima. So memory follows the number of groups, never the number of
//! records, and each row is merged a bounded number of times.
//!
//! Polars must not run inside an async runtime (`collect` panics there) nor on a worker's thread:
//! whoever calls this does so from a plain thread.

use super::columns::{ColumnSet, PartialSet, a_of, code_of, key_of};
use super::groups::Partial;
use super::intern::Texts;
use crate::config::PENDING_ROWS;
use polars::prelude::*;

/// Partials that are kept before they are merged, however small they are.
const PENDING_PARTIALS_LIMIT: usize = 256;

/// Polars refused to do its part. Nothing a peer sends leads here; it would be a defect.
#[derive(Debug, thiserror::Error)]
#[error("aggregation failed: {0}")]
pub struct AggregateError(#[from] PolarsError);

/// Sets the size of Polars' thread pool and creates it, so that its threads inherit the affinity
/// of the caller: call it before any thread is pinned.
///
/// Polars does about half of a query's work on the caller and half in its pool, so a pool of one
/// thread would be shared by all aggregation threads: give it one for each of them.
///
/// # Safety
/// Sets an environment variable: no other thread may run yet.
pub unsafe fn create_pool(threads: usize) {
    const NAME: &str = "POLARS_MAX_THREADS";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: the caller vouches that this is the only thread.
        unsafe { std::env::set_var(NAME, threads.max(1).to_string()) };
    }
    let mut set = ColumnSet::with_rows(1);
    set.push_row(0, 0, 0.0, 0);
    // Whatever Polars makes on first use, it makes for this one row.
    let _ = Aggregate::default().add(&mut set);
}

/// The groups of one connection so far.
#[derive(Default)]
pub struct Aggregate {
    merged: Option<DataFrame>,
    pending: Vec<DataFrame>,
    pending_rows: usize,
}

impl Aggregate {
    /// Folds a batch in and empties the set, keeping its memory.
    ///
    /// # Errors
    /// [`AggregateError`]; the set is empty then, too, and its rows are lost.
    pub fn add(&mut self, set: &mut ColumnSet) -> Result<(), AggregateError> {
        if set.is_empty() {
            return Ok(());
        }
        let partial = group_rows(set);
        set.clear();
        self.keep(partial?)?;
        self.merge_if_due()
    }

    /// Folds the partials of one table in, each group of which stands there once, a set at a time.
    /// Empties the set and keeps its memory. Groups are known exactly after a second table: those
    /// of a stream so long would otherwise grow until they were merged.
    ///
    /// # Errors
    /// [`AggregateError`]; the set is empty then, too.
    pub fn add_partials<'a>(
        &mut self,
        partials: impl Iterator<Item = &'a Partial>,
        set: &mut PartialSet,
    ) -> Result<(), AggregateError> {
        let first = self.merged.is_none() && self.pending.is_empty();
        let mut partials = partials.peekable();
        while partials.peek().is_some() {
            let free = set.sums.rows_free();
            partials.by_ref().take(free).for_each(|partial| set.push(partial));
            let grouped = group_partials(set);
            set.clear();
            self.keep(grouped?)?;
        }
        // What comes from one table cannot shrink.
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

    /// Groups as of the last merge: a lower bound, exact after [`finish`](Self::finish) merged.
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
        self.merged = Some(if merged { all } else { merge_partials(all)? });
        Ok(())
    }

    /// The result: groups sorted by A, then by the bytes of E.
    ///
    /// # Errors
    /// [`AggregateError`].
    pub fn finish(mut self, texts: &Texts) -> Result<Grouped, AggregateError> {
        self.merge()?;
        match self.merged {
            Some(merged) => Grouped::from_partials(merged, texts),
            None => Ok(Grouped::default()),
        }
    }
}

/// Groups rows, each of which counts once.
fn group_rows(set: &mut ColumnSet) -> Result<DataFrame, AggregateError> {
    group(set, None, len().cast(DataType::UInt64).alias("count"))
}

/// Groups partials, each of which counts for as many records as it stands for.
fn group_partials(set: &mut PartialSet) -> Result<DataFrame, AggregateError> {
    let counts = UInt64Chunked::from_vec("count".into(), std::mem::take(&mut set.counts));
    let grouped = group(&mut set.sums, Some(&counts), col("count").sum());
    set.counts = take_back(counts);
    grouped
}

/// Groups one batch. Takes the columns out of the set without copying and puts them back.
fn group(
    set: &mut ColumnSet,
    counts: Option<&UInt64Chunked>,
    count: Expr,
) -> Result<DataFrame, AggregateError> {
    let keys = UInt64Chunked::from_vec("key".into(), std::mem::take(&mut set.keys));
    let b = UInt64Chunked::from_vec("b".into(), std::mem::take(&mut set.b));
    let c = Float64Chunked::from_vec("c".into(), std::mem::take(&mut set.c));
    let d = Int8Chunked::from_vec("d".into(), std::mem::take(&mut set.d));
    let mut columns = vec![
        keys.clone().into_column(),
        b.clone().into_column(),
        c.clone().into_column(),
        d.clone().into_column(),
    ];
    columns.extend(counts.map(|counts| counts.clone().into_column()));
    let grouped = DataFrame::new_infer_height(columns).and_then(|frame| {
        frame
            .lazy()
            .group_by([col("key")])
            .agg([count, col("b").sum(), col("c").sum(), col("d").min()])
            .collect()
    });
    set.keys = take_back(keys);
    set.b = take_back(b);
    set.c = take_back(c);
    set.d = take_back(d);
    Ok(grouped?)
}

/// The memory of a column that Polars no longer uses; an empty vector where it still does.
fn take_back<T: PolarsNumericType>(column: ChunkedArray<T>) -> Vec<T::Native> {
    let mut chunks = column.downcast_into_iter();
    match (chunks.next(), chunks.next()) {
        (Some(chunk), None) => chunk.into_inner().1.into_mut().right().unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn merge_partials(all: DataFrame) -> Result<DataFrame, AggregateError> {
    let aggregates = [col("count").sum(), col("b").sum(), col("c").sum(), col("d").min()];
    Ok(all.lazy().group_by([col("key")]).agg(aggregates).collect()?)
}

/// One group of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group<'a> {
    /// A of the group.
    pub a: u32,
    /// E of the group: its bytes without padding, not escaped.
    pub e: &'a [u8],
    /// Mean of B: the exact integer sum, divided once.
    pub b_mean: f64,
    /// Sum of C in binary64. NaN and infinities follow IEEE 754.
    pub c_sum: f64,
    /// Minimum of D.
    pub d_min: i8,
    /// Records of the group.
    pub count: u64,
}

/// A finished result: a DataFrame with the columns `A` (u32), `E` (binary), `B_mean` (f64),
/// `C_sum` (f64), `D_min` (i8), `count` (u64), one row a group, sorted by A, then E.
#[derive(Clone, Debug, Default)]
pub struct Grouped {
    frame: DataFrame,
}

impl Grouped {
    fn from_partials(partials: DataFrame, texts: &Texts) -> Result<Self, AggregateError> {
        let rank = ranks(texts);
        let keys = partials.column("key")?.u64()?;
        let mut order: Vec<(u64, IdxSize)> = keys
            .into_no_null_iter()
            .zip(0..)
            .map(|(key, row)| {
                let rank = rank[code_of(key) as usize];
                (key_of(a_of(key)) | u64::from(rank), row)
            })
            .collect();
        order.sort_unstable();
        let rows: IdxCa = order.iter().map(|&(_, row)| Some(row)).collect();
        drop(order);
        let sorted = partials.take(&rows)?;
        drop(partials);

        let keys = sorted.column("key")?.u64()?;
        let a: Vec<u32> = keys.into_no_null_iter().map(a_of).collect();
        let e = text_column(keys, texts)?;
        let count = sorted.column("count")?.u64()?;
        let b_mean: Vec<f64> = (sorted.column("b")?.u64()?.into_no_null_iter())
            .zip(count.into_no_null_iter())
            .map(|(sum, count)| sum as f64 / count as f64)
            .collect();
        let renamed = |from: &str, to: &str| {
            sorted.column(from).map(|column| column.clone().with_name(to.into()))
        };
        let frame = DataFrame::new_infer_height(vec![
            UInt32Chunked::from_vec("A".into(), a).into_column(),
            e,
            Float64Chunked::from_vec("B_mean".into(), b_mean).into_column(),
            renamed("c", "C_sum")?,
            renamed("d", "D_min")?,
            renamed("count", "count")?,
        ])?;
        Ok(Grouped { frame })
    }

    /// The DataFrame itself.
    pub fn frame(&self) -> &DataFrame {
        &self.frame
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.frame.height()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The groups in order.
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        // An empty result has no columns, every other has these six without a null.
        self.columns().into_iter().flat_map(|(a, e, b_mean, c_sum, d_min, count)| {
            a.into_no_null_iter()
                .zip(e.downcast_iter().flat_map(|chunk| chunk.values_iter()))
                .zip(b_mean.into_no_null_iter().zip(c_sum.into_no_null_iter()))
                .zip(d_min.into_no_null_iter().zip(count.into_no_null_iter()))
                .map(|(((a, e), (b_mean, c_sum)), (d_min, count))| Group {
                    a,
                    e,
                    b_mean,
                    c_sum,
                    d_min,
                    count,
                })
        })
    }

    #[allow(clippy::type_complexity)]
    fn columns(
        &self,
    ) -> Option<(
        &UInt32Chunked,
        &BinaryChunked,
        &Float64Chunked,
        &Float64Chunked,
        &Int8Chunked,
        &UInt64Chunked,
    )> {
        let column = |name| self.frame.column(name).ok();
        Some((
            column("A")?.u32().ok()?,
            column("E")?.binary().ok()?,
            column("B_mean")?.f64().ok()?,
            column("C_sum")?.f64().ok()?,
            column("D_min")?.i8().ok()?,
            column("count")?.u64().ok()?,
        ))
    }
}

/// E of each key. The rows point into one copy of the distinct texts, so that a long text costs its
/// bytes once and not once a group.
fn text_column(keys: &UInt64Chunked, texts: &Texts) -> PolarsResult<Column> {
    let distinct = (0..texts.len()).map(|code| texts.get(code));
    let distinct = BinaryChunked::from_iter_values("E".into(), distinct).into_column();
    let codes: IdxCa = keys.into_no_null_iter().map(|key| Some(code_of(key))).collect();
    distinct.take(&codes)
}

/// The place of each code's text among all texts in the order of their bytes.
fn ranks(texts: &Texts) -> Vec<u32> {
    let mut codes: Vec<u32> = (0..texts.len() as u32).collect();
    codes.sort_unstable_by_key(|&code| texts.get(code as usize));
    let mut ranks = vec![0; codes.len()];
    for (rank, code) in codes.into_iter().enumerate() {
        ranks[code as usize] = rank as u32;
    }
    ranks
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
