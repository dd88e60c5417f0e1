//! Folds records into the groups of one connection, on the worker while they are in its cache. This
//! is the first of two phases of aggregation: it yields partials, which `aggregate` turns into a
//! result on another thread.

use super::plan::{GroupSlots, Plan};
use super::spills::Spills;
use crate::config::FOLD_ROWS;
use crate::engine::blocks::block::{BLOCK_RECORDS, Block, BlockSlots, Rows};
use crate::engine::blocks::hash_keys::FastHash;
use crate::engine::blocks::paged::{PAGE_ENTRIES, PagedTable, SlotForm, SlotPlace, SlotWords};
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::hint::select_unpredictable;
use std::sync::Arc;

/// The groups of one connection so far.
pub struct GroupTable {
    plan: Arc<Plan>,
    table: PagedTable<GroupSlots>,
    spills: Spills,
    /// A random key per table, so that a peer cannot choose colliding keys.
    hash: FastHash,
    /// Scratch memory for a new group.
    group: Cell<Vec<u64>>,
    rows: u64,
    groups_limit: usize,
    rows_limit: u64,
    /// Groups for which there is memory, in the table's pages and in the result: never more than
    /// the limit.
    groups_granted: usize,
    memory: HeldBytes,
}

impl GroupTable {
    /// An empty table for at most `groups_limit` groups and `rows_limit` rows in all.
    ///
    /// # Panics
    /// Panics if a group could have more rows than its count can hold.
    pub fn with_limits(plan: &Arc<Plan>, groups_limit: usize, rows_limit: u64) -> Self {
        assert!(rows_limit <= u64::from(u32::MAX), "a partial counts in 32 bits");
        GroupTable {
            plan: Arc::clone(plan),
            table: PagedTable::new(plan.slots()),
            spills: Spills::of_keys(plan.key_words()),
            hash: FastHash::default(),
            group: Cell::new(Vec::with_capacity(plan.slots().words())),
            rows: 0,
            groups_limit,
            rows_limit,
            groups_granted: 0,
            memory: HeldBytes::default(),
        }
    }

    /// Counts what the table takes as part of `share`, but for its first page, which comes with the
    /// stream.
    pub(crate) fn count_in(mut self, share: &Arc<MemoryShare>) -> Self {
        self.spills.count_in(share);
        self.memory = HeldBytes::of(share);
        self
    }

    /// Hands over what it holds, which is then no longer given back with the table.
    pub(crate) fn take_memory(&mut self) -> HeldBytes {
        let mut memory = std::mem::take(&mut self.memory);
        memory.absorb(self.spills.take_memory());
        memory
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.table.len()
    }

    /// Number of rows folded in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Number of rows that may still be folded in, at most as many as one pass takes.
    pub fn rows_free(&self) -> usize {
        (self.rows_limit - self.rows).min(FOLD_ROWS as u64) as usize
    }

    /// Whether it holds the most groups that it may.
    pub(crate) fn is_full(&self) -> bool {
        self.groups() == self.groups_limit
    }

    /// The most groups that it may hold.
    pub fn groups_limit(&self) -> usize {
        self.groups_limit
    }

    /// The slots of the groups, in no particular order.
    pub fn partials(&self) -> impl Iterator<Item = &SlotWords> {
        self.table.iter()
    }

    /// What did not fit into the slots.
    pub(crate) fn spills(&self) -> &Spills {
        &self.spills
    }

    /// Folds in the first `rows` records of a block, up to the first one that would exceed the
    /// limit of groups or for whose group there is no memory. `keys` holds their keys, one after
    /// another. Returns the number of records folded in.
    ///
    /// # Panics
    /// Panics if the block has fewer records, or if `rows` exceeds [`rows_free`](Self::rows_free).
    #[inline(always)]
    pub fn fold(&mut self, block: &Block<'_>, rows: usize, keys: &[u64]) -> usize {
        assert!(rows <= self.rows_free(), "{rows} rows, but only {} free", self.rows_free());
        let mut places = Places::none();
        let (mut from, mut pages) = (0, 1);
        loop {
            // Most streams have few groups, which all fit in one page.
            if self.table.pages() != pages {
                self.look_up(rows, keys, &mut places);
                pages = self.table.pages();
            }
            // Goes on until there is no room for a new group; making room may move existing ones.
            let to = self.fold_into_room(block, Rows { from, to: rows }, keys, &places);
            self.rows += (to - from) as u64;
            if to == rows || self.table.len() == self.groups_limit {
                return to;
            }
            let key_words = self.plan.key_words();
            if !self.make_room(&keys[to * key_words..][..key_words]) {
                return to;
            }
            from = to;
        }
    }

    /// Folds in records until one needs a new group that has no room. Returns the index of that
    /// record, or the end of `rows`.
    #[inline(always)]
    fn fold_into_room(
        &self,
        block: &Block<'_>,
        rows: Rows,
        keys: &[u64],
        places: &Places,
    ) -> usize {
        let mut slots = BlockSlots::of(self.table.any());
        let to = match self.plan.key_words() {
            1 => self.count_narrow(block, rows, keys, places, &mut slots),
            _ => self.count(block, rows, keys, &mut slots),
        };
        self.fold_lanes(block, &slots, Rows { to, ..rows });
        to
    }

    #[inline(always)]
    fn fold_lanes(&self, block: &Block<'_>, slots: &BlockSlots<'_>, rows: Rows) {
        let big = self.plan.is_big_endian();
        for lane in self.plan.lanes() {
            lane.fold(big, block, slots, rows, &self.spills);
        }
    }

    #[inline(always)]
    fn hash_of(&self, key: &[u64]) -> u64 {
        match key {
            [word] => self.hash.hash_one(word),
            words => {
                let mut hasher = self.hash.build_hasher();
                words.iter().for_each(|&word| hasher.write_u64(word));
                hasher.finish()
            }
        }
    }

    /// Finds the first slot to probe for each key and loads it into the cache; the cache misses
    /// overlap.
    #[inline(never)]
    fn look_up(&self, rows: usize, keys: &[u64], places: &mut Places) {
        let keys = keys.chunks_exact(self.plan.key_words());
        let all = keys.zip(&mut places.0[..rows]).fold(0, |all, (key, place)| {
            *place = self.table.place(self.hash_of(key));
            all ^ self.table.at(*place)[0].get()
        });
        // The values are unused, but the loads must not be optimised away.
        std::hint::black_box(all);
    }

    /// Counts each record in its group and notes the group's slot, for keys of one word. Returns
    /// the first record that needs a new group without room, or the end of `rows`.
    #[inline(always)]
    fn count_narrow<'a>(
        &'a self,
        block: &Block<'_>,
        rows: Rows,
        keys: &[u64],
        places: &Places,
        slots: &mut BlockSlots<'a>,
    ) -> usize {
        let mut from = rows.from;
        loop {
            let rows = Rows { from, ..rows };
            let to = match self.table.pages() {
                1 => {
                    let (hasher, page) = (self.hash.clone(), self.table.first_page());
                    count_in(rows, keys, slots, |_, key| page.pair(hasher.hash_one(key)))
                }
                _ => count_in(rows, keys, slots, |row, _| self.table.pair_at(places.0[row])),
            };
            if to == rows.to {
                return to;
            }
            // This group is not in the first two slots, or is new.
            let found = self.find_narrow(keys[to]);
            match self.counted(found, block, to, &keys[to..=to]) {
                Some(slot) => slots.setter().set(to, slot),
                None => return to,
            }
            from = to + 1;
        }
    }

    /// The same for keys of any number of words.
    #[inline(never)]
    fn count<'a>(
        &'a self,
        block: &Block<'_>,
        rows: Rows,
        keys: &[u64],
        slots: &mut BlockSlots<'a>,
    ) -> usize {
        let keys = keys.chunks_exact(self.plan.key_words()).skip(rows.from);
        for (row, key) in (rows.from..rows.to).zip(keys) {
            match self.counted(self.find(key), block, row, key) {
                Some(slot) => slots.setter().set(row, slot),
                None => return row,
            }
        }
        rows.to
    }

    /// Counts a record in the group that was found, or in a new one.
    #[inline(always)]
    fn counted<'a>(
        &'a self,
        found: Option<&'a SlotWords>,
        block: &Block<'_>,
        row: usize,
        key: &[u64],
    ) -> Option<&'a SlotWords> {
        let Some(slot) = found else { return self.add(block, row, key) };
        let count = &slot[self.plan.count_word()];
        count.set(count.get() + 1);
        Some(slot)
    }

    #[inline(always)]
    fn find(&self, key: &[u64]) -> Option<&SlotWords> {
        self.table.find(self.hash_of(key), |slot| is_of(slot, key))
    }

    /// The same for a key of one word.
    #[inline(never)]
    fn find_narrow(&self, key: u64) -> Option<&SlotWords> {
        self.table.find(self.hash.hash_one(key), |slot| slot[0].get() == key)
    }

    /// Adds a group with its first record. Returns `None` if there is no room for it or none was
    /// granted.
    #[cold]
    #[inline(never)]
    fn add(&self, block: &Block<'_>, row: usize, key: &[u64]) -> Option<&SlotWords> {
        if self.table.len() == self.groups_granted {
            return None;
        }
        let rows = Rows { from: row, to: row + 1 };
        let record = block.texts(rows, 0, self.plan.form().record_bytes).get(0);
        let mut group = self.group.take();
        group.clear();
        group.extend(key);
        group.resize(self.plan.slots().words(), 0);
        group[self.plan.count_word()] = 1;
        let big = self.plan.is_big_endian();
        for lane in self.plan.lanes() {
            lane.begin(big, record, &mut group);
        }
        let slot = self.table.insert_into_room(self.hash_of(key), &group);
        self.group.set(group);
        slot
    }

    /// Makes room for the group of a key, below the limit of groups. Returns false if there is no
    /// memory for it.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, key: &[u64]) -> bool {
        if self.table.len() == self.groups_granted {
            let more = PAGE_ENTRIES.min(self.groups_limit - self.groups_granted);
            if !self.memory.ask(more * self.plan.result_bytes()) {
                return false;
            }
            self.groups_granted += more;
        }
        let hash = self.hash_of(key);
        let (hasher, key_words, memory) = (&self.hash, self.plan.key_words(), &mut self.memory);
        let hash_of = |slot: &SlotWords| match key_words {
            1 => hasher.hash_one(slot[0].get()),
            _ => {
                let mut hasher = hasher.build_hasher();
                slot[..key_words].iter().for_each(|word| hasher.write_u64(word.get()));
                hasher.finish()
            }
        };
        self.table.make_room(hash, hash_of, |bytes| memory.ask(bytes))
    }
}

/// The first slots to probe for the keys of a block, used once a table has more than one page. They
/// are valid until the table gets more pages.
struct Places([SlotPlace; BLOCK_RECORDS]);

impl Places {
    #[inline(always)]
    fn none() -> Self {
        Places([SlotPlace::default(); BLOCK_RECORDS])
    }
}

/// Counts each record in its group and notes the group's slot, for keys of one word, while groups
/// are in one of the two slots that `pair_of` returns for a row and its key. Returns the first
/// record whose group is not, or the end of `rows`.
#[inline(always)]
fn count_in<'a>(
    rows: Rows,
    keys: &[u64],
    slots: &mut BlockSlots<'a>,
    pair_of: impl Fn(usize, u64) -> (&'a SlotWords, &'a SlotWords),
) -> usize {
    let mut slots = slots.setter();
    for (row, &key) in (rows.from..rows.to).zip(&keys[rows.from..rows.to]) {
        let (first, second) = pair_of(row, key);
        // Without a branch, because it is a matter of chance which groups were displaced.
        let slot = select_unpredictable(first[0].get() == key, first, second);
        // The count follows the key. In a free slot it is zero and the key is arbitrary.
        if slot[0].get() != key || slot[1].get() == 0 {
            return row;
        }
        slot[1].set(slot[1].get() + 1);
        slots.set(row, slot);
    }
    rows.to
}

#[inline(always)]
fn is_of(slot: &SlotWords, key: &[u64]) -> bool {
    slot.iter().map(Cell::get).zip(key).all(|(word, &key)| word == key)
}

#[cfg(test)]
#[path = "table_tests.rs"]
pub(in crate::engine) mod tests;
