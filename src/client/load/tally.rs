//! The counters and histograms of a load run. Decides nothing and formats nothing.

use crate::wire::messages::payload::ErrorCode;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// The longest latency a histogram can record: an hour. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 3600 * 1_000_000_000;
/// Significant digits of recorded latencies.
const LATENCY_DIGITS: u8 = 3;

/// The period that is measured, in nanoseconds since the run's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredTime {
    /// Its first nanosecond.
    pub begin: u64,
    /// The first nanosecond after it.
    pub end: u64,
}

impl MeasuredTime {
    /// A period that contains no time.
    pub const NEVER: MeasuredTime = MeasuredTime { begin: u64::MAX, end: u64::MAX };

    /// Whether it contains a time.
    #[inline]
    pub fn contains(&self, time: u64) -> bool {
        (self.begin..self.end).contains(&time)
    }
}

/// Everything that is counted, within the measured period. Problems with connections and wrong
/// content are counted from the first connection on. ERRORs in the warm-up have a count of their
/// own.
#[derive(Clone, Debug)]
pub struct LoadTally {
    /// Messages sent.
    pub sent: u64,
    /// Correct answers received; for broadcasts, correct deliveries.
    pub answers: u64,
    /// Bytes of frames written.
    pub bytes_sent: u64,
    /// Bytes of frames read.
    pub bytes_received: u64,
    /// Latencies, in nanoseconds, of the messages sent or due within the measured period.
    pub latency: Histogram<u64>,
    /// By how much the load generator itself was late sending messages of an open loop, in
    /// nanoseconds.
    pub lateness: Histogram<u64>,
    /// Messages of an open loop that had to wait because too many were unanswered.
    pub held_back: u64,
    /// Messages of an open loop that were due and never sent.
    pub unsent: u64,
    /// Messages without an answer, or deliveries that never arrived.
    pub unanswered: u64,
    /// Answers and deliveries with the wrong content.
    pub mismatches: u64,
    /// ERRORs received in the measured period and after it, by code.
    pub errors: BTreeMap<u8, u64>,
    /// ERRORs received before it, in the warm-up.
    pub warm_up_errors: u64,
    /// Connections on which the server violated the protocol: checksum, order or type.
    pub invalid: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Connections that were made and lost.
    pub lost: u64,
    /// The first problem with a connection, as a sentence.
    pub first_problem: Option<String>,
}

impl Default for LoadTally {
    fn default() -> Self {
        LoadTally {
            sent: 0,
            answers: 0,
            bytes_sent: 0,
            bytes_received: 0,
            latency: histogram(),
            lateness: histogram(),
            held_back: 0,
            unsent: 0,
            unanswered: 0,
            mismatches: 0,
            errors: BTreeMap::new(),
            warm_up_errors: 0,
            invalid: 0,
            failed: 0,
            lost: 0,
            first_problem: None,
        }
    }
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants, and the unit tests create one.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS).expect("the bounds are valid")
}

impl LoadTally {
    /// Counts a message that was sent, or due, at `sent` and answered at `now`.
    #[inline]
    pub fn answered(&mut self, sent: u64, now: u64, window: MeasuredTime) {
        if window.contains(sent) {
            self.latency.saturating_record(now.saturating_sub(sent));
        }
        self.answers += u64::from(window.contains(now));
    }

    /// Counts a message that was sent, or due, at `sent` and is still unanswered at `now`. Its
    /// latency is at least that long; leaving it out would flatter the percentiles. `count` of them
    /// were sent, or due, at about that time.
    pub fn never_answered(&mut self, sent: u64, now: u64, window: MeasuredTime, count: u64) {
        if window.contains(sent) {
            self.latency.saturating_record_n(now.saturating_sub(sent), count);
        }
    }

    /// Counts an ERROR that was received at `now`. While connections are made, there is no warm-up
    /// yet: the ERROR counts.
    pub fn error(&mut self, code: u8, now: u64, window: MeasuredTime) {
        match now < window.begin && window != MeasuredTime::NEVER {
            true => self.warm_up_errors += 1,
            false => *self.errors.entry(code).or_default() += 1,
        }
    }

    /// Whether nothing went wrong, apart from ERRORs in the warm-up.
    pub fn is_clean(&self) -> bool {
        let wrong =
            [self.unsent, self.unanswered, self.mismatches, self.invalid, self.failed, self.lost];
        wrong.iter().all(|&count| count == 0) && self.errors.is_empty()
    }

    /// The errors by name; unknown codes as hex.
    pub fn errors_by_name(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.errors.iter().map(|(&code, &count)| {
            let name = ErrorCode::from_byte(code).map(|code| code.name().to_owned());
            (name.unwrap_or_else(|| format!("{code:#04x}")), count)
        })
    }

    /// Adds the counts of another thread.
    pub fn merge(&mut self, other: &LoadTally) {
        self.sent += other.sent;
        self.answers += other.answers;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.lateness.add(&other.lateness).expect("both have the same bounds");
        self.held_back += other.held_back;
        self.unsent += other.unsent;
        self.unanswered += other.unanswered;
        self.mismatches += other.mismatches;
        for (&code, &count) in &other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.warm_up_errors += other.warm_up_errors;
        self.invalid += other.invalid;
        self.failed += other.failed;
        self.lost += other.lost;
        if self.first_problem.is_none() {
            self.first_problem.clone_from(&other.first_problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::latency::{LatencySummary, summary};

    const WINDOW: MeasuredTime = MeasuredTime { begin: 1000, end: 2000 };

    #[test]
    fn only_the_window_is_measured() {
        let mut tally = LoadTally::default();
        // Sent before the window; sent and answered in it; answered after it.
        for (sent, now) in [(900, 1100), (1100, 1300), (1900, 2900)] {
            tally.answered(sent, now, WINDOW);
        }
        assert_eq!(tally.answers, 2);
        assert_eq!((tally.latency.len(), tally.latency.max()), (2, 1000));
        assert!(!MeasuredTime::NEVER.contains(u64::MAX) && !MeasuredTime::NEVER.contains(0));
    }

    #[test]
    fn each_kind_of_problem_is_a_problem() {
        assert!(LoadTally::default().is_clean());
        let kinds: [fn(&mut LoadTally); 7] = [
            |t| t.unsent = 1,
            |t| t.unanswered = 1,
            |t| t.mismatches = 1,
            |t| t.invalid = 1,
            |t| t.failed = 1,
            |t| t.lost = 1,
            |t| t.error(7, 1500, WINDOW),
        ];
        for spoil in kinds {
            let (mut spoilt, mut merged) = (LoadTally::default(), LoadTally::default());
            spoil(&mut spoilt);
            merged.merge(&spoilt);
            assert!(!spoilt.is_clean() && !merged.is_clean());
        }
        let mut tally = LoadTally::default();
        // In the window, after it, and in the warm-up before it.
        for (code, now) in [(7, 1000), (7, 2500), (0x42, 1999), (7, 999), (9, 0)] {
            tally.error(code, now, WINDOW);
        }
        assert_eq!(tally.warm_up_errors, 2);
        let mut connecting = LoadTally::default();
        connecting.error(7, 5, MeasuredTime::NEVER);
        assert!(!connecting.is_clean());
        let names: Vec<_> = tally.errors_by_name().collect();
        assert_eq!(names, [("RATE_LIMIT_EXCEEDED".to_owned(), 2), ("0x42".to_owned(), 1)]);
    }

    #[test]
    fn a_summary_is_in_microseconds() {
        let mut some = histogram();
        some.record_n(10_000, 99).unwrap();
        some.record(5_000_000).unwrap();
        let LatencySummary { p50, p99_9, count, .. } = summary(&some);
        assert!((9.9..10.1).contains(&p50) && (4990.0..5010.0).contains(&p99_9));
        assert_eq!(count, 100);
        assert_eq!(summary(&histogram()), LatencySummary::default());
    }
}
