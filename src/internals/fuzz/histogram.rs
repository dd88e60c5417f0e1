//! Histograms in partials: whatever is accepted must have percentiles, and can be added to those of
//! other batches.

use crate::config::{LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN};
use crate::engine::stream::latency::{LatencySummary, add_to, read_v2, summary};
use hdrhistogram::Histogram;

pub(super) fn run(data: &[u8]) {
    let Ok(histogram) = read_v2(data) else { return };
    assert_eq!(summary(&histogram).count, histogram.len());
    let mut total: Histogram<u64> =
        Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS)
            .expect("the bounds of config are valid");
    total.auto(true);
    // As a merge does with the histograms of two batches.
    if add_to(&mut total, &histogram).is_ok() && add_to(&mut total, &histogram).is_ok() {
        let LatencySummary { p50, p90, p99, p99_9, max, .. } = summary(&total);
        assert!([p50, p90, p99, p99_9, max].is_sorted(), "{:?}", summary(&total));
    }
}
