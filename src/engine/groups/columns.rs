//! Preallocated columns for one batch of records or of group partials. Decoding and aggregation
//! happen elsewhere.

use super::plan::{COUNT_BITS, Plan, Source};
use super::spills::Spills;
use crate::engine::blocks::number::{Class, Wide};
use crate::engine::blocks::paged::SlotWords;
use crate::wire::schema::columns::Part;
use std::sync::Arc;

/// The bits of a 64-bit number that its lower half is.
const HALF_BITS: u32 = 32;

/// One column of numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Unsigned numbers, and bools.
    Unsigned(Vec<u64>),
    /// Signed numbers.
    Signed(Vec<i64>),
    /// Floating-point numbers, widened so that Polars sums them in f64.
    Float(Vec<f64>),
}

impl Column {
    /// An empty column with memory for `rows` numbers.
    pub fn with_rows(class: Class, rows: usize) -> Self {
        match class {
            Class::Unsigned => Column::Unsigned(Vec::with_capacity(rows)),
            Class::Signed => Column::Signed(Vec::with_capacity(rows)),
            Class::Float => Column::Float(Vec::with_capacity(rows)),
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Column::Unsigned(column) => column.len(),
            Column::Signed(column) => column.len(),
            Column::Float(column) => column.len(),
        }
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a number of the column's class.
    ///
    /// # Panics
    /// Panics if it has another class.
    #[inline]
    pub fn push(&mut self, value: Wide) {
        match (self, value) {
            (Column::Unsigned(column), Wide::Unsigned(value)) => column.push(value),
            (Column::Signed(column), Wide::Signed(value)) => column.push(value),
            (Column::Float(column), Wide::Float(value)) => column.push(value),
            (column, value) => panic!("{value:?} does not fit into {column:?}"),
        }
    }

    /// Takes the numbers out, with their memory.
    pub fn take(&mut self) -> Self {
        match self {
            Column::Unsigned(column) => Column::Unsigned(std::mem::take(column)),
            Column::Signed(column) => Column::Signed(std::mem::take(column)),
            Column::Float(column) => Column::Float(std::mem::take(column)),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Column::Unsigned(column) => column.truncate(rows),
            Column::Signed(column) => column.truncate(rows),
            Column::Float(column) => column.truncate(rows),
        }
    }

    /// Removes the values and keeps the memory, or allocates it again if it was moved out.
    fn clear(&mut self, rows_limit: usize) {
        self.truncate(0);
        match self {
            Column::Unsigned(column) => column.reserve_exact(rows_limit),
            Column::Signed(column) => column.reserve_exact(rows_limit),
            Column::Float(column) => column.reserve_exact(rows_limit),
        }
    }
}

/// One batch of records, column by column. All columns have the same length, at most the number
/// of rows that the set was made for. The memory is allocated once and reused.
#[derive(Debug)]
pub struct ColumnSet {
    /// The words of the keys: several fields are packed into one integer, because Polars groups by
    /// one integer column several times faster than by two columns.
    pub keys: Vec<Vec<u64>>,
    /// The values that the plan's aggregates are computed from.
    pub values: Vec<Column>,
    rows_limit: usize,
}

impl ColumnSet {
    /// An empty set with memory for `rows_limit` rows.
    pub fn with_rows(plan: &Plan, rows_limit: usize) -> Self {
        let column = |source: &Source| Column::with_rows(Class::of(source.kind), rows_limit);
        ColumnSet {
            keys: vec_of_words(plan.key_words(), rows_limit),
            values: plan.sources().iter().map(column).collect(),
            rows_limit,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.keys[0].len()
    }

    /// Number of rows that still fit.
    pub fn rows_free(&self) -> usize {
        self.rows_limit - self.rows()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.keys[0].is_empty()
    }

    /// Keeps the first `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        self.keys.iter_mut().for_each(|words| words.truncate(rows));
        self.values.iter_mut().for_each(|column| column.truncate(rows));
    }

    /// Removes the rows and keeps the memory. Columns that were moved out (see `aggregate`) are
    /// allocated again.
    pub fn clear(&mut self) {
        clear_words(&mut self.keys, self.rows_limit);
        self.values.iter_mut().for_each(|column| column.clear(self.rows_limit));
    }
}

/// One vector for each word of a key.
fn vec_of_words(words: usize, rows_limit: usize) -> Vec<Vec<u64>> {
    (0..words).map(|_| Vec::with_capacity(rows_limit)).collect()
}

fn clear_words(keys: &mut [Vec<u64>], rows_limit: usize) {
    for words in keys {
        words.clear();
        words.reserve_exact(rows_limit);
    }
}

/// Group partials, column by column: keys, record counts and lanes.
#[derive(Debug)]
pub(crate) struct PartialSet {
    plan: Arc<Plan>,
    /// The words of the keys.
    pub keys: Vec<Vec<u64>>,
    /// Number of records of each.
    pub counts: Vec<u64>,
    /// The contents of the plan's lanes.
    pub parts: Vec<Column>,
}

impl PartialSet {
    /// An empty set with memory for `rows` partials.
    pub(crate) fn with_rows(plan: &Arc<Plan>, rows: usize) -> Self {
        let lanes = plan.lanes().iter();
        PartialSet {
            plan: Arc::clone(plan),
            keys: vec_of_words(plan.key_words(), rows),
            counts: Vec::with_capacity(rows),
            parts: lanes.map(|lane| Column::with_rows(lane.class(), rows)).collect(),
        }
    }

    /// Appends the contents of a group's slot, and what did not fit into it.
    pub(crate) fn push(&mut self, slot: &SlotWords, spills: &Spills) {
        for (words, word) in self.keys.iter_mut().zip(slot) {
            words.push(word.get());
        }
        let count = slot[self.plan.count_word()].get() & (u64::MAX >> (u64::BITS - COUNT_BITS));
        self.counts.push(count);
        for (lane, column) in self.plan.lanes().iter().zip(&mut self.parts) {
            column.push(lane.value(slot, count, spills));
        }
    }

    /// Carries what sums of lower halves have beyond their 32 bits over to the upper halves.
    pub(crate) fn carry(&mut self) {
        for (at, lane) in self.plan.lanes().iter().enumerate() {
            // The upper halves are the part before.
            if let (Part::SumLow, [.., upper, Column::Unsigned(lower)]) =
                (lane.part, &mut self.parts[..=at])
            {
                carry(upper, lower);
            }
        }
    }
}

fn carry(upper: &mut Column, lower: &mut [u64]) {
    let carried = lower.iter_mut().map(|low| {
        let carried = *low >> HALF_BITS;
        *low &= u64::from(u32::MAX);
        carried
    });
    match upper {
        Column::Unsigned(upper) => upper.iter_mut().zip(carried).for_each(|(sum, n)| *sum += n),
        Column::Signed(upper) => {
            upper.iter_mut().zip(carried).for_each(|(sum, n)| *sum += n as i64)
        }
        Column::Float(_) => unreachable!("integers alone have halves"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_keeps_the_memory() {
        let plan = Plan::new(crate::wire::schema::Schema::built_in());
        let mut set = ColumnSet::with_rows(&plan, 100);
        set.keys[0].extend(0..100);
        let (address, capacity) = (set.keys[0].as_ptr(), set.keys[0].capacity());
        assert_eq!((set.rows(), set.rows_free()), (100, 0));
        set.clear();
        assert_eq!((set.rows(), set.rows_free()), (0, 100));
        assert_eq!((set.keys[0].as_ptr(), set.keys[0].capacity()), (address, capacity));
    }
}
