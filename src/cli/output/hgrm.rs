//! Percentiles in the text format of HdrHistogram's own tools (`.hgrm`).
//!
//! The format is that of `outputPercentileDistribution` in the Java original, with five steps for
//! each halving of the distance to 1. Its plotters draw the lines with four columns.

use hdrhistogram::Histogram;
use std::io::{self, Write};

/// Writes the percentiles of a histogram of nanoseconds, in microseconds: value, percentile, how
/// many values are at most that, and one in how many is larger.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_percentiles(
    histogram: &Histogram<u64>,
    out: &mut impl Write,
) -> io::Result<()> {
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
            // All values are counted; further lines would repeat this one.
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

/// Steps in the first bucket: the next power of two whose upper half resolves all digits.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN};

    /// With the bounds that `ringest load` uses.
    fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 3600 * 1_000_000_000, 3).unwrap()
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
    fn nothing_measured_is_written_too() {
        let mut out = Vec::new();
        write_percentiles(&histogram(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Total count    =            0"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    /// HdrHistogram's Java original prints exactly these bytes for the same values.
    #[test]
    fn the_original_prints_the_same() {
        const EXPECTED: &str = "       Value     Percentile TotalCount 1/(1-Percentile)

       0.319 0.000000000000          5           1.00
       0.319 0.100000000000          5           1.11
       9.023 0.200000000000         25           1.25
       9.023 0.300000000000         25           1.43
       9.023 0.400000000000         25           1.67
       9.023 0.500000000000         25           2.00
       9.023 0.550000000000         25           2.22
       9.023 0.600000000000         25           2.50
       9.023 0.650000000000         25           2.86
       9.023 0.700000000000         25           3.33
       9.023 0.750000000000         25           4.00
       9.023 0.775000000000         25           4.44
       9.023 0.800000000000         25           5.00
       9.023 0.825000000000         25           5.71
     250.111 0.850000000000         29           6.67
     250.111 0.875000000000         29           8.00
     250.111 0.887500000000         29           8.89
     250.111 0.900000000000         29          10.00
     250.111 0.912500000000         29          11.43
     250.111 0.925000000000         29          13.33
     250.111 0.937500000000         29          16.00
     250.111 0.943750000000         29          17.78
     250.111 0.950000000000         29          20.00
     250.111 0.956250000000         29          22.86
     250.111 0.962500000000         29          26.67
60028878.847 0.968750000000         30          32.00
60028878.847 1.000000000000         30
#[Mean    =  2000442.770, StdDeviation   = 10772494.611]
#[Max     = 60028878.847, Total count    =           30]
#[Buckets =           20, SubBuckets     =         2048]
";
        let mut histogram =
            Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS).unwrap();
        for (nanoseconds, times) in [(300, 5), (9_000, 20), (250_000, 4), (60_000_000_000, 1)] {
            histogram.record_n(nanoseconds, times).unwrap();
        }
        let mut out = Vec::new();
        write_percentiles(&histogram, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), EXPECTED);
    }
}
