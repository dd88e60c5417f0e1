//! Texts to codes, one interner a connection: trims the padding, keeps each distinct value once,
//! and never forgets or reorders one. Knows nothing of groups.

use super::paged::{PagedTable, Slot};
use super::text_cache::TextCache;
use super::text_tag::{
    HEAD_BYTES, ShortValue, TagMaker, TextField, head_of, is_short, len_of, value_words,
};

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
    cache: TextCache,
    table: PagedTable<TextSlot>,
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

impl Slot for TextSlot {
    fn is_free(&self) -> bool {
        self.number == 0
    }
}

/// A field on its way to its code.
#[derive(Clone, Copy, Default)]
struct Lookup<'a> {
    /// None only before the first.
    field: Option<&'a TextField>,
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
    /// An empty interner for at most `texts_limit` values of `bytes_limit` bytes together.
    pub fn with_limits(texts_limit: usize, bytes_limit: usize) -> Self {
        Interner {
            cache: TextCache::default(),
            table: PagedTable::new(),
            tags: TagMaker::default(),
            texts: Texts::default(),
            bytes_limit,
            texts_limit,
            asked: 0,
            missed: 0,
            past_cache: 0,
        }
    }

    /// The code of one field's value.
    ///
    /// # Errors
    /// [`TextLimit`] where the value is new and one too many.
    pub fn code(&mut self, field: &TextField) -> Result<u32, TextLimit> {
        let mut key = [0];
        match self.code_keys([field].into_iter(), &mut key) {
            (_, Some(limit)) => Err(limit),
            (_, None) => Ok(key[0] as u32),
        }
    }

    /// Puts the code of each field's value into the low half of the key that comes with it. Gives
    /// how many were coded, and which limit kept the next from it.
    #[inline(always)]
    pub fn code_keys<'a>(
        &mut self,
        fields: impl Iterator<Item = &'a TextField>,
        keys: &mut [u64],
    ) -> (usize, Option<TextLimit>) {
        if self.past_cache > 0 {
            self.past_cache = self.past_cache.saturating_sub(keys.len());
            return self.code_keys_past_cache(fields, keys);
        }
        if self.asked >= CACHE_TRIAL {
            if self.missed > self.asked / CACHE_MISS_SHARE {
                self.past_cache = PAST_CACHE;
            }
            (self.asked, self.missed) = (0, 0);
        }
        self.asked += keys.len();
        for (row, (field, key)) in fields.zip(keys.iter_mut()).enumerate() {
            let code = match self.cache.get(&head_of(field), field, &self.texts) {
                Some(code) => code,
                None => match self.code_unknown_to_cache(field) {
                    Ok(code) => code,
                    Err(limit) => return (row, Some(limit)),
                },
            };
            *key |= u64::from(code);
        }
        (keys.len(), None)
    }

    #[cold]
    fn code_unknown_to_cache(&mut self, field: &TextField) -> Result<u32, TextLimit> {
        self.missed += 1;
        let tag = self.tags.tag_of(field);
        let len = len_of(tag);
        let code = self.code_of_value(&field[..len], tag)?;
        self.cache.put(&head_of(field), len, code);
        Ok(code)
    }

    /// The same for a stream of many values: each step for many fields before the next, since
    /// each waits for memory that the one before has named.
    #[inline(always)]
    fn code_keys_past_cache<'a>(
        &mut self,
        mut fields: impl Iterator<Item = &'a TextField>,
        keys: &mut [u64],
    ) -> (usize, Option<TextLimit>) {
        let mut coded = 0;
        let mut lookups = [Lookup::default(); LOOKUPS];
        for keys in keys.chunks_mut(LOOKUPS) {
            let lookups = &mut lookups[..keys.len()];
            for (lookup, field) in lookups.iter_mut().zip(&mut fields) {
                *lookup = self.prepare(field);
            }
            for lookup in &mut *lookups {
                lookup.slot = *self.table.at(self.table.place(lookup.tag));
            }
            self.load_texts(lookups);
            for (lookup, key) in lookups.iter().zip(keys) {
                let code = match self.is_text_of(lookup) {
                    true => lookup.slot.number - 1,
                    false => match self.code_of_value(lookup.value(), lookup.tag) {
                        Ok(code) => code,
                        Err(limit) => return (coded, Some(limit)),
                    },
                };
                *key |= u64::from(code);
                coded += 1;
            }
        }
        (coded, None)
    }

    #[inline(always)]
    fn prepare<'a>(&self, field: &'a TextField) -> Lookup<'a> {
        let slot = TextSlot::default();
        match is_short(field) {
            true => {
                let short = value_words(field);
                Lookup { field: Some(field), tag: self.tags.tag_of_short(&short), short, slot }
            }
            false => {
                let short = ShortValue::default();
                Lookup { field: Some(field), tag: self.tags.tag_of(field), short, slot }
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
        let text_of = |slot: &TextSlot| {
            let offset = slot.offset as usize;
            &self.texts.bytes[offset..offset + value.len()]
        };
        let found = self.table.find(tag, |slot| slot.tag == tag && text_of(slot) == value);
        if let Some(place) = found {
            return Ok(self.table.at(place).number - 1);
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
        self.table.insert(tag, TextSlot { tag, offset, number: code + 1 }, |slot| slot.tag);
        Ok(code)
    }

    /// The values, by code.
    pub fn into_texts(self) -> Texts {
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::text_tag::FIELD_BYTES;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn field(value: &[u8], padding: &[u8]) -> [u8; FIELD_BYTES] {
        let mut field = [0; FIELD_BYTES];
        let mut filler = padding.iter().cycle();
        for (i, byte) in field.iter_mut().enumerate() {
            *byte = *value.get(i).or_else(|| filler.next()).unwrap();
        }
        field
    }

    /// The oracle: trims byte by byte, looks up in a HashMap.
    #[derive(Default)]
    struct Naive {
        codes: HashMap<Vec<u8>, u32>,
    }

    impl Naive {
        fn code(&mut self, field: &[u8]) -> u32 {
            let mut value = field.to_vec();
            while matches!(value.last(), Some(0 | 32)) {
                value.pop();
            }
            let next = self.codes.len() as u32;
            *self.codes.entry(value).or_insert(next)
        }
    }

    #[test]
    fn paddings_of_one_value_are_one_code() {
        let mut interner = Interner::with_limits(10, 1000);
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
    fn the_bytes_limit_holds_at_its_edge() {
        let mut interner = Interner::with_limits(10, 256 + 3);
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
        let mut interner = Interner::with_limits(2, 1000);
        assert_eq!(interner.code(&field(b"a", b" ")), Ok(0));
        assert_eq!(interner.code(&field(b"b", b" ")), Ok(1));
        assert_eq!(interner.code(&field(b"c", b" ")), Err(TextLimit::Groups { limit: 2 }));
        assert_eq!(interner.code(&field(b"b", b"\0")), Ok(1));
    }

    /// More values than the cache holds, many with the same first 32 bytes, in an order that
    /// makes them drive each other out.
    #[test]
    fn many_values_equal_the_oracle() {
        let mut interner = Interner::with_limits(100_000, 64 << 20);
        let mut naive = Naive::default();
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
        #[test]
        fn any_fields_equal_the_oracle(
            values in proptest::collection::vec(
                (
                    proptest::collection::vec(
                        prop_oneof![Just(0u8), Just(b' '), any::<u8>()],
                        0..6,
                    ),
                    any::<bool>(),
                ),
                0..200,
            )
        ) {
            let mut interner = Interner::with_limits(1000, 1 << 20);
            let mut naive = Naive::default();
            for (value, nul) in values {
                let field = field(&value, if nul { b"\0" } else { b" " });
                prop_assert_eq!(interner.code(&field), Ok(naive.code(&field)));
            }
        }
    }
}
