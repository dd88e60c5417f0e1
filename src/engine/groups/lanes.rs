//! The lanes of a group's slot, and how the values of records fold into them, one tight loop per
//! lane. Finds no group and enforces no limit.

use crate::engine::blocks::block::{Block, BlockSlots, Rows};
use crate::engine::blocks::number::{Class, Number, Wide, with_number};
use crate::engine::blocks::paged::SlotWords;
use crate::wire::schema::Kind;
use crate::wire::schema::columns::Part;
use std::cell::Cell;

/// Bits in each half of a 64-bit number.
const HALF_BITS: u32 = 32;

/// The place in a group's slot that holds one part of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Index of the field.
    pub field: usize,
    /// What is made of it.
    pub(crate) part: Part,
    /// First byte of the field within the record.
    pub offset: usize,
    /// Type of the field.
    pub kind: Kind,
    /// Index of its word in the slot.
    pub word: usize,
    /// Its lowest bit within the word.
    pub shift: u32,
}

impl Lane {
    /// Folds this lane's field of these records into the slots of their groups. The value of
    /// `first` is written when a group [begins](Self::begin).
    #[inline(always)]
    pub fn fold(&self, big: bool, block: &Block<'_>, slots: &BlockSlots<'_>, rows: Rows) {
        if matches!(self.part, Part::First | Part::M2) {
            return;
        }
        with_number!(self.kind, T => match big {
            true => self.fold_numbers::<T, true>(block, slots, rows),
            false => self.fold_numbers::<T, false>(block, slots, rows),
        });
    }

    #[inline(always)]
    fn fold_numbers<T: Number, const BIG: bool>(
        &self,
        block: &Block<'_>,
        slots: &BlockSlots<'_>,
        rows: Rows,
    ) {
        let Lane { word, shift, .. } = *self;
        let values = block.fields::<T::Bytes>(rows, self.offset).map(T::read::<BIG>);
        let rows_of = values.zip(slots.words(rows, word));
        match self.part {
            Part::Sum if matches!(self.kind, Kind::U64 | Kind::I64) => {
                let signed = self.kind == Kind::I64;
                rows_of.for_each(|(value, sum)| {
                    sum.set(sum.get().wrapping_add(high(value.to_lane(), signed)));
                });
            }
            Part::SumLow => rows_of.for_each(|(value, sum)| {
                sum.set(sum.get().wrapping_add(low(value.to_lane())));
            }),
            Part::Sum => rows_of.for_each(|(value, sum)| sum.set(value.added_to(sum.get()))),
            Part::Min => rows_of.for_each(|(value, place)| {
                self.replace::<T>(place, |least| value.least(least));
            }),
            Part::Max => rows_of.for_each(|(value, place)| {
                self.replace::<T>(place, |greatest| value.greatest(greatest));
            }),
            Part::Last => rows_of.for_each(|(value, place)| {
                set_bits(place, shift, 8 * size_of::<T>() as u32, value.to_lane());
            }),
            Part::Mean => {
                let more = slots.words(rows, word + 1).zip(slots.words(rows, word + 2));
                rows_of.zip(more).for_each(|((value, mean), (m2, count))| {
                    add_to_moments(mean, m2, count, value.to_f64());
                });
            }
            Part::First | Part::M2 => {}
        }
    }

    #[inline(always)]
    fn replace<T: Number>(&self, place: &Cell<u64>, by: impl FnOnce(T) -> T) {
        let old = T::from_lane(place.get() >> self.shift);
        let new = by(old).to_lane();
        // A branch is cheap here: a group's extremes rarely change, and that is predictable.
        if new != old.to_lane() {
            set_bits(place, self.shift, 8 * size_of::<T>() as u32, new);
        }
    }

    /// Writes the lane's initial value for a new group, given its first record, into its words.
    pub fn begin(&self, big: bool, record: &[u8], words: &mut [u64]) {
        with_number!(self.kind, T => {
            let lane = match self.part {
                Part::Min => T::NONE_LESS.to_lane(),
                Part::Max => T::NONE_GREATER.to_lane(),
                Part::First => T::read_at(record, self.offset, big).to_lane(),
                Part::Last | Part::Sum | Part::SumLow | Part::Mean | Part::M2 => 0,
            };
            words[self.word] |= lane << self.shift;
        });
    }

    /// The class of the lane's column.
    pub fn class(&self) -> Class {
        match self.part {
            Part::SumLow => Class::Unsigned,
            Part::Mean | Part::M2 => Class::Float,
            _ => Class::of(self.kind),
        }
    }

    /// The value in a group's lane.
    #[inline]
    pub fn value(&self, slot: &SlotWords) -> Wide {
        let lane = slot[self.word].get() >> self.shift;
        match self.part {
            Part::Sum | Part::SumLow | Part::Mean | Part::M2 => match self.class() {
                Class::Unsigned => Wide::Unsigned(lane),
                Class::Signed => Wide::Signed(lane as i64),
                Class::Float => Wide::Float(f64::from_bits(lane)),
            },
            _ => with_number!(self.kind, T => T::from_lane(lane).widened()),
        }
    }
}

/// The upper half of a 64-bit number, sign-extended to 64 bits if signed.
#[inline(always)]
pub(crate) fn high(number: u64, signed: bool) -> u64 {
    match signed {
        true => ((number as i64) >> HALF_BITS) as u64,
        false => number >> HALF_BITS,
    }
}

/// The lower half of a 64-bit number.
#[inline(always)]
pub(crate) fn low(number: u64) -> u64 {
    number & u64::from(u32::MAX)
}

#[inline(always)]
fn set_bits(place: &Cell<u64>, shift: u32, bits: u32, lane: u64) {
    let mask = (u64::MAX >> (u64::BITS - bits)) << shift;
    place.set(place.get() & !mask | lane << shift);
}

/// Updates mean, sum of squared deviations and count by Welford's method, which stays accurate for
/// large numbers that differ little.
#[inline(always)]
fn add_to_moments(mean: &Cell<u64>, m2: &Cell<u64>, count: &Cell<u64>, value: f64) {
    let n = count.get() + 1;
    let old = f64::from_bits(mean.get());
    let new = old + (value - old) / n as f64;
    let squares = f64::from_bits(m2.get()) + (value - old) * (value - new);
    mean.set(new.to_bits());
    m2.set(squares.to_bits());
    count.set(n);
}
