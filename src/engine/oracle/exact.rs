//! Sums, means and variances without rounding until the end, for tests: lists of numbers that do
//! not overlap, whose sum is exact.
//!
//! J. R. Shewchuk, "Adaptive precision floating-point arithmetic and fast robust geometric
//! predicates", Discrete & Computational Geometry 18 (1997).

/// An exact sum: the numbers, from the smallest, do not overlap.
#[derive(Clone, Debug, Default)]
struct Expansion(Vec<f64>);

impl Expansion {
    fn add(&mut self, number: f64) {
        let mut carried = number;
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for &part in &self.0 {
            let (large, small) =
                if carried.abs() < part.abs() { (part, carried) } else { (carried, part) };
            let sum = large + small;
            let lost = small - (sum - large);
            if lost != 0.0 {
                kept.push(lost);
            }
            carried = sum;
        }
        kept.push(carried);
        self.0 = kept;
    }

    fn add_product(&mut self, left: f64, right: f64) {
        let product = left * right;
        self.add(product);
        self.add(left.mul_add(right, -product));
    }

    fn value(&self) -> f64 {
        self.0.iter().sum::<f64>() + 0.0
    }
}

/// A power of two that brings the largest of these numbers near 1.
fn scale_of(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let exponent = (largest.to_bits() >> 52) as i64 - 1023;
    f64::from_bits(((1023 + exponent.max(-1000)) as u64) << 52)
}

/// The exact sum of finite numbers, rounded and divided by the returned scale.
fn scaled_sum(values: &[f64]) -> (f64, f64) {
    let scale = scale_of(values);
    let mut sum = Expansion::default();
    values.iter().for_each(|value| sum.add(value / scale));
    (sum.value(), scale)
}

/// The sum of finite numbers, rounded once; infinite if it exceeds binary64.
pub(crate) fn exact_sum(values: &[f64]) -> f64 {
    let (sum, scale) = scaled_sum(values);
    sum * scale
}

/// The mean of finite numbers.
pub(crate) fn exact_mean(values: &[f64]) -> f64 {
    let (sum, scale) = scaled_sum(values);
    sum / values.len() as f64 * scale
}

/// The sample variance and deviation of at least two finite numbers, each given as a sum of two.
pub(crate) fn exact_spread(values: &[(f64, f64)]) -> (f64, f64) {
    let highs: Vec<f64> = values.iter().map(|value| value.0).collect();
    let (scale, count) = (scale_of(&highs), values.len() as f64);
    let (mut sum, mut squares) = (Expansion::default(), Expansion::default());
    for (high, low) in values.iter().map(|(high, low)| (high / scale, low / scale)) {
        sum.add(high);
        sum.add(low);
        squares.add_product(high, high);
        squares.add_product(high, 2.0 * low);
        squares.add_product(low, low);
    }
    // n Σx² - (Σx)², which is n times the sum of the squared distances.
    let mut distances = Expansion::default();
    squares.0.iter().for_each(|&part| distances.add_product(part, count));
    for &left in &sum.0 {
        sum.0.iter().for_each(|&right| distances.add_product(left, -right));
    }
    let variance = distances.value() / count / (count - 1.0);
    (variance * scale * scale, variance.sqrt() * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        assert_eq!(exact_sum(&[1e16, 1.0, -1e16]), 1.0);
        assert_eq!(exact_sum(&[1e300, 1e200, 1e100, -1e300, -1e200]), 1e100);
        assert_eq!(exact_sum(&[1.7e308, 1.7e308, -1.7e308]), 1.7e308);
        assert!((exact_mean(&[1.7e308; 3]) / 1.7e308 - 1.0).abs() < 1e-15);
        let spread = |values: &[f64]| {
            exact_spread(&values.iter().map(|&value| (value, 0.0)).collect::<Vec<_>>())
        };
        assert_eq!(spread(&[1e16, 1e16 + 2.0, 1e16 + 4.0]), (4.0, 2.0));
        assert_eq!(spread(&[1e308, -1e308]), (f64::INFINITY, 2_f64.sqrt() * 1e308));
        assert_eq!(exact_spread(&[(2_f64.powi(53), 0.0), (2_f64.powi(53), 1.0)]).0, 0.5);
    }
}
