//! A merged result as a table and as ndjson: merges nothing and opens no file.

use super::format::Format;
use super::render::{LatencyLine, groups, write_groups};
use crate::engine::aggregate::Grouped;
use crate::engine::aggregate::merge::{Merged, MergedFacts};
use crate::engine::stream::latency::{LatencySummary, summary};
use serde::Serialize;
use std::io::{self, Write};

/// Writes a merged result whole and flushes.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_merged(
    format: Format,
    merged: &Merged,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Table => write_table(merged, out)?,
        Format::Ndjson => write_line(merged, out)?,
    }
    out.flush()
}

fn write_table(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    let facts = &merged.facts;
    let MergedFacts { nodes, batches, ended: [complete, incomplete, rejected], .. } = facts;
    let unfinished = facts.unfinished.len();
    let streams = complete + incomplete + rejected + unfinished as u64;
    writeln!(
        out,
        "merged {batches} batches of {streams} streams from {nodes} nodes: {complete} complete, \
         {incomplete} incomplete, {rejected} rejected, {unfinished} not finished"
    )?;
    write_groups(&merged.grouped, out)?;
    let MergedFacts { records, packets, bytes, .. } = facts;
    let groups = merged.grouped.len();
    writeln!(out, "{records} records, {packets} packets, {bytes} bytes, {groups} groups")?;
    let LatencySummary { p50, p90, p99, p99_9, max, count } = summary(&facts.latency);
    writeln!(
        out,
        "latency of {count} packets: p50 {p50:.1} µs, p90 {p90:.1} µs, p99 {p99:.1} µs, \
         p99.9 {p99_9:.1} µs, max {max:.1} µs\n"
    )
}

/// The line of a merge. Key names and their order are part of the interface.
#[derive(Serialize)]
struct MergeLine<'a> {
    nodes: usize,
    connections: u64,
    complete: u64,
    incomplete: u64,
    rejected: u64,
    unfinished: &'a [String],
    batches: u64,
    faults: &'a [String],
    records: u64,
    packets: u64,
    bytes: u64,
    latency_us: LatencyLine,
    #[serde(serialize_with = "groups")]
    groups: &'a Grouped,
}

fn write_line(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    let facts = &merged.facts;
    let [complete, incomplete, rejected] = facts.ended;
    let line = MergeLine {
        nodes: facts.nodes,
        connections: complete + incomplete + rejected + facts.unfinished.len() as u64,
        complete,
        incomplete,
        rejected,
        unfinished: &facts.unfinished,
        batches: facts.batches,
        faults: &facts.faults,
        records: facts.records,
        packets: facts.packets,
        bytes: facts.bytes,
        latency_us: summary(&facts.latency).into(),
        groups: &merged.grouped,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
