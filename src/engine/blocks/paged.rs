//! A hash table that grows page by page (extendible hashing), so it never moves more than one page
//! of entries at a time. A table that doubled as a whole would stall a worker, and every other
//! connection on it, for milliseconds. The caller computes the hashes; entries are never removed.
//!
//! ```text
//!   hash:  | depth bits: the page |  …  | page bits: slot in the page | tag bits: unused |
//! ```
//!
//! A directory maps the leading bits of a hash to a page. A full page is split by one more bit, and
//! the directory doubles if it cannot distinguish the halves; a directory entry takes four bytes
//! for a page of 1024 slots. Where so many hashes agree that it would double for few pages, a full
//! page gets a successor instead: slow, but bounded.

use crate::config::GROUP_PAGE_SLOTS;
use std::cell::Cell;

/// Slots of a page.
pub(crate) const PAGE_SLOTS: usize = GROUP_PAGE_SLOTS;
/// Most entries of a page. With more, too many would not be in the slot that is probed first, and
/// each of those costs a branch misprediction and often another cache line.
pub(crate) const PAGE_ENTRIES: usize = PAGE_SLOTS / 8 * 5;
/// Low bits of a hash that the table ignores, so that entries may store other bits there.
pub(crate) const TAG_BITS: u32 = 12;

/// Entries that a directory may always have.
const DIRECTORY_FREE: usize = 1 << 14;
/// Entries that a directory may have for each page. Hashes without a pattern need fewer than ten.
const DIRECTORY_PER_PAGE: usize = 64;
/// Leading bits of a hash that can tell pages apart.
const DEPTH_MAX: u32 = u64::BITS - TAG_BITS;

/// The layout of a table's slots: the number of words, and the word that marks a free slot.
pub(crate) trait SlotForm: Copy {
    /// Words of a slot.
    fn words(self) -> usize;
    /// Index of the word that is zero in a free slot and in no other.
    fn live_word(self) -> usize;
}

/// The position of a slot: the first one probed for a hash, or the one where an entry was found. An
/// insertion may change what is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotPlace {
    page: u32,
    slot: u32,
}

/// The words of a slot, in cells so that many slots can be borrowed and changed at the same time.
pub(crate) type SlotWords = [Cell<u64>];

/// Aligned to a cache line, so that neighbouring slots share one.
#[derive(Default)]
#[repr(C, align(64))]
struct CacheLine([Cell<u64>; CacheLine::WORDS]);

impl CacheLine {
    const WORDS: usize = 8;
}

struct Page {
    lines: Box<[CacheLine]>,
    entries: Cell<usize>,
    /// Number of leading bits that the hashes of its entries share.
    depth: u32,
    /// The page with more entries of the same hashes. A page with one is never split.
    next: Option<u32>,
}

fn free_slots(words: usize) -> Box<[CacheLine]> {
    (0..PAGE_SLOTS * words / CacheLine::WORDS).map(|_| CacheLine::default()).collect()
}

#[inline(always)]
fn words_of(lines: &[CacheLine]) -> &SlotWords {
    // SAFETY: a line is exactly eight words, as `repr(C)` and the assertion below guarantee.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * CacheLine::WORDS) }
}

const _: () = assert!(size_of::<CacheLine>() == CacheLine::WORDS * size_of::<u64>());

impl Page {
    fn new(depth: u32, words: usize) -> Self {
        Page { lines: free_slots(words), entries: Cell::new(0), depth, next: None }
    }

    /// Removes and returns all entries. Future entries share `depth` leading bits.
    fn empty(&mut self, depth: u32, words: usize) -> Box<[CacheLine]> {
        self.entries.set(0);
        self.depth = depth;
        std::mem::replace(&mut self.lines, free_slots(words))
    }

    #[inline(always)]
    fn slot(&self, slot: usize, words: usize) -> &SlotWords {
        &words_of(&self.lines)[slot * words..][..words]
    }

    /// Puts an entry into the first free slot and returns that slot. The page must not be full.
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

/// A table of entries in slots of one layout, found by a hash that the caller computes.
pub(crate) struct PagedTable<F> {
    form: F,
    pages: Vec<Page>,
    /// Page numbers, indexed by the leading `depth` bits of a hash.
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

/// The slots of a page, stored one after another.
#[derive(Clone, Copy)]
pub(crate) struct PageSlots<'a> {
    /// The words of exactly [`PAGE_SLOTS`] slots.
    words: &'a SlotWords,
    slot_words: usize,
    /// See [`line_mask`].
    line_mask: usize,
}

impl<'a> PageSlots<'a> {
    /// The first two slots probed for a hash. Nearly all entries are in one of them.
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
        // SAFETY: `words` holds PAGE_SLOTS slots of `slot_words` words each.
        unsafe { self.words.get_unchecked(first..first + self.slot_words) }
    }
}

/// The bits of a slot number that give its position within a cache line. If slots do not divide a
/// line evenly, they are probed one after another, as if a page were a single line.
#[inline(always)]
fn line_mask(form: impl SlotForm) -> usize {
    let words = form.words();
    let even = words.is_power_of_two() && words < CacheLine::WORDS;
    if even { CacheLine::WORDS / words - 1 } else { PAGE_SLOTS - 1 }
}

/// The next slot in the same cache line, wrapping around at its end.
#[inline(always)]
fn next_in_line(slot: usize, line_mask: usize) -> usize {
    slot & !line_mask | (slot + 1) & line_mask
}

/// The probe sequence of an entry: the slots of its cache line, then those of the next.
struct Probes {
    slot: usize,
    line_mask: usize,
    /// Slots of the line not probed yet.
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
    /// An empty table with one page.
    ///
    /// # Panics
    /// Panics if the live word is not within the slot.
    pub(crate) fn new(form: F) -> Self {
        assert!(
            form.words() > 0 && form.live_word() < form.words(),
            "the live word must be within the slot"
        );
        let pages = vec![Page::new(0, form.words())];
        let line_mask = line_mask(form);
        PagedTable { form, pages, directory: vec![0], depth: 0, entries: Cell::new(0), line_mask }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.get()
    }

    /// Number of pages. If it has grown, entries have moved.
    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    fn directory_index(&self, hash: u64) -> usize {
        // In two steps, because a shift by 64 would overflow.
        ((hash >> 1) >> (63 - self.depth)) as usize
    }

    /// The first slot to probe for an entry with this hash.
    #[inline]
    pub(crate) fn place(&self, hash: u64) -> SlotPlace {
        let page = self.directory[self.directory_index(hash)];
        SlotPlace { page, slot: first_slot(hash) as u32 }
    }

    /// The slot at this position, free or not. Callers must not change its hash or whether it is
    /// free.
    #[inline(always)]
    pub(crate) fn at(&self, place: SlotPlace) -> &SlotWords {
        let page = &self.pages[place.page as usize];
        page.slot(place.slot as usize % PAGE_SLOTS, self.form.words())
    }

    /// The slots of the first page. Most tables have only one.
    #[inline(always)]
    pub(crate) fn first_page(&self) -> PageSlots<'_> {
        self.slots_of(&self.pages[0])
    }

    /// The slot at this position and the next one. Nearly all entries are in the first two slots
    /// probed for their hash.
    #[inline(always)]
    pub(crate) fn pair_at(&self, place: SlotPlace) -> (&SlotWords, &SlotWords) {
        self.slots_of(&self.pages[place.page as usize]).pair_at(place.slot as usize)
    }

    #[inline(always)]
    fn slots_of<'a>(&'a self, page: &'a Page) -> PageSlots<'a> {
        let (words, slot_words) = (words_of(&page.lines), self.form.words());
        assert!(words.len() == PAGE_SLOTS * slot_words, "a page has PAGE_SLOTS slots");
        PageSlots { words, slot_words, line_mask: self.line_mask }
    }

    /// Any slot, free or not.
    #[inline(always)]
    pub(crate) fn any(&self) -> &SlotWords {
        self.at(SlotPlace::default())
    }

    /// Whether this slot is free.
    #[cfg(test)]
    fn is_free(&self, place: SlotPlace) -> bool {
        self.at(place)[self.form.live_word()].get() == 0
    }

    /// Finds the entry for which `is_it` returns true among those with similar hashes.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&SlotWords) -> bool) -> Option<&SlotWords> {
        let mut page = &self.pages[self.place(hash).page as usize];
        let mut slots = self.slots_of(page);
        let mut probes = Probes::of(hash, self.line_mask);
        // This terminates, because a page always has free slots.
        loop {
            let slot = slots.slot(probes.slot);
            if slot[self.form.live_word()].get() == 0 {
                page = &self.pages[page.next? as usize];
                slots = self.slots_of(page);
                probes = Probes::of(hash, self.line_mask);
                continue;
            }
            if is_it(slot) {
                return Some(slot);
            }
            probes.advance();
        }
    }

    /// The page that takes new entries with this hash: the last of those that may have some.
    fn last_page(&self, hash: u64) -> usize {
        let mut page = self.place(hash).page;
        while let Some(next) = self.pages[page as usize].next {
            page = next;
        }
        page as usize
    }

    /// Adds an entry that does not exist yet, moving others if there is no room. `hash_of` returns
    /// the hash of any entry; at least the bits above [`TAG_BITS`] must be correct.
    ///
    /// # Panics
    /// Panics if the entry is not as long as a slot.
    #[cfg(test)]
    pub(crate) fn insert(&mut self, hash: u64, entry: &[u64], hash_of: impl Fn(&SlotWords) -> u64) {
        self.make_room(hash, hash_of, |_| true);
        self.insert_into_room(hash, entry).expect("room was made");
    }

    /// Makes room for an entry with this hash. Other entries may move. Before each step `may_take`
    /// is asked for the bytes that the table will take more; if it refuses, there is no room, and
    /// this returns false.
    pub(crate) fn make_room(
        &mut self,
        hash: u64,
        hash_of: impl Fn(&SlotWords) -> u64,
        mut may_take: impl FnMut(usize) -> bool,
    ) -> bool {
        loop {
            let page = self.last_page(hash);
            if self.pages[page].entries.get() < PAGE_ENTRIES {
                return true;
            }
            let splits = page == self.place(hash).page as usize && self.can_split(page);
            if !may_take(self.growth_bytes(splits && self.pages[page].depth == self.depth)) {
                return false;
            }
            if splits {
                self.split(page, hash, &hash_of);
            } else {
                self.pages[page].next = Some(self.page_number());
                self.pages.push(Page::new(self.pages[page].depth, self.form.words()));
            }
        }
    }

    /// Bytes of one more page, and of the directory's growth if that doubles.
    fn growth_bytes(&self, doubles: bool) -> usize {
        let directory = if doubles { size_of_val(&*self.directory) } else { 0 };
        PAGE_SLOTS * self.form.words() * size_of::<u64>() + directory
    }

    /// Whether a page may be split, which may double the directory.
    fn can_split(&self, page: usize) -> bool {
        let depth = self.pages[page].depth;
        let limit = DIRECTORY_FREE.max(DIRECTORY_PER_PAGE * self.pages.len());
        depth < self.depth || depth < DEPTH_MAX && 2 * self.directory.len() <= limit
    }

    /// The number of the next page.
    fn page_number(&self) -> u32 {
        u32::try_from(self.pages.len()).expect("fewer than 2^32 pages of 1024 slots")
    }

    /// Adds an entry that does not exist yet, or returns `None` if there is
    /// [no room](Self::make_room). Other entries do not move.
    ///
    /// # Panics
    /// Panics if the entry is not as long as a slot.
    pub(crate) fn insert_into_room(&self, hash: u64, entry: &[u64]) -> Option<&SlotWords> {
        assert!(entry.len() == self.form.words(), "an entry must be as long as a slot");
        debug_assert!(entry[self.form.live_word()] != 0, "an entry must not look free");
        let page = &self.pages[self.last_page(hash)];
        if page.entries.get() == PAGE_ENTRIES {
            return None;
        }
        self.entries.set(self.entries.get() + 1);
        Some(page.put(hash, entry.iter().copied(), self.form))
    }

    /// Splits a full page, the one for `hash`, by one more bit. If all entries have the same bit,
    /// one half is empty and the other still full.
    fn split(&mut self, page: usize, hash: u64, hash_of: impl Fn(&SlotWords) -> u64) {
        let (form, words) = (self.form, self.form.words());
        let depth = self.pages[page].depth;
        if depth == self.depth {
            let doubled = self.directory.iter().flat_map(|&page| [page, page]).collect();
            self.directory = doubled;
            self.depth += 1;
        }
        // The page is reused. Freeing it and allocating two would leave a hole each time that no
        // aligned page fits into, a sixth of the table's memory.
        let full = self.pages[page].empty(depth + 1, words);
        let number = self.page_number();
        let other = number as usize;
        self.pages.push(Page::new(depth + 1, words));
        let bit = 63 - depth;
        for entry in live_slots(&full, form) {
            let hash = hash_of(entry);
            let to = if hash >> bit & 1 == 0 { page } else { other };
            self.pages[to].put(hash, entry.iter().map(Cell::get), form);
        }
        // The directory entries of one page are adjacent; the upper half now points to the new one.
        let span = 1 << (self.depth - depth);
        let begin = self.directory_index(hash) / span * span;
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

    /// Entries of any width: hash, key, padding, and how often they were added.
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

    /// A hash of which only the `bits` leading bits vary.
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
            let times = &found.expect("just inserted")[words - 1];
            times.set(times.get() + 1);
        }
        let found: HashMap<u32, u64> =
            table.iter().map(|e| (e[1].get() as u32, e[words - 1].get() - (1 << 40))).collect();
        assert_eq!((table.len(), &found), (oracle.len(), &oracle));
        assert_eq!(table.iter().count(), oracle.len(), "no entry is duplicated");
        for (&key, &value) in &oracle {
            let place = table.place(hash_of(key, bits));
            // It is in the first slot probed, or that one is taken.
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
    fn a_hundred_thousand_keys_are_found_again() {
        count((0..100_000).chain((0..100_000).rev()), 64, 4);
    }

    /// All hashes share their first ten bits, so that splits leave one half empty.
    #[test]
    fn hashes_with_a_common_prefix() {
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

    /// Whatever the hashes have in common, the directory stays small and every entry is found.
    #[test]
    fn equal_hashes_take_bounded_memory() {
        for common in [64, 52, 40, 20] {
            let mut table = PagedTable::new(WideEntries(4));
            let hash_of = |key: u32| hash_of(key, 64).checked_shr(common).unwrap_or(0);
            // Others are spread over all pages.
            let entries = (0..4000_u32).map(|key| (key, hash_of(key)));
            let entries = entries.chain((4000..6000).map(|key| (key, self::hash_of(key, 64))));
            for (key, hash) in entries.clone() {
                table.insert(hash, &entry(4, hash, key, 1), |entry| entry[0].get());
            }
            for (key, hash) in entries {
                let found = table.find(hash, |entry| entry[1].get() == u64::from(key));
                assert_eq!(found.map(|entry| entry[0].get()), Some(hash), "{key} of {common}");
            }
            assert!(table.find(0, |entry| entry[1].get() == 6000).is_none());
            assert_eq!((table.iter().count(), table.len()), (6000, 6000));
            let (pages, directory) = (table.pages(), table.directory.len());
            assert!(pages <= 60 && directory <= DIRECTORY_FREE, "{pages} pages, {directory}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_agrees_with_a_hash_map(
            keys in proptest::collection::vec(0u32..5000, 0..6000),
            bits in 12u32..=64,
            words in proptest::sample::select(&WIDTHS[..]),
        ) {
            count(keys.into_iter(), bits, words);
        }
    }
}
