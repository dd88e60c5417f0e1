//! The lanes of a group's slot, and how the values of records fold into them, one tight loop per
//! lane. Finds no group and enforces no limit.

use super::moments::{Distances, Moments, Squares, mean_of};
use super::spills::{SPILL_SCALE, Spills};
use crate::engine::blocks::block::{Block, BlockSlots, Rows};
use crate::engine::blocks::number::{Class, Number, Wide, with_number};
use crate::engine::blocks::paged::SlotWords;
use crate::engine::blocks::twofold::{Twofold, two_sum};
use crate::wire::schema::Kind;
use crate::wire::schema::columns::Part;
use std::cell::Cell;

/// Bits in each half of a 64-bit number.
const HALF_BITS: u32 = 32;
/// The word of [`Distances`] with the first value; the others follow.
const DISTANCES_WORDS: usize = 6;

/// What a lane's words hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneForm {
    /// A value of the field, as wide as the field.
    Value,
    /// The sum of integers of at most 32 bits.
    Sum,
    /// The sum of one half of 64-bit integers.
    HalfSum,
    /// The sum of the squares of integers.
    Squares {
        /// The word of their sum.
        sum: usize,
    },
    /// A sum of binary32, as long as a binary64 holds it exactly; the rest is spilled.
    SingleSum,
    /// A sum of binary64 in twice the precision.
    DoubleSum,
    /// Distances of floats from the first one.
    Distances,
}

impl LaneForm {
    /// Bits that it takes in a slot.
    pub(super) fn bits(self, kind: Kind) -> u32 {
        let words = match self {
            LaneForm::Value => return 8 * kind.width() as u32,
            LaneForm::Sum | LaneForm::HalfSum | LaneForm::SingleSum => 1,
            LaneForm::DoubleSum => 2,
            // Squares of 64-bit integers do not fit into 128 bits.
            LaneForm::Squares { .. } => 2 + usize::from(kind.width() == size_of::<u64>()),
            LaneForm::Distances => DISTANCES_WORDS,
        };
        words as u32 * u64::BITS
    }
}

/// The place in a group's slot that holds one part of an aggregate. Parts of a field that follow
/// from the same numbers have the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Index of the field.
    pub field: usize,
    /// What is made of it.
    pub(crate) part: Part,
    /// What its words hold.
    pub form: LaneForm,
    /// Whether the lane before has the same place, and folds for both.
    pub follows: bool,
    /// First byte of the field within the record.
    pub offset: usize,
    /// Type of the field.
    pub kind: Kind,
    /// Index of its first word in the slot.
    pub word: usize,
    /// Its lowest bit within the word.
    pub shift: u32,
}

impl Lane {
    /// Folds this lane's field of these records into the slots of their groups. The value of
    /// `first` is written when a group [begins](Self::begin).
    #[inline(always)]
    pub fn fold(
        &self,
        big: bool,
        block: &Block<'_>,
        slots: &BlockSlots<'_>,
        rows: Rows,
        spills: &Spills,
    ) {
        if self.part == Part::First || self.follows {
            return;
        }
        with_number!(self.kind, T => match big {
            true => self.fold_numbers::<T, true>(block, slots, rows, spills),
            false => self.fold_numbers::<T, false>(block, slots, rows, spills),
        });
    }

    #[inline(always)]
    fn fold_numbers<T: Number, const BIG: bool>(
        &self,
        block: &Block<'_>,
        slots: &BlockSlots<'_>,
        rows: Rows,
        spills: &Spills,
    ) {
        let values = block.fields::<T::Bytes>(rows, self.offset).map(T::read::<BIG>);
        match self.form {
            LaneForm::Value | LaneForm::Sum | LaneForm::HalfSum => {
                self.fold_words(values.zip(slots.words(rows, self.word)));
            }
            LaneForm::Squares { .. } => self.fold_squares(values, slots, rows),
            LaneForm::SingleSum => self.fold_singles(values, slots, rows, spills),
            LaneForm::DoubleSum => self.fold_doubles(values, slots, rows, spills),
            LaneForm::Distances => self.fold_distances(values, slots, rows),
        }
    }

    #[inline(always)]
    fn fold_words<'a, T: Number>(&self, rows_of: impl Iterator<Item = (T, &'a Cell<u64>)>) {
        let Lane { shift, .. } = *self;
        match self.part {
            Part::Sum if self.form == LaneForm::HalfSum => {
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
            _ => rows_of.for_each(|(value, place)| {
                set_bits(place, shift, 8 * size_of::<T>() as u32, value.to_lane());
            }),
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

    #[inline(always)]
    fn fold_squares<T: Number>(
        &self,
        values: impl Iterator<Item = T>,
        slots: &BlockSlots<'_>,
        rows: Rows,
    ) {
        let word = |at: usize| slots.words(rows, self.word + at);
        // Narrow integers have no third word; the second stands in for it and stays what it is.
        let last = if self.kind.width() == size_of::<u64>() { 2 } else { 1 };
        for (value, ((low, middle), high)) in values.zip(word(0).zip(word(1)).zip(word(last))) {
            let squared = u128::from(low.get()) | u128::from(middle.get()) << u64::BITS;
            let mut squares = Squares { low: squared, high: 0 };
            squares.add(value.magnitude());
            low.set(squares.low as u64);
            middle.set((squares.low >> u64::BITS) as u64);
            high.set(high.get() + squares.high);
        }
    }

    /// Sums numbers of 24 significant bits, and checks that each addition is exact: the first
    /// difference is if the value is the smaller of the two, the second if it is the larger, so
    /// nothing was lost if both give 0.
    #[inline(always)]
    fn fold_singles<T: Number>(
        &self,
        values: impl Iterator<Item = T>,
        slots: &BlockSlots<'_>,
        rows: Rows,
        spills: &Spills,
    ) {
        let sums = slots.words(rows, self.word);
        values.zip(sums).enumerate().for_each(|(at, (value, sum))| {
            let (value, old) = (value.to_f64(), f64::from_bits(sum.get()));
            let new = old + value;
            sum.set(new.to_bits());
            if (new - old - value).to_bits() | (new - value - old).to_bits() != 0 {
                self.spill_single([old, value], sum, slots, rows.from + at, spills);
            }
        });
    }

    #[inline(always)]
    fn fold_doubles<T: Number>(
        &self,
        values: impl Iterator<Item = T>,
        slots: &BlockSlots<'_>,
        rows: Rows,
        spills: &Spills,
    ) {
        let sums = slots.words(rows, self.word).zip(slots.words(rows, self.word + 1));
        for (row, (value, (high, low))) in (rows.from..).zip(values.zip(sums)) {
            let (value, old) = (value.to_f64(), Twofold::get(high, low));
            let mut new = old.plus(value, 0.0);
            if !new.high.is_finite() {
                new = self.spill_double(old, value, slots, row, spills);
            }
            new.set(high, low);
        }
    }

    #[inline(always)]
    fn fold_distances<T: Number>(
        &self,
        values: impl Iterator<Item = T>,
        slots: &BlockSlots<'_>,
        rows: Rows,
    ) {
        let word = |at: usize| slots.words(rows, self.word + at);
        let sums = word(2).zip(word(3));
        let words = word(0).zip(word(1)).zip(sums.zip(word(4).zip(word(5))));
        for (value, ((first, per_unit), (sums, squares))) in values.zip(words) {
            let mut distances = Distances {
                first: f64::from_bits(first.get()),
                per_unit: f64::from_bits(per_unit.get()),
                sum: Twofold::get(sums.0, sums.1),
                squares: Twofold::get(squares.0, squares.1),
            };
            distances.add(value.to_f64());
            per_unit.set(distances.per_unit.to_bits());
            distances.sum.set(sums.0, sums.1);
            distances.squares.set(squares.0, squares.1);
        }
    }

    /// Sets aside a sum that has lost digits, and what it has lost; it begins again.
    #[cold]
    #[inline(never)]
    fn spill_single(
        &self,
        [old, value]: [f64; 2],
        sum: &Cell<u64>,
        slots: &BlockSlots<'_>,
        row: usize,
        spills: &Spills,
    ) {
        let (high, low) = two_sum(old, value);
        if low != 0.0 && high.is_finite() {
            self.set_aside(Twofold { high, low }, slots, row, spills);
            sum.set(0);
        }
    }

    /// Sets aside a sum of binary64 that would overflow; returns the one to go on with.
    #[cold]
    #[inline(never)]
    fn spill_double(
        &self,
        old: Twofold,
        value: f64,
        slots: &BlockSlots<'_>,
        row: usize,
        spills: &Spills,
    ) -> Twofold {
        if !old.high.is_finite() || !value.is_finite() {
            return Twofold { high: old.high + value, low: 0.0 };
        }
        self.set_aside(old, slots, row, spills);
        Twofold { high: value, low: 0.0 }
    }

    fn set_aside(&self, sum: Twofold, slots: &BlockSlots<'_>, row: usize, spills: &Spills) {
        let row = Rows { from: row, to: row + 1 };
        let words = (0..spills.key_words()).flat_map(|word| slots.words(row, word));
        spills.add(self.field, words.map(Cell::get), sum);
    }

    /// Writes the lane's initial value for a new group, given its first record, into its words.
    pub fn begin(&self, big: bool, record: &[u8], words: &mut [u64]) {
        if self.follows {
            return;
        }
        with_number!(self.kind, T => {
            let first = || T::read_at(record, self.offset, big);
            let lane = match self.part {
                Part::Min => T::NONE_LESS.to_lane(),
                Part::Max => T::NONE_GREATER.to_lane(),
                Part::First => first().to_lane(),
                Part::M2 if self.form == LaneForm::Distances => {
                    let Distances { first, per_unit, .. } = Distances::from(first().to_f64());
                    words[self.word + 1] = per_unit.to_bits();
                    first.to_bits()
                }
                _ => 0,
            };
            words[self.word] |= lane << self.shift;
        });
    }

    /// The class of the lane's column.
    pub fn class(&self) -> Class {
        match self.part {
            Part::SumLow => Class::Unsigned,
            Part::Mean | Part::Rest | Part::M2 | Part::Unit => Class::Float,
            _ => Class::of(self.kind),
        }
    }

    /// The value of the lane's part for a group with `count` records.
    #[inline]
    pub(crate) fn value(&self, slot: &SlotWords, count: u64, spills: &Spills) -> Wide {
        let word = slot[self.word].get();
        match self.form {
            LaneForm::Value => with_number!(self.kind, T => {
                T::from_lane(word >> self.shift).widened()
            }),
            LaneForm::HalfSum => self.sum(word),
            LaneForm::Sum => match self.part {
                Part::SumLow => Wide::Unsigned(low(word)),
                _ if self.kind.width() == size_of::<u32>() => {
                    self.sum(high(word, self.kind.is_signed()))
                }
                _ => self.sum(word),
            },
            LaneForm::Squares { sum } => Wide::Float(self.m2(slot, sum, count)),
            LaneForm::SingleSum | LaneForm::DoubleSum => {
                let (mean, rest) = self.mean(slot, count, spills);
                Wide::Float(if self.part == Part::Mean { mean } else { rest })
            }
            LaneForm::Distances => {
                let Moments { m2, unit, .. } = self.distances(slot).moments(count);
                Wide::Float(if self.part == Part::M2 { m2 } else { unit })
            }
        }
    }

    fn sum(&self, lane: u64) -> Wide {
        match self.class() {
            Class::Signed => Wide::Signed(lane as i64),
            _ => Wide::Unsigned(lane),
        }
    }

    fn m2(&self, slot: &SlotWords, sum_word: usize, count: u64) -> f64 {
        let word = |at: usize| slot[at].get();
        let signed = self.kind.is_signed();
        let whole = |lane: u64| if signed { i128::from(lane as i64) } else { i128::from(lane) };
        let (sum, high) = match self.kind.width() == size_of::<u64>() {
            true => {
                let lower = i128::from(word(sum_word + 1));
                ((whole(word(sum_word)) << HALF_BITS) + lower, word(self.word + 2))
            }
            false => (whole(word(sum_word)), 0),
        };
        let low = u128::from(word(self.word)) | u128::from(word(self.word + 1)) << u64::BITS;
        Squares { low, high }.m2(count, sum)
    }

    fn mean(&self, slot: &SlotWords, count: u64, spills: &Spills) -> (f64, f64) {
        let sum = match self.form {
            LaneForm::DoubleSum => Twofold::get(&slot[self.word], &slot[self.word + 1]),
            _ => Twofold { high: f64::from_bits(slot[self.word].get()), low: 0.0 },
        };
        match spills.sum(self.field, slot) {
            Some(spilled) if sum.high.is_finite() => {
                let sum = sum.scaled(1.0 / SPILL_SCALE).plus(spilled.high, spilled.low);
                let (mean, rest) = mean_of(sum, count);
                (mean * SPILL_SCALE, rest * SPILL_SCALE)
            }
            _ => mean_of(sum, count),
        }
    }

    fn distances(&self, slot: &SlotWords) -> Distances {
        let word = |at: usize| &slot[self.word + at];
        Distances {
            first: f64::from_bits(word(0).get()),
            per_unit: f64::from_bits(word(1).get()),
            sum: Twofold::get(word(2), word(3)),
            squares: Twofold::get(word(4), word(5)),
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
