//! The value of a padded text field and the hash that it is found by: keeps no text.
//!
//! Most values fit the first 32 bytes of their field. Those take no branch that depends on their
//! length: a wrong guess of the processor's, one a field, would cost more than all the rest.

use super::paged::TAG_BITS;
use crate::wire::schema;
use crate::wire::text::trim_padding;
use foldhash::quality::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Bytes of a text field.
pub const FIELD_BYTES: usize = schema::E.width;
/// Bytes at the beginning of a field that short values fit.
pub const HEAD_BYTES: usize = 32;

const _: () = assert!(FIELD_BYTES < 1 << TAG_BITS && FIELD_BYTES.is_multiple_of(HEAD_BYTES));

/// A text field.
pub type TextField = [u8; FIELD_BYTES];
/// The beginning of a field, padding included, as words whose first byte is the lowest.
pub type Head = [u64; HEAD_BYTES / 8];

/// 0x20 in each byte: padding is what is zero without that bit.
const PAD_BIT: u64 = 0x2020_2020_2020_2020;

/// The beginning of a field.
#[inline(always)]
pub fn head_of(field: &TextField) -> Head {
    let (words, _) = field[..HEAD_BYTES].as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// Whether the value ends within the head: all bytes behind it are padding.
#[inline(always)]
pub fn is_short(field: &TextField) -> bool {
    let (words, _) = field[HEAD_BYTES..].as_chunks::<8>();
    words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) & !PAD_BIT == 0
}

/// Bytes of the value of a short field.
#[inline(always)]
fn short_len(head: &Head) -> usize {
    let mut len = 0;
    for (i, word) in head.iter().enumerate() {
        let value = word & !PAD_BIT;
        let end = 8 * i + 8 - value.leading_zeros() as usize / 8;
        len = if value == 0 { len } else { end };
    }
    len
}

/// A value of at most [`HEAD_BYTES`]: its words, zero behind its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShortValue {
    words: Head,
    len: usize,
}

/// What of a head belongs to a value of so many bytes: a load in the place of four branches.
static VALUE_MASKS: [Head; HEAD_BYTES + 1] = {
    let mut masks = [[0; HEAD_BYTES / 8]; HEAD_BYTES + 1];
    let mut len = 0;
    while len <= HEAD_BYTES {
        let mut byte = 0;
        while byte < len {
            masks[len][byte / 8] |= 0xff << (byte % 8 * 8);
            byte += 1;
        }
        len += 1;
    }
    masks
};

/// The value of a field that [is short](is_short).
#[inline(always)]
pub fn value_words(field: &TextField) -> ShortValue {
    let head = head_of(field);
    let len = short_len(&head);
    let mask = &VALUE_MASKS[len];
    ShortValue { words: std::array::from_fn(|i| head[i] & mask[i]), len }
}

impl ShortValue {
    /// Whether `bytes` begin with it.
    #[inline(always)]
    pub fn begins(&self, bytes: &[u8; HEAD_BYTES]) -> bool {
        let mask = &VALUE_MASKS[self.len];
        let (words, _) = bytes.as_chunks::<8>();
        let pairs = words.iter().zip(self.words.iter().zip(mask));
        pairs.fold(0, |all, (word, (value, mask))| all | (u64::from_le_bytes(*word) & mask) ^ value)
            == 0
    }
}

/// Makes tags of values: the upper bits a hash under a key drawn anew for each maker, so that a
/// peer cannot choose texts that collide, the lower [`TAG_BITS`] the value's length.
pub struct TagMaker {
    long: RandomState,
    keys: Head,
}

impl Default for TagMaker {
    fn default() -> Self {
        let long = RandomState::default();
        let keys = std::array::from_fn(|i| long.hash_one(i));
        TagMaker { long, keys }
    }
}

/// The length of the value that a tag is of.
#[inline(always)]
pub fn len_of(tag: u64) -> usize {
    tag as usize % (1 << TAG_BITS)
}

impl TagMaker {
    /// The tag of a field's value.
    #[inline(always)]
    pub fn tag_of(&self, field: &TextField) -> u64 {
        match is_short(field) {
            true => self.tag_of_short(&value_words(field)),
            false => self.tag_of_long(field),
        }
    }

    /// The tag of a short value. Multiplies keyed words with each other and folds the products, as
    /// wyhash does.
    #[inline(always)]
    pub fn tag_of_short(&self, value: &ShortValue) -> u64 {
        let word = |i: usize| value.words[i] ^ self.keys[i];
        let fold = |left: u64, right: u64| {
            let product = u128::from(left) * u128::from(right);
            product as u64 ^ (product >> 64) as u64
        };
        let hash = fold(word(0), word(1)) ^ fold(word(2), word(3)).rotate_left(32);
        // Once more, so that the upper bits depend on all of them.
        let hash = fold(hash ^ self.keys[0], self.keys[3] | 1);
        hash >> TAG_BITS << TAG_BITS | value.len as u64
    }

    #[inline(never)]
    fn tag_of_long(&self, field: &TextField) -> u64 {
        let value = trim_padding(field);
        let mut hasher = self.long.build_hasher();
        hasher.write(value);
        hasher.finish() >> TAG_BITS << TAG_BITS | value.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn field(value: &[u8], padding: &[u8]) -> TextField {
        std::array::from_fn(|i| *value.get(i).unwrap_or(&padding[i % padding.len()]))
    }

    proptest! {
        /// The length is that of the value, and the tag does not depend on the padding.
        #[test]
        fn a_tag_is_of_the_value_alone(
            value in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(b' '), any::<u8>()], 0..=FIELD_BYTES),
            long in any::<bool>(),
            padding in proptest::collection::vec(prop_oneof![Just(0u8), Just(b' ')], 1..40),
        ) {
            let mut value = value;
            value.truncate(if long { FIELD_BYTES } else { HEAD_BYTES + 2 });
            while matches!(value.last(), Some(0 | 32)) {
                value.pop();
            }
            let maker = TagMaker::default();
            let tag = maker.tag_of(&field(&value, &padding));
            prop_assert_eq!(len_of(tag), value.len());
            prop_assert_eq!(tag, maker.tag_of(&field(&value, b" ")));
            prop_assert_eq!(is_short(&field(&value, &padding)), value.len() <= HEAD_BYTES);
        }
    }

    /// Texts as devices name themselves, and such that differ in one bit: of 200,000 tags none are
    /// the same, and their leading bits part them evenly.
    #[test]
    fn tags_of_like_texts_differ() {
        let maker = TagMaker::default();
        let mut tags = HashMap::new();
        let mut begin_alike = [0u32; 256];
        let texts = (0..200_000u32).map(|n| format!("north pump {n}").into_bytes());
        let bits = (0..32 * 8).map(|bit| {
            let mut text = vec![b'a'; 32];
            text[bit / 8] ^= 1 << (bit % 8);
            text
        });
        for text in texts.chain(bits) {
            let tag = maker.tag_of(&field(&text, b" "));
            begin_alike[(tag >> 56) as usize] += 1;
            assert_eq!(tags.insert(tag, text.clone()), None, "{text:?}");
        }
        let (least, most) = (begin_alike.iter().min().unwrap(), begin_alike.iter().max().unwrap());
        assert!(*least > 600 && *most < 1000, "{least} to {most} of 782");
    }
}
