//! Results as tables and as ndjson, streamed to a writer: makes no result and opens no file.

use super::args::Format;
use crate::engine::aggregate::Group;
use crate::engine::latency::LatencySummary;
use crate::engine::report::Report;
use crate::wire::text::Escaped;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use std::io::{self, Write};
use std::time::Duration;

/// Writes one report whole and flushes.
///
/// # Errors
/// Those of the writer.
pub fn write_report(format: Format, report: &Report, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Table => write_table(report, out)?,
        Format::Ndjson => write_line(report, out)?,
    }
    out.flush()
}

/// A rate where time has passed, else 0: a stream of one read has none.
fn per_second(amount: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { amount / time.as_secs_f64() }
}

// ---- table ----

const HEADINGS: [&str; 6] = ["A", "E", "B_mean", "C_sum", "D_min", "count"];
const TYPES: [&str; 6] = ["u32", "text", "f64", "f64", "i8", "u64"];

fn cells(group: &Group<'_>) -> [String; 6] {
    [
        group.a.to_string(),
        Escaped(group.e).to_string(),
        // The shortest digits that read back as the same number.
        format!("{:?}", group.b_mean),
        format!("{:?}", group.c_sum),
        group.d_min.to_string(),
        group.count.to_string(),
    ]
}

/// The table is streamed row by row in two passes, one for the widths: Polars' own display builds
/// the whole text in memory and cuts rows, columns and strings unless told otherwise.
fn write_table(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let received = &report.received;
    let (connection, peer, status) =
        (received.connection, received.peer, received.status().as_str());
    write!(out, "connection {connection} from {peer}: {status}")?;
    if let Some(reason) = received.reason {
        let detail = received.detail.as_deref().unwrap_or_default();
        write!(out, ", {} ({detail})", reason.as_str())?;
    }
    writeln!(out, "\nshape: ({}, {})", report.grouped.len(), HEADINGS.len())?;

    let mut widths = std::array::from_fn(|i| HEADINGS[i].len().max(TYPES[i].len()));
    for group in report.grouped.groups() {
        for (width, cell) in widths.iter_mut().zip(cells(&group)) {
            *width = (*width).max(cell.len());
        }
    }
    write_rule(out, &widths, ['┌', '┬', '┐'])?;
    write_row(out, &widths, HEADINGS)?;
    write_row(out, &widths, TYPES)?;
    write_rule(out, &widths, ['├', '┼', '┤'])?;
    for group in report.grouped.groups() {
        write_row(out, &widths, cells(&group))?;
    }
    write_rule(out, &widths, ['└', '┴', '┘'])?;
    write_summary(report, out)
}

fn write_rule(
    out: &mut impl Write,
    widths: &[usize; 6],
    [left, inner, right]: [char; 3],
) -> io::Result<()> {
    for (i, &width) in widths.iter().enumerate() {
        let corner = if i == 0 { left } else { inner };
        write!(out, "{corner}{}", "─".repeat(width + 2))?;
    }
    writeln!(out, "{right}")
}

fn write_row<T: AsRef<str>>(
    out: &mut impl Write,
    widths: &[usize; 6],
    cells: [T; 6],
) -> io::Result<()> {
    for (i, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let cell = cell.as_ref();
        match HEADINGS[i] {
            "E" => write!(out, "│ {cell:<width$} ")?,
            _ => write!(out, "│ {cell:>width$} ")?,
        }
    }
    writeln!(out, "│")
}

fn write_summary(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let received = &report.received;
    let (receive, aggregate) = (report.receive_time(), report.aggregate_time());
    // Waiting for the results before it to be printed counts as printing.
    let print = report.aggregated.elapsed();
    let total = receive + aggregate + print;
    writeln!(
        out,
        "{} records, {} packets, {} bytes, {} groups; window: {}",
        received.counts.records,
        received.counts.packets,
        received.counts.bytes,
        report.grouped.len(),
        received.buffer.as_str(),
    )?;
    if received.counts.bytes_after_end > 0 {
        let bytes = received.counts.bytes_after_end;
        writeln!(out, "{bytes} bytes came after the end record and were not aggregated")?;
    }
    writeln!(
        out,
        "{:.6} s: receive {:.6} s, aggregate {:.6} s, print {:.6} s",
        total.as_secs_f64(),
        receive.as_secs_f64(),
        aggregate.as_secs_f64(),
        print.as_secs_f64(),
    )?;
    let (records, bytes) = (received.counts.records as f64, received.counts.bytes as f64);
    let (record_rate, byte_rate) = (per_second(records, total), per_second(bytes, total));
    writeln!(out, "{record_rate:.0} records/s, {:.1} MB/s", byte_rate / 1e6)?;
    let LatencySummary { p50, p90, p99, p99_9, max, count } = received.latency.summary();
    writeln!(
        out,
        "latency of {count} packets: p50 {p50:.1} µs, p90 {p90:.1} µs, p99 {p99:.1} µs, \
         p99.9 {p99_9:.1} µs, max {max:.1} µs"
    )?;
    let LatencySummary { p50, p99, max, count, .. } = received.coalesce_waits.summary();
    if count > 0 {
        writeln!(
            out,
            "{count} reads waited for more before that: p50 {p50:.1} µs, p99 {p99:.1} µs, \
             max {max:.1} µs"
        )?;
    }
    writeln!(out)
}

// ---- ndjson ----

/// The line of a report. Key names and their order are part of the interface.
#[derive(Serialize)]
struct Line<'a> {
    connection: u64,
    peer: String,
    status: &'static str,
    reason: Option<&'static str>,
    records: u64,
    packets: u64,
    bytes: u64,
    bytes_after_end: u64,
    buffer: &'static str,
    seconds: f64,
    receive_seconds: f64,
    aggregate_seconds: f64,
    records_per_second: f64,
    latency_us: LatencyLine,
    coalesced_reads: u64,
    coalesce_wait_us_p50: f64,
    coalesce_wait_us_p99: f64,
    coalesce_wait_us_max: f64,
    #[serde(serialize_with = "groups")]
    groups: &'a Report,
}

#[derive(Serialize)]
struct LatencyLine {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    count: u64,
}

#[derive(Serialize)]
struct GroupLine {
    #[serde(rename = "A")]
    a: u32,
    #[serde(rename = "E")]
    e: String,
    #[serde(rename = "B_mean", serialize_with = "number")]
    b_mean: f64,
    #[serde(rename = "C_sum", serialize_with = "number")]
    c_sum: f64,
    #[serde(rename = "D_min")]
    d_min: i8,
    count: u64,
}

/// A number, or a word where JSON has no number.
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match *value {
        value if value.is_finite() => serializer.serialize_f64(value),
        value if value.is_nan() => serializer.serialize_str("NaN"),
        value if value > 0.0 => serializer.serialize_str("inf"),
        _ => serializer.serialize_str("-inf"),
    }
}

fn groups<S: Serializer>(report: &&Report, serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(report.grouped.len()))?;
    for group in report.grouped.groups() {
        sequence.serialize_element(&GroupLine {
            a: group.a,
            e: Escaped(group.e).to_string(),
            b_mean: group.b_mean,
            c_sum: group.c_sum,
            d_min: group.d_min,
            count: group.count,
        })?;
    }
    sequence.end()
}

fn write_line(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let received = &report.received;
    let total = received.first_byte.elapsed();
    let LatencySummary { p50, p90, p99, p99_9, max, count } = received.latency.summary();
    let waits = received.coalesce_waits.summary();
    let line = Line {
        connection: received.connection,
        peer: received.peer.to_string(),
        status: received.status().as_str(),
        reason: received.reason.map(|reason| reason.as_str()),
        records: received.counts.records,
        packets: received.counts.packets,
        bytes: received.counts.bytes,
        bytes_after_end: received.counts.bytes_after_end,
        buffer: received.buffer.as_str(),
        seconds: total.as_secs_f64(),
        receive_seconds: report.receive_time().as_secs_f64(),
        aggregate_seconds: report.aggregate_time().as_secs_f64(),
        records_per_second: per_second(received.counts.records as f64, total),
        latency_us: LatencyLine { p50, p90, p99, p99_9, max, count },
        coalesced_reads: waits.count,
        coalesce_wait_us_p50: waits.p50,
        coalesce_wait_us_p99: waits.p99,
        coalesce_wait_us_max: waits.max,
        groups: report,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::aggregate::Aggregate;
    use crate::engine::columns::{ColumnSet, key_of};
    use crate::engine::intern::Interner;
    use crate::engine::report::{Reason, Received};
    use crate::engine::text_tag::FIELD_BYTES;
    use std::time::Instant;

    /// Three groups: a text to be escaped, a sum that is no number, an infinite one.
    fn report() -> Report {
        let mut interner = Interner::with_limits(10, 1000);
        let mut set = ColumnSet::with_rows(10);
        let rows =
            [(7, &b"a\\\x1b"[..], 1.5), (3, b"", f64::NAN), (7, b"long text", f64::INFINITY)];
        for (a, text, c) in rows {
            let mut field = [b' '; FIELD_BYTES];
            field[..text.len()].copy_from_slice(text);
            let code = interner.code(&field).unwrap();
            set.push_row(key_of(a) | u64::from(code), 5, c, -128);
        }
        let mut aggregate = Aggregate::default();
        aggregate.add(&mut set).unwrap();
        let now = Instant::now();
        let mut received = Received::nothing(4, "[::1]:9".parse().unwrap(), now);
        received.counts.records = 3;
        received.counts.bytes_after_end = 2;
        received.reason = Some(Reason::ClosedInHeader);
        received.detail = Some("closed by the peer".to_owned());
        let grouped = aggregate.finish(&interner.into_texts()).unwrap();
        Report { received, grouped, aggregated: now }
    }

    fn written(format: Format) -> String {
        let mut out = Vec::new();
        write_report(format, &report(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_shows_everything_in_columns() {
        let table = written(Format::Table);
        let expected = "\
connection 4 from [::1]:9: incomplete, closed_in_header (closed by the peer)
shape: (3, 6)
┌─────┬───────────┬────────┬───────┬───────┬───────┐
│   A │ E         │ B_mean │ C_sum │ D_min │ count │
│ u32 │ text      │    f64 │   f64 │    i8 │   u64 │
├─────┼───────────┼────────┼───────┼───────┼───────┤
│   3 │           │    5.0 │   NaN │  -128 │     1 │
│   7 │ a\\\\\\x1b   │    5.0 │   1.5 │  -128 │     1 │
│   7 │ long text │    5.0 │   inf │  -128 │     1 │
└─────┴───────────┴────────┴───────┴───────┴───────┘
3 records, 0 packets, 0 bytes, 3 groups; window: none
2 bytes came after the end record and were not aggregated
";
        assert!(table.starts_with(expected), "{table}");
        let rest: Vec<&str> = table[expected.len()..].lines().collect();
        assert!(rest[0].contains(" s: receive ") && rest[1].ends_with(" MB/s"), "{table}");
        assert!(rest[2].starts_with("latency of 0 packets: p50 0.0 µs, p90 "), "{table}");
    }

    #[test]
    fn a_line_has_its_keys_in_order_and_words_for_what_is_no_number() {
        let line = written(Format::Ndjson);
        assert_eq!(line.matches('\n').count(), 1);
        let keys = [
            "connection",
            "peer",
            "status",
            "reason",
            "records",
            "packets",
            "bytes",
            "bytes_after_end",
            "buffer",
            "seconds",
            "receive_seconds",
            "aggregate_seconds",
            "records_per_second",
            "latency_us",
            "coalesced_reads",
            "coalesce_wait_us_p50",
            "coalesce_wait_us_p99",
            "coalesce_wait_us_max",
            "groups",
        ];
        let places: Vec<usize> =
            keys.iter().map(|key| line.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{line}");
        let groups =
            r#""groups":[{"A":3,"E":"","B_mean":5.0,"C_sum":"NaN","D_min":-128,"count":1},{"#;
        assert!(line.contains(groups), "{line}");
        assert!(
            line.contains(r#""E":"a\\\\\\x1b""#) && line.contains(r#""C_sum":"inf""#),
            "{line}"
        );
    }
}
