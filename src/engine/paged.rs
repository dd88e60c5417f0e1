//! A hash table that grows page by page (extendible hashing): hashes nothing itself, forgets
//! nothing, and never moves more than one page of entries at a time. A table that doubles as a
//! whole would hold a worker, and every other connection on it, for milliseconds.
//!
//! ```text
//!   hash:  | depth bits: which page |  …  | page bits: where in the page | tag bits: not used |
//! ```
//!
//! A directory says which page has the entries whose hashes begin with these bits. A page that is
//! full is split by one more bit, and the directory doubles where it does not tell the halves
//! apart; its entries are four bytes for a page of 1024 slots.

use std::marker::PhantomData;

/// Slots of a page.
pub const PAGE_SLOTS: usize = 1024;
/// Entries of a page at most. With more, too many are not where they are looked for first: each
/// of those costs a wrong guess of the processor's and often another line of memory.
pub const PAGE_ENTRIES: usize = PAGE_SLOTS / 8 * 5;
/// Low bits of a hash that the table does not look at, so that entries may keep others there.
pub const TAG_BITS: u32 = 9;

/// What a table holds. A default one is a free slot.
pub trait Slot: Copy + Default {
    /// Whether nothing is stored there.
    fn is_free(&self) -> bool;
}

/// A slot: where a hash leads first, or where an entry was found. After an insertion something
/// else may stand there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    page: u32,
    slot: u32,
}

/// Begins with a cache line, so that slots side by side share one.
#[repr(align(64))]
struct Slots<S>([S; PAGE_SLOTS]);

struct Page<S> {
    slots: Box<Slots<S>>,
    entries: usize,
    /// How many leading bits the hashes of its entries have in common.
    depth: u32,
}

impl<S: Slot> Page<S> {
    fn new(depth: u32) -> Self {
        Page { slots: Box::new(Slots([S::default(); PAGE_SLOTS])), entries: 0, depth }
    }

    /// Takes all entries out; those to come have `depth` bits in common.
    fn empty(&mut self, depth: u32) -> Slots<S> {
        self.entries = 0;
        self.depth = depth;
        std::mem::replace(&mut *self.slots, Slots([S::default(); PAGE_SLOTS]))
    }

    fn put(&mut self, hash: u64, entry: S) {
        let mut probes = Probes::<S>::of(hash);
        while !self.slots.0[probes.slot].is_free() {
            probes.advance();
        }
        self.slots.0[probes.slot] = entry;
        self.entries += 1;
    }
}

/// A table of entries `S`, found by a hash that the caller knows.
pub struct PagedTable<S> {
    pages: Vec<Page<S>>,
    /// Pages by the leading `depth` bits of a hash.
    directory: Vec<u32>,
    depth: u32,
    entries: usize,
}

#[inline]
fn first_slot(hash: u64) -> usize {
    (hash >> TAG_BITS) as usize % PAGE_SLOTS
}

/// The slots where an entry may be, in order: those of its cache line before those of the next.
struct Probes<S> {
    slot: usize,
    left_in_line: usize,
    of: PhantomData<S>,
}

impl<S> Probes<S> {
    const LINE_SLOTS: usize = 64 / size_of::<S>();

    #[inline]
    fn of(hash: u64) -> Self {
        const { assert!(Self::LINE_SLOTS.is_power_of_two()) };
        Probes { slot: first_slot(hash), left_in_line: Self::LINE_SLOTS - 1, of: PhantomData }
    }

    #[inline]
    fn advance(&mut self) {
        let line = self.slot / Self::LINE_SLOTS * Self::LINE_SLOTS;
        let mut next = line + (self.slot + 1) % Self::LINE_SLOTS;
        if self.left_in_line == 0 {
            self.left_in_line = Self::LINE_SLOTS;
            next = (line + Self::LINE_SLOTS) % PAGE_SLOTS;
        }
        self.left_in_line -= 1;
        self.slot = next;
    }
}

impl<S: Slot> PagedTable<S> {
    /// An empty table of one page.
    pub fn new() -> Self {
        PagedTable { pages: vec![Page::new(0)], directory: vec![0], depth: 0, entries: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    fn directory_index(&self, hash: u64) -> usize {
        // In two steps, since a shift by 64 is none.
        ((hash >> 1) >> (63 - self.depth)) as usize
    }

    /// Where to look for an entry with this hash.
    #[inline]
    pub fn place(&self, hash: u64) -> Place {
        let page = self.directory[self.directory_index(hash)];
        Place { page, slot: first_slot(hash) as u32 }
    }

    /// What stands there, free or not.
    #[inline]
    pub fn at(&self, place: Place) -> &S {
        &self.pages[place.page as usize].slots.0[place.slot as usize % PAGE_SLOTS]
    }

    /// The same, to be changed. Its hash must stay.
    #[inline]
    pub fn at_mut(&mut self, place: Place) -> &mut S {
        &mut self.pages[place.page as usize].slots.0[place.slot as usize % PAGE_SLOTS]
    }

    /// The place of the entry that `is_it` tells from others with similar hashes.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(&S) -> bool) -> Option<Place> {
        let page = self.place(hash).page;
        let slots = &self.pages[page as usize].slots.0;
        let mut probes = Probes::<S>::of(hash);
        // Ends: a page always has free slots.
        while !slots[probes.slot].is_free() {
            if is_it(&slots[probes.slot]) {
                return Some(Place { page, slot: probes.slot as u32 });
            }
            probes.advance();
        }
        None
    }

    /// Adds an entry that is not there. `hash_of` gives the hash of any entry, of which at least
    /// the bits above [`TAG_BITS`] must be right.
    pub fn insert(&mut self, hash: u64, entry: S, hash_of: impl Fn(&S) -> u64) {
        let mut page = self.place(hash).page as usize;
        while self.pages[page].entries == PAGE_ENTRIES {
            self.split(page, hash, &hash_of);
            page = self.place(hash).page as usize;
        }
        self.pages[page].put(hash, entry);
        self.entries += 1;
    }

    /// Parts a full page, to which `hash` leads, in two by one more bit. Where all entries have the
    /// same bit, one of the two is empty and the other full still; hashes are keyed, so that no
    /// peer can bring that about.
    fn split(&mut self, page: usize, hash: u64, hash_of: impl Fn(&S) -> u64) {
        let depth = self.pages[page].depth;
        if depth == self.depth {
            let doubled = self.directory.iter().flat_map(|&page| [page, page]).collect();
            self.directory = doubled;
            self.depth += 1;
        }
        // The page is used again. To free it and make two would leave a hole each time that no
        // aligned page fits into: a sixth of the table's memory.
        let full = self.pages[page].empty(depth + 1);
        let other = self.pages.len();
        self.pages.push(Page::new(depth + 1));
        let bit = 63 - depth;
        for entry in full.0.iter().filter(|entry| !entry.is_free()) {
            let hash = hash_of(entry);
            let to = if hash >> bit & 1 == 0 { page } else { other };
            self.pages[to].put(hash, *entry);
        }
        // Those that lead to one page lie side by side; the upper half of them changes over.
        let span = 1 << (self.depth - depth);
        let begin = self.directory_index(hash) / span * span;
        let number = u32::try_from(other).expect("fewer than 2^32 pages of 1024 slots");
        self.directory[begin + span / 2..begin + span].fill(number);
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.pages.iter().flat_map(|page| page.slots.0.iter()).filter(|entry| !entry.is_free())
    }
}

impl<S: Slot> Default for PagedTable<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Entry {
        hash: u64,
        key: u32,
        value: u32,
    }

    impl Slot for Entry {
        fn is_free(&self) -> bool {
            self.value == 0
        }
    }

    /// A hash with few distinct leading bits, as `bits` says, and without the tag's.
    fn hash_of(key: u32, bits: u32) -> u64 {
        let mixed = u64::from(key).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - bits) << (64 - bits)
    }

    fn count(keys: impl Iterator<Item = u32>, bits: u32) {
        let mut table = PagedTable::new();
        let mut oracle: HashMap<u32, u32> = HashMap::new();
        for key in keys {
            *oracle.entry(key).or_default() += 1;
            let hash = hash_of(key, bits);
            match table.find(hash, |entry: &Entry| entry.key == key) {
                Some(place) => table.at_mut(place).value += 1,
                None => table.insert(hash, Entry { hash, key, value: 1 }, |entry| entry.hash),
            }
        }
        let found: HashMap<u32, u32> = table.iter().map(|entry| (entry.key, entry.value)).collect();
        assert_eq!((table.len(), &found), (oracle.len(), &oracle));
        assert_eq!(table.iter().count(), oracle.len(), "none stands twice");
        for (&key, &value) in &oracle {
            let place = table.place(hash_of(key, bits));
            // Nearly always the first slot; elsewhere behind it.
            let first = *table.at(place);
            let found = table.find(hash_of(key, bits), |entry| entry.key == key).unwrap();
            let found = table.at(found);
            assert_eq!(found.value, value);
            assert!(first == *found || !first.is_free());
        }
    }

    #[test]
    fn a_page_splits_when_it_is_full_and_not_before() {
        let mut table = PagedTable::new();
        let insert = |table: &mut PagedTable<Entry>, key: u32| {
            let hash = hash_of(key, 64);
            table.insert(hash, Entry { hash, key, value: 1 }, |entry| entry.hash);
        };
        (0..PAGE_ENTRIES as u32).for_each(|key| insert(&mut table, key));
        assert_eq!((table.pages(), table.len()), (1, PAGE_ENTRIES));
        insert(&mut table, PAGE_ENTRIES as u32);
        assert_eq!((table.pages(), table.len()), (2, PAGE_ENTRIES + 1));
    }

    #[test]
    fn half_a_million_keys_twice() {
        count((0..500_000).chain((0..500_000).rev()), 64);
    }

    /// Splits that leave one half empty: all hashes begin with the same ten bits.
    #[test]
    fn hashes_that_begin_alike() {
        let mut table = PagedTable::new();
        for key in 0..3000u32 {
            let hash = hash_of(key, 64) >> 10;
            table.insert(hash, Entry { hash, key, value: 1 }, |entry| entry.hash);
        }
        for key in 0..3000u32 {
            let hash = hash_of(key, 64) >> 10;
            assert!(table.find(hash, |entry| entry.key == key).is_some(), "{key}");
        }
        assert_eq!(table.iter().count(), 3000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_keys_are_counted_as_a_hash_map_does(
            keys in proptest::collection::vec(0u32..5000, 0..6000),
            bits in 12u32..=64,
        ) {
            count(keys.into_iter(), bits);
        }
    }
}
