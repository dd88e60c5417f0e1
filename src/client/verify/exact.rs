//! Exact arithmetic with floats: sums, and sums of squares, as integers of any length times a power
//! of two, rounded only when they are asked for. What judges a result has no error of its own.

/// Bits of a word.
const WORD: i32 = 64;

/// A number that is exact whatever is added to it. Infinities and NaN are added by themselves, as
/// IEEE 754 adds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ExactSum {
    /// In two's complement, from the lowest.
    words: Vec<u64>,
    /// How many words are between the units and the lowest word; negative below the point.
    place: i32,
    /// The sum of what is not finite, if there is any.
    special: Option<f64>,
}

/// A finite float as an integer times a power of two.
fn parts(number: f64) -> (i128, i32) {
    let bits = number.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let magnitude = if exponent == 0 { fraction } else { fraction | 1 << 52 };
    (if number.is_sign_negative() { -magnitude } else { magnitude }, exponent.max(1) - 1075)
}

/// A number times a power of two, which may be beyond binary64.
fn scaled(number: f64, power: i32) -> f64 {
    let third = power / 3;
    number * 2_f64.powi(third) * 2_f64.powi(third) * 2_f64.powi(power - 2 * third)
}

impl From<i128> for ExactSum {
    fn from(integer: i128) -> Self {
        let mut sum = ExactSum::default();
        sum.add_shifted(integer, 0);
        sum
    }
}

impl ExactSum {
    /// Adds a float.
    pub(crate) fn add(&mut self, number: f64) {
        if !number.is_finite() {
            self.special = Some(self.special.unwrap_or(0.0) + number);
            return;
        }
        let (integer, power) = parts(number);
        self.add_shifted(integer, power);
    }

    /// Adds the square of a float.
    pub(crate) fn add_square(&mut self, number: f64) {
        if !number.is_finite() {
            self.special = Some(f64::NAN);
            return;
        }
        let (integer, power) = parts(number);
        self.add_shifted(integer * integer, 2 * power);
    }

    /// Adds the square of an integer of 64 bits.
    pub(crate) fn add_integer_square(&mut self, integer: i128) {
        let (upper, lower) = (integer >> 32, integer & 0xffff_ffff);
        self.add_shifted(upper * upper, 64);
        self.add_shifted(upper * lower, 33);
        self.add_shifted(lower * lower, 0);
    }

    /// Adds another sum.
    pub(crate) fn plus(&mut self, other: &ExactSum) {
        if let Some(special) = other.special {
            self.special = Some(self.special.unwrap_or(0.0) + special);
        }
        self.add_words(&other.words, other.place);
    }

    /// The sum, so many times.
    pub(crate) fn times(&self, times: u64) -> Self {
        let mut product = self.product(&ExactSum::from(i128::from(times)));
        product.special = if times == 0 { None } else { self.special };
        product
    }

    fn minus(&self) -> Self {
        let mut negated = ExactSum { words: vec![0], place: self.place, special: None };
        let inverted: Vec<u64> = self.words.iter().map(|word| !word).collect();
        negated.add_words(&inverted, self.place);
        negated.add_words(&[1, 0], self.place);
        negated
    }

    fn is_negative(&self) -> bool {
        self.words.last().is_some_and(|&top| top >> (WORD - 1) == 1)
    }

    fn product(&self, other: &ExactSum) -> Self {
        let magnitude = |sum: &ExactSum| if sum.is_negative() { sum.minus() } else { sum.clone() };
        let (left, right) = (magnitude(self), magnitude(other));
        let mut words = vec![0_u64; left.words.len() + right.words.len() + 1];
        for (i, &one) in left.words.iter().enumerate() {
            let mut carry = 0_u128;
            for (j, &two) in right.words.iter().enumerate() {
                let sum = u128::from(one) * u128::from(two) + u128::from(words[i + j]) + carry;
                words[i + j] = sum as u64;
                carry = sum >> WORD;
            }
            words[i + right.words.len()] = carry as u64;
        }
        let product = ExactSum { words, place: left.place + right.place, special: None };
        if self.is_negative() == other.is_negative() { product } else { product.minus() }
    }

    fn add_shifted(&mut self, integer: i128, power: i32) {
        let (place, shift) = (power.div_euclid(WORD), power.rem_euclid(WORD));
        let low = (integer as u128) << shift;
        let high = if shift == 0 { integer >> 127 } else { integer >> (128 - shift) };
        self.add_words(&[low as u64, (low >> WORD) as u64, high as u64], place);
    }

    /// Adds a number in two's complement.
    fn add_words(&mut self, words: &[u64], place: i32) {
        let Some(&top) = words.last() else { return };
        if self.words.is_empty() {
            self.place = place;
        }
        if place < self.place {
            let more = (self.place - place) as usize;
            self.words.splice(0..0, std::iter::repeat_n(0, more));
            self.place = place;
        }
        let sign = |negative: bool| if negative { u64::MAX } else { 0 };
        let begin = (place - self.place) as usize;
        // One word more than both have, so that the sign stays.
        let own = sign(self.is_negative());
        let needed = (begin + words.len() + 1).max(self.words.len());
        self.words.resize(needed, own);
        if self.words.last() != Some(&own) {
            self.words.push(own);
        }
        let beyond = sign(top >> (WORD - 1) == 1);
        let others = words.iter().copied().chain(std::iter::repeat(beyond));
        let mut carry = 0;
        for (word, other) in self.words[begin..].iter_mut().zip(others) {
            let sum = u128::from(*word) + u128::from(other) + carry;
            *word = sum as u64;
            carry = sum >> WORD;
        }
        // Words that only repeat the sign are not kept.
        while let [.., below, last] = self.words[..] {
            if last != sign(below >> (WORD - 1) == 1) {
                break;
            }
            self.words.pop();
        }
    }

    /// The magnitude as a float from 2^127 to 2^128, or 0, and the power of two to multiply it by.
    fn magnitude(&self) -> (f64, i32) {
        let positive = if self.is_negative() { self.minus() } else { self.clone() };
        let Some(top) = positive.words.iter().rposition(|&word| word != 0) else { return (0.0, 0) };
        let word = |at: usize| u128::from(top.checked_sub(at).map_or(0, |at| positive.words[at]));
        let zeros = positive.words[top].leading_zeros();
        let mut bits = word(0) << WORD | word(1);
        if zeros > 0 {
            bits = bits << zeros | word(2) >> (WORD as u32 - zeros);
        }
        // A bit stands for all that is below, which matters where the rest is half a unit.
        if top > 2 && positive.words[..top - 2].iter().any(|&word| word != 0)
            || word(2) << zeros != 0
        {
            bits |= 1;
        }
        (bits as f64, (positive.place + top as i32 - 1) * WORD - zeros as i32)
    }

    /// The sum divided by a number, rounded; infinite if it exceeds binary64.
    pub(crate) fn over(&self, divisor: f64) -> f64 {
        let (magnitude, power) = self.magnitude();
        let sign = if self.is_negative() { -1.0 } else { 1.0 };
        self.special.unwrap_or_else(|| sign * scaled(magnitude / divisor, power))
    }

    /// The sample variance and deviation of `count` numbers with this sum and this sum of squares.
    pub(crate) fn spread(&self, squares: &ExactSum, count: u64) -> (f64, f64) {
        if self.special.is_some() {
            return (f64::NAN, f64::NAN);
        }
        // n Σx² - (Σx)² is n times the sum of the squared distances from the mean.
        let mut distances = squares.times(count);
        distances.plus(&self.product(self).minus());
        let (magnitude, power) = distances.magnitude();
        let variance = magnitude / count as f64 / (count - 1) as f64;
        let even = power.rem_euclid(2);
        let root = (variance * f64::from(1 + even)).sqrt();
        (scaled(variance, power), scaled(root, (power - even) / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(numbers: &[f64]) -> ExactSum {
        numbers.iter().fold(ExactSum::default(), |mut sum, &number| {
            sum.add(number);
            sum
        })
    }

    fn spread(numbers: &[f64]) -> (f64, f64) {
        let mut squares = ExactSum::default();
        numbers.iter().for_each(|&number| squares.add_square(number));
        sum(numbers).spread(&squares, numbers.len() as u64)
    }

    #[test]
    fn nothing_is_lost() {
        assert_eq!(sum(&[1e16, 1.0, -1e16]).over(1.0), 1.0);
        assert_eq!(sum(&[1e300, 1e-300, 7.0, -1e300, -7.0]).over(1.0), 1e-300);
        assert_eq!(sum(&[5e-324, f64::MAX, -f64::MAX]).over(1.0), 5e-324);
        let mean = sum(&[1.7e308; 3]).over(3.0);
        assert!((mean / 1.7e308 - 1.0).abs() < 1e-15, "{mean}");
        assert_eq!(sum(&[1.7e308; 3]).over(1.0), f64::INFINITY);
        assert_eq!(sum(&[-3.0, 1.0]).over(4.0), -0.5);
        assert_eq!(sum(&[]).over(1.0), 0.0);
        assert_eq!(sum(&[0.1]).times(10_000_000_000).over(1.0), 1e9);
        assert_eq!(sum(&[-2.5]).times(3).over(1.0), -7.5);
        assert_eq!(sum(&[-2.5, f64::NAN]).times(0).over(1.0), 0.0);
    }

    #[test]
    fn spreads_are_those_of_fractions() {
        assert_eq!(spread(&[1e16, 1e16 + 2.0, 1e16 + 4.0]), (4.0, 2.0));
        assert_eq!(spread(&[1e308, -1e308]), (f64::INFINITY, 2_f64.sqrt() * 1e308));
        assert_eq!(spread(&[1e-200, 3e-200]), (0.0, 2_f64.sqrt() * 1e-200));
        assert_eq!(spread(&[0.1; 7]), (0.0, 0.0));
        let mut squares = ExactSum::default();
        let integers = [i128::from(u64::MAX), i128::from(u64::MAX) - 1, i128::from(i64::MIN)];
        integers[..2].iter().for_each(|&one| squares.add_integer_square(one));
        assert_eq!(ExactSum::from(integers[0] + integers[1]).spread(&squares, 2).0, 0.5);
        let mut square = ExactSum::default();
        square.add_integer_square(integers[2]);
        assert_eq!(square.over(1.0), 2_f64.powi(126));
    }

    #[test]
    fn infinities_and_what_is_no_number_stay() {
        assert_eq!(sum(&[1.0, f64::INFINITY]).over(2.0), f64::INFINITY);
        assert!(sum(&[f64::NEG_INFINITY, f64::INFINITY]).over(1.0).is_nan());
        assert!(spread(&[1.0, f64::NAN]).0.is_nan());
        let mut all = sum(&[1.0]);
        all.plus(&sum(&[f64::INFINITY]).times(3));
        assert_eq!(all.over(1.0), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn sums_of_integers_are_those_of_i128(
            integers in prop::collection::vec(-(1_i128 << 100)..1 << 100, 1..50),
            times in any::<u16>(),
        ) {
            let mut sum = ExactSum::default();
            integers.iter().for_each(|&integer| sum.plus(&integer.into()));
            let exact: i128 = integers.iter().sum();
            prop_assert_eq!(sum.over(1.0), exact as f64);
            prop_assert_eq!(sum.times(times.into()).over(1.0), (exact * i128::from(times)) as f64);
            sum.plus(&ExactSum::from(-exact));
            prop_assert_eq!(sum.over(1.0), 0.0);
        }
    }
}
