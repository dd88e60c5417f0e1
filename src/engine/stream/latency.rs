//! Latencies in hdrhistograms of bounded size: reads no clock; durations come in.

use crate::config::{
    LATENCY_BYTES, LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN, SMALL_LATENCY_DIGITS,
};
use hdrhistogram::{Counter, Histogram};
use std::time::Duration;

/// Latencies to three digits: of one connection's or one worker's packets, each from the moment its
/// last byte was taken over until its last record stood in the columns, or of a worker's messages.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    /// Their sum, exact; a histogram only knows it to its digits.
    sum: Duration,
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
        Latency { histogram, sum: Duration::ZERO }
    }
}

impl Latency {
    /// Records `packets` packets that took `latency` each.
    pub fn record(&mut self, latency: Duration, packets: u64) {
        if packets > 0 {
            self.histogram.saturating_record_n(nanoseconds(latency), packets);
            self.sum += latency * u32::try_from(packets).unwrap_or(u32::MAX);
        }
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Latency) {
        self.histogram.add(&other.histogram).expect("both have the same bounds");
        self.sum += other.sum;
    }

    /// Those that came after `earlier`, which is what this was before.
    ///
    /// # Panics
    /// Where `earlier` has some that this has not.
    pub fn since(&self, earlier: &Latency) -> Latency {
        if self.histogram.len() == earlier.histogram.len() {
            // What a histogram has left when all is subtracted still has a maximum.
            return Latency::default();
        }
        let mut later = self.clone();
        later.histogram.subtract(&earlier.histogram).expect("what was before is in it");
        later.sum = later.sum.saturating_sub(earlier.sum);
        later
    }

    /// How many took how many nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Forgets all of them and keeps the memory.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.histogram.clear();
            self.sum = Duration::ZERO;
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// All of them added up.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// How many took at most `bound`, to the histogram's three digits.
    pub fn count_within(&self, bound: Duration) -> u64 {
        self.histogram.count_between(0, nanoseconds(bound))
    }

    /// The percentiles; all zero where nothing was recorded.
    pub fn summary(&self) -> LatencySummary {
        summary(&self.histogram)
    }
}

fn nanoseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)
}

/// The percentiles of a histogram of nanoseconds; all zero where nothing was recorded.
pub(crate) fn summary<C: Counter>(histogram: &Histogram<C>) -> LatencySummary {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let quantile = |q| microseconds(histogram.value_at_quantile(q));
    LatencySummary {
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p99_9: quantile(0.999),
        max: microseconds(histogram.max()),
        count: histogram.len(),
    }
}

/// Latencies of one message connection, or waits of a record connection's gathered reads, to one
/// digit, so that they are said up to a sixteenth too long and never too short. Takes no memory
/// before the first, half a KiB for usual ones, and
/// [`SMALL_LATENCY_BYTES`](crate::config::SMALL_LATENCY_BYTES) at most, since a quiet connection
/// keeps it however slow one of its replies was: there may be thousands of these.
#[derive(Clone, Debug, Default)]
pub struct SmallLatency {
    histogram: Option<Box<Histogram<u32>>>,
}

impl SmallLatency {
    /// With all the memory that it ever takes, so that recording allocates nothing.
    pub fn with_room() -> Self {
        SmallLatency { histogram: Some(Self::histogram_up_to(LATENCY_NS_MAX)) }
    }

    fn histogram_up_to(nanoseconds: u64) -> Box<Histogram<u32>> {
        let (low, digits) = (LATENCY_NS_MIN, SMALL_LATENCY_DIGITS);
        let histogram = Histogram::new_with_bounds(low, nanoseconds, digits);
        Box::new(histogram.expect("the bounds of config are valid"))
    }

    /// Records `messages` messages that took `latency` each.
    pub fn record(&mut self, latency: Duration, messages: u32) {
        if messages == 0 {
            return;
        }
        let histogram = self.histogram.get_or_insert_with(|| {
            let mut histogram = Self::histogram_up_to(2 * LATENCY_NS_MIN);
            histogram.auto(true);
            histogram
        });
        let nanoseconds = nanoseconds(latency).min(LATENCY_NS_MAX);
        // A count that is full stays full: 2^32 messages of one latency are enough to know it.
        let _ = histogram.record_n(nanoseconds, messages);
    }

    /// The percentiles; all zero where nothing was recorded.
    pub fn summary(&self) -> LatencySummary {
        self.histogram.as_deref().map(summary).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SMALL_LATENCY_BYTES;

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
    fn merged_latencies_are_those_of_both() {
        let (mut one, mut other) = (Latency::default(), Latency::default());
        one.record(Duration::from_micros(10), 3);
        other.record(Duration::from_millis(1), 2);
        one.merge(&other);
        assert_eq!(one.sum(), Duration::from_micros(2030));
        assert_eq!(one.count_within(Duration::from_micros(100)), 3);
        assert_eq!(one.count_within(Duration::from_millis(2)), 5);
        one.clear();
        assert!(one.is_empty() && one.sum().is_zero() && one.summary().count == 0);
    }

    #[test]
    fn the_latencies_since_a_moment_have_percentiles_of_their_own() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(1), 100);
        latency.record(Duration::from_micros(1), 100);
        let earlier = latency.clone();
        assert_eq!(latency.since(&earlier).summary(), LatencySummary::default());
        latency.record(Duration::from_micros(50), 10);
        latency.record(Duration::from_micros(1), 1);
        let since = latency.since(&earlier);
        let LatencySummary { p50, max, count, .. } = since.summary();
        assert!((49.9..50.1).contains(&p50) && max == p50 && count == 11, "{p50} {max} {count}");
        assert_eq!(since.sum(), Duration::from_micros(501));
        assert_eq!(latency.since(&Latency::default()).summary(), latency.summary());
    }

    #[test]
    fn a_small_histogram_grows_to_its_stated_size() {
        let mut small = SmallLatency::default();
        assert_eq!(small.summary(), LatencySummary::default());
        small.record(Duration::from_micros(12), 10);
        let bytes = |small: &SmallLatency| small.histogram.as_ref().unwrap().distinct_values() * 4;
        assert!(bytes(&small) <= 512, "{}", bytes(&small));
        assert!((12.0..12.75).contains(&small.summary().p50), "{:?}", small.summary());
        small.record(Duration::from_secs(3600), 1);
        assert!((60e6..63.75e6).contains(&small.summary().max), "{:?}", small.summary());
        assert!(bytes(&small) <= SMALL_LATENCY_BYTES, "{}", bytes(&small));
    }

    #[test]
    fn one_with_room_has_its_stated_size_from_the_beginning() {
        let mut small = SmallLatency::with_room();
        assert_eq!(small.summary(), LatencySummary::default());
        let bytes = |small: &SmallLatency| small.histogram.as_ref().unwrap().distinct_values() * 4;
        let before = bytes(&small);
        assert!(before <= SMALL_LATENCY_BYTES, "{before}");
        small.record(Duration::from_secs(3600), 1);
        assert!((60e6..63.75e6).contains(&small.summary().max), "{:?}", small.summary());
        assert_eq!(bytes(&small), before);
    }

    #[test]
    fn the_longest_is_cut_at_the_bound() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(3600), 1);
        let max = latency.summary().max;
        assert!((60e6..60.1e6).contains(&max), "{max}");
    }
}
