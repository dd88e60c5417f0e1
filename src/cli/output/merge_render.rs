//! The result of `ringest merge`, as a table or a line of ndjson.

use super::format::Format;
use super::lines::{LatencyLine, Percentiles, serialize_groups, write_groups};
use crate::engine::aggregate::Grouped;
use crate::engine::aggregate::merge::{Merged, MergedFacts};
use crate::engine::stream::latency::summary;
use crate::wire::text::counted;
use serde::Serialize;
use std::io::{self, Write};

/// Writes the whole result and flushes.
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
        "merged {} of {} from {}: {complete} complete, {incomplete} incomplete, {rejected} \
         rejected, {unfinished} unfinished",
        counted(batches, "batch"),
        counted(streams, "stream"),
        counted(nodes, "node"),
    )?;
    write_groups(&merged.grouped, out)?;
    let MergedFacts { records, packets, bytes, .. } = facts;
    let groups = merged.grouped.len();
    let (records, packets) = (counted(records, "record"), counted(packets, "packet"));
    let (bytes, groups) = (counted(bytes, "byte"), counted(groups, "group"));
    writeln!(out, "{records}, {packets}, {bytes}, {groups}")?;
    let latency = summary(&facts.latency);
    let packets = counted(latency.count, "packet");
    writeln!(out, "latency of {packets}: {}\n", Percentiles(&latency))
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
    left_out: &'a [String],
    batches: u64,
    faults: &'a [String],
    records: u64,
    packets: u64,
    bytes: u64,
    latency_us: LatencyLine,
    #[serde(serialize_with = "serialize_groups")]
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
        left_out: &facts.left_out,
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
