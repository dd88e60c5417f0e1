//! The value of a padded text field and the hash that it is found by: keeps no text.
//!
//! Most values fit the first 32 bytes of their field. Those take no branch that depends on their
//! length: a wrong guess of the processor's, one a field, would cost more than all the rest.

use super::paged::TAG_BITS;
use super::zero_bytes::zero_bytes;
use crate::config::TEXT_KEY_BYTES_MAX;
use crate::wire::schema::Kind;
use crate::wire::text::Padding;
use crate::wire::text::trim_padding;
use foldhash::quality::RandomState;
use std::array::from_fn;
use std::hash::{BuildHasher, Hasher};

/// Bytes at the beginning of a field that short values fit.
pub(crate) const HEAD_BYTES: usize = 32;

const _: () = assert!(TEXT_KEY_BYTES_MAX < 1 << TAG_BITS);

/// The beginning of a field, padding included, as words whose first byte is the lowest.
pub(crate) type Head = [u64; HEAD_BYTES / 8];

/// How the fields of one text are wide and padded.
#[derive(Clone, Copy, Debug)]
pub struct TextForm {
    width: usize,
    padding: Padding,
    /// What is behind a field that is narrower than a head: padding, where there is any.
    fill: u8,
    /// A byte is padding where it is zero after these two, in this order, exclusive or and and.
    flip: u64,
    keep: u64,
    /// What of the last [`HEAD_BYTES`] of a field belongs neither to padding nor to its head.
    keep_last: Head,
}

impl TextForm {
    /// The form of a field of this type.
    ///
    /// # Panics
    /// Where that is neither text nor bytes, or too wide for a key.
    pub fn of(kind: Kind) -> Self {
        let padding = match kind {
            Kind::Text { padding, .. } => padding,
            Kind::Bytes { .. } => Padding::NONE,
            _ => panic!("{} has no text", kind.name()),
        };
        let width = kind.width();
        assert!(width <= TEXT_KEY_BYTES_MAX, "{width} bytes are too many for a key");
        let (fill, flip, keep) = match padding {
            Padding { nul: true, space: true } => (0x00, 0, !SPACES),
            Padding { nul: false, space: true } => (0x20, SPACES, !0),
            Padding { nul: _, space: false } => (0x00, 0, !0),
        };
        // Of a field of less than two heads, these bytes begin within the first.
        let of_head = &VALUE_MASKS[(2 * HEAD_BYTES).saturating_sub(width).min(HEAD_BYTES)];
        let keep_last = of_head.map(|mask| !mask & keep);
        TextForm { width, padding, fill, flip, keep, keep_last }
    }

    /// Bytes of a field.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether values end before the end of their field.
    #[inline(always)]
    fn is_padded(&self) -> bool {
        self.padding.nul || self.padding.space
    }

    /// The bytes of a word that are no padding; zero in the place of the others.
    #[inline(always)]
    fn value_of(&self, word: u64) -> u64 {
        (word ^ self.flip) & self.keep
    }

    /// The value of a field: without its padding.
    pub fn value<'a>(&self, field: &'a [u8]) -> &'a [u8] {
        trim_padding(field, self.padding)
    }

    /// The beginning of a field.
    #[inline(always)]
    pub fn head_of(&self, field: &[u8]) -> Head {
        match field.first_chunk::<HEAD_BYTES>() {
            Some(head) => words_of(head),
            None => self.narrow_head_of(field),
        }
    }

    /// The same of less than [`HEAD_BYTES`], by words: a copy of so few bytes would be a call.
    #[inline]
    fn narrow_head_of(&self, field: &[u8]) -> Head {
        let fill = u64::from_le_bytes([self.fill; 8]);
        // The last bytes, the very last in the highest.
        let last = match field.last_chunk() {
            Some(last) => u64::from_le_bytes(*last),
            None => field.iter().fold(0, |word, &byte| word >> 8 | u64::from(byte) << 56),
        };
        from_fn(|i| {
            let rest = field.get(8 * i..).unwrap_or_default();
            match (rest.first_chunk(), rest.len() as u32) {
                (Some(word), _) => u64::from_le_bytes(*word),
                (None, 0) => fill,
                (None, bytes) => last >> (u64::BITS - 8 * bytes) | fill << (8 * bytes),
            }
        })
    }

    /// Whether the value ends within the head: all bytes behind it are padding.
    #[inline(always)]
    pub fn is_short(&self, field: &[u8]) -> bool {
        let Some(rest) = field.get(HEAD_BYTES..) else { return true };
        if !self.is_padded() {
            return rest.is_empty();
        }
        // In steps of fixed sizes, which compilers make vector instructions of.
        let (blocks, last) = rest.as_chunks::<HEAD_BYTES>();
        let mut left = blocks;
        let mut all = Head::default();
        while let Some((eight, rest)) = left.split_first_chunk::<8>() {
            self.gather(&mut all, eight);
            left = rest;
        }
        if let Some((four, rest)) = left.split_first_chunk::<4>() {
            self.gather(&mut all, four);
            left = rest;
        }
        if let Some((two, rest)) = left.split_first_chunk::<2>() {
            self.gather(&mut all, two);
            left = rest;
        }
        if let Some((one, _)) = left.split_first_chunk::<1>() {
            self.gather(&mut all, one);
        }
        all.iter().fold(0, |all, word| all | word) & self.keep == 0
            && (last.is_empty() || self.is_padding(last))
    }

    /// The whole blocks of [`HEAD_BYTES`] in a field, where [`is_short_of`](Self::is_short_of)
    /// can tell whether it is short; else 0.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        let is_known = self.flip == 0 && (self.is_padded() || self.width == HEAD_BYTES);
        if is_known { self.width / HEAD_BYTES } else { 0 }
    }

    /// The same as [`is_short`](Self::is_short), from all whole [`blocks`](Self::blocks) of a
    /// field and its last bytes: a known number of steps, which is half of the time.
    #[inline(always)]
    pub fn is_short_of<const N: usize>(&self, first: &[u8; N], last: &[u8; HEAD_BYTES]) -> bool {
        let (behind, _) = first[HEAD_BYTES..].as_chunks::<8>();
        let behind = behind.iter().fold(0, |all, word| all | u64::from_le_bytes(*word));
        let last = words_of(last).iter().zip(&self.keep_last).fold(0, |all, (w, k)| all | w & k);
        behind & self.keep | last == 0
    }

    /// Adds the bits of blocks that are not as padding has them.
    #[inline(always)]
    fn gather<const N: usize>(&self, all: &mut Head, blocks: &[[u8; HEAD_BYTES]; N]) {
        for block in blocks {
            let words = words_of(block);
            for (all, word) in all.iter_mut().zip(words) {
                *all |= word ^ self.flip;
            }
        }
    }

    /// Whether there is nothing but padding.
    #[inline]
    pub fn is_padding(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.padding.has(byte))
    }

    /// Bytes of the value of a short field.
    #[inline(always)]
    fn short_len(&self, head: &Head) -> usize {
        if !self.is_padded() {
            return self.width;
        }
        let padding = zero_bytes(&head.map(|word| self.value_of(word)));
        // From the last byte on.
        HEAD_BYTES - padding.leading_ones() as usize
    }

    /// The value of a field that [is short](Self::is_short).
    #[inline(always)]
    pub fn short_value(&self, field: &[u8]) -> ShortValue {
        let head = self.head_of(field);
        let len = self.short_len(&head);
        let mask = &VALUE_MASKS[len];
        ShortValue { words: from_fn(|i| head[i] & mask[i]), len }
    }
}

/// An expression for the number of bytes in a field's whole [`blocks`](TextForm::blocks), as a
/// constant; or another where nothing is compiled for it.
macro_rules! with_block_bytes {
    ($blocks:expr, $N:ident => $of_known:expr, $of_any:expr) => {
        with_block_bytes!(@ $blocks, $N, $of_known, $of_any, 1 2 3 4 5 6 7 8)
    };
    (@ $blocks:expr, $N:ident, $of_known:expr, $of_any:expr, $($n:literal)*) => {
        match $blocks {
            $($n => {
                const $N: usize = $n * HEAD_BYTES;
                $of_known
            })*
            _ => $of_any,
        }
    };
}
pub(crate) use with_block_bytes;

/// Bytes as words whose first byte is the lowest.
#[inline(always)]
pub(crate) fn words_of(bytes: &[u8; HEAD_BYTES]) -> Head {
    let (words, _) = bytes.as_chunks::<8>();
    from_fn(|i| u64::from_le_bytes(words[i]))
}

/// 0x20 in each byte.
const SPACES: u64 = 0x2020_2020_2020_2020;

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
pub(crate) struct TagMaker {
    long: RandomState,
    keys: Head,
}

impl Default for TagMaker {
    fn default() -> Self {
        let long = RandomState::default();
        let keys = from_fn(|i| long.hash_one(i));
        TagMaker { long, keys }
    }
}

/// The length of the value that a tag is of.
#[inline(always)]
pub(crate) fn len_of(tag: u64) -> usize {
    tag as usize % (1 << TAG_BITS)
}

impl TagMaker {
    /// The tag of a field's value.
    #[inline(always)]
    pub(crate) fn tag_of(&self, form: &TextForm, field: &[u8]) -> u64 {
        match form.is_short(field) {
            true => self.tag_of_short(&form.short_value(field)),
            false => self.tag_of_long(form.value(field)),
        }
    }

    /// The tag of a short value. Multiplies keyed words with each other and folds the products, as
    /// wyhash does.
    #[inline(always)]
    pub(crate) fn tag_of_short(&self, value: &ShortValue) -> u64 {
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

    /// The tag of a value that is not short.
    #[inline(never)]
    pub(crate) fn tag_of_long(&self, value: &[u8]) -> u64 {
        let mut hasher = self.long.build_hasher();
        hasher.write(value);
        hasher.finish() >> TAG_BITS << TAG_BITS | value.len() as u64
    }
}

#[cfg(test)]
#[path = "text_tag_tests.rs"]
pub(in crate::engine) mod tests;
