//! Results as tables and as ndjson, streamed to a writer: makes no result and opens no file.

use super::format::Format;
use super::output_files::ResultFile;
use crate::engine::aggregate::{GroupColumn, GroupRow, Grouped, Value};
use crate::engine::stream::latency::LatencySummary;
use crate::engine::stream::received::Captured;
use crate::runtime::results::report::Report;
use crate::wire::schema::columns::ColumnType;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

/// What is said of a stream's files, as far as files are asked for.
#[derive(Debug, Default)]
pub(crate) struct StreamFiles {
    /// The file with its result; `None` where none are written.
    pub result: Option<ResultFile>,
    /// Whether raw bytes are captured.
    pub captures: bool,
}

/// Writes one report whole and flushes.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_report(
    format: Format,
    report: &Report,
    files: &StreamFiles,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Table => write_table(report, files, out)?,
        Format::Ndjson => write_line(report, files, out)?,
    }
    out.flush()
}

/// A rate where time has passed, else 0: a stream of one read has none.
fn per_second(amount: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { amount / time.as_secs_f64() }
}

// ---- table ----

/// The table is streamed row by row in two passes, one for the widths: Polars' own display builds
/// the whole text in memory and cuts rows, columns and strings unless told otherwise.
fn write_table(report: &Report, files: &StreamFiles, out: &mut impl Write) -> io::Result<()> {
    let received = &report.received;
    let (connection, peer, status) =
        (received.connection, received.peer, received.status().as_str());
    write!(out, "connection {connection} from {peer}: {status}")?;
    if let Some(reason) = received.reason {
        let detail = received.detail.as_deref().unwrap_or_default();
        write!(out, ", {} ({detail})", reason.as_str())?;
    }
    writeln!(out)?;
    write_groups(&report.grouped, out)?;
    write_summary(report, out)?;
    write_files(report, files, out)?;
    writeln!(out)
}

/// The groups as a table, whole.
pub(crate) fn write_groups(grouped: &Grouped, out: &mut impl Write) -> io::Result<()> {
    let columns: Vec<TableColumn<'_>> = grouped
        .columns()
        .into_iter()
        .map(|column| TableColumn::new(column, grouped.len()))
        .collect();
    writeln!(out, "shape: ({}, {})", grouped.len(), columns.len())?;
    write_rule(out, &columns, ['┌', '┬', '┐'])?;
    for column in &columns {
        column.write(out, column.column.name())?;
    }
    writeln!(out, "│")?;
    for column in &columns {
        column.write(out, column.column.column_type().name())?;
    }
    writeln!(out, "│")?;
    write_rule(out, &columns, ['├', '┼', '┤'])?;
    let mut text = String::new();
    for row in 0..grouped.len() {
        for column in &columns {
            cell(&column.column, row, &mut text);
            column.write(out, &text)?;
        }
        writeln!(out, "│")?;
    }
    write_rule(out, &columns, ['└', '┴', '┘'])
}

/// A column and how wide it is shown. Cells are ASCII: as many columns as bytes.
struct TableColumn<'a> {
    column: GroupColumn<'a>,
    width: usize,
    left: bool,
}

impl<'a> TableColumn<'a> {
    fn new(column: GroupColumn<'a>, rows: usize) -> Self {
        let mut text = String::new();
        let mut width = column.name().len().max(column.column_type().name().len());
        for row in 0..rows {
            cell(&column, row, &mut text);
            width = width.max(text.len());
        }
        TableColumn {
            column,
            width,
            left: matches!(column.column_type(), ColumnType::Text | ColumnType::Bytes),
        }
    }

    fn write(&self, out: &mut impl Write, cell: &str) -> io::Result<()> {
        let width = self.width;
        match self.left {
            true => write!(out, "│ {cell:<width$} "),
            false => write!(out, "│ {cell:>width$} "),
        }
    }
}

/// Puts a cell into `text` as people read it: a fraction with the shortest digits that read back
/// as the same number of its own type.
fn cell(column: &GroupColumn<'_>, row: usize, text: &mut String) {
    text.clear();
    let written = match column.value(row) {
        Value::Float(value) if column.column_type() == ColumnType::F32 => {
            write!(text, "{:?}", value as f32)
        }
        value => write!(text, "{value}"),
    };
    written.expect("a string takes all");
}

fn write_rule(
    out: &mut impl Write,
    columns: &[TableColumn<'_>],
    [left, inner, right]: [char; 3],
) -> io::Result<()> {
    for (i, column) in columns.iter().enumerate() {
        let corner = if i == 0 { left } else { inner };
        write!(out, "{corner}{}", "─".repeat(column.width + 2))?;
    }
    writeln!(out, "{right}")
}

fn write_files(report: &Report, files: &StreamFiles, out: &mut impl Write) -> io::Result<()> {
    match &files.result {
        Some(Some(Ok(path))) => writeln!(out, "file: {}", path.display())?,
        Some(Some(Err(cause))) => writeln!(out, "file: NOT WRITTEN: {cause}")?,
        Some(None) | None => {}
    }
    let capture = report.received.capture.as_ref().filter(|_| files.captures);
    let Some(Captured { path, bytes, lack }) = capture else { return Ok(()) };
    match (path, lack) {
        (Some(path), None) => writeln!(out, "capture: {}, {bytes} bytes", path.display()),
        (Some(path), Some(lack)) => {
            writeln!(out, "capture: {}, {bytes} bytes, {lack}", path.display())
        }
        (None, Some(lack)) => writeln!(out, "capture: NOT WRITTEN: {lack}"),
        (None, None) => Ok(()),
    }
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
    Ok(())
}

// ---- ndjson ----

/// The line of a report. Key names and their order are part of the interface.
#[derive(Serialize)]
struct ReportLine<'a> {
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
    /// Only with `--output`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    file: Option<FileKeys<'a>>,
    /// Only with `--capture`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureKeys>,
    #[serde(serialize_with = "groups")]
    groups: &'a Grouped,
}

#[derive(Serialize)]
struct FileKeys<'a> {
    file: Option<String>,
    file_error: Option<&'a str>,
}

#[derive(Serialize)]
struct CaptureKeys {
    capture: Option<String>,
    capture_bytes: u64,
    capture_error: Option<String>,
}

/// Latencies in microseconds.
#[derive(Serialize)]
pub(crate) struct LatencyLine {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    count: u64,
}

impl From<LatencySummary> for LatencyLine {
    fn from(summary: LatencySummary) -> Self {
        let LatencySummary { p50, p90, p99, p99_9, max, count } = summary;
        LatencyLine { p50, p90, p99, p99_9, max, count }
    }
}

/// All groups, an object each.
pub(crate) fn groups<S: Serializer>(grouped: &&Grouped, serializer: S) -> Result<S::Ok, S::Error> {
    let columns = grouped.columns();
    let mut sequence = serializer.serialize_seq(Some(grouped.len()))?;
    for row in 0..grouped.len() {
        sequence.serialize_element(&GroupRow { columns: &columns, row })?;
    }
    sequence.end()
}

fn file_keys(result: &ResultFile) -> FileKeys<'_> {
    match result {
        Some(Ok(path)) => FileKeys { file: Some(path.display().to_string()), file_error: None },
        Some(Err(cause)) => FileKeys { file: None, file_error: Some(cause) },
        None => FileKeys { file: None, file_error: None },
    }
}

fn capture_keys(captured: Option<&Captured>) -> CaptureKeys {
    let Captured { path, bytes, lack } = captured.cloned().unwrap_or_default();
    CaptureKeys {
        capture: path.map(|path| path.display().to_string()),
        capture_bytes: bytes,
        capture_error: lack.map(|lack| lack.to_string()),
    }
}

fn write_line(report: &Report, files: &StreamFiles, out: &mut impl Write) -> io::Result<()> {
    let received = &report.received;
    let total = received.first_byte.elapsed();
    let waits = received.coalesce_waits.summary();
    let line = ReportLine {
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
        latency_us: received.latency.summary().into(),
        coalesced_reads: waits.count,
        coalesce_wait_us_p50: waits.p50,
        coalesce_wait_us_p99: waits.p99,
        coalesce_wait_us_max: waits.max,
        file: files.result.as_ref().map(file_keys),
        capture: files.captures.then(|| capture_keys(received.capture.as_ref())),
        groups: &report.grouped,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
