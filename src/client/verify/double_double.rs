//! Double-double arithmetic: numbers of 106 bits, each an unevaluated sum of two binary64 numbers.
//! Sums computed with them are precise enough to judge sums computed in binary64.
//!
//! T. J. Dekker, "A floating-point technique for extending the available precision", Numerische
//! Mathematik 18 (1971).

/// A double-double number: `low` is less than half a unit in the last place of `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct DoubleDouble {
    high: f64,
    low: f64,
}

impl From<f64> for DoubleDouble {
    fn from(high: f64) -> Self {
        DoubleDouble { high, low: 0.0 }
    }
}

/// Exact up to 106 significant bits.
impl From<i128> for DoubleDouble {
    fn from(integer: i128) -> Self {
        let high = integer as f64;
        DoubleDouble::of(high, integer.wrapping_sub(high as i128) as f64)
    }
}

impl DoubleDouble {
    /// The sum of two numbers, of which `large` is larger in magnitude or not much smaller.
    fn of(large: f64, small: f64) -> Self {
        let high = large + small;
        // An infinity or NaN is the result as IEEE 754 defines it; its rounding error would be NaN.
        if !high.is_finite() {
            return DoubleDouble { high, low: 0.0 };
        }
        DoubleDouble { high, low: small - (high - large) }
    }

    /// As a binary64.
    pub(crate) fn value(self) -> f64 {
        self.high
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let sum = self.high + other.high;
        if !sum.is_finite() {
            return DoubleDouble { high: sum, low: 0.0 };
        }
        let of_other = sum - self.high;
        let lost = (self.high - (sum - of_other)) + (other.high - of_other);
        DoubleDouble::of(sum, lost + (self.low + other.low))
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.plus(DoubleDouble { high: -other.high, low: -other.low })
    }

    pub(crate) fn times(self, other: Self) -> Self {
        let product = self.high * other.high;
        if !product.is_finite() {
            return DoubleDouble { high: product, low: 0.0 };
        }
        let lost = self.high.mul_add(other.high, -product);
        DoubleDouble::of(product, lost + (self.high * other.low + self.low * other.high))
    }

    pub(crate) fn over(self, divisor: f64) -> Self {
        let quotient = self.high / divisor;
        let rest = self.minus(DoubleDouble::from(quotient).times(divisor.into()));
        DoubleDouble::of(quotient, rest.high / divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_binary64_loses_is_kept() {
        let tiny = DoubleDouble::from(1e-20);
        let sum = DoubleDouble::from(1.0).plus(tiny).minus(1.0.into());
        assert_eq!(sum.value(), 1e-20);
        let third = DoubleDouble::from(1.0).over(3.0);
        let rest = third.times(3.0.into()).minus(1.0.into());
        assert!(rest.value().abs() < 1e-31, "{rest:?}");
        // (2⁵³ + 1)² needs 107 bits, of which at most the last is lost.
        let integer = (1_i128 << 53) + 1;
        let square = DoubleDouble::from(integer).times(integer.into());
        assert!(square.minus((integer * integer).into()).value().abs() <= 1.0);
    }

    #[test]
    fn infinities_and_what_is_no_number_stay() {
        let infinity = DoubleDouble::from(f64::INFINITY);
        assert_eq!(infinity.plus(1.0.into()).value(), f64::INFINITY);
        assert_eq!(DoubleDouble::from(1e308).plus(1e308.into()).value(), f64::INFINITY);
        assert_eq!(DoubleDouble::from(1e200).times(1e200.into()).value(), f64::INFINITY);
        assert!(infinity.minus(infinity).value().is_nan());
        assert!(infinity.plus(f64::NAN.into()).value().is_nan());
    }

    proptest! {
        #[test]
        fn sums_of_integers_are_those_of_i128(
            integers in prop::collection::vec(-(1_i128 << 90)..1 << 90, 1..50),
        ) {
            let sum = integers.iter().fold(DoubleDouble::default(), |sum, &integer| {
                sum.plus(integer.into())
            });
            let exact: i128 = integers.iter().sum();
            // Each integer is exact; each sum has a relative error of at most 2⁻¹⁰⁴.
            let off = sum.minus(exact.into()).value().abs();
            prop_assert!(off <= 50.0 * 2_f64.powi(96 - 104), "off by {off}");
        }
    }
}
