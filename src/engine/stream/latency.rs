//! Latency histograms of bounded size. Reads no clock; the caller supplies the durations.

use crate::config::{
    LATENCY_BYTES, LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN, SMALL_LATENCY_DIGITS,
};
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::{Counter, Histogram};
use std::io;
use std::time::Duration;

/// Latencies with three significant digits: of the packets of a connection or worker, each from
/// reading its last byte until its last record is in the columns, or of the messages of a worker.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    /// The exact sum; the histogram has it only to its precision.
    sum: Duration,
}

/// The summary of a [`Latency`], in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p99_9: f64,
    /// The maximum.
    pub max: f64,
    /// Number of packets or messages.
    pub count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        // The bounds are constants, which a unit test covers.
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

    /// Adds the latencies of another.
    pub fn merge(&mut self, other: &Latency) {
        self.histogram.add(&other.histogram).expect("both have the same bounds");
        self.sum += other.sum;
    }

    /// The latencies recorded after `earlier`, an earlier state of this.
    ///
    /// # Panics
    /// Panics if `earlier` is not an earlier state.
    pub fn since(&self, earlier: &Latency) -> Latency {
        if self.histogram.len() == earlier.histogram.len() {
            // A histogram keeps its maximum even when everything is subtracted.
            return Latency::default();
        }
        let mut later = self.clone();
        later
            .histogram
            .subtract(&earlier.histogram)
            .expect("an earlier state is contained in this one");
        later.sum = later.sum.saturating_sub(earlier.sum);
        later
    }

    /// The histogram, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Removes all latencies and keeps the memory.
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.histogram.clear();
            self.sum = Duration::ZERO;
        }
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// The sum of all latencies.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Number of latencies of at most `bound`, to the precision of the histogram.
    pub fn count_within(&self, bound: Duration) -> u64 {
        self.histogram.count_between(0, nanoseconds(bound))
    }

    /// The percentiles; all zero if nothing was recorded.
    pub fn summary(&self) -> LatencySummary {
        summary(&self.histogram)
    }
}

fn nanoseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)
}

/// The percentiles of a histogram of nanoseconds; all zero if nothing was recorded.
pub(crate) fn summary<C: Counter>(histogram: &Histogram<C>) -> LatencySummary {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    // The histogram gives the upper end of a step, which may be above a maximum of zero.
    let quantile = |q| microseconds(histogram.value_at_quantile(q).min(histogram.max()));
    LatencySummary {
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p99_9: quantile(0.999),
        max: microseconds(histogram.max()),
        count: histogram.len(),
    }
}

/// Reads a histogram in the uncompressed V2 format, as partials have it.
///
/// # Errors
/// If the bytes are not a histogram.
pub(crate) fn read_v2(bytes: &[u8]) -> io::Result<Histogram<u64>> {
    const HEADER_BYTES: usize = 40;
    /// `i64::MIN` as the format writes it. Numbers of a histogram that can be counted never bring
    /// so many ones in a row.
    const SMALLEST_NUMBER: [u8; 9] = [u8::MAX; 9];
    // The deserializer trusts the payload length, so it must not claim gigabytes.
    let payload = bytes.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok());
    let length = payload.map(|length| u32::from_be_bytes(length) as usize);
    if length.is_none_or(|length| HEADER_BYTES + length != bytes.len()) {
        return Err(io::Error::other("wrong length"));
    }
    // It also negates the length of each run of zeros, which fails for the smallest number.
    if bytes[HEADER_BYTES..].windows(SMALLEST_NUMBER.len()).any(|nine| nine == SMALLEST_NUMBER) {
        return Err(io::Error::other("a run of zeros has no end"));
    }
    let read: Result<Histogram<u64>, _> = Deserializer::new().deserialize(&mut &bytes[..]);
    let histogram = read.map_err(|error| io::Error::other(error.to_string()))?;
    // The total saturates, and percentiles are looked for by adding up counts.
    if histogram.len() < u64::MAX { Ok(histogram) } else { Err(uncountable()) }
}

/// Adds a histogram to others.
///
/// # Errors
/// If both together have more latencies than can be counted, or the histogram cannot be added.
pub(crate) fn add_to(total: &mut Histogram<u64>, added: &Histogram<u64>) -> io::Result<()> {
    if total.len().saturating_add(added.len()) == u64::MAX {
        return Err(uncountable());
    }
    total.add(added).map_err(|error| io::Error::other(error.to_string()))
}

fn uncountable() -> io::Error {
    io::Error::other("more latencies than can be counted")
}

/// Latencies of one message connection, or waits of a record connection's gathered reads, with one
/// significant digit: they are reported up to a sixteenth too long and never too short. There may
/// be thousands of these, and a quiet connection keeps its own however slow one reply was, so
/// memory is limited: none before the first latency, half a KiB for usual ones, and at most
/// [`SMALL_LATENCY_BYTES`](crate::config::SMALL_LATENCY_BYTES).
#[derive(Clone, Debug, Default)]
pub struct SmallLatency {
    histogram: Option<Box<Histogram<u32>>>,
}

impl SmallLatency {
    /// Allocates all the memory that it can ever need, so that recording does not allocate.
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
        // A count that would overflow stays as it is: 2^32 messages of one latency tell enough.
        let _ = histogram.record_n(nanoseconds, messages);
    }

    /// The percentiles; all zero if nothing was recorded.
    pub fn summary(&self) -> LatencySummary {
        self.histogram.as_deref().map(summary).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SMALL_LATENCY_BYTES;

    #[test]
    fn the_documented_size_is_the_actual_one() {
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
        // Three digits, or 64 ns, the finest step.
        let near = |value: f64, expected: f64| (value - expected).abs() < 0.064 + expected * 1e-3;
        assert!(near(summary.p50, 10.0) && near(summary.p90, 10.0), "{summary:?}");
        assert!(near(summary.p99, 200.0) && near(summary.p99_9, 3000.0), "{summary:?}");
        assert!(near(summary.max, 1e6), "{summary:?}");
        assert_eq!(summary.count, 1000);
    }

    /// A fuzz target found the first: looking for a percentile added up such counts, and panicked.
    #[test]
    fn counts_that_cannot_be_added_up_are_refused() {
        use hdrhistogram::serialization::{Serializer, V2Serializer};
        let encoded = |counts: &[u64]| {
            let mut histogram = Histogram::<u64>::new(3).unwrap();
            for (value, &count) in (1..).zip(counts) {
                histogram.saturating_record_n(value, count);
            }
            let mut bytes = Vec::new();
            V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
            bytes
        };
        const HALF: u64 = 1 << 62;
        assert_eq!(read_v2(&encoded(&[HALF; 3])).unwrap().len(), 3 * HALF);
        assert!(read_v2(&encoded(&[HALF; 4])).is_err());
        let (mut total, added) = (Histogram::<u64>::new(3).unwrap(), encoded(&[HALF; 2]));
        let added = read_v2(&added).unwrap();
        add_to(&mut total, &added).unwrap();
        let error = add_to(&mut total, &added).unwrap_err();
        assert_eq!(error.to_string(), "more latencies than can be counted");
    }

    /// A fuzz target found it: with overflow checks the deserializer panicked.
    #[test]
    fn a_run_of_zeros_has_an_end() {
        let with_run = |run: &[u8]| {
            let mut bytes =
                include_bytes!("../../../fuzz/corpus/histogram/zero_latencies.bin").to_vec();
            bytes.extend(run);
            let payload = u32::try_from(bytes.len() - 40).unwrap();
            bytes[4..8].copy_from_slice(&payload.to_be_bytes());
            read_v2(&bytes).map(|histogram| histogram.len()).map_err(|error| error.to_string())
        };
        let mut longest = [u8::MAX; 9];
        assert_eq!(with_run(&longest).unwrap_err(), "a run of zeros has no end");
        // One zero less.
        longest[0] = 0xfd;
        assert_eq!(with_run(&longest), with_run(&[]));
    }

    #[test]
    fn no_percentile_is_above_the_maximum() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO, 3);
        let LatencySummary { p50, p99_9, max, count, .. } = latency.summary();
        assert_eq!((p50, p99_9, max, count), (0.0, 0.0, 0.0, 3));
    }

    #[test]
    fn merging_adds_the_latencies_of_both() {
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
    fn latencies_since_an_earlier_state_have_their_own_percentiles() {
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
    fn a_small_histogram_grows_to_its_documented_size() {
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
    fn a_preallocated_histogram_does_not_grow() {
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
    fn the_maximum_is_capped_at_the_bound() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(3600), 1);
        let max = latency.summary().max;
        assert!((60e6..60.1e6).contains(&max), "{max}");
    }
}
