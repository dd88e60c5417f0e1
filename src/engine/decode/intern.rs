//! Maps texts to codes, with one interner per text key of a connection: trims the padding, keeps
//! each distinct value once, and never removes or reorders one. Knows nothing of groups.

use super::text_cache::TextCache;
use super::texts::{TextLimit, Texts};
use crate::config::{TEXT_PAGE_BYTES, TEXT_RESULT_BYTES, TEXTS_ROOM};
use crate::engine::blocks::block::{BLOCK_RECORDS, Fields};
use crate::engine::blocks::paged::{PAGE_SLOTS, PagedTable, SlotForm, SlotWords};
use crate::engine::blocks::text_tag::{
    HEAD_BYTES, ShortValue, TagMaker, TextForm, len_of, with_block_bytes, words_of,
};
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use std::hint::select_unpredictable;
use std::sync::Arc;

/// Assigns a code to each distinct value of a padded field.
///
/// There are two levels. A small cache of recent texts serves streams with few of them, without
/// trimming or a strong hash. Behind it is a table of all values. A stream with more values than
/// the cache holds bypasses it, many fields at a time, so that their cache misses overlap.
pub(crate) struct Interner {
    form: TextForm,
    cache: TextCache,
    table: PagedTable<TextSlots>,
    tags: TagMaker,
    texts: Texts,
    bytes_limit: usize,
    texts_limit: usize,
    /// Lookups in the cache since its hit rate was last checked, and misses among them.
    asked: usize,
    missed: usize,
    /// Number of fields that still bypass the cache.
    past_cache: usize,
    /// What the values take, and will take in the result, but for the first page of the table.
    memory: HeldBytes,
    /// Bytes in the result for each byte of a value.
    result_copies: usize,
}

/// Fields that are looked up together.
const LOOKUPS: usize = 32;
/// Lookups after which the hit rate of the cache is checked.
const CACHE_TRIAL: usize = 1024;
/// The cache is bypassed if more than one in this many lookups misses.
const CACHE_MISS_SHARE: usize = 4;
/// Fields that bypass the cache before it is tried again.
const PAST_CACHE: usize = 64 * CACHE_TRIAL;

/// The table entry of a distinct text. It includes the text's offset, so that comparing needs no
/// other lookup.
#[derive(Clone, Copy, Default)]
struct TextSlot {
    tag: u64,
    offset: u32,
    /// Its code plus one; 0 in a free slot.
    number: u32,
}

/// Slots of two words: the tag, and the number (upper half) with the offset (lower half).
#[derive(Clone, Copy)]
struct TextSlots;

impl SlotForm for TextSlots {
    #[inline(always)]
    fn words(self) -> usize {
        2
    }

    #[inline(always)]
    fn live_word(self) -> usize {
        1
    }
}

const _: () = assert!(2 * size_of::<u64>() * PAGE_SLOTS == TEXT_PAGE_BYTES);

impl TextSlot {
    #[inline(always)]
    fn of(words: &SlotWords) -> Self {
        let (tag, place) = (words[0].get(), words[1].get());
        TextSlot { tag, offset: place as u32, number: (place >> 32) as u32 }
    }

    fn words(self) -> [u64; 2] {
        [self.tag, u64::from(self.number) << 32 | u64::from(self.offset)]
    }

    fn is_free(&self) -> bool {
        self.number == 0
    }
}

/// A field being looked up.
#[derive(Clone, Copy, Default)]
struct Lookup<'a> {
    /// `None` only in an unused lookup.
    field: Option<&'a [u8]>,
    tag: u64,
    /// Its value, if short.
    short: ShortValue,
    /// The entry in the first slot probed, or in the next.
    slot: TextSlot,
}

impl<'a> Lookup<'a> {
    fn value(&self) -> &'a [u8] {
        self.field.map_or(&[], |field| &field[..len_of(self.tag)])
    }
}

impl Interner {
    /// An empty interner for fields of this form, with at most `texts_limit` values of
    /// `bytes_limit` bytes in all.
    pub(crate) fn with_limits(form: TextForm, texts_limit: usize, bytes_limit: usize) -> Self {
        Interner {
            form,
            cache: TextCache::default(),
            table: PagedTable::new(TextSlots),
            tags: TagMaker::default(),
            texts: Texts::default(),
            bytes_limit,
            texts_limit,
            asked: 0,
            missed: 0,
            past_cache: 0,
            memory: HeldBytes::default(),
            result_copies: 0,
        }
    }

    /// Counts what the values take as part of `share`, and `result_copies` of each in the result.
    pub(crate) fn count_in(&mut self, share: &Arc<MemoryShare>, result_copies: usize) {
        (self.memory, self.result_copies) = (HeldBytes::of(share), result_copies);
    }

    /// Total bytes of all values.
    pub(crate) fn text_bytes(&self) -> usize {
        self.texts.bytes.len()
    }

    /// Changes the limit on the total bytes of all values. Existing values stay.
    pub(crate) fn limit_bytes(&mut self, bytes_limit: usize) {
        self.bytes_limit = bytes_limit;
    }

    /// The values so far, by code.
    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// The code of one field's value.
    ///
    /// # Errors
    /// [`TextLimit`] if the value is new and exceeds a limit.
    pub(crate) fn code(&mut self, field: &[u8]) -> Result<u32, TextLimit> {
        match self.cache.get(&self.form, field, &self.texts) {
            Some(code) => Ok(code),
            None => self.code_unknown_to_cache(field),
        }
    }

    /// Fills `codes` with the codes of the fields' values. Returns the number of fields coded and
    /// the limit that the next one exceeds, if any.
    #[inline(always)]
    pub(crate) fn code_fields(
        &mut self,
        fields: Fields<'_, '_>,
        codes: &mut [u32],
    ) -> (usize, Option<TextLimit>) {
        if self.past_cache > 0 {
            self.past_cache = self.past_cache.saturating_sub(codes.len());
            return self.code_fields_past_cache(fields, codes);
        }
        if self.asked >= CACHE_TRIAL {
            if self.missed > self.asked / CACHE_MISS_SHARE {
                self.past_cache = PAST_CACHE;
            }
            (self.asked, self.missed) = (0, 0);
        }
        self.asked += codes.len();
        with_block_bytes!(
            self.form.blocks(),
            N => self.code_fields_of::<N>(fields, codes),
            self.code_fields_of_any(fields, codes)
        )
    }

    /// The same through the cache, for fields with `N` bytes in whole blocks.
    #[inline(always)]
    fn code_fields_of<const N: usize>(
        &mut self,
        fields: Fields<'_, '_>,
        codes: &mut [u32],
    ) -> (usize, Option<TextLimit>) {
        let mut sets = [0; BLOCK_RECORDS];
        let mut coded = 0;
        for codes in codes.chunks_mut(BLOCK_RECORDS) {
            let fields = fields.from(coded);
            let first = fields.first::<N>();
            // A separate loop, so that many of its multiplications run in parallel.
            for (row, set) in sets[..codes.len()].iter_mut().enumerate() {
                let head = first.get(row).first_chunk().expect("a block at least");
                *set = TextCache::set_of(&words_of(head));
            }
            let mut row = 0;
            loop {
                // Fields up to the first cache miss; then that one.
                row = self.code_known::<N>(&sets, fields, row, codes);
                if row == codes.len() {
                    break;
                }
                match self.code_unknown_to_cache(fields.get(row)) {
                    Ok(code) => codes[row] = code,
                    Err(limit) => return (coded + row, Some(limit)),
                }
                row += 1;
            }
            coded += codes.len();
        }
        (coded, None)
    }

    /// Codes a block's fields from `from` on while the cache knows their texts. Returns the first
    /// field that it does not know, or the number of fields.
    #[inline(always)]
    fn code_known<const N: usize>(
        &self,
        sets: &[u16; BLOCK_RECORDS],
        fields: Fields<'_, '_>,
        from: usize,
        codes: &mut [u32],
    ) -> usize {
        let (form, first, last) = (self.form, fields.first::<N>(), fields.last());
        for row in from..codes.len() {
            match self.cache.get_short(&form, sets[row], first.get(row), last.get(row)) {
                Some(code) => codes[row] = code,
                None => match self.long_code(fields.get(row)) {
                    Some(code) => codes[row] = code,
                    None => return row,
                },
            }
        }
        codes.len()
    }

    /// The code of one field that may be long, if the cache knows it.
    #[inline(never)]
    fn long_code(&self, field: &[u8]) -> Option<u32> {
        self.cache.get(&self.form, field, &self.texts)
    }

    /// The same as [`code_fields_of`](Self::code_fields_of), for fields of any width.
    #[inline(always)]
    fn code_fields_of_any(
        &mut self,
        fields: Fields<'_, '_>,
        codes: &mut [u32],
    ) -> (usize, Option<TextLimit>) {
        for (row, place) in codes.iter_mut().enumerate() {
            *place = match self.code(fields.get(row)) {
                Ok(code) => code,
                Err(limit) => return (row, Some(limit)),
            };
        }
        (codes.len(), None)
    }

    #[cold]
    fn code_unknown_to_cache(&mut self, field: &[u8]) -> Result<u32, TextLimit> {
        self.missed += 1;
        let tag = self.tags.tag_of(&self.form, field);
        let len = len_of(tag);
        let code = self.code_of_value(&field[..len], tag)?;
        self.cache.put(&self.form.head_of(field), len, code);
        Ok(code)
    }

    /// The same without the cache, for a stream with many values. Each step is done for many fields
    /// before the next, because it waits for memory whose address the previous step computed.
    #[inline(always)]
    fn code_fields_past_cache(
        &mut self,
        fields: Fields<'_, '_>,
        codes: &mut [u32],
    ) -> (usize, Option<TextLimit>) {
        let mut coded = 0;
        let mut lookups = [Lookup::default(); LOOKUPS];
        for codes in codes.chunks_mut(LOOKUPS) {
            let (fields, lookups) = (fields.from(coded), &mut lookups[..codes.len()]);
            self.prepare(fields, lookups);
            for lookup in &mut *lookups {
                lookup.slot = self.slot_of(lookup.tag);
            }
            self.load_texts(lookups);
            for (lookup, place) in lookups.iter().zip(codes) {
                *place = match self.is_text_of(lookup) {
                    true => lookup.slot.number - 1,
                    false => match self.code_of_value(lookup.value(), lookup.tag) {
                        Ok(code) => code,
                        Err(limit) => return (coded, Some(limit)),
                    },
                };
                coded += 1;
            }
        }
        (coded, None)
    }

    #[inline(always)]
    fn prepare<'a>(&self, fields: Fields<'_, 'a>, lookups: &mut [Lookup<'a>]) {
        with_block_bytes!(
            self.form.blocks(),
            N => {
                let (first, last) = (fields.first::<N>(), fields.last());
                for (row, lookup) in lookups.iter_mut().enumerate() {
                    let is_short = self.form.is_short_of(first.get(row), last.get(row));
                    *lookup = self.lookup(fields.get(row), is_short);
                }
            },
            for (row, lookup) in lookups.iter_mut().enumerate() {
                let field = fields.get(row);
                *lookup = self.lookup(field, self.form.is_short(field));
            }
        );
    }

    #[inline(always)]
    fn lookup<'a>(&self, field: &'a [u8], is_short: bool) -> Lookup<'a> {
        let (short, tag) = match is_short {
            true => {
                let short = self.form.short_value(field);
                (short, self.tags.tag_of_short(&short))
            }
            false => (ShortValue::default(), self.tags.tag_of_long(self.form.value(field))),
        };
        Lookup { field: Some(field), tag, short, slot: TextSlot::default() }
    }

    /// The entry for a tag in the first slot probed, or else the entry in the next slot.
    #[inline(always)]
    fn slot_of(&self, tag: u64) -> TextSlot {
        let (first, second) = self.table.pair_at(self.table.place(tag));
        TextSlot::of(select_unpredictable(first[0].get() == tag, first, second))
    }

    /// Whether the slot that was read is certainly the right one. False if in doubt.
    #[inline(always)]
    fn is_text_of(&self, lookup: &Lookup<'_>) -> bool {
        let offset = lookup.slot.offset as usize;
        if lookup.slot.tag != lookup.tag || lookup.slot.is_free() {
            return false;
        }
        match self.texts.bytes[offset..].first_chunk::<HEAD_BYTES>() {
            Some(text) if len_of(lookup.tag) <= HEAD_BYTES => lookup.short.begins(text),
            _ => false,
        }
    }

    /// Loads the texts of slots into the cache; the cache misses overlap.
    #[inline(always)]
    fn load_texts(&self, lookups: &[Lookup<'_>]) {
        let all = lookups.iter().fold(0, |all, lookup| {
            all ^ self.texts.bytes.get(lookup.slot.offset as usize).unwrap_or(&0)
        });
        // The values are unused, but the loads must not be optimised away.
        std::hint::black_box(all);
    }

    fn code_of_value(&mut self, value: &[u8], tag: u64) -> Result<u32, TextLimit> {
        let is_it = |words: &SlotWords| {
            let slot = TextSlot::of(words);
            let offset = slot.offset as usize;
            slot.tag == tag && &self.texts.bytes[offset..offset + value.len()] == value
        };
        if let Some(words) = self.table.find(tag, is_it) {
            return Ok(TextSlot::of(words).number - 1);
        }
        let texts = &mut self.texts;
        if texts.len() == self.texts_limit {
            return Err(TextLimit::Groups { limit: self.texts_limit });
        }
        let end = texts.bytes.len() + value.len();
        if end > self.bytes_limit {
            return Err(TextLimit::Bytes { limit: self.bytes_limit });
        }
        if !self.make_room(value.len(), tag) {
            return Err(TextLimit::Memory);
        }
        let texts = &mut self.texts;
        // Both limits are at most u32::MAX (`config::GROUPS_LIMIT`, `config::STRINGS_BYTES_LIMIT`).
        let code = texts.len() as u32;
        let offset = texts.bytes.len() as u32;
        texts.bytes.extend_from_slice(value);
        texts.ends.push(end as u32);
        let slot = TextSlot { tag, offset, number: code + 1 };
        self.table.insert_into_room(tag, &slot.words()).expect("room was made");
        Ok(code)
    }

    /// Makes room for a new value of `bytes` bytes. Returns false if there is no memory for it.
    fn make_room(&mut self, bytes: usize, tag: u64) -> bool {
        let (texts, memory) = (&mut self.texts, &mut self.memory);
        let (bytes_room, ends_room) = TEXTS_ROOM;
        grow(&mut texts.bytes, bytes, bytes_room, 1 + self.result_copies, memory)
            && grow(&mut texts.ends, 1, ends_room, size_of::<u32>() + TEXT_RESULT_BYTES, memory)
            && self.table.make_room(tag, |words| words[0].get(), |bytes| memory.ask(bytes))
    }

    /// The values, by code.
    pub(crate) fn into_texts(self) -> Texts {
        self.texts
    }

    /// Hands over what the values hold.
    pub(crate) fn take_memory(&mut self) -> HeldBytes {
        std::mem::take(&mut self.memory)
    }
}

/// Makes room for `more` items in `list`, which has room for at least `least`; each counts for
/// `item_bytes`. Returns false if there is no memory for that.
fn grow<T>(
    list: &mut Vec<T>,
    more: usize,
    least: usize,
    item_bytes: usize,
    memory: &mut HeldBytes,
) -> bool {
    let room = list.capacity();
    if list.len() + more <= room {
        return true;
    }
    let step = (room / 2).max(more).max(least);
    // While it moves, the old room is still in use.
    let old = room * size_of::<T>();
    if !memory.ask(step * item_bytes + old) {
        return false;
    }
    list.reserve_exact(room - list.len() + step);
    memory.set(memory.bytes() - old);
    true
}

#[cfg(test)]
#[path = "intern_tests.rs"]
mod tests;
