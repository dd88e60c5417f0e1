//! A cache of recent texts, looked up by the beginning of their field. It may evict any of them at
//! any time.

use super::texts::Texts;
use crate::config;
use crate::engine::blocks::text_tag::{HEAD_BYTES, Head, TextForm, words_of};
use std::hint::select_unpredictable;

const SETS: usize = 1024;
/// Entries of each set. With one, two of a stream's few texts would often evict each other.
const WAYS: usize = 2;
/// An empty entry. It is longer than any text, so that comparing lengths rules it out.
const NOTHING: Known = Known { code: u32::MAX, len: u32::MAX };

const _: () = assert!(SETS.is_power_of_two());
const _: () =
    assert!(SETS * WAYS * (HEAD_BYTES + 2 * size_of::<u32>()) == config::INTERN_CACHE_BYTES);

/// The text that a head belongs to.
#[derive(Clone, Copy)]
struct Known {
    code: u32,
    /// Bytes of the text.
    len: u32,
}

/// Compares word by word: comparing arrays would wait for the words to be stored.
#[inline(always)]
fn same(left: &Head, right: &Head) -> bool {
    left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right)) == 0
}

/// Fields with the same head share an entry: if their texts differ later on, only the last one
/// is cached.
pub(crate) struct TextCache {
    /// Arrays instead of slices, so that the bounds check of a set is done at compile time.
    heads: Box<[[Head; WAYS]; SETS]>,
    known: Box<[[Known; WAYS]; SETS]>,
    evict_next: usize,
}

impl Default for TextCache {
    /// An empty cache.
    fn default() -> Self {
        TextCache { heads: sets_of(Head::default()), known: sets_of(NOTHING), evict_next: 0 }
    }
}

/// Sets filled with one value, built on the heap because they are large for a stack.
fn sets_of<T: Copy>(value: T) -> Box<[[T; WAYS]; SETS]> {
    let sets = vec![[value; WAYS]; SETS].into_boxed_slice();
    sets.try_into().unwrap_or_else(|_| unreachable!("SETS sets were made"))
}

impl TextCache {
    /// The set that a head belongs to.
    #[inline(always)]
    pub(crate) fn set_of(head: &Head) -> u16 {
        // Odd constants without a pattern: binary digits of the golden ratio and of √2. A peer
        // that makes heads collide spoils only its own cache.
        const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x6a09_e667_f3bc_c909];
        let pair = |i: usize| (head[i] ^ head[i + 2].rotate_left(29)).wrapping_mul(FACTORS[i]);
        // The upper bits of a product depend on the whole word, the lower ones on its first bytes.
        ((pair(0) ^ pair(1)) >> (u64::BITS - SETS.ilog2())) as u16
    }

    /// The entry of this set for this head. Its length exceeds any text if there is none.
    #[inline(always)]
    fn known(&self, set: u16, head: &Head) -> Known {
        let set = usize::from(set) % SETS;
        let (heads, known) = (&self.heads[set], &self.known[set]);
        // Without a branch, because both ways are equally likely, and without a load that would
        // wait for the comparison.
        let (first, second) = (same(&heads[0], head), same(&heads[1], head));
        let either = select_unpredictable(first, known[0], known[1]);
        let len = if first | second { either.len } else { NOTHING.len };
        Known { len, ..either }
    }

    /// The code of a field's text, if it is cached and short, given the set of its head, all whole
    /// [`blocks`](TextForm::blocks) of the field, and its last bytes.
    #[inline(always)]
    pub(crate) fn get_short<const N: usize>(
        &self,
        form: &TextForm,
        set: u16,
        first: &[u8; N],
        last: &[u8; HEAD_BYTES],
    ) -> Option<u32> {
        let head = first.first_chunk().expect("a block at least");
        let known = self.known(set, &words_of(head));
        let is_short = known.len as usize <= HEAD_BYTES && form.is_short_of(first, last);
        is_short.then_some(known.code)
    }

    /// The code of a field's text, if it is cached.
    #[inline(always)]
    pub(crate) fn get(&self, form: &TextForm, field: &[u8], texts: &Texts) -> Option<u32> {
        let head = form.head_of(field);
        let known = self.known(Self::set_of(&head), &head);
        let same = match known.len as usize {
            0..=HEAD_BYTES => form.is_short(field),
            len => field.get(HEAD_BYTES..len).is_some_and(|rest| {
                rest == &texts.get(known.code as usize)[HEAD_BYTES..]
                    && form.is_padding(&field[len..])
            }),
        };
        same.then_some(known.code)
    }

    /// Caches the code of the text of `len` bytes that begins with this head.
    pub(crate) fn put(&mut self, head: &Head, len: usize, code: u32) {
        let set = usize::from(Self::set_of(head));
        let (heads, known) = (&mut self.heads[set], &mut self.known[set]);
        // A head must have one entry only.
        let same = heads.iter().position(|there| there == head);
        let free = known.iter().position(|there| there.len == NOTHING.len);
        let way = same.or(free).unwrap_or_else(|| {
            self.evict_next = self.evict_next.wrapping_add(1);
            self.evict_next % WAYS
        });
        heads[way] = *head;
        known[way] = Known { code, len: len as u32 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::Kind;
    use crate::wire::text::Padding;

    /// Texts like numbered device names: wherever the digits are, most texts stay cached.
    #[test]
    fn texts_that_differ_in_two_digits_rarely_evict_one_another() {
        for place in 0..HEAD_BYTES - 1 {
            let mut cache = TextCache::default();
            let form = TextForm::of(Kind::Text { bytes: 256, padding: Padding::BOTH });
            let fields: Vec<[u8; 256]> = (0..100)
                .map(|number| {
                    let mut field = [b' '; 256];
                    field[..HEAD_BYTES].copy_from_slice(b"north pump of the second hall 12");
                    field[place..place + 2].copy_from_slice(format!("{number:02}").as_bytes());
                    field
                })
                .collect();
            for (code, field) in (0..).zip(&fields) {
                cache.put(&form.head_of(field), HEAD_BYTES, code);
            }
            let known = fields.iter().filter(|field| {
                let set = TextCache::set_of(&form.head_of(&field[..]));
                let last = field.last_chunk().unwrap();
                cache.get_short(&form, set, field, last).is_some()
            });
            let known = known.count();
            assert!(known > 70, "{known} of 100 cached with the digits at {place}");
        }
    }
}
