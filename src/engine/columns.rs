//! Preallocated columns of one batch, of records or of group partials: decodes nothing and
//! aggregates nothing.

use super::groups::Partial;
use crate::config;

/// One batch of records, column by column. All columns have the same length, at most the number
/// of rows that the set was made for; the memory is taken once and used again.
#[derive(Debug)]
pub struct ColumnSet {
    /// A in the high half, the code of E in the low: the group, packed into one integer
    /// because Polars groups one integer column several times faster than two columns.
    pub keys: Vec<u64>,
    /// B, widened so that Polars sums it in u64.
    pub b: Vec<u64>,
    /// C, widened so that Polars sums it in f64: a sum in f32 overflows after a few records.
    pub c: Vec<f64>,
    /// D.
    pub d: Vec<i8>,
    rows_limit: usize,
}

const _: () = assert!(
    size_of::<u64>() + size_of::<u64>() + size_of::<f64>() + size_of::<i8>() == config::ROW_BYTES
);

/// A key without its text: A in the high half.
#[inline]
pub fn key_of(a: u32) -> u64 {
    u64::from(a) << 32
}

/// A of a key.
#[inline]
pub fn a_of(key: u64) -> u32 {
    (key >> 32) as u32
}

/// Code of E of a key.
#[inline]
pub fn code_of(key: u64) -> u32 {
    key as u32
}

impl ColumnSet {
    /// An empty set with memory for `rows_limit` rows.
    pub fn with_rows(rows_limit: usize) -> Self {
        ColumnSet {
            keys: Vec::with_capacity(rows_limit),
            b: Vec::with_capacity(rows_limit),
            c: Vec::with_capacity(rows_limit),
            d: Vec::with_capacity(rows_limit),
            rows_limit,
        }
    }

    /// Rows in the set.
    pub fn rows(&self) -> usize {
        self.keys.len()
    }

    /// Rows that still fit.
    pub fn rows_free(&self) -> usize {
        self.rows_limit - self.rows()
    }

    /// Whether there is no row in it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Appends one row: for callers that have rows and not runs of bytes.
    pub fn push_row(&mut self, key: u64, b: u64, c: f64, d: i8) {
        self.keys.push(key);
        self.b.push(b);
        self.c.push(c);
        self.d.push(d);
    }

    /// Keeps the first `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        self.keys.truncate(rows);
        self.b.truncate(rows);
        self.c.truncate(rows);
        self.d.truncate(rows);
    }

    /// Removes the rows and keeps the memory. Columns that were lost on the way (see
    /// `aggregate`) are allocated again.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.b.clear();
        self.c.clear();
        self.d.clear();
        self.keys.reserve_exact(self.rows_limit);
        self.b.reserve_exact(self.rows_limit);
        self.c.reserve_exact(self.rows_limit);
        self.d.reserve_exact(self.rows_limit);
    }
}

/// Group partials column by column: as [`ColumnSet`], with sums and minima in the place of values,
/// and how many records each stands for.
#[derive(Debug)]
pub struct PartialSet {
    /// Keys, sums of B, sums of C, minima of D.
    pub sums: ColumnSet,
    /// Records of each.
    pub counts: Vec<u64>,
}

const _: () = assert!(config::ROW_BYTES + size_of::<u64>() == config::PARTIAL_ROW_BYTES);

impl PartialSet {
    /// An empty set with memory for `rows_limit` partials.
    pub fn with_rows(rows_limit: usize) -> Self {
        let counts = Vec::with_capacity(rows_limit);
        PartialSet { sums: ColumnSet::with_rows(rows_limit), counts }
    }

    /// Appends a partial.
    pub fn push(&mut self, partial: &Partial) {
        self.sums.push_row(partial.key, partial.b, partial.c, partial.d);
        self.counts.push(u64::from(partial.count));
    }

    /// Removes the partials and keeps the memory, as [`ColumnSet::clear`] does.
    pub fn clear(&mut self) {
        self.sums.clear();
        self.counts.clear();
        self.counts.reserve_exact(self.sums.rows_limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_keeps_the_memory() {
        let mut set = ColumnSet::with_rows(100);
        set.keys.extend(0..100);
        let (address, capacity) = (set.keys.as_ptr(), set.keys.capacity());
        assert_eq!((set.rows(), set.rows_free()), (100, 0));
        set.clear();
        assert_eq!((set.rows(), set.rows_free()), (0, 100));
        assert_eq!((set.keys.as_ptr(), set.keys.capacity()), (address, capacity));
    }
}
