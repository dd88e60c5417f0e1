//! A token bucket in one atomic integer, which decides whether one more message may pass. Reads no
//! clock and never waits; the caller supplies the time.
//!
//! It is a generic cell rate algorithm: instead of counting tokens, it stores the time at which the
//! bucket will be full again. A message moves that time one interval later, and passes only if it
//! is then no further ahead than a whole bucket takes to fill. There is nothing to refill and
//! nothing to lock: threads share a bucket through `&self`.

use crate::sync::{Arc, AtomicU64};
use std::sync::atomic::Ordering;

/// Fractions of a nanosecond, so that the interval of 3,000,000 messages a second (333.33 ns) is
/// not far off. With 16, a u64 holds 36 years of uptime.
const TICKS_PER_NS: u64 = 16;
const TICKS_PER_S: u64 = 1_000_000_000 * TICKS_PER_NS;
/// Longest time to fill a bucket, 9 years; a burst that would take longer is capped. This keeps the
/// sums below from overflowing in a clock's first 27 years.
const FILL_TICKS_MAX: u64 = u64::MAX / 4;

/// Lets `rate` messages a second pass, and `burst` at once after a pause.
///
/// In any time `t` at most `rate * t + burst` messages pass. Intervals are rounded up to a
/// sixteenth of a nanosecond, so the limit is never exceeded, and up to 16 million messages a
/// second it is missed by less than one part in a thousand.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// Ticks that one message costs; 0 for no limit.
    interval: u64,
    /// Ticks that it takes to fill an empty bucket.
    fill: u64,
    /// When the bucket will be full, in ticks of the caller's clock. It is full if that has passed.
    full_at: AtomicU64,
}

/// A bucket of several connections.
pub(crate) type SharedBucket = Arc<TokenBucket>;

impl TokenBucket {
    /// A full bucket. A `rate_per_second` of 0 means no limit; otherwise a `burst` of 0 lets
    /// nothing pass.
    pub(crate) fn new(rate_per_second: u32, burst: u32) -> Self {
        let interval = match u64::from(rate_per_second) {
            0 => 0,
            rate => TICKS_PER_S.div_ceil(rate),
        };
        let fill = interval.saturating_mul(u64::from(burst)).min(FILL_TICKS_MAX);
        TokenBucket { interval, fill, full_at: AtomicU64::new(0) }
    }

    /// Takes a token if there is one. `now_ns` is a monotonic time, counted from an epoch that
    /// everyone who shares the bucket agrees on; threads may supply it slightly out of order.
    pub(crate) fn try_take(&self, now_ns: u64) -> bool {
        if self.interval == 0 {
            return true;
        }
        let now = ticks(now_ns);
        // Relaxed is enough: no other memory depends on this value.
        let taken = self.full_at.try_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(self.interval);
            (full_at - now <= self.fill).then_some(full_at)
        });
        taken.is_ok()
    }

    /// Whether the bucket is full, and can therefore be dropped and later replaced by a new one.
    pub(crate) fn is_full(&self, now_ns: u64) -> bool {
        self.full_at.load(Ordering::Relaxed) <= ticks(now_ns)
    }
}

fn ticks(ns: u64) -> u64 {
    ns.saturating_mul(TICKS_PER_NS)
}

#[cfg(test)]
#[path = "limiter_models.rs"]
mod models;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn take_all(bucket: &TokenBucket, now_ns: u64) -> u64 {
        let mut taken = 0;
        while bucket.try_take(now_ns) {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_per_interval() {
        for rate in [1, 2, 3, 7, 1000, 99_991, 1_000_000] {
            let bucket = TokenBucket::new(rate, rate);
            let begin = 12_345_678_901;
            assert_eq!(take_all(&bucket, begin), u64::from(rate), "{rate}");
            let interval = SECOND.div_ceil(u64::from(rate));
            assert!(!bucket.try_take(begin + interval - 1), "{rate}: too early");
            assert!(bucket.try_take(begin + interval), "{rate}: due");
            assert!(!bucket.try_take(begin + interval), "{rate}: only one");
        }
    }

    #[test]
    fn a_rate_of_zero_means_no_limit() {
        let bucket = TokenBucket::new(0, 0);
        assert!((0..10_000).all(|_| bucket.try_take(5)));
        assert!(bucket.is_full(0));
    }

    #[test]
    fn a_burst_of_zero_lets_nothing_pass() {
        let bucket = TokenBucket::new(10, 0);
        assert!(!bucket.try_take(0));
        assert!(!bucket.try_take(100 * SECOND));
    }

    #[test]
    fn a_pause_fills_the_bucket_and_no_more() {
        let bucket = TokenBucket::new(100, 100);
        assert!(bucket.is_full(0));
        assert_eq!(take_all(&bucket, 0), 100);
        assert!(!bucket.is_full(SECOND - 1));
        assert!(bucket.is_full(SECOND));
        assert_eq!(take_all(&bucket, 3600 * SECOND), 100);
    }

    #[test]
    fn the_burst_may_differ_from_the_rate() {
        let bucket = TokenBucket::new(1000, 3);
        assert_eq!(take_all(&bucket, 0), 3);
        assert_eq!(take_all(&bucket, 2_000_000), 2);
    }

    #[test]
    fn a_clock_that_steps_back_yields_no_tokens() {
        let bucket = TokenBucket::new(10, 10);
        assert_eq!(take_all(&bucket, 5 * SECOND), 10);
        assert_eq!(take_all(&bucket, 4 * SECOND), 0);
        assert_eq!(take_all(&bucket, 5 * SECOND), 0);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        for (rate, burst) in [(1, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX, 1), (1, 1)] {
            let bucket = TokenBucket::new(rate, burst);
            for now in [0, 1, SECOND, u64::MAX / 2, u64::MAX] {
                bucket.try_take(now);
                bucket.is_full(now);
            }
        }
    }

    /// Counts the contents of the bucket in ticks and refills it on every call.
    struct NaiveBucket {
        interval: u128,
        capacity: u128,
        level: u128,
        seen_ns: u64,
    }

    impl NaiveBucket {
        fn new(rate: u32, burst: u32) -> Self {
            let interval = u128::from(TICKS_PER_S).div_ceil(u128::from(rate));
            let capacity = interval * u128::from(burst);
            NaiveBucket { interval, capacity, level: capacity, seen_ns: 0 }
        }

        fn try_take(&mut self, now_ns: u64) -> bool {
            let passed = u128::from(now_ns - self.seen_ns) * u128::from(TICKS_PER_NS);
            self.seen_ns = now_ns;
            self.level = self.capacity.min(self.level + passed);
            let pass = self.level >= self.interval;
            if pass {
                self.level -= self.interval;
            }
            pass
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_counting_bucket(
            rate in 1_u32..100_000,
            burst in 1_u32..50,
            pauses in prop::collection::vec(0_u64..3_000_000, 1..300),
        ) {
            let bucket = TokenBucket::new(rate, burst);
            let mut naive = NaiveBucket::new(rate, burst);
            let mut now = 0;
            for pause in pauses {
                now += pause;
                prop_assert_eq!(bucket.try_take(now), naive.try_take(now));
                prop_assert_eq!(bucket.is_full(now), naive.level == naive.capacity);
            }
        }

        #[test]
        fn no_interval_passes_more_than_rate_and_burst(
            rate in 1_u32..2_000_000,
            burst in 1_u32..20,
            pauses in prop::collection::vec(0_u64..5_000, 1..200),
        ) {
            let bucket = TokenBucket::new(rate, burst);
            let mut now = 0;
            let mut passed = Vec::new();
            for pause in pauses {
                now += pause;
                if bucket.try_take(now) {
                    passed.push(now);
                }
            }
            for (first, begin) in passed.iter().enumerate() {
                for (count, end) in (1_u128..).zip(&passed[first..]) {
                    let earned = u128::from(end - begin) * u128::from(rate);
                    let most = u128::from(burst) * u128::from(SECOND) + earned;
                    prop_assert!(count * u128::from(SECOND) <= most);
                }
            }
        }

        #[test]
        fn a_steady_sender_gets_its_rate(rate in 1_u32..5_000_000) {
            let bucket = TokenBucket::new(rate, 1);
            let interval = SECOND.div_ceil(u64::from(rate));
            prop_assert!((0..1000).all(|message| bucket.try_take(message * interval)));
        }
    }
}
