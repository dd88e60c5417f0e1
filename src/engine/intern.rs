//! Texts to codes, one interner a connection: trims the padding, keeps each distinct value once,
//! and never forgets or reorders one. Knows nothing of groups.

use crate::config;
use crate::wire::schema;
use crate::wire::text::trim_padding;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Bytes of the field that is interned.
pub const FIELD_BYTES: usize = schema::E.width;

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
/// Two steps. A small cache keyed by the raw field, padding included, answers for a stream with
/// few values at the price of one compare: neither trimmed nor hashed. Behind it stands a table
/// of all values under a hash whose key is drawn anew for each interner, so that a peer cannot
/// choose texts that collide. Colliding in the cache costs a peer's stream the second step, no
/// more.
pub struct Interner {
    cache: RawFieldCache,
    codes: HashTable<u32>,
    hash: RandomState,
    texts: Texts,
    bytes_limit: usize,
    texts_limit: usize,
}

impl Interner {
    /// An empty interner for at most `texts_limit` values of `bytes_limit` bytes together.
    pub fn with_limits(texts_limit: usize, bytes_limit: usize) -> Self {
        Interner {
            cache: RawFieldCache::new(),
            codes: HashTable::new(),
            hash: RandomState::default(),
            texts: Texts::default(),
            bytes_limit,
            texts_limit,
        }
    }

    /// The code of the field's value.
    ///
    /// # Errors
    /// [`TextLimit`] where the value is new and one too many.
    #[inline]
    pub fn code(&mut self, field: &[u8; FIELD_BYTES]) -> Result<u32, TextLimit> {
        let set = RawFieldCache::set_of(field);
        if let Some(code) = self.cache.get(set, field) {
            return Ok(code);
        }
        let code = self.code_of_value(trim_padding(field))?;
        self.cache.put(set, field, code);
        Ok(code)
    }

    fn code_of_value(&mut self, value: &[u8]) -> Result<u32, TextLimit> {
        let texts = &self.texts;
        let hash = self.hash.hash_one(value);
        if let Some(&code) = self.codes.find(hash, |&code| texts.get(code as usize) == value) {
            return Ok(code);
        }
        if texts.len() == self.texts_limit {
            return Err(TextLimit::Groups { limit: self.texts_limit });
        }
        let end = texts.bytes.len() + value.len();
        if end > self.bytes_limit {
            return Err(TextLimit::Bytes { limit: self.bytes_limit });
        }
        // Both limits are at most u32::MAX (`config::GROUPS_LIMIT`, `config::STRINGS_BYTES_LIMIT`).
        let code = self.texts.len() as u32;
        self.texts.bytes.extend_from_slice(value);
        self.texts.ends.push(end as u32);
        let (texts, hasher) = (&self.texts, &self.hash);
        self.codes.insert_unique(hash, code, |&code| hasher.hash_one(texts.get(code as usize)));
        Ok(code)
    }

    /// The values, by code.
    pub fn into_texts(self) -> Texts {
        self.texts
    }
}

const CACHE_SETS: usize = 128;
const CACHE_WAYS: usize = 2;
const NO_CODE: u32 = u32::MAX;

const _: () = assert!(
    CACHE_SETS * CACHE_WAYS * (FIELD_BYTES + size_of::<u32>()) == config::INTERN_CACHE_BYTES
);

/// The raw fields seen last, two in each set: with one, two of a stream's few values often drive
/// each other out.
struct RawFieldCache {
    fields: Box<[[u8; FIELD_BYTES]]>,
    codes: Box<[u32]>,
    evict_next: usize,
}

impl RawFieldCache {
    fn new() -> Self {
        RawFieldCache {
            fields: vec![[0; FIELD_BYTES]; CACHE_SETS * CACHE_WAYS].into_boxed_slice(),
            codes: vec![NO_CODE; CACHE_SETS * CACHE_WAYS].into_boxed_slice(),
            evict_next: 0,
        }
    }

    /// The first slot of the set that a field belongs to, from its first 32 bytes.
    #[inline]
    fn set_of(field: &[u8; FIELD_BYTES]) -> usize {
        // Odd constants without a pattern (digits of the golden ratio and of √2, √3, √5 in binary).
        const FACTORS: [u64; 4] = [
            0x9e37_79b9_7f4a_7c15,
            0x6a09_e667_f3bc_c909,
            0xbb67_ae85_84ca_a73b,
            0x3c6e_f372_fe94_f82b,
        ];
        let mut mixed = 0u64;
        let (words, _) = field.as_chunks::<8>();
        for (word, factor) in words.iter().zip(FACTORS) {
            mixed = (mixed ^ u64::from_le_bytes(*word)).wrapping_mul(factor);
            mixed ^= mixed >> 32;
        }
        (mixed as usize % CACHE_SETS) * CACHE_WAYS
    }

    #[inline]
    fn get(&self, set: usize, field: &[u8; FIELD_BYTES]) -> Option<u32> {
        (set..set + CACHE_WAYS)
            .find(|&slot| self.codes[slot] != NO_CODE && self.fields[slot] == *field)
            .map(|slot| self.codes[slot])
    }

    #[cold]
    fn put(&mut self, set: usize, field: &[u8; FIELD_BYTES], code: u32) {
        let empty = (set..set + CACHE_WAYS).find(|&slot| self.codes[slot] == NO_CODE);
        let slot = empty.unwrap_or(set + self.evict_next % CACHE_WAYS);
        self.evict_next = self.evict_next.wrapping_add(1);
        self.fields[slot] = *field;
        self.codes[slot] = code;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
