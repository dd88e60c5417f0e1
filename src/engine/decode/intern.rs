//! Texts to codes, one interner a connection: trims the padding, keeps each distinct value once,
//! and never forgets or reorders one. Knows nothing of groups.

use super::text_cache::TextCache;
use super::texts::{TextLimit, Texts};
use crate::config::TEXT_PAGE_BYTES;
use crate::engine::blocks::block::{BLOCK_RECORDS, Fields};
use crate::engine::blocks::paged::{PAGE_SLOTS, PagedTable, SlotForm, SlotWords};
use crate::engine::blocks::text_tag::{
    HEAD_BYTES, ShortValue, TagMaker, TextForm, len_of, with_block_bytes, words_of,
};
use std::hint::select_unpredictable;

/// Gives each distinct value of a padded field a code.
///
/// Two steps. A small cache of the texts seen last answers for a stream with few of them: nothing
/// is trimmed nor hashed with care. Behind it stands a table of all values. A stream of more
/// values than the cache holds goes past it, many fields at a time, so that their waits for memory
/// overlap.
pub(crate) struct Interner {
    form: TextForm,
    cache: TextCache,
    table: PagedTable<TextSlots>,
    tags: TagMaker,
    texts: Texts,
    bytes_limit: usize,
    texts_limit: usize,
    /// Fields that the cache was asked for since that was last judged, and those it did not know.
    asked: usize,
    missed: usize,
    /// Fields that still go past the cache.
    past_cache: usize,
}

/// Fields that are looked up side by side.
const LOOKUPS: usize = 32;
/// Fields after which it is judged whether the cache pays.
const CACHE_TRIAL: usize = 1024;
/// It does not where more than one field in so many is unknown to it.
const CACHE_MISS_SHARE: usize = 4;
/// Fields that go past it then, before it is tried again.
const PAST_CACHE: usize = 64 * CACHE_TRIAL;

/// A distinct text's place in the table, with where it stands: a compare needs no other lookup.
#[derive(Clone, Copy, Default)]
struct TextSlot {
    tag: u64,
    offset: u32,
    /// Its code and one; 0 where the slot is free.
    number: u32,
}

/// Slots of two words: the tag, and the number above the offset.
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

/// A field on its way to its code.
#[derive(Clone, Copy, Default)]
struct Lookup<'a> {
    /// None only before the first.
    field: Option<&'a [u8]>,
    tag: u64,
    /// Its value, where that is short.
    short: ShortValue,
    /// What stands where its text is first looked for.
    slot: TextSlot,
}

impl<'a> Lookup<'a> {
    fn value(&self) -> &'a [u8] {
        self.field.map_or(&[], |field| &field[..len_of(self.tag)])
    }
}

impl Interner {
    /// An empty interner of fields of this form, for at most `texts_limit` values of `bytes_limit`
    /// bytes together.
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
        }
    }

    /// Bytes of all values together.
    pub(crate) fn text_bytes(&self) -> usize {
        self.texts.bytes.len()
    }

    /// From now on the values may have so many bytes together; those that are there stay.
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
    /// [`TextLimit`] where the value is new and one too many.
    pub(crate) fn code(&mut self, field: &[u8]) -> Result<u32, TextLimit> {
        match self.cache.get(&self.form, field, &self.texts) {
            Some(code) => Ok(code),
            None => self.code_unknown_to_cache(field),
        }
    }

    /// The code of each field's value, as many as there are places. Gives how many were coded, and
    /// which limit kept the next from it.
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

    /// The same by way of the cache, of fields with so many bytes in whole blocks.
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
            // A loop of its own: in one with what follows, few of its multiplications would be on
            // their way at a time.
            for (row, set) in sets[..codes.len()].iter_mut().enumerate() {
                let head = first.get(row).first_chunk().expect("a block at least");
                *set = TextCache::set_of(&words_of(head));
            }
            let mut row = 0;
            loop {
                // Those that the cache knows, as far as they go; then one that it does not.
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

    /// The codes of a block's fields from one on as long as the cache knows their texts: gives the
    /// first that it does not.
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

    /// Of one field.
    #[inline(never)]
    fn long_code(&self, field: &[u8]) -> Option<u32> {
        self.cache.get(&self.form, field, &self.texts)
    }

    /// The same of fields of any width.
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

    /// The same for a stream of many values: each step for many fields before the next, since
    /// each waits for memory that the one before has named.
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

    /// What stands where the text of a tag is looked for first, or behind that.
    #[inline(always)]
    fn slot_of(&self, tag: u64) -> TextSlot {
        let (first, second) = self.table.pair_at(self.table.place(tag));
        TextSlot::of(select_unpredictable(first[0].get() == tag, first, second))
    }

    /// Whether the slot that was looked at is the right one. Where it may be and it is not certain,
    /// the answer is no.
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

    /// Brings the texts of slots into the core's cache, all waits at once.
    #[inline(always)]
    fn load_texts(&self, lookups: &[Lookup<'_>]) {
        let all = lookups.iter().fold(0, |all, lookup| {
            all ^ self.texts.bytes.get(lookup.slot.offset as usize).unwrap_or(&0)
        });
        // Nothing is made of them; the loads must not be left out.
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
        // Both limits are at most u32::MAX (`config::GROUPS_LIMIT`, `config::STRINGS_BYTES_LIMIT`).
        let code = texts.len() as u32;
        let offset = texts.bytes.len() as u32;
        texts.bytes.extend_from_slice(value);
        texts.ends.push(end as u32);
        let slot = TextSlot { tag, offset, number: code + 1 };
        self.table.insert(tag, &slot.words(), |words| words[0].get());
        Ok(code)
    }

    /// The values, by code.
    pub(crate) fn into_texts(self) -> Texts {
        self.texts
    }
}

#[cfg(test)]
#[path = "intern_tests.rs"]
mod tests;
