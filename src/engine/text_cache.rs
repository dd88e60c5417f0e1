//! The texts that a stream showed last, found by the beginning of their field: decides nothing,
//! and may forget any of them at any time.

use super::intern::Texts;
use super::text_tag::{HEAD_BYTES, Head, TextForm};
use crate::config;

const SETS: usize = 1024;
/// Places of each set: with one, two of a stream's few texts often drive each other out.
const WAYS: usize = 2;
const NO_CODE: u32 = u32::MAX;

const _: () = assert!(SETS.is_power_of_two());
const _: () =
    assert!(SETS * WAYS * (HEAD_BYTES + 2 * size_of::<u32>()) == config::INTERN_CACHE_BYTES);

/// Which text a head belongs to.
#[derive(Clone, Copy)]
struct Known {
    code: u32,
    /// Bytes of the text.
    len: u32,
}

/// Word by word: a compare of arrays would wait for the words to be stored.
#[inline(always)]
fn same(left: &Head, right: &Head) -> bool {
    left.iter().zip(right).fold(0, |all, (left, right)| all | (left ^ right)) == 0
}

/// Fields that begin alike are one entry: where their texts differ further on, the last one is
/// known and the others are not.
pub struct TextCache {
    heads: Box<[Head]>,
    known: Box<[Known]>,
    evict_next: usize,
}

impl Default for TextCache {
    /// An empty cache.
    fn default() -> Self {
        let nothing = Known { code: NO_CODE, len: 0 };
        TextCache {
            heads: vec![Head::default(); SETS * WAYS].into_boxed_slice(),
            known: vec![nothing; SETS * WAYS].into_boxed_slice(),
            evict_next: 0,
        }
    }
}

impl TextCache {
    /// The first place of the set that a head belongs to.
    #[inline(always)]
    fn set_of(head: &Head) -> usize {
        // Odd constants without a pattern: digits of the golden ratio and of √2 in binary. Who
        // makes heads collide spoils the own cache and nothing else.
        const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x6a09_e667_f3bc_c909];
        let pair = |i: usize| (head[i] ^ head[i + 2].rotate_left(29)).wrapping_mul(FACTORS[i]);
        // The upper bits of a product depend on all of a word, the lower ones on its first bytes.
        ((pair(0) ^ pair(1)) >> (u64::BITS - SETS.ilog2())) as usize * WAYS
    }

    /// The code of a field's text, if it is known. `BLOCKS` is what the form says of itself.
    #[inline(always)]
    pub fn get<const BLOCKS: usize>(
        &self,
        form: &TextForm,
        head: &Head,
        field: &[u8],
        texts: &Texts,
    ) -> Option<u32> {
        let set = Self::set_of(head);
        let ways: &[Head; WAYS] = self.heads[set..set + WAYS].try_into().expect("WAYS heads");
        // Without a branch between the ways, of which either is as likely.
        let (first, second) = (same(&ways[0], head), same(&ways[1], head));
        let known = self.known[set + usize::from(second & !first)];
        let same = (first | second) & (known.code != NO_CODE);
        if !same {
            return None;
        }
        let same = match known.len as usize {
            0..=HEAD_BYTES => form.is_short_of::<BLOCKS>(field),
            len => {
                field[HEAD_BYTES..len] == texts.get(known.code as usize)[HEAD_BYTES..]
                    && form.is_padding(&field[len..])
            }
        };
        same.then_some(known.code)
    }

    /// Remembers that the text of `len` bytes behind this head has this code.
    pub fn put(&mut self, head: &Head, len: usize, code: u32) {
        debug_assert!(code != NO_CODE);
        let set = Self::set_of(head);
        let places = set..set + WAYS;
        // A head stands in one place only.
        let same = places.clone().find(|&place| self.heads[place] == *head);
        let free = places.clone().find(|&place| self.known[place].code == NO_CODE);
        let place = same.or(free).unwrap_or_else(|| {
            self.evict_next = self.evict_next.wrapping_add(1);
            set + self.evict_next % WAYS
        });
        self.heads[place] = *head;
        self.known[place] = Known { code, len: len as u32 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::{Kind, Padding};

    /// As devices are numbered: wherever in the text the digits stand, most texts stay.
    #[test]
    fn texts_that_differ_in_two_digits_do_not_drive_each_other_out() {
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
            let texts = Texts::default();
            let known = fields.iter().filter(|field| {
                cache.get::<7>(&form, &form.head_of(&field[..]), &field[..], &texts).is_some()
            });
            let known = known.count();
            assert!(known > 70, "{known} of 100 where the digits stand at {place}");
        }
    }
}
