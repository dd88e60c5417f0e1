//! Checks moments at the limits of their numbers against exact integers.

use super::*;
use proptest::prelude::*;

#[test]
fn squares_of_the_largest_integers_are_exact() {
    let mut squares = Squares::default();
    (0..1000).for_each(|_| squares.add(u64::MAX));
    let sum = 1000 * i128::from(u64::MAX);
    assert_eq!(squares.m2(1000, sum), 0.0);
    squares.add(u64::MAX - 1);
    assert_eq!(squares.m2(1001, sum + i128::from(u64::MAX - 1)), 1000.0 / 1001.0);
    // As many as a table counts.
    let count = u64::from(u32::MAX);
    let (low, high) = wide_product(u128::from(u64::MAX) * u128::from(u64::MAX), count.into());
    let all = Squares { low, high: high as u64 };
    assert_eq!(all.m2(count, i128::from(count) * i128::from(u64::MAX)), 0.0);
    let half = all.m2(count, 0) / count as f64 / (u64::MAX as f64).powi(2);
    assert!((half - 1.0).abs() < 1e-15, "{half}");
}

#[test]
fn a_mean_is_finite_where_the_sum_is_not() {
    let one = |mean| Moments { mean, rest: 0.0, m2: 0.0, unit: 1.0 };
    let all = Moments::merged([(1 << 40, one(f64::MAX)), (7, one(f64::MAX))].into_iter());
    assert_eq!((all.mean, all.rest, all.m2), (f64::MAX, 0.0, 0.0));
    assert_eq!(sum_of((1 << 40) + 7, all.mean, all.rest), f64::INFINITY);
    let both = Moments::merged([(1, one(f64::MAX)), (1, one(-f64::MAX))].into_iter());
    assert_eq!((both.mean, both.deviation(2)), (0.0, f64::INFINITY));
}

proptest! {
    #[test]
    fn wide_products_are_exact(left in any::<u128>(), right in any::<u64>()) {
        let (low, high) = wide_product(left, right.into());
        prop_assert_eq!(low, left.wrapping_mul(right.into()));
        // The same by halves.
        let (upper, lower) = (left >> 64, left & u128::from(u64::MAX));
        let upper = upper * u128::from(right) + ((lower * u128::from(right)) >> 64);
        prop_assert_eq!(high, upper >> 64);
    }

    /// Integers of 40 bits in batches; their moments are exact fractions.
    #[test]
    fn batches_merge_as_their_values_would(
        batches in prop::collection::vec(prop::collection::vec(0_i64..1 << 40, 1..20), 1..10),
    ) {
        let of = |values: &[i64]| {
            let mut squares = Squares::default();
            values.iter().for_each(|&value| squares.add(value as u64));
            let sum = values.iter().map(|&one| i128::from(one)).sum();
            let count = values.len() as u64;
            (count, sum, squares.m2(count, sum))
        };
        let (count, sum, exact) = of(&batches.concat());
        let m2 = merged_m2(batches.iter().map(|batch| of(batch)));
        prop_assert!((m2 - exact).abs() <= 1e-14 * exact, "{m2}, expected {exact}");
        let floats = batches.iter().map(|batch| {
            let values = batch.iter().map(|&value| value as f64);
            (batch.len() as u64, Moments::of(values, batch.len() as u64, true))
        });
        let merged = Moments::merged(floats.collect::<Vec<_>>().into_iter());
        prop_assert!((merged.m2 - exact).abs() <= 1e-14 * exact, "{merged:?}, expected {exact}");
        prop_assert_eq!(sum_of(count, merged.mean, merged.rest), sum as f64);
    }
}
