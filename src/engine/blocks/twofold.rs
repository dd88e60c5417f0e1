//! Sums in twice the precision of binary64: pairs of numbers whose exact sum is the value. Knows
//! nothing of groups.
//!
//! T. J. Dekker, "A floating-point technique for extending the available precision", Numerische
//! Mathematik 18 (1971); D. E. Knuth, The Art of Computer Programming, volume 2, section 4.2.2.

use std::cell::Cell;

/// The exact sum of two numbers; `low` is at most half a unit in the last place of `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Twofold {
    /// The value, rounded.
    pub high: f64,
    /// What rounding left.
    pub low: f64,
}

/// The rounded sum of two finite numbers, and the rounding error.
#[inline(always)]
pub(crate) fn two_sum(left: f64, right: f64) -> (f64, f64) {
    let sum = left + right;
    let of_right = sum - left;
    (sum, (left - (sum - of_right)) + (right - of_right))
}

/// The rounded square of a number, and the rounding error. Without a fused multiplication, which
/// not every processor has.
#[inline(always)]
fn two_square(number: f64) -> (f64, f64) {
    // The halves have 26 and 27 significant bits.
    let upper = f64::from_bits(number.to_bits() & !0x7ff_ffff);
    let lower = number - upper;
    let square = number * number;
    (square, ((upper * upper - square) + 2.0 * upper * lower) + lower * lower)
}

/// The rounded product of two numbers, and the rounding error.
pub(crate) fn two_product(left: f64, right: f64) -> (f64, f64) {
    let product = left * right;
    (product, left.mul_add(right, -product))
}

impl Twofold {
    /// The sum with a number and its rounding error.
    #[inline(always)]
    pub(crate) fn plus(self, high: f64, low: f64) -> Self {
        let (sum, lost) = two_sum(self.high, high);
        let lost = lost + (self.low + low);
        let high = sum + lost;
        Twofold { high, low: lost - (high - sum) }
    }

    /// The sum with the square of a number.
    #[inline(always)]
    pub(crate) fn plus_square(self, number: f64) -> Self {
        let (square, lost) = two_square(number);
        self.plus(square, lost)
    }

    /// The sum with a product.
    pub(crate) fn plus_product(self, left: f64, right: f64) -> Self {
        let (product, lost) = two_product(left, right);
        self.plus(product, lost)
    }

    /// The product with a power of two.
    #[inline(always)]
    pub(crate) fn scaled(self, by: f64) -> Self {
        Twofold { high: self.high * by, low: self.low * by }
    }

    /// The number in two words.
    #[inline(always)]
    pub(crate) fn get(high: &Cell<u64>, low: &Cell<u64>) -> Self {
        Twofold { high: f64::from_bits(high.get()), low: f64::from_bits(low.get()) }
    }

    /// Writes the number into two words.
    #[inline(always)]
    pub(crate) fn set(self, high: &Cell<u64>, low: &Cell<u64>) {
        high.set(self.high.to_bits());
        low.set(self.low.to_bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_binary64_loses_is_kept() {
        let sum = Twofold::default().plus(1e16, 0.0).plus(1.0, 0.0);
        assert_eq!((sum.high, sum.low), (1e16, 1.0));
        assert_eq!(sum.plus(-1e16, 0.0).high, 1.0);
        // 10,000,000,019² needs 67 bits.
        let square = Twofold::default().plus_square(10_000_000_019.0);
        let exact = 10_000_000_019_i128.pow(2);
        assert_eq!(square.high as i128 + square.low as i128, exact);
    }

    proptest! {
        /// The exact values come from 128-bit integers.
        #[test]
        fn sums_and_squares_of_integers_are_exact(
            integers in prop::collection::vec(-(1_i64 << 47)..1 << 47, 1..200),
        ) {
            let (mut sum, mut squares) = (Twofold::default(), Twofold::default());
            for &integer in &integers {
                sum = sum.plus(integer as f64, 0.0);
                squares = squares.plus_square(integer as f64);
            }
            let exact: i128 = integers.iter().map(|&integer| i128::from(integer)).sum();
            prop_assert_eq!(sum.high as i128 + sum.low as i128, exact);
            let exact: i128 = integers.iter().map(|&integer| i128::from(integer).pow(2)).sum();
            prop_assert_eq!(squares.high as i128 + squares.low as i128, exact);
        }
    }
}
