//! Rows to the groups of one connection, on the worker, while they are in its cache: the first of
//! the two phases of aggregation. Decodes nothing, makes no result, and names no Polars: what it
//! gives are partials, which `aggregate` groups on another thread.

use super::columns::ColumnSet;
use super::paged::{PagedTable, Place, Slot};
use crate::config::{FOLD_ROWS, GROUP_PAGE_BYTES};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// What the rows of one group add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Partial {
    /// A and the code of E, see [`ColumnSet::keys`].
    pub key: u64,
    /// Sum of B.
    pub b: u64,
    /// Sum of C.
    pub c: f64,
    /// Rows; 0 only where there is no group.
    pub count: u32,
    /// Minimum of D.
    pub d: i8,
}

// Two in a cache line.
const _: () = assert!(size_of::<Partial>() == 32);
const _: () = assert!(size_of::<Partial>() * super::paged::PAGE_SLOTS == GROUP_PAGE_BYTES);

impl Slot for Partial {
    fn is_free(&self) -> bool {
        self.count == 0
    }
}

impl Partial {
    #[inline]
    fn add(&mut self, (b, c, d): (u64, f64, i8)) {
        self.b += b;
        self.c += c;
        self.d = self.d.min(d);
        self.count += 1;
    }
}

/// Rows whose groups are looked for side by side.
const LOOKUPS: usize = 64;
/// Tables of more pages do not stay in a core's own cache.
const CACHED_PAGES: usize = 16;

/// The groups of one connection so far.
pub struct GroupTable {
    table: PagedTable<Partial>,
    /// Keyed anew for each table: a peer must not be able to choose colliding keys.
    hash: RandomState,
    rows: u64,
    groups_limit: usize,
    rows_limit: u64,
}

impl GroupTable {
    /// An empty table for at most `groups_limit` groups of `rows_limit` rows together.
    ///
    /// # Panics
    /// Where a group could have more rows than it can count.
    pub fn with_limits(groups_limit: usize, rows_limit: u64) -> Self {
        assert!(rows_limit <= u64::from(u32::MAX), "a partial counts in 32 bits");
        GroupTable {
            table: PagedTable::new(),
            hash: RandomState::default(),
            rows: 0,
            groups_limit,
            rows_limit,
        }
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.table.len()
    }

    /// Rows that were folded in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that may still be folded in, as many at most as one call takes.
    pub fn rows_free(&self) -> usize {
        (self.rows_limit - self.rows).min(FOLD_ROWS as u64) as usize
    }

    /// How many there may be.
    pub fn groups_limit(&self) -> usize {
        self.groups_limit
    }

    /// The groups, in no particular order.
    pub fn partials(&self) -> impl Iterator<Item = &Partial> {
        self.table.iter()
    }

    /// Folds the rows of `set` in, as far as their groups are allowed: gives how many that were.
    ///
    /// # Panics
    /// Where there are more rows than [`rows_free`](Self::rows_free).
    pub fn fold(&mut self, set: &ColumnSet) -> usize {
        let rows = set.rows();
        assert!(rows <= self.rows_free(), "{rows} rows, {} are free", self.rows_free());
        let folded = match self.table.pages() <= CACHED_PAGES {
            true => self.fold_cached(set),
            false => self.fold_scattered(set),
        };
        self.rows += folded as u64;
        folded
    }

    fn fold_cached(&mut self, set: &ColumnSet) -> usize {
        let rows = set.keys.iter().zip(&set.b).zip(set.c.iter().zip(&set.d));
        for (row, ((&key, &b), (&c, &d))) in rows.enumerate() {
            let hash = self.hash.hash_one(key);
            let place = self.table.place(hash);
            if !self.add(hash, place, key, (b, c, d)) {
                return row;
            }
        }
        set.rows()
    }

    /// The same in two loops. The first only looks where each row's group is, so that many waits
    /// for memory overlap; the second finds it in the cache.
    fn fold_scattered(&mut self, set: &ColumnSet) -> usize {
        let mut folded = 0;
        let mut places = [(0, Place::default()); LOOKUPS];
        while folded < set.rows() {
            let rows = folded..(folded + LOOKUPS).min(set.rows());
            let mut first_counts = 0;
            for (place, &key) in places.iter_mut().zip(&set.keys[rows.clone()]) {
                let hash = self.hash.hash_one(key);
                *place = (hash, self.table.place(hash));
                first_counts ^= self.table.at(place.1).count;
            }
            // Nothing is made of them; the loads must not be left out.
            std::hint::black_box(first_counts);
            for (row, &(hash, place)) in rows.zip(&places) {
                let values = (set.b[row], set.c[row], set.d[row]);
                if !self.add(hash, place, set.keys[row], values) {
                    return row;
                }
                folded += 1;
            }
        }
        folded
    }

    /// Adds one row, of B, C and D; false where its group would be one too many. The place may be
    /// older than the last insertion: an entry that is found there is the right one all the same.
    #[inline(always)]
    fn add(&mut self, hash: u64, place: Place, key: u64, values: (u64, f64, i8)) -> bool {
        let first = self.table.at_mut(place);
        if first.key == key && !first.is_free() {
            first.add(values);
            return true;
        }
        self.add_elsewhere(hash, key, values.0, values.1, values.2)
    }

    /// The values one by one: as a tuple they would go through memory, for every row.
    #[cold]
    #[inline(never)]
    fn add_elsewhere(&mut self, hash: u64, key: u64, b: u64, c: f64, d: i8) -> bool {
        if let Some(place) = self.table.find(hash, |partial| partial.key == key) {
            self.table.at_mut(place).add((b, c, d));
            return true;
        }
        if self.table.len() == self.groups_limit {
            return false;
        }
        let hasher = &self.hash;
        let partial = Partial { key, b, c, count: 1, d };
        self.table.insert(hash, partial, |partial| hasher.hash_one(partial.key));
        true
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
