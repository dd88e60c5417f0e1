//! Finds the value of a padded text field and computes the tag (hash and length) that it is looked
//! up by. Stores no text.
//!
//! Most values fit into the first 32 bytes of their field. For those no branch depends on the
//! length: one misprediction per field would cost more than all the rest.

use super::hash_keys::ThoroughHash;
use super::paged::TAG_BITS;
use super::zero_bytes::zero_bytes;
use crate::config::TEXT_KEY_BYTES_MAX;
use crate::wire::schema::Kind;
use crate::wire::text::Padding;
use crate::wire::text::trim_padding;
use std::array::from_fn;
use std::hash::{BuildHasher, Hasher};

/// Bytes at the beginning of a field; a value that fits into them is short.
pub(crate) const HEAD_BYTES: usize = 32;

const _: () = assert!(TEXT_KEY_BYTES_MAX < 1 << TAG_BITS);

/// The beginning of a field, padding included, as little-endian words.
pub(crate) type Head = [u64; HEAD_BYTES / 8];

/// The width and padding of a text field, with masks derived from them.
#[derive(Clone, Copy, Debug)]
pub struct TextForm {
    width: usize,
    padding: Padding,
    /// Fills up the head of a field narrower than [`HEAD_BYTES`]: a padding byte, if any.
    fill: u8,
    /// A byte of a word is padding if `(word ^ flip) & keep` is zero there.
    flip: u64,
    keep: u64,
    /// Selects the bits of a field's last [`HEAD_BYTES`] that are outside its head and are zero
    /// in padding.
    keep_last: Head,
}

impl TextForm {
    /// The form of a field of this type.
    ///
    /// # Panics
    /// Panics if it is neither text nor bytes, or too wide for a key.
    pub fn of(kind: Kind) -> Self {
        let padding = match kind {
            Kind::Text { padding, .. } => padding,
            Kind::Bytes { .. } => Padding::NONE,
            _ => panic!("{} is not text", kind.name()),
        };
        let width = kind.width();
        assert!(width <= TEXT_KEY_BYTES_MAX, "{width} bytes are too many for a key");
        let (fill, flip, keep) = match padding {
            Padding { nul: true, space: true } => (0x00, 0, !SPACES),
            Padding { nul: false, space: true } => (0x20, SPACES, !0),
            Padding { nul: _, space: false } => (0x00, 0, !0),
        };
        // In a field narrower than two heads, the last bytes overlap the head.
        let of_head = &VALUE_MASKS[(2 * HEAD_BYTES).saturating_sub(width).min(HEAD_BYTES)];
        let keep_last = of_head.map(|mask| !mask & keep);
        TextForm { width, padding, fill, flip, keep, keep_last }
    }

    /// Width of the field in bytes.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the field has padding at all.
    #[inline(always)]
    fn is_padded(&self) -> bool {
        self.padding.nul || self.padding.space
    }

    /// Zero in each byte of a word that is padding, non-zero in the others.
    #[inline(always)]
    fn value_of(&self, word: u64) -> u64 {
        (word ^ self.flip) & self.keep
    }

    /// The value of a field, without padding.
    pub fn value<'a>(&self, field: &'a [u8]) -> &'a [u8] {
        trim_padding(field, self.padding)
    }

    /// The head of a field.
    #[inline(always)]
    pub fn head_of(&self, field: &[u8]) -> Head {
        match field.first_chunk::<HEAD_BYTES>() {
            Some(head) => words_of(head),
            None => self.narrow_head_of(field),
        }
    }

    /// The head of a field narrower than [`HEAD_BYTES`], word by word: copying so few bytes would
    /// be a function call.
    #[inline]
    fn narrow_head_of(&self, field: &[u8]) -> Head {
        let fill = u64::from_le_bytes([self.fill; 8]);
        // The last bytes of the field, the last one in the highest byte.
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

    /// Whether the value ends within the head, that is, all later bytes are padding.
    #[inline(always)]
    pub fn is_short(&self, field: &[u8]) -> bool {
        let Some(rest) = field.get(HEAD_BYTES..) else { return true };
        if !self.is_padded() {
            return rest.is_empty();
        }
        // In steps of fixed size, which the compiler turns into vector instructions.
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

    /// The number of whole blocks of [`HEAD_BYTES`] in a field, if
    /// [`is_short_of`](Self::is_short_of) supports its form; else 0.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        let is_known = self.flip == 0 && (self.is_padded() || self.width == HEAD_BYTES);
        if is_known { self.width / HEAD_BYTES } else { 0 }
    }

    /// The same as [`is_short`](Self::is_short), from all whole [`blocks`](Self::blocks) of a
    /// field and its last bytes: the number of steps is constant, which halves the time.
    #[inline(always)]
    pub fn is_short_of<const N: usize>(&self, first: &[u8; N], last: &[u8; HEAD_BYTES]) -> bool {
        let (behind, _) = first[HEAD_BYTES..].as_chunks::<8>();
        let behind = behind.iter().fold(0, |all, word| all | u64::from_le_bytes(*word));
        let last = words_of(last).iter().zip(&self.keep_last).fold(0, |all, (w, k)| all | w & k);
        behind & self.keep | last == 0
    }

    /// Collects the bits in which blocks differ from padding.
    #[inline(always)]
    fn gather<const N: usize>(&self, all: &mut Head, blocks: &[[u8; HEAD_BYTES]; N]) {
        for block in blocks {
            let words = words_of(block);
            for (all, word) in all.iter_mut().zip(words) {
                *all |= word ^ self.flip;
            }
        }
    }

    /// Whether all bytes are padding.
    #[inline]
    pub fn is_padding(&self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.padding.has(byte))
    }

    /// Length of the value of a short field.
    #[inline(always)]
    fn short_len(&self, head: &Head) -> usize {
        if !self.is_padded() {
            return self.width;
        }
        let padding = zero_bytes(&head.map(|word| self.value_of(word)));
        // Padding bytes counted from the end.
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

/// Evaluates the first expression with the number of bytes in a field's whole
/// [`blocks`](TextForm::blocks) as a constant, or the second if no constant is compiled for it.
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

/// Bytes as little-endian words.
#[inline(always)]
pub(crate) fn words_of(bytes: &[u8; HEAD_BYTES]) -> Head {
    let (words, _) = bytes.as_chunks::<8>();
    from_fn(|i| u64::from_le_bytes(words[i]))
}

/// 0x20 in each byte.
const SPACES: u64 = 0x2020_2020_2020_2020;

/// A value of at most [`HEAD_BYTES`], zero-filled after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShortValue {
    words: Head,
    len: usize,
}

/// The mask of a head for each length of a value: one load instead of four branches.
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
    /// Whether `bytes` begin with this value.
    #[inline(always)]
    pub fn begins(&self, bytes: &[u8; HEAD_BYTES]) -> bool {
        let mask = &VALUE_MASKS[self.len];
        let (words, _) = bytes.as_chunks::<8>();
        let pairs = words.iter().zip(self.words.iter().zip(mask));
        pairs.fold(0, |all, (word, (value, mask))| all | (u64::from_le_bytes(*word) & mask) ^ value)
            == 0
    }
}

/// Computes the tags of values. The upper bits are a hash with a random key per maker, so that a
/// peer cannot choose texts that collide; the lower [`TAG_BITS`] are the length of the value.
pub(crate) struct TagMaker {
    long: ThoroughHash,
    keys: Head,
}

impl Default for TagMaker {
    fn default() -> Self {
        let long = ThoroughHash::default();
        let keys = from_fn(|i| long.hash_one(i));
        TagMaker { long, keys }
    }
}

/// The length of the value that a tag belongs to.
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

    /// The tag of a short value. Multiplies keyed words and folds the products, as wyhash does.
    #[inline(always)]
    pub(crate) fn tag_of_short(&self, value: &ShortValue) -> u64 {
        let word = |i: usize| value.words[i] ^ self.keys[i];
        let fold = |left: u64, right: u64| {
            let product = u128::from(left) * u128::from(right);
            product as u64 ^ (product >> 64) as u64
        };
        let hash = fold(word(0), word(1)) ^ fold(word(2), word(3)).rotate_left(32);
        // Folds once more, so that the upper bits depend on all others.
        let hash = fold(hash ^ self.keys[0], self.keys[3] | 1);
        hash >> TAG_BITS << TAG_BITS | value.len as u64
    }

    /// The tag of a longer value.
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
