//! Latency of packets in an hdrhistogram of fixed size: reads no clock; durations come in.

use crate::config::{LATENCY_BYTES, LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Latencies of one connection's packets, each from the moment its last byte was taken over until
/// its last record stood in the columns.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

/// What is reported of a [`Latency`], in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// Half of the packets took no longer.
    pub p50: f64,
    /// 90 % of the packets took no longer.
    pub p90: f64,
    /// 99 % of the packets took no longer.
    pub p99: f64,
    /// 99.9 % of the packets took no longer.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// Packets recorded.
    pub count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        // The bounds are constants; a unit test makes one.
        let histogram = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS)
            .expect("the bounds of config are valid");
        debug_assert_eq!(histogram.distinct_values() * size_of::<u64>(), LATENCY_BYTES);
        Latency { histogram }
    }
}

impl Latency {
    /// Records `packets` packets that took `latency` each.
    pub fn record(&mut self, latency: Duration, packets: u64) {
        if packets > 0 {
            let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            self.histogram.saturating_record_n(nanoseconds, packets);
        }
    }

    /// The percentiles; all zero where nothing was recorded.
    pub fn summary(&self) -> LatencySummary {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let quantile = |q| microseconds(self.histogram.value_at_quantile(q));
        LatencySummary {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: microseconds(self.histogram.max()),
            count: self.histogram.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_size_is_the_real_one() {
        assert_eq!(Latency::default().histogram.distinct_values() * 8, LATENCY_BYTES);
    }

    #[test]
    fn percentiles_of_known_latencies() {
        let mut latency = Latency::default();
        assert_eq!(latency.summary(), LatencySummary::default());
        latency.record(Duration::from_micros(10), 900);
        latency.record(Duration::from_micros(200), 90);
        latency.record(Duration::from_millis(3), 9);
        latency.record(Duration::from_secs(1), 1);
        latency.record(Duration::from_secs(1), 0);
        let summary = latency.summary();
        // Three digits, or the 64 ns that are the finest step.
        let near = |value: f64, expected: f64| (value - expected).abs() < 0.064 + expected * 1e-3;
        assert!(near(summary.p50, 10.0) && near(summary.p90, 10.0), "{summary:?}");
        assert!(near(summary.p99, 200.0) && near(summary.p99_9, 3000.0), "{summary:?}");
        assert!(near(summary.max, 1e6), "{summary:?}");
        assert_eq!(summary.count, 1000);
    }

    #[test]
    fn the_longest_is_cut_at_the_bound() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(3600), 1);
        let max = latency.summary().max;
        assert!((60e6..60.1e6).contains(&max), "{max}");
    }
}
