//! The result of a record stream, as a table or a line of ndjson, streamed to a writer.

use super::format::Format;
use super::lines::{LatencyLine, Percentiles, serialize_groups, write_groups};
use crate::engine::aggregate::Grouped;
use crate::engine::stream::latency::LatencySummary;
use crate::engine::stream::received::{Captured, PartialsLack};
use crate::runtime::results::report::{Report, ResultFile};
use crate::wire::text::counted;
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// The files of a stream that its result mentions.
#[derive(Debug, Default)]
pub(crate) struct StreamFiles {
    /// The result file; `None` without `--output`.
    pub result: Option<ResultFile>,
    /// Whether raw bytes are captured (`--capture`).
    pub captures: bool,
    /// Whether batches are written for a merge (`--partials`).
    pub partials: bool,
}

/// Writes a whole report and flushes.
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

/// A rate, or 0 where no time passed, as for a stream of a single read.
fn per_second(amount: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { amount / time.as_secs_f64() }
}

// ---- table ----

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

fn write_files(report: &Report, files: &StreamFiles, out: &mut impl Write) -> io::Result<()> {
    match &files.result {
        Some(Some(Ok(path))) => writeln!(out, "file: {}", path.display())?,
        Some(Some(Err(cause))) => writeln!(out, "file: NOT WRITTEN: {cause}")?,
        Some(None) | None => {}
    }
    if let PartialsLack { failed, error: Some(cause) } = &report.received.partials {
        writeln!(out, "partials: {} NOT WRITTEN: {cause}", counted(failed, "batch"))?;
    }
    let capture = report.received.capture.as_ref().filter(|_| files.captures);
    let Some(Captured { path, bytes, lack }) = capture else { return Ok(()) };
    let bytes = counted(bytes, "byte");
    match (path, lack) {
        (Some(path), None) => writeln!(out, "capture: {}, {bytes}", path.display()),
        (Some(path), Some(lack)) => {
            writeln!(out, "capture: {}, {bytes}, {lack}", path.display())
        }
        (None, Some(lack)) => writeln!(out, "capture: NOT WRITTEN: {lack}"),
        (None, None) => Ok(()),
    }
}

fn write_summary(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let received = &report.received;
    let (receive, aggregate) = (report.receive_time(), report.aggregate_time());
    // Includes the wait for earlier results to be printed.
    let print = report.aggregated.elapsed();
    let total = receive + aggregate + print;
    writeln!(
        out,
        "{}, {}, {}, {}; window: {}",
        counted(received.counts.records, "record"),
        counted(received.counts.packets, "packet"),
        counted(received.counts.bytes, "byte"),
        counted(report.grouped.len(), "group"),
        received.buffer.as_str(),
    )?;
    if received.counts.bytes_after_end > 0 {
        let bytes = received.counts.bytes_after_end;
        let were = if bytes == 1 { "was" } else { "were" };
        let bytes = counted(bytes, "byte");
        writeln!(out, "{bytes} came after the end record and {were} not aggregated")?;
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
    let latency = received.latency.summary();
    let packets = counted(latency.count, "packet");
    writeln!(out, "latency of {packets}: {}", Percentiles(&latency))?;
    let LatencySummary { p50, p99, max, count, .. } = received.coalesce_waits.summary();
    if count > 0 {
        writeln!(
            out,
            "{} waited for more data first: p50 {p50:.1} µs, p99 {p99:.1} µs, \
             max {max:.1} µs",
            counted(count, "read")
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
    /// Only with `--partials`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    partials: Option<PartialsKeys<'a>>,
    #[serde(serialize_with = "serialize_groups")]
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

#[derive(Serialize)]
struct PartialsKeys<'a> {
    partials_failed: u64,
    partials_error: Option<&'a str>,
}

fn partials_keys(lack: &PartialsLack) -> PartialsKeys<'_> {
    PartialsKeys { partials_failed: lack.failed, partials_error: lack.error.as_deref() }
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
        partials: files.partials.then(|| partials_keys(&received.partials)),
        groups: &report.grouped,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
