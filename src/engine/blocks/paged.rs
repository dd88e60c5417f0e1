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

use crate::config::GROUP_PAGE_SLOTS;
use std::cell::Cell;

/// Slots of a page.
pub(crate) const PAGE_SLOTS: usize = GROUP_PAGE_SLOTS;
/// Entries of a page at most. With more, too many are not where they are looked for first: each
/// of those costs a wrong guess of the processor's and often another line of memory.
pub(crate) const PAGE_ENTRIES: usize = PAGE_SLOTS / 8 * 5;
/// Low bits of a hash that the table does not look at, so that entries may keep others there.
pub(crate) const TAG_BITS: u32 = 12;

/// The form of a table's slots: so many words, of which one tells whether the slot is free.
pub(crate) trait SlotForm: Copy {
    /// Words of a slot.
    fn words(self) -> usize;
    /// The word that is zero in a free slot, and in no other.
    fn live_word(self) -> usize;
}

/// A slot: where a hash leads first, or where an entry was found. After an insertion something
/// else may stand there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotPlace {
    page: u32,
    slot: u32,
}

/// A slot's words. Cells, so that many slots can be held and changed side by side.
pub(crate) type SlotWords = [Cell<u64>];

/// Begins with a cache line, so that slots side by side share one.
#[derive(Default)]
#[repr(C, align(64))]
struct CacheLine([Cell<u64>; CacheLine::WORDS]);

impl CacheLine {
    const WORDS: usize = 8;
}

struct Page {
    lines: Box<[CacheLine]>,
    entries: Cell<usize>,
    /// How many leading bits the hashes of its entries have in common.
    depth: u32,
}

fn free_slots(words: usize) -> Box<[CacheLine]> {
    (0..PAGE_SLOTS * words / CacheLine::WORDS).map(|_| CacheLine::default()).collect()
}

#[inline(always)]
fn words_of(lines: &[CacheLine]) -> &SlotWords {
    // SAFETY: a line is eight words and nothing else, as its representation says.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * CacheLine::WORDS) }
}

const _: () = assert!(size_of::<CacheLine>() == CacheLine::WORDS * size_of::<u64>());

impl Page {
    fn new(depth: u32, words: usize) -> Self {
        Page { lines: free_slots(words), entries: Cell::new(0), depth }
    }

    /// Takes all entries out; those to come have `depth` bits in common.
    fn empty(&mut self, depth: u32, words: usize) -> Box<[CacheLine]> {
        self.entries.set(0);
        self.depth = depth;
        std::mem::replace(&mut self.lines, free_slots(words))
    }

    #[inline(always)]
    fn slot(&self, slot: usize, words: usize) -> &SlotWords {
        &words_of(&self.lines)[slot * words..][..words]
    }

    /// Puts an entry where the first free slot is; gives its slot. There must be one.
    fn put(&self, hash: u64, entry: impl Iterator<Item = u64>, form: impl SlotForm) -> &SlotWords {
        let mut probes = Probes::of(hash, line_mask(form));
        while self.slot(probes.slot, form.words())[form.live_word()].get() != 0 {
            probes.advance();
        }
        let slot = self.slot(probes.slot, form.words());
        slot.iter().zip(entry).for_each(|(place, word)| place.set(word));
        self.entries.set(self.entries.get() + 1);
        slot
    }
}

/// A table of entries in slots of one form, found by a hash that the caller knows.
pub(crate) struct PagedTable<F> {
    form: F,
    pages: Vec<Page>,
    /// Pages by the leading `depth` bits of a hash.
    directory: Vec<u32>,
    depth: u32,
    entries: Cell<usize>,
    /// See [`line_mask`].
    line_mask: usize,
}

#[inline]
fn first_slot(hash: u64) -> usize {
    (hash >> TAG_BITS) as usize % PAGE_SLOTS
}

/// The slots of a page: the words of all, one slot behind the other.
#[derive(Clone, Copy)]
pub(crate) struct PageSlots<'a> {
    /// Always those of [`PAGE_SLOTS`] slots.
    words: &'a SlotWords,
    slot_words: usize,
    /// See [`line_mask`].
    line_mask: usize,
}

impl<'a> PageSlots<'a> {
    /// The first two slots where the entry of a hash may be. Nearly all are in one of them.
    #[inline(always)]
    pub(crate) fn pair(&self, hash: u64) -> (&'a SlotWords, &'a SlotWords) {
        self.pair_at(first_slot(hash))
    }

    #[inline(always)]
    fn pair_at(&self, slot: usize) -> (&'a SlotWords, &'a SlotWords) {
        (self.slot(slot), self.slot(next_in_line(slot, self.line_mask)))
    }

    #[inline(always)]
    fn slot(&self, slot: usize) -> &'a SlotWords {
        let first = slot % PAGE_SLOTS * self.slot_words;
        // SAFETY: there are PAGE_SLOTS slots of so many words.
        unsafe { self.words.get_unchecked(first..first + self.slot_words) }
    }
}

/// The bits of a slot's number that say where in its line of the cache it is. Where slots do not
/// fill lines evenly they are looked at one after the other, as if a page were one line.
#[inline(always)]
fn line_mask(form: impl SlotForm) -> usize {
    let words = form.words();
    let even = words.is_power_of_two() && words < CacheLine::WORDS;
    if even { CacheLine::WORDS / words - 1 } else { PAGE_SLOTS - 1 }
}

/// The slot behind this one, or the first of the line behind its last.
#[inline(always)]
fn next_in_line(slot: usize, line_mask: usize) -> usize {
    slot & !line_mask | (slot + 1) & line_mask
}

/// The slots where an entry may be, in order: those of its cache line before those of the next.
struct Probes {
    slot: usize,
    line_mask: usize,
    /// Slots of the line that were not looked at.
    left_in_line: usize,
}

impl Probes {
    #[inline]
    fn of(hash: u64, line_mask: usize) -> Self {
        Probes { slot: first_slot(hash), line_mask, left_in_line: line_mask }
    }

    #[inline]
    fn advance(&mut self) {
        self.slot = match self.left_in_line {
            0 => ((self.slot | self.line_mask) + 1) % PAGE_SLOTS,
            _ => next_in_line(self.slot, self.line_mask),
        };
        self.left_in_line = self.left_in_line.checked_sub(1).unwrap_or(self.line_mask);
    }
}

impl<F: SlotForm> PagedTable<F> {
    /// An empty table of one page.
    ///
    /// # Panics
    /// Where the live word is not one of the slot's.
    pub(crate) fn new(form: F) -> Self {
        assert!(form.words() > 0 && form.live_word() < form.words(), "a slot has its live word");
        let pages = vec![Page::new(0, form.words())];
        let line_mask = line_mask(form);
        PagedTable { form, pages, directory: vec![0], depth: 0, entries: Cell::new(0), line_mask }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.get()
    }

    /// How many pages there are. Entries have moved where there are more than before.
    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    fn directory_index(&self, hash: u64) -> usize {
        // In two steps, since a shift by 64 is none.
        ((hash >> 1) >> (63 - self.depth)) as usize
    }

    /// Where to look for an entry with this hash.
    #[inline]
    pub(crate) fn place(&self, hash: u64) -> SlotPlace {
        let page = self.directory[self.directory_index(hash)];
        SlotPlace { page, slot: first_slot(hash) as u32 }
    }

    /// What stands there, free or not. Its hash must stay, and whether it is free.
    #[inline(always)]
    pub(crate) fn at(&self, place: SlotPlace) -> &SlotWords {
        let page = &self.pages[place.page as usize];
        page.slot(place.slot as usize % PAGE_SLOTS, self.form.words())
    }

    /// The slots of the first page, of which most tables have no other.
    #[inline(always)]
    pub(crate) fn first_page(&self) -> PageSlots<'_> {
        self.slots_of(&self.pages[0])
    }

    /// The place and the one behind it: nearly all entries are in one of the two where their hash
    /// leads.
    #[inline(always)]
    pub(crate) fn pair_at(&self, place: SlotPlace) -> (&SlotWords, &SlotWords) {
        self.slots_of(&self.pages[place.page as usize]).pair_at(place.slot as usize)
    }

    #[inline(always)]
    fn slots_of<'a>(&'a self, page: &'a Page) -> PageSlots<'a> {
        let (words, slot_words) = (words_of(&page.lines), self.form.words());
        assert!(words.len() == PAGE_SLOTS * slot_words, "a page has its slots");
        PageSlots { words, slot_words, line_mask: self.line_mask }
    }

    /// Any slot, free or not.
    #[inline(always)]
    pub(crate) fn any(&self) -> &SlotWords {
        self.at(SlotPlace::default())
    }

    /// Whether nothing stands there.
    #[cfg(test)]
    fn is_free(&self, place: SlotPlace) -> bool {
        self.at(place)[self.form.live_word()].get() == 0
    }

    /// The entry that `is_it` tells from others with similar hashes.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&SlotWords) -> bool) -> Option<&SlotWords> {
        let slots = self.slots_of(&self.pages[self.place(hash).page as usize]);
        let mut probes = Probes::of(hash, self.line_mask);
        // Ends: a page always has free slots.
        loop {
            let slot = slots.slot(probes.slot);
            if slot[self.form.live_word()].get() == 0 {
                return None;
            }
            if is_it(slot) {
                return Some(slot);
            }
            probes.advance();
        }
    }

    /// Adds an entry that is not there, and moves others where there is no room for it. `hash_of`
    /// gives the hash of any entry, of which at least the bits above [`TAG_BITS`] must be right.
    ///
    /// # Panics
    /// Where the entry has not as many words as a slot.
    pub(crate) fn insert(&mut self, hash: u64, entry: &[u64], hash_of: impl Fn(&SlotWords) -> u64) {
        self.make_room(hash, hash_of);
        self.insert_into_room(hash, entry).expect("room was made");
    }

    /// Sees to it that there is room for an entry with this hash. The others may move.
    pub(crate) fn make_room(&mut self, hash: u64, hash_of: impl Fn(&SlotWords) -> u64) {
        loop {
            let page = self.place(hash).page as usize;
            if self.pages[page].entries.get() < PAGE_ENTRIES {
                return;
            }
            self.split(page, hash, &hash_of);
        }
    }

    /// Adds an entry that is not there; `None` where there is [no room](Self::make_room) for it.
    /// No other moves.
    ///
    /// # Panics
    /// Where the entry has not as many words as a slot.
    pub(crate) fn insert_into_room(&self, hash: u64, entry: &[u64]) -> Option<&SlotWords> {
        assert!(entry.len() == self.form.words(), "an entry has the words of a slot");
        debug_assert!(entry[self.form.live_word()] != 0, "an entry is not free");
        let page = &self.pages[self.place(hash).page as usize];
        if page.entries.get() == PAGE_ENTRIES {
            return None;
        }
        self.entries.set(self.entries.get() + 1);
        Some(page.put(hash, entry.iter().copied(), self.form))
    }

    /// Parts a full page, to which `hash` leads, in two by one more bit. Where all entries have the
    /// same bit, one of the two is empty and the other full still; hashes are keyed, so that no
    /// peer can bring that about.
    fn split(&mut self, page: usize, hash: u64, hash_of: impl Fn(&SlotWords) -> u64) {
        let (form, words) = (self.form, self.form.words());
        let depth = self.pages[page].depth;
        if depth == self.depth {
            let doubled = self.directory.iter().flat_map(|&page| [page, page]).collect();
            self.directory = doubled;
            self.depth += 1;
        }
        // The page is used again. To free it and make two would leave a hole each time that no
        // aligned page fits into: a sixth of the table's memory.
        let full = self.pages[page].empty(depth + 1, words);
        let other = self.pages.len();
        self.pages.push(Page::new(depth + 1, words));
        let bit = 63 - depth;
        for entry in live_slots(&full, form) {
            let hash = hash_of(entry);
            let to = if hash >> bit & 1 == 0 { page } else { other };
            self.pages[to].put(hash, entry.iter().map(Cell::get), form);
        }
        // Those that lead to one page lie side by side; the upper half of them changes over.
        let span = 1 << (self.depth - depth);
        let begin = self.directory_index(hash) / span * span;
        let number = u32::try_from(other).expect("fewer than 2^32 pages of 1024 slots");
        self.directory[begin + span / 2..begin + span].fill(number);
    }

    /// Every entry, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SlotWords> {
        self.pages.iter().flat_map(|page| live_slots(&page.lines, self.form))
    }
}

fn live_slots(lines: &[CacheLine], form: impl SlotForm) -> impl Iterator<Item = &SlotWords> {
    let is_live = move |slot: &&SlotWords| slot[form.live_word()].get() != 0;
    words_of(lines).chunks_exact(form.words()).filter(is_live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Entries of any width: their hash, their key, nothing, how often they came.
    #[derive(Clone, Copy)]
    struct WideEntries(usize);

    impl SlotForm for WideEntries {
        fn words(self) -> usize {
            self.0
        }

        fn live_word(self) -> usize {
            self.0 - 1
        }
    }

    const WIDTHS: [usize; 5] = [3, 4, 5, 8, 12];

    fn entry(words: usize, hash: u64, key: u32, value: u64) -> Vec<u64> {
        let mut entry = vec![0; words];
        (entry[0], entry[1], entry[words - 1]) = (hash, u64::from(key), value);
        entry
    }

    /// A hash with few distinct leading bits, as `bits` says, and without the tag's.
    fn hash_of(key: u32, bits: u32) -> u64 {
        let mixed = u64::from(key).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - bits) << (64 - bits)
    }

    fn count(keys: impl Iterator<Item = u32>, bits: u32, words: usize) {
        let mut table = PagedTable::new(WideEntries(words));
        let mut oracle: HashMap<u32, u64> = HashMap::new();
        for key in keys {
            *oracle.entry(key).or_default() += 1;
            let hash = hash_of(key, bits);
            if table.find(hash, |entry| entry[1].get() == u64::from(key)).is_none() {
                let new = entry(words, hash, key, 1 << 40);
                table.insert(hash, &new, |entry| entry[0].get());
            }
            let found = table.find(hash, |entry| entry[1].get() == u64::from(key));
            let times = &found.expect("it is there")[words - 1];
            times.set(times.get() + 1);
        }
        let found: HashMap<u32, u64> =
            table.iter().map(|e| (e[1].get() as u32, e[words - 1].get() - (1 << 40))).collect();
        assert_eq!((table.len(), &found), (oracle.len(), &oracle));
        assert_eq!(table.iter().count(), oracle.len(), "none stands twice");
        for (&key, &value) in &oracle {
            let place = table.place(hash_of(key, bits));
            // Nearly always the first slot; elsewhere behind it.
            let found = table.find(hash_of(key, bits), |entry| entry[1].get() == u64::from(key));
            let found = found.unwrap();
            assert_eq!(found[words - 1].get(), value + (1 << 40));
            assert!(table.at(place) == found || !table.is_free(place));
        }
    }

    #[test]
    fn a_page_splits_when_it_is_full_and_not_before() {
        let mut table = PagedTable::new(WideEntries(4));
        let insert = |table: &mut PagedTable<WideEntries>, key: u32| {
            let hash = hash_of(key, 64);
            table.insert(hash, &entry(4, hash, key, 1), |entry| entry[0].get());
        };
        (0..PAGE_ENTRIES as u32).for_each(|key| insert(&mut table, key));
        assert_eq!((table.pages(), table.len()), (1, PAGE_ENTRIES));
        insert(&mut table, PAGE_ENTRIES as u32);
        assert_eq!((table.pages(), table.len()), (2, PAGE_ENTRIES + 1));
    }

    #[test]
    fn half_a_million_keys_twice() {
        count((0..500_000).chain((0..500_000).rev()), 64, 4);
    }

    /// Splits that leave one half empty: all hashes begin with the same ten bits.
    #[test]
    fn hashes_that_begin_alike() {
        let mut table = PagedTable::new(WideEntries(4));
        for key in 0..3000u32 {
            let hash = hash_of(key, 64) >> 10;
            table.insert(hash, &entry(4, hash, key, 1), |entry| entry[0].get());
        }
        for key in 0..3000u32 {
            let hash = hash_of(key, 64) >> 10;
            assert!(table.find(hash, |entry| entry[1].get() == u64::from(key)).is_some(), "{key}");
        }
        assert_eq!(table.iter().count(), 3000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_keys_are_counted_as_a_hash_map_does(
            keys in proptest::collection::vec(0u32..5000, 0..6000),
            bits in 12u32..=64,
            words in proptest::sample::select(&WIDTHS[..]),
        ) {
            count(keys.into_iter(), bits, words);
        }
    }
}
