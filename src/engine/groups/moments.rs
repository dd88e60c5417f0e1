//! Mean and spread of a group's values, from the words that lanes keep. Finds no group and reads no
//! record.
//!
//! Integers: their sum and the sum of their squares, exact. Floats: distances from the first value
//! and their squares, each summed in twice the precision. The first value is one of the group's, so
//! its distance from the mean is at most the root of the number of values times their deviation,
//! and subtracting the squares loses no more digits than the second half of that precision has.

use super::spills::power_of_two;
use crate::engine::blocks::twofold::{Twofold, two_product, two_sum};

/// What partials hold of floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moments {
    /// The mean, rounded.
    pub mean: f64,
    /// What the sum has beyond the count times the rounded mean.
    pub rest: f64,
    /// The sum of the squared distances from the mean, divided by the square of the unit.
    pub m2: f64,
    /// A power of two: 1 unless squares could leave the range of binary64.
    pub unit: f64,
}

/// The first unit of a group: for distances up to [`SMALL`].
pub(crate) const SMALL_UNIT: f64 = power_of_two(-600);
const LARGE_UNIT: f64 = power_of_two(630);
/// Distances are at most this many units, so that sums of 2^48 squares do not overflow.
pub(crate) const UNITS_MAX: f64 = power_of_two(400);
const SMALL: f64 = SMALL_UNIT * UNITS_MAX;
/// Multiplies what may exceed binary64 before it does.
const SHRUNK: f64 = power_of_two(-64);
/// Sums of 2^53 such means do not exceed binary64.
const LARGE_MEAN: f64 = power_of_two(960);

/// The unit for distances of which this is the largest.
pub(crate) fn unit_of(distance: f64) -> f64 {
    match distance {
        _ if distance > UNITS_MAX => LARGE_UNIT,
        _ if distance <= SMALL && distance > 0.0 => SMALL_UNIT,
        _ => 1.0,
    }
}

/// The mean of `count` values from their sum: rounded, and what the sum has beyond it.
pub(crate) fn mean_of(sum: Twofold, count: u64) -> (f64, f64) {
    if !sum.high.is_finite() {
        return (sum.high, 0.0);
    }
    let count = count as f64;
    let (quotient, more) = quotient(sum, count);
    let mean = quotient + more;
    // The product may exceed binary64; the difference does not.
    (mean, sum.low - count.mul_add(mean, -sum.high))
}

/// The sum of `count` values from their mean and the rest; infinite if it exceeds binary64.
pub(crate) fn sum_of(count: u64, mean: f64, rest: f64) -> f64 {
    // The product may exceed binary64 where the sum does not.
    let shrunk = if mean.abs() > LARGE_MEAN { SHRUNK } else { 1.0 };
    let (product, lost) = two_product(count as f64, mean * shrunk);
    match product.is_finite() {
        true => (product + (lost + rest * shrunk)) / shrunk,
        false => product,
    }
}

/// A quotient: rounded, and what rounding left.
fn quotient(sum: Twofold, count: f64) -> (f64, f64) {
    let quotient = sum.high / count;
    (quotient, (sum.low - count.mul_add(quotient, -sum.high)) / count)
}

/// The distances of a group's values from the first one, in units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distances {
    /// The first value.
    pub first: f64,
    /// The reciprocal of the unit. NaN if a value is not finite.
    pub per_unit: f64,
    /// Their sum. Where a value is not finite: the sum of those values.
    pub sum: Twofold,
    /// The sum of their squares.
    pub squares: Twofold,
}

impl Distances {
    /// Those of a group that begins with this value.
    pub(crate) fn from(first: f64) -> Self {
        let (sum, squares) = (Twofold::default(), Twofold::default());
        Distances { first, per_unit: 1.0 / SMALL_UNIT, sum, squares }
    }

    /// Adds a value.
    #[inline(always)]
    pub(crate) fn add(&mut self, value: f64) {
        let (distance, lost) = two_sum(value, -self.first);
        let units = distance * self.per_unit;
        // Also false for NaN.
        if units.abs() <= UNITS_MAX {
            self.sum = self.sum.plus(units, lost * self.per_unit);
            self.squares = self.squares.plus_square(units);
        } else {
            self.add_rare(value);
        }
    }

    /// Adds a value that is not finite, follows one, or is too far away for the unit.
    #[cold]
    #[inline(never)]
    fn add_rare(&mut self, value: f64) {
        if !value.is_finite() || self.per_unit.is_nan() {
            let others = if self.per_unit.is_nan() { self.sum.high } else { 0.0 };
            let special = if value.is_finite() { others } else { others + value };
            self.per_unit = f64::NAN;
            self.sum = Twofold { high: special, low: 0.0 };
            return;
        }
        // Halves, because the distance may exceed binary64.
        let (half, lost) = two_sum(value / 2.0, -self.first / 2.0);
        let before = self.per_unit;
        self.per_unit = 1.0 / unit_of(half.abs() * 2.0).max(1.0);
        if self.per_unit != before {
            // In two steps, because the ratio of the smallest unit to the largest is no number.
            let to = |sum: Twofold| sum.scaled(1.0 / before).scaled(self.per_unit);
            (self.sum, self.squares) = (to(self.sum), to(to(self.squares)));
        }
        let twice = self.per_unit * 2.0;
        self.sum = self.sum.plus(half * twice, lost * twice);
        self.squares = self.squares.plus_square(half * twice);
    }

    /// The moments of `count` values.
    pub(crate) fn moments(&self, count: u64) -> Moments {
        if self.per_unit.is_nan() {
            return Moments::special(self.sum.high);
        }
        let (n, unit) = (count as f64, 1.0 / self.per_unit);
        let (far, further) = quotient(self.sum, n);
        let shrunk = if unit > 1.0 { SHRUNK } else { 1.0 };
        let (mean, lost) = two_sum(self.first * shrunk, far * (unit * shrunk));
        let lost = lost + further * (unit * shrunk);
        let rounded = mean + lost;
        let rest = n * (lost - (rounded - mean));
        // The squares of the distances from the mean: less the sum, times its mean.
        let (product, beyond) = two_product(self.sum.high, far);
        let beyond = beyond + (self.sum.high * further + self.sum.low * far);
        let m2 = self.squares.plus(-product, -beyond).high;
        let m2 = if m2 < 0.0 { 0.0 } else { m2 };
        Moments { mean: rounded / shrunk, rest: rest / shrunk, m2, unit }
    }
}

impl Moments {
    /// Those of values that are not all finite: only their sum as IEEE 754 has it.
    fn special(sum: f64) -> Self {
        Moments { mean: sum, rest: 0.0, m2: f64::NAN, unit: 1.0 }
    }

    /// Those of `count` values. Their spread is computed if asked for.
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone, count: u64, spread: bool) -> Self {
        let single = |mean| (1, Moments { mean, rest: 0.0, m2: 0.0, unit: 1.0 });
        let sums = Moments::merged(values.clone().map(single));
        if !spread {
            return sums;
        }
        let mut distances = Distances::from(values.clone().next().unwrap_or_default());
        values.for_each(|value| distances.add(value));
        // The sum of the distances has fewer digits where large values cancel.
        let Moments { m2, unit, .. } = distances.moments(count);
        Moments { m2, unit, ..sums }
    }

    /// Those of several sets of values, each with the number of its values. T. F. Chan, G. H. Golub
    /// and R. J. LeVeque, "Algorithms for computing the sample variance", The American Statistician
    /// 37 (1983): only what is not negative is added, so that no digits cancel.
    pub(crate) fn merged(sets: impl Iterator<Item = (u64, Moments)> + Clone) -> Self {
        let means = || sets.clone().map(|(_, one)| one.mean);
        if means().any(|mean| !mean.is_finite()) {
            return Moments::special(means().filter(|mean| !mean.is_finite()).sum());
        }
        let largest = means().fold(0.0, |largest: f64, mean| largest.max(mean.abs()));
        let shrunk = if largest > LARGE_MEAN { SHRUNK } else { 1.0 };
        let mut sum = Twofold::default();
        let mut count = 0;
        for (n, one) in sets.clone() {
            sum = sum.plus_product(n as f64, one.mean * shrunk).plus(one.rest * shrunk, 0.0);
            count += n;
        }
        let (mean, rest) = mean_of(sum, count);
        let distances = sets.map(|(n, one)| {
            let more = one.rest * shrunk / n as f64 - rest / count as f64;
            (n as f64, (one.mean * shrunk - mean) + more, one)
        });
        let furthest = distances.clone().fold(0.0, |furthest: f64, (n, distance, one)| {
            let deviation = (one.m2 / n).sqrt() * (one.unit * shrunk);
            furthest.max(distance.abs()).max(deviation)
        });
        let unit = unit_of(furthest / shrunk);
        let mut m2 = Twofold::default();
        for (n, distance, one) in distances {
            let (distance, unit) = (distance * (1.0 / unit / shrunk), one.unit / unit);
            m2 = m2.plus(one.m2 * unit * unit, 0.0).plus(n * (distance * distance), 0.0);
        }
        Moments { mean: mean / shrunk, rest: rest / shrunk, m2: m2.high, unit }
    }

    /// The sample variance of `count` values.
    pub(crate) fn variance(&self, count: u64) -> f64 {
        self.m2 / (count - 1) as f64 * self.unit * self.unit
    }

    /// The sample standard deviation of `count` values.
    pub(crate) fn deviation(&self, count: u64) -> f64 {
        (self.m2 / (count - 1) as f64).sqrt() * self.unit
    }
}

/// The sum of the squared distances from the mean of several sets of integers: of each the count,
/// the sum, and its own squared distances.
pub(crate) fn merged_m2(sets: impl Iterator<Item = (u64, i128, f64)> + Clone) -> f64 {
    let total =
        |(all, sum): (u64, i128), (count, one, _): (u64, i128, f64)| (all + count, sum + one);
    let (count, sum) = sets.clone().fold((0, 0), total);
    // The whole numbers and the fractions of means are subtracted by themselves.
    let mean = |count: u64, sum: i128| {
        let n = i128::from(count);
        (sum.div_euclid(n), sum.rem_euclid(n) as f64 / count as f64)
    };
    let (whole, fraction) = mean(count, sum);
    let squares = sets.fold(Twofold::default(), |squares, (count, sum, m2)| {
        let (own, more) = mean(count, sum);
        let distance = (own - whole) as f64 + (more - fraction);
        squares.plus(m2, 0.0).plus(count as f64 * (distance * distance), 0.0)
    });
    squares.high
}

/// The sum of the squares of integers: exact for 2^32 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Squares {
    /// The lower 128 bits.
    pub low: u128,
    /// The bits above.
    pub high: u64,
}

impl Squares {
    /// Adds the square of an integer of this magnitude.
    #[inline(always)]
    pub(crate) fn add(&mut self, magnitude: u64) {
        let (low, carry) = self.low.overflowing_add(u128::from(magnitude) * u128::from(magnitude));
        self.low = low;
        self.high += u64::from(carry);
    }

    /// The sum of the squared distances from the mean of `count` integers with this sum.
    pub(crate) fn m2(&self, count: u64, sum: i128) -> f64 {
        // All in 256 bits: the squares times the count, less the square of the sum.
        let (times, above) = wide_product(self.low, count.into());
        let above = above + u128::from(self.high) * u128::from(count);
        let (square, square_above) = wide_product(sum.unsigned_abs(), sum.unsigned_abs());
        let (low, borrow) = times.overflowing_sub(square);
        let high = above - square_above - u128::from(borrow);
        match high {
            0 => {
                let count = u128::from(count);
                (low / count) as f64 + (low % count) as f64 / count as f64
            }
            _ => (high as f64 * power_of_two(128) + low as f64) / count as f64,
        }
    }
}

/// The lower and the upper half of a product.
fn wide_product(left: u128, right: u128) -> (u128, u128) {
    const HALF: u32 = 64;
    let halves = |number: u128| (number & u128::from(u64::MAX), number >> HALF);
    let ((a, b), (c, d)) = (halves(left), halves(right));
    let (low, carried) = halves(a * c);
    let (middle, up) = halves(b * c + carried);
    let (middle, more) = halves(a * d + middle);
    (middle << HALF | low, b * d + up + more)
}

#[cfg(test)]
#[path = "moments_tests.rs"]
mod tests;
