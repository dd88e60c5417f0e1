//! What does not fit into a group's slot: parts of sums of floats, set aside before an addition
//! would lose digits or overflow. Rare, so that slots stay small.

use crate::config::SPILLED_SUM_BYTES;
use crate::engine::blocks::hash_keys::FastHash;
use crate::engine::blocks::paged::SlotWords;
use crate::engine::blocks::twofold::Twofold;
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

/// Spilled sums are kept divided by this, so that they do not overflow: 2^32 records of the
/// largest binary64 fit.
pub(crate) const SPILL_SCALE: f64 = power_of_two(128);

/// 2 to the power of an exponent within the range of normal numbers.
pub(crate) const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Spilled sums, by the group's key and the field.
#[derive(Default)]
pub struct Spills {
    key_words: usize,
    sums: RefCell<HashMap<Box<[u64]>, Twofold, FastHash>>,
    /// Scratch memory for a key.
    key: Cell<Vec<u64>>,
    memory: RefCell<HeldBytes>,
}

impl Spills {
    /// No spilled sums, for keys of this many words.
    pub(crate) fn of_keys(key_words: usize) -> Self {
        Spills { key_words, ..Spills::default() }
    }

    /// Counts what they take as part of `share`.
    pub(crate) fn count_in(&self, share: &Arc<MemoryShare>) {
        self.memory.replace(HeldBytes::of(share));
    }

    /// Hands over what they hold.
    pub(crate) fn take_memory(&self) -> HeldBytes {
        self.memory.take()
    }

    /// Notes that there is another one. It is rare and small, so nobody is asked beforehand.
    fn count_one(&self) {
        let key_bytes = (self.key_words + 1) * size_of::<u64>();
        let mut memory = self.memory.borrow_mut();
        let bytes = memory.bytes() + SPILLED_SUM_BYTES + key_bytes;
        memory.set(bytes);
    }

    /// The number of words of a group's key.
    pub(crate) fn key_words(&self) -> usize {
        self.key_words
    }

    /// Adds to the spilled sum of a group's field.
    #[cold]
    pub(crate) fn add(&self, field: usize, key: impl Iterator<Item = u64>, sum: Twofold) {
        let sum = sum.scaled(1.0 / SPILL_SCALE);
        let mut sums = self.sums.borrow_mut();
        self.with_key(field, key, |key| match sums.get_mut(key) {
            Some(spilled) => *spilled = spilled.plus(sum.high, sum.low),
            None => {
                sums.insert(key.into(), sum);
                self.count_one();
            }
        });
    }

    /// The spilled sum of a group's field, divided by [`SPILL_SCALE`].
    pub(crate) fn sum(&self, field: usize, slot: &SlotWords) -> Option<Twofold> {
        let sums = self.sums.borrow();
        if sums.is_empty() {
            return None;
        }
        let key = slot[..self.key_words].iter().map(Cell::get);
        self.with_key(field, key, |key| sums.get(key).copied())
    }

    fn with_key<T>(
        &self,
        field: usize,
        words: impl Iterator<Item = u64>,
        with: impl FnOnce(&[u64]) -> T,
    ) -> T {
        let mut key = self.key.take();
        key.clear();
        key.extend(words.chain([field as u64]));
        let out = with(&key);
        self.key.set(key);
        out
    }
}
