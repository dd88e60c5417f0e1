//! What is counted of a run: numbers and histograms. Decides nothing and formats nothing but the
//! percentiles of a histogram.

use crate::wire::message::ErrorCode;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The longest latency that is told apart from longer ones, an hour.
const LATENCY_NS_MAX: u64 = 3600 * 1_000_000_000;
/// Digits to which latencies are kept.
const LATENCY_DIGITS: u8 = 3;

/// The time that is measured, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first nanosecond.
    pub begin: u64,
    /// The first one after it.
    pub end: u64,
}

impl Window {
    /// One that no time lies in.
    pub const NEVER: Window = Window { begin: u64::MAX, end: u64::MAX };

    /// Whether a time lies in it.
    #[inline]
    pub fn contains(&self, time: u64) -> bool {
        (self.begin..self.end).contains(&time)
    }
}

/// Everything that is counted. What goes wrong is counted from the first connection on, the rest
/// within the time that is measured.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Messages that were sent.
    pub sent: u64,
    /// Answers that came and were right; with broadcasts, deliveries.
    pub answers: u64,
    /// Bytes of frames that were written.
    pub bytes_sent: u64,
    /// Bytes of frames that were read.
    pub bytes_received: u64,
    /// Latencies in nanoseconds of the messages that were sent, or due, within the time.
    pub latency: Histogram<u64>,
    /// How late messages of an open loop were sent by this side's own doing, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// Messages of an open loop that waited because too many before them were unanswered.
    pub held_back: u64,
    /// Messages of an open loop that were due and never sent.
    pub unsent: u64,
    /// Messages without an answer, or deliveries that did not come.
    pub unanswered: u64,
    /// Answers and deliveries with other content than they must have.
    pub mismatches: u64,
    /// ERRORs by their code.
    pub errors: BTreeMap<u8, u64>,
    /// Connections whose bytes were no session: checksum, order, type.
    pub invalid: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Connections that were made and lost.
    pub lost: u64,
    /// The first thing that went wrong with a connection.
    pub first_problem: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
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
            invalid: 0,
            failed: 0,
            lost: 0,
            first_problem: None,
        }
    }
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants; a unit test makes one.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS).expect("the bounds are valid")
}

impl Tally {
    /// A message sent at `sent`, or due then, has been answered `now`.
    #[inline]
    pub fn answered(&mut self, sent: u64, now: u64, window: Window) {
        if window.contains(sent) {
            self.latency.saturating_record(now.saturating_sub(sent));
        }
        self.answers += u64::from(window.contains(now));
    }

    /// A message sent at `sent`, or due then, has not been answered until `now`: it takes that
    /// long at least, and leaving it out would flatter the percentiles.
    pub fn never_answered(&mut self, sent: u64, now: u64, window: Window) {
        if window.contains(sent) {
            self.latency.saturating_record(now.saturating_sub(sent));
        }
    }

    /// An ERROR came.
    pub fn error(&mut self, code: u8) {
        *self.errors.entry(code).or_default() += 1;
    }

    /// Whether anything went wrong.
    pub fn is_clean(&self) -> bool {
        let wrong =
            [self.unsent, self.unanswered, self.mismatches, self.invalid, self.failed, self.lost];
        wrong.iter().all(|&count| count == 0) && self.errors.is_empty()
    }

    /// The errors by their names.
    pub fn errors_by_name(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.errors.iter().map(|(&code, &count)| {
            let name = ErrorCode::from_byte(code).map(|code| code.name().to_owned());
            (name.unwrap_or_else(|| format!("{code:#04x}")), count)
        })
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Tally) {
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
        self.invalid += other.invalid;
        self.failed += other.failed;
        self.lost += other.lost;
        if self.first_problem.is_none() {
            self.first_problem.clone_from(&other.first_problem);
        }
    }
}

/// Writes the percentiles of nanoseconds as HdrHistogram's own tools do, in microseconds: value,
/// percentile, how many were no longer, and one in how many was longer.
///
/// # Errors
/// Those of the writer.
pub fn write_percentiles(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    const STEPS_PER_HALVING: u32 = 5;
    let microseconds = |nanoseconds: f64| nanoseconds / 1000.0;
    writeln!(out, "       Value     Percentile TotalCount 1/(1-Percentile)\n")?;
    let mut count = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        count += step.count_since_last_iteration();
        let value = microseconds(step.value_iterated_to() as f64);
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:2.12} {count:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
            // All are counted; whatever follows would say the same.
            break;
        }
    }
    let (mean, deviation) = (microseconds(histogram.mean()), microseconds(histogram.stdev()));
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let (max, total) = (microseconds(histogram.max() as f64), histogram.len());
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {total:12}]")?;
    let (buckets, sub_buckets) = (histogram.buckets(), sub_buckets(histogram));
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]")?;
    out.flush()
}

/// Equal steps in the first bucket: the next power of two that keeps the digits in its upper half.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::latency::{LatencySummary, summary};

    const WINDOW: Window = Window { begin: 1000, end: 2000 };

    #[test]
    fn only_the_window_is_measured() {
        let mut tally = Tally::default();
        // Sent before it; sent and answered in it; answered after it.
        for (sent, now) in [(900, 1100), (1100, 1300), (1900, 2900)] {
            tally.answered(sent, now, WINDOW);
        }
        assert_eq!(tally.answers, 2);
        assert_eq!((tally.latency.len(), tally.latency.max()), (2, 1000));
        assert!(!Window::NEVER.contains(u64::MAX) && !Window::NEVER.contains(0));
    }

    #[test]
    fn each_kind_of_problem_is_a_problem() {
        assert!(Tally::default().is_clean());
        let kinds: [fn(&mut Tally); 7] = [
            |t| t.unsent = 1,
            |t| t.unanswered = 1,
            |t| t.mismatches = 1,
            |t| t.invalid = 1,
            |t| t.failed = 1,
            |t| t.lost = 1,
            |t| t.error(7),
        ];
        for spoil in kinds {
            let (mut spoilt, mut merged) = (Tally::default(), Tally::default());
            spoil(&mut spoilt);
            merged.merge(&spoilt);
            assert!(!spoilt.is_clean() && !merged.is_clean());
        }
        let mut tally = Tally::default();
        tally.error(7);
        tally.error(7);
        tally.error(0x42);
        let names: Vec<_> = tally.errors_by_name().collect();
        assert_eq!(names, [("RATE_LIMIT_EXCEEDED".to_owned(), 2), ("0x42".to_owned(), 1)]);
    }

    #[test]
    fn percentiles_are_written_as_tools_read_them() {
        let mut histogram = histogram();
        for microseconds in 1..=1000 {
            histogram.record(microseconds * 1000).unwrap();
        }
        let mut out = Vec::new();
        write_percentiles(&histogram, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        let median = "     500.223 0.500000000000        500           2.00";
        assert!(lines.contains(&median), "{text}");
        let last = lines[lines.len() - 4];
        assert_eq!(last, "    1000.447 1.000000000000       1000");
        assert_eq!(text.matches(" 1.000000000000 ").count(), 1);
        let footer = "\
#[Mean    =      500.505, StdDeviation   =      288.676]
#[Max     =     1000.447, Total count    =         1000]
#[Buckets =           32, SubBuckets     =         2048]
";
        assert!(text.ends_with(footer), "{text}");
        let counts: Vec<u64> = lines[2..lines.len() - 3]
            .iter()
            .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
            .collect();
        assert!(counts.is_sorted());
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

    #[test]
    fn nothing_measured_is_written_too() {
        let mut out = Vec::new();
        write_percentiles(&histogram(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Total count    =            0"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }
}
