//! Texts to codes, one interner a connection: trims the padding, keeps each distinct value once,
//! and never forgets or reorders one. Knows nothing of groups.

use super::block::Fields;
use super::paged::{PAGE_SLOTS, PagedTable, Place, SlotForm, SlotWords};
use super::text_cache::TextCache;
use super::text_tag::{ANY_BLOCKS, BLOCKS_MAX, HEAD_BYTES, ShortValue, TagMaker, TextForm, len_of};
use crate::config::TEXT_PAGE_BYTES;

/// Distinct texts, by code. A code is the order in which its text first came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    /// How many texts there are; their codes are `0..len`.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of a code that was given out.
    ///
    /// # Panics
    /// If the code was not given out.
    pub fn get(&self, code: usize) -> &[u8] {
        let start = if code == 0 { 0 } else { self.ends[code - 1] as usize };
        &self.bytes[start..self.ends[code] as usize]
    }
}

impl Texts {
    /// A copy of those from code `first` on, with codes of their own from 0.
    pub fn since(&self, first: usize) -> Texts {
        let start = if first == 0 { 0 } else { self.ends[first - 1] };
        Texts {
            bytes: self.bytes[start as usize..].to_vec(),
            ends: self.ends[first..].iter().map(|end| end - start).collect(),
        }
    }

    /// Puts others behind these. Their codes go on from the last one here.
    pub fn append(&mut self, later: &Texts) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&later.bytes);
        self.ends.extend(later.ends.iter().map(|end| end + start));
    }
}

/// A text that would go beyond a limit. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextLimit {
    /// All distinct texts together would take too many bytes.
    #[error("distinct texts take more than {limit} bytes (--strings-bytes-limit)")]
    Bytes {
        /// The limit in force.
        limit: usize,
    },
    /// More distinct texts than there may be groups: each text makes at least one group.
    #[error("more than {limit} distinct texts, hence groups (--groups-limit)")]
    Groups {
        /// The limit in force.
        limit: usize,
    },
}

/// Gives each distinct value of a padded field a code.
///
/// Two steps. A small cache of the texts seen last answers for a stream with few of them: nothing
/// is trimmed nor hashed with care. Behind it stands a table of all values. A stream of more
/// values than the cache holds goes past it, many fields at a time, so that their waits for memory
/// overlap.
pub struct Interner {
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
    pub fn with_limits(form: TextForm, texts_limit: usize, bytes_limit: usize) -> Self {
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
    pub fn text_bytes(&self) -> usize {
        self.texts.bytes.len()
    }

    /// From now on the values may have so many bytes together; those that are there stay.
    pub fn limit_bytes(&mut self, bytes_limit: usize) {
        self.bytes_limit = bytes_limit;
    }

    /// The values so far, by code.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// The code of one field's value.
    ///
    /// # Errors
    /// [`TextLimit`] where the value is new and one too many.
    pub fn code(&mut self, field: &[u8]) -> Result<u32, TextLimit> {
        let head = self.form.head_of(field);
        match self.cache.get::<ANY_BLOCKS>(&self.form, &head, field, &self.texts) {
            Some(code) => Ok(code),
            None => self.code_unknown_to_cache(field),
        }
    }

    /// The code of each field's value, as many as there are places. Gives how many were coded, and
    /// which limit kept the next from it.
    #[inline(always)]
    pub fn code_fields(
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
        match self.form.blocks() {
            1 => self.code_fields_of::<1>(fields, codes),
            2 => self.code_fields_of::<2>(fields, codes),
            3 => self.code_fields_of::<3>(fields, codes),
            4 => self.code_fields_of::<4>(fields, codes),
            5 => self.code_fields_of::<5>(fields, codes),
            6 => self.code_fields_of::<6>(fields, codes),
            BLOCKS_MAX => self.code_fields_of::<BLOCKS_MAX>(fields, codes),
            _ => self.code_fields_of::<ANY_BLOCKS>(fields, codes),
        }
    }

    /// The same by way of the cache, of fields with so many blocks.
    #[inline(always)]
    fn code_fields_of<const BLOCKS: usize>(
        &mut self,
        fields: Fields<'_, '_>,
        codes: &mut [u32],
    ) -> (usize, Option<TextLimit>) {
        let form = self.form;
        for (row, place) in codes.iter_mut().enumerate() {
            let field = fields.get(row);
            let head = form.head_of(field);
            *place = match self.cache.get::<BLOCKS>(&form, &head, field, &self.texts) {
                Some(code) => code,
                None => match self.code_unknown_to_cache(field) {
                    Ok(code) => code,
                    Err(limit) => return (row, Some(limit)),
                },
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
            let lookups = &mut lookups[..codes.len()];
            for (row, lookup) in lookups.iter_mut().enumerate() {
                *lookup = self.prepare(fields.get(coded + row));
            }
            for lookup in &mut *lookups {
                lookup.slot = TextSlot::of(self.table.at(self.table.place(lookup.tag)));
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
    fn prepare<'a>(&self, field: &'a [u8]) -> Lookup<'a> {
        let slot = TextSlot::default();
        match self.form.is_short(field) {
            true => {
                let short = self.form.short_value(field);
                Lookup { field: Some(field), tag: self.tags.tag_of_short(&short), short, slot }
            }
            false => {
                let (short, tag) = (ShortValue::default(), self.tags.tag_of(&self.form, field));
                Lookup { field: Some(field), tag, short, slot }
            }
        }
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
        if let Some(place) = self.table.find(tag, is_it) {
            return Ok(self.number_at(place) - 1);
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

    fn number_at(&self, place: Place) -> u32 {
        TextSlot::of(self.table.at(place)).number
    }

    /// The values, by code.
    pub fn into_texts(self) -> Texts {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::block::{Block, Records, Rows};
    use crate::engine::text_tag::tests::{PADDINGS, trimmed};
    use crate::wire::record::Run;
    use crate::wire::schema::{Kind, Padding};
    use proptest::prelude::*;
    use std::collections::HashMap;

    const FIELD_BYTES: usize = 256;

    fn interner(texts_limit: usize, bytes_limit: usize) -> Interner {
        let form = TextForm::of(Kind::Text { bytes: FIELD_BYTES, padding: Padding::BOTH });
        Interner::with_limits(form, texts_limit, bytes_limit)
    }

    fn field(value: &[u8], padding: &[u8]) -> [u8; FIELD_BYTES] {
        let mut field = [0; FIELD_BYTES];
        let mut filler = padding.iter().cycle();
        for (i, byte) in field.iter_mut().enumerate() {
            *byte = *value.get(i).or_else(|| filler.next()).unwrap();
        }
        field
    }

    /// The oracle: trims byte by byte, looks up in a HashMap.
    struct Naive {
        padding: Padding,
        codes: HashMap<Vec<u8>, u32>,
    }

    impl Naive {
        fn new(padding: Padding) -> Self {
            Naive { padding, codes: HashMap::new() }
        }

        fn code(&mut self, field: &[u8]) -> u32 {
            let next = self.codes.len() as u32;
            *self.codes.entry(trimmed(field, self.padding)).or_insert(next)
        }
    }

    #[test]
    fn paddings_of_one_value_are_one_code() {
        let mut interner = interner(10, 1000);
        let spaces = interner.code(&field(b"pump north", b" ")).unwrap();
        for padding in [&b"\0"[..], b"\0 ", b" \0", b"\0\0\0\0\0 "] {
            assert_eq!(interner.code(&field(b"pump north", padding)), Ok(spaces));
        }
        assert_ne!(interner.code(&field(b"pump\0north", b" ")), Ok(spaces));
        assert_ne!(interner.code(&field(b"pump  north", b" ")), Ok(spaces));
        let empty = interner.code(&field(b"", b" ")).unwrap();
        assert_eq!(interner.code(&field(b"", b"\0")), Ok(empty));
        let texts = interner.into_texts();
        assert_eq!(texts.get(spaces as usize), b"pump north");
        assert_eq!(texts.get(empty as usize), b"");
        assert_eq!(texts.len(), 4);
    }

    #[test]
    fn texts_in_pieces_are_the_same_texts() {
        let mut interner = interner(10, 1000);
        let (mut pieces, mut taken) = (Texts::default(), 0);
        for values in [&[&b"a"[..], b""][..], &[], &[b"bcd", b"a", b"e"]] {
            for value in values {
                let _ = interner.code(&field(value, b" "));
            }
            pieces.append(&interner.texts().since(taken));
            taken = interner.texts().len();
            assert_eq!(pieces, *interner.texts());
        }
        assert_eq!((pieces.len(), pieces.get(2)), (4, &b"bcd"[..]));
    }

    #[test]
    fn the_bytes_limit_holds_at_its_edge() {
        let mut interner = interner(10, 256 + 3);
        assert_eq!(interner.code(&[b'x'; FIELD_BYTES]), Ok(0));
        assert_eq!(interner.code(&field(b"abcd", b" ")), Err(TextLimit::Bytes { limit: 259 }));
        assert_eq!(interner.code(&field(b"abc", b" ")), Ok(1));
        assert_eq!(interner.code(&field(b"d", b" ")), Err(TextLimit::Bytes { limit: 259 }));
        // Known values and the empty one cost nothing.
        assert_eq!(interner.code(&field(b"abc", b"\0")), Ok(1));
        assert_eq!(interner.code(&field(b"", b"\0")), Ok(2));
    }

    #[test]
    fn the_texts_limit_holds_at_its_edge() {
        let mut interner = interner(2, 1000);
        assert_eq!(interner.code(&field(b"a", b" ")), Ok(0));
        assert_eq!(interner.code(&field(b"b", b" ")), Ok(1));
        assert_eq!(interner.code(&field(b"c", b" ")), Err(TextLimit::Groups { limit: 2 }));
        assert_eq!(interner.code(&field(b"b", b"\0")), Ok(1));
    }

    /// More values than the cache holds, many with the same first 32 bytes, in an order that
    /// makes them drive each other out.
    #[test]
    fn many_values_equal_the_oracle() {
        let mut interner = interner(100_000, 64 << 20);
        let mut naive = Naive::new(Padding::BOTH);
        for round in 0..3 {
            for i in 0..5_000u32 {
                let value = match i % 3 {
                    0 => format!("{:>40}", i),
                    1 => format!("{i}"),
                    _ => format!("{i:x} {}", "x".repeat(i as usize % 250)),
                };
                let value = &value.as_bytes()[..value.len().min(FIELD_BYTES)];
                let field = field(value, if round == 1 { b"\0" } else { b" " });
                assert_eq!(interner.code(&field), Ok(naive.code(&field)));
            }
        }
        let texts = interner.into_texts();
        assert_eq!(texts.len(), naive.codes.len());
        for (value, &code) in &naive.codes {
            assert_eq!(texts.get(code as usize), &value[..]);
        }
    }

    proptest! {
        /// Of any width and padding, on both ways: few values, and more than the cache holds.
        #[test]
        fn any_fields_equal_the_oracle(
            values in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![Just(0u8), Just(b' '), any::<u8>()],
                    0..120,
                ),
                1..150,
            ),
            width in prop_oneof![1usize..80, 1usize..340],
            padding in proptest::sample::select(&PADDINGS[..]),
            fill in prop_oneof![Just(0u8), Just(b' ')],
            past_cache in any::<bool>(),
        ) {
            let form = TextForm::of(Kind::Text { bytes: width, padding });
            let mut interner = Interner::with_limits(form, 1000, 1 << 20);
            interner.past_cache = if past_cache { PAST_CACHE } else { 0 };
            let mut naive = Naive::new(padding);
            let fields: Vec<Vec<u8>> = values
                .into_iter()
                .map(|mut value| {
                    value.resize(width, fill);
                    value
                })
                .collect();
            let bytes = fields.concat();
            let run = [Run { records: fields.len(), ..Run::default() }];
            let mut records = Records::of(&run, &bytes, width);
            let (mut block, mut codes) = (Block::new(), Vec::new());
            while block.fill(&mut records) {
                let mut some = vec![0; block.len()];
                let rows = Rows { from: 0, to: block.len() };
                let coded = interner.code_fields(block.texts(rows, 0, width), &mut some);
                prop_assert_eq!(coded, (block.len(), None));
                codes.extend(some);
            }
            for (field, &code) in fields.iter().zip(&codes) {
                prop_assert_eq!(code, naive.code(field));
                prop_assert_eq!(interner.texts().get(code as usize), &trimmed(field, padding)[..]);
            }
        }
    }
}
