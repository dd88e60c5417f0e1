//! Median and range of some figures.

use serde::{Deserialize, Serialize};

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// The middle figure; for an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of at least one figure.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let below = sorted[(sorted.len() - 1) / 2];
        Spread {
            median: f64::midpoint(below, sorted[middle]),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        }
    }
}
