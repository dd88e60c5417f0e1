//! What `ringest demo` shows on a terminal after its tables: one row per connection.

use super::columns::{Align, write_columns};
use crate::runtime::results::report::Report;
use std::io::{self, Write};
use std::time::Duration;

/// The facts of one connection.
#[derive(Clone, Debug)]
pub(crate) struct SummaryRow {
    connection: u64,
    peer: String,
    status: &'static str,
    records: u64,
    groups: usize,
    /// From its first byte until its result was printed.
    total: Duration,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl SummaryRow {
    /// The row of a report that has just been printed.
    pub(crate) fn of(report: &Report) -> Self {
        let received = &report.received;
        let latency = received.latency.summary();
        SummaryRow {
            connection: received.connection,
            peer: received.peer.to_string(),
            status: received.status().as_str(),
            records: received.counts.records,
            groups: report.grouped.len(),
            total: received.first_byte.elapsed(),
            p50_us: latency.p50,
            p99_us: latency.p99,
            max_us: latency.max,
        }
    }

    fn cells(&self) -> [String; 10] {
        let seconds = self.total.as_secs_f64();
        let rate = if seconds > 0.0 { self.records as f64 / seconds } else { 0.0 };
        [
            self.connection.to_string(),
            self.peer.clone(),
            self.status.to_owned(),
            self.records.to_string(),
            self.groups.to_string(),
            format!("{seconds:.3}"),
            format!("{rate:.0}"),
            format!("{:.1}", self.p50_us),
            format!("{:.1}", self.p99_us),
            format!("{:.1}", self.max_us),
        ]
    }
}

/// Writes the rows as a table, in the order of connections, and flushes.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_summary(mut rows: Vec<SummaryRow>, out: &mut impl Write) -> io::Result<()> {
    const HEADINGS: [(&str, Align); 10] = [
        ("connection", Align::Right),
        ("peer", Align::Left),
        ("status", Align::Left),
        ("records", Align::Right),
        ("groups", Align::Right),
        ("seconds", Align::Right),
        ("records/s", Align::Right),
        ("p50 µs", Align::Right),
        ("p99 µs", Align::Right),
        ("max µs", Align::Right),
    ];
    rows.sort_by_key(|row| row.connection);
    let cells: Vec<[String; 10]> = rows.iter().map(SummaryRow::cells).collect();
    let mut text = String::new();
    write_columns(&mut text, HEADINGS, &cells).expect("a string takes all");
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::aggregate::of_every_type;
    use crate::engine::stream::received::Received;
    use std::time::Instant;

    fn row(connection: u64, records: u64) -> SummaryRow {
        let now = Instant::now();
        let mut received = Received::nothing(connection, "127.0.0.1:40000".parse().unwrap(), now);
        received.counts.records = records;
        received.latency.record(Duration::from_micros(10), 100);
        let report = Report { received, grouped: of_every_type(), aggregated: now };
        SummaryRow { total: Duration::from_millis(500), ..SummaryRow::of(&report) }
    }

    #[test]
    fn connections_are_listed_in_order() {
        let mut out = Vec::new();
        write_summary(vec![row(10, 100_000), row(2, 7)], &mut out).unwrap();
        let expected = "\
connection  peer             status    records  groups  seconds  records/s  p50 µs  p99 µs  max µs
         2  127.0.0.1:40000  complete        7       3    0.500         14    10.0    10.0    10.0
        10  127.0.0.1:40000  complete   100000       3    0.500     200000    10.0    10.0    10.0
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
