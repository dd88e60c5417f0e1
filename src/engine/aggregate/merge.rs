//! Merges files of partials from many streams into one result, and validates them. The caller finds
//! the files and prints the outcome.
//!
//! Rows with the same batch and keys count once, however often they occur. The facts recorded about
//! each batch are compared with its rows, so that missing ones are noticed.

use super::column_types::empty_frame;
use super::grouped::Grouped;
use super::partial_reader::{self, PartialFrame, PartialReadError};
use super::parts::{self, FinishedFrame};
use super::row_groups::RowGroups;
use super::seal::Seal;
use crate::config::{LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN};
use crate::engine::stream::latency;
use crate::engine::stream::received::Status;
use crate::wire::schema::columns::{COUNT, ORIGIN_COLUMNS, Part};
use crate::wire::schema::{Kind, Schema};
use crate::wire::text::unescape;
use hdrhistogram::Histogram;
use polars::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to merge, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MergeOrder<'a> {
    /// The schema of the files.
    pub schema: &'a Schema,
    /// The same, or one with fewer keys.
    pub result: &'a Arc<Schema>,
    /// The files of groups.
    pub groups: &'a [PathBuf],
    /// The files of facts about batches.
    pub streams: &'a [PathBuf],
    /// Merge without files that are damaged, instead of failing.
    pub skip_damaged: bool,
    /// Leave out streams that did not end complete or lack files.
    pub complete_only: bool,
}

/// Why partials cannot be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] PartialReadError),
    /// Polars failed.
    #[error("merging failed: {0}")]
    Polars(#[from] PolarsError),
}

/// The node that received a stream, and the stream's name.
type PartialStream = (String, String);

/// What the files hold of a batch.
#[derive(Clone, Debug, Default)]
struct Batch {
    /// Records counted in its groups.
    grouped: u64,
    /// The facts recorded about it, if there are any.
    said: Option<Said>,
}

#[derive(Clone, Debug)]
struct Said {
    status: Option<Status>,
    records: u64,
    packets: u64,
    bytes: u64,
    /// Kept encoded, which is small, until it is known whether the stream counts.
    latency: Vec<u8>,
}

impl Batch {
    /// Whether its groups are what the facts say.
    fn is_whole(&self) -> bool {
        self.said.as_ref().is_some_and(|said| said.records == self.grouped)
    }
}

/// The batches of a stream, by number.
type StreamBatches = BTreeMap<u32, Batch>;

/// The status in which a stream ended; `None` if its last batch is not there.
fn ended(batches: &StreamBatches) -> Option<Status> {
    batches.values().find_map(|batch| batch.said.as_ref()?.status)
}

/// Whether a stream ended complete and all of it is there.
fn is_complete(batches: &StreamBatches) -> bool {
    ended(batches) == Some(Status::Complete)
        && missing(batches) == 0
        && batches.values().all(Batch::is_whole)
}

/// How many batches before the last one known are not there.
fn missing(batches: &StreamBatches) -> u64 {
    let last = batches.keys().last().copied().unwrap_or_default();
    u64::from(last) + 1 - batches.len() as u64
}

/// The outcome of a merge.
#[derive(Debug)]
pub(crate) struct Merged {
    /// The groups.
    pub grouped: Grouped,
    /// Columns with sums that do not fit into 64 bits.
    pub overflowed: Vec<String>,
    /// Facts about all streams together.
    pub facts: MergedFacts,
}

/// Facts about the streams that were merged.
#[derive(Debug)]
pub(crate) struct MergedFacts {
    /// Number of nodes with streams.
    pub nodes: usize,
    /// Number of streams by status: complete, incomplete, rejected.
    pub ended: [u64; 3],
    /// Streams without their last batch: they are still running, or their process was killed.
    pub unfinished: Vec<String>,
    /// Number of batches.
    pub batches: u64,
    /// Records in the result.
    pub records: u64,
    /// Packets in batches with recorded facts.
    pub packets: u64,
    /// Bytes in batches with recorded facts.
    pub bytes: u64,
    /// Packet latencies of batches with recorded facts.
    pub latency: Histogram<u64>,
    /// Missing batches, and batches whose groups contradict the recorded facts.
    pub faults: Vec<String>,
    /// Batches with groups but without recorded facts: their process was killed in between, or
    /// has not written them yet.
    pub unsaid: Vec<String>,
    /// Streams that did not end complete, and were left out for that.
    pub left_out: Vec<String>,
    /// Files without a checksum, whose content cannot be checked.
    pub unsealed: Vec<String>,
}

impl Default for MergedFacts {
    fn default() -> Self {
        // The bounds are those of the engine, so that merging gives the percentiles that a single
        // engine would report. The histogram grows if a file has larger latencies.
        let latency = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, LATENCY_DIGITS);
        let mut latency = latency.expect("the bounds of config are valid");
        latency.auto(true);
        MergedFacts {
            nodes: 0,
            ended: [0; 3],
            unfinished: Vec::new(),
            batches: 0,
            records: 0,
            packets: 0,
            bytes: 0,
            latency,
            faults: Vec::new(),
            unsaid: Vec::new(),
            left_out: Vec::new(),
            unsealed: Vec::new(),
        }
    }
}

/// Merges partials.
///
/// # Errors
/// Names the first file that cannot be used.
pub(crate) fn merge(order: &MergeOrder<'_>) -> Result<Merged, MergeError> {
    let mut batches = Batches::default();
    for file in order.streams {
        if let Some(frame) = batches.facts.read(file, order)? {
            partial_reader::check_facts(file, &frame)?;
            batches.add_said(file, &frame)?;
        }
    }
    let mut rows = read_groups(order, &mut batches.facts)?;
    batches.add_grouped(&rows)?;
    if order.complete_only {
        rows = batches.keep_complete(&rows)?;
    }
    let result = order.result;
    let merged = parts::merged(result, &rows, result.keys().map(|key| &key.name))?;
    let FinishedFrame { frame, overflowed } =
        parts::finish(result, &sort_by_keys(result, merged)?)?;
    let grouped = Grouped::new(Arc::clone(result), frame);
    Ok(Merged { grouped, overflowed, facts: batches.into_facts()? })
}

impl MergedFacts {
    /// Reads a file; `None` if it is damaged and the merge goes on without it.
    fn read(
        &mut self,
        file: &Path,
        order: &MergeOrder<'_>,
    ) -> Result<Option<DataFrame>, PartialReadError> {
        match partial_reader::read(file, order.schema) {
            Ok(PartialFrame { frame, seal }) => {
                if seal == Seal::Absent {
                    self.unsealed.push(file.display().to_string());
                }
                Ok(Some(frame))
            }
            Err(PartialReadError::Damaged { file, cause }) if order.skip_damaged => {
                self.faults.push(format!("{file} is damaged and was left out: {cause}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The rows of all files in the order of their batches, without duplicates.
fn read_groups(order: &MergeOrder<'_>, facts: &mut MergedFacts) -> Result<DataFrame, MergeError> {
    let MergeOrder { schema, result, .. } = *order;
    let expected = schema.partial_columns();
    let names = || expected.iter().map(|(name, _)| name.as_str());
    let mut all = empty_frame(expected.iter().cloned())?;
    for file in order.groups {
        if let Some(frame) = facts.read(file, order)? {
            partial_reader::check_columns(file, &frame, &expected)?;
            all.vstack_mut_owned(frame.select(names())?)?;
        }
    }
    all.rechunk_mut_par();
    let [node, connection, batch, time] = ORIGIN_COLUMNS.map(|(name, _)| name);
    let own = [node, connection, batch].into_iter();
    let identity = own.map(str::to_owned).chain(schema.keys().map(|key| key.name.clone()));
    let identity: Vec<String> = identity.collect();
    let rows = all.unique_stable(Some(&identity), UniqueKeepStrategy::First, None)?;
    drop(all);
    let ordered = |&(_, part): &(usize, Part)| matches!(part, Part::First | Part::Last);
    if !schema.parts().iter().any(ordered) {
        return Ok(rows);
    }
    let mut order = vec![time, node, connection, batch];
    if result.keys().len() < schema.keys().len() {
        // The order of groups within a batch is unknown; any stable order will do.
        order.extend(schema.keys().map(|key| key.name.as_str()));
    }
    Ok(rows.sort(order, SortMultipleOptions::default().with_maintain_order(true))?)
}

/// Sorts numbers by value and texts by their bytes. Escaped texts must be sorted by the bytes that
/// they stand for.
fn sort_by_keys(schema: &Schema, mut frame: DataFrame) -> PolarsResult<DataFrame> {
    let mut order: Vec<PlSmallStr> = Vec::new();
    for key in schema.keys() {
        let column = frame.column(&key.name)?;
        let escaped = |text: &str| text.contains('\\');
        let name = match key.kind {
            Kind::Text { .. } if column.str()?.iter().flatten().any(escaped) => {
                // Field names have no spaces.
                let name = PlSmallStr::from(format!("bytes of {}", key.name));
                let bytes = column.str()?.iter().map(|text| text.map(unescape));
                let bytes: BinaryChunked = bytes.collect();
                frame.with_column(bytes.into_column().with_name(name.clone()))?;
                name
            }
            _ => PlSmallStr::from(&key.name),
        };
        order.push(name);
    }
    frame.sort(order, SortMultipleOptions::default())
}

/// The batches of each stream.
#[derive(Default)]
struct Batches {
    streams: BTreeMap<PartialStream, StreamBatches>,
    facts: MergedFacts,
}

impl Batches {
    /// Adds the facts that a file records about batches.
    fn add_said(&mut self, file: &Path, frame: &DataFrame) -> Result<(), PartialReadError> {
        self.add_rows(frame).map_err(|error| partial_reader::not_about_batches(file, &error))
    }

    fn add_rows(&mut self, frame: &DataFrame) -> PolarsResult<()> {
        let [node, connection, batch, _] = ORIGIN_COLUMNS.map(|(name, _)| name);
        let (node, connection) = (frame.column(node)?.str()?, frame.column(connection)?.str()?);
        let batch = frame.column(batch)?.u32()?;
        let status = frame.column("status")?.str()?;
        let latency = frame.column("latency_v2")?.binary()?;
        let number = |name: &str| frame.column(name)?.u64().cloned();
        let [records, packets, bytes] = [number("records")?, number("packets")?, number("bytes")?];
        for row in 0..frame.height() {
            let null = || polars_err!(ComputeError: "a column has a null");
            let stream = (node.get(row).ok_or_else(null)?, connection.get(row).ok_or_else(null)?);
            let known = self.streams.entry((stream.0.to_owned(), stream.1.to_owned())).or_default();
            let batch = known.entry(batch.get(row).ok_or_else(null)?).or_default();
            if batch.said.is_some() {
                continue;
            }
            let latency = latency.get(row).ok_or_else(null)?;
            histogram(latency)?;
            batch.said = Some(Said {
                status: status.get(row).map(status_of).transpose()?,
                records: records.get(row).ok_or_else(null)?,
                packets: packets.get(row).ok_or_else(null)?,
                bytes: bytes.get(row).ok_or_else(null)?,
                latency: latency.to_vec(),
            });
        }
        Ok(())
    }

    /// Adds the counts of the groups.
    fn add_grouped(&mut self, rows: &DataFrame) -> PolarsResult<()> {
        let [node, connection, batch, _] = ORIGIN_COLUMNS.map(|(name, _)| name);
        let groups = RowGroups::of(rows, [node, connection, batch])?;
        let (origins, counts) = (groups.keys(), groups.sum(rows.column(COUNT)?));
        let (nodes, connections) = (origins[0].str()?, origins[1].str()?);
        let (batches, counts) = (origins[2].u32()?, counts.u64()?);
        for row in 0..groups.len() {
            let (Some(node), Some(connection)) = (nodes.get(row), connections.get(row)) else {
                polars_bail!(ComputeError: "a row has no node or no connection");
            };
            let known = self.streams.entry((node.to_owned(), connection.to_owned())).or_default();
            let batch = known.entry(batches.get(row).unwrap_or_default()).or_default();
            batch.grouped = counts.get(row).unwrap_or_default();
        }
        Ok(())
    }

    /// Drops streams that did not end complete or are not whole; returns the rows of the others.
    fn keep_complete(&mut self, rows: &DataFrame) -> PolarsResult<DataFrame> {
        let [node, connection, ..] = ORIGIN_COLUMNS.map(|(name, _)| name);
        let (nodes, connections) = (rows.column(node)?.str()?, rows.column(connection)?.str()?);
        let (kept, left_out): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.streams).into_iter().partition(|(_, all)| is_complete(all));
        let complete: HashSet<(&str, &str)> =
            kept.keys().map(|(node, connection)| (node.as_str(), connection.as_str())).collect();
        let is_kept = |(node, connection): (Option<&str>, Option<&str>)| {
            Some(complete.contains(&(node?, connection?)))
        };
        let mask: BooleanChunked = nodes.iter().zip(connections.iter()).map(is_kept).collect();
        let rows = rows.filter(&mask)?;
        for (stream, batches) in left_out {
            let name = name_of(&stream);
            if ended(&batches) != Some(Status::Complete) {
                self.facts.left_out.push(name);
                continue;
            }
            self.facts.note_faults(&name, &batches);
            self.facts.faults.push(format!(
                "stream {name} ended complete, but not all of it is here; it was left out"
            ));
        }
        self.streams = kept;
        Ok(rows)
    }

    fn into_facts(self) -> PolarsResult<MergedFacts> {
        let Batches { streams, mut facts } = self;
        let nodes: BTreeSet<&String> = streams.keys().map(|(node, _)| node).collect();
        facts.nodes = nodes.len();
        for (stream, batches) in &streams {
            let name = name_of(stream);
            facts.batches += batches.len() as u64;
            facts.records += batches.values().map(|batch| batch.grouped).sum::<u64>();
            for said in batches.values().filter_map(|batch| batch.said.as_ref()) {
                facts.packets += said.packets;
                facts.bytes += said.bytes;
                let added = latency::add_to(&mut facts.latency, &histogram(&said.latency)?);
                added.map_err(|cause| polars_err!(ComputeError: "latency_v2: {cause}"))?;
            }
            match ended(batches) {
                Some(status) => facts.ended[status as usize] += 1,
                None => facts.unfinished.push(name.clone()),
            }
            facts.note_faults(&name, batches);
        }
        Ok(facts)
    }
}

fn name_of((node, connection): &PartialStream) -> String {
    format!("{connection} of {node}")
}

impl MergedFacts {
    /// Notes the batches of a stream that are missing or contradict the facts recorded about them.
    fn note_faults(&mut self, name: &str, batches: &StreamBatches) {
        let missing = missing(batches);
        if missing > 0 {
            let first = (0..).find(|number| !batches.contains_key(number)).unwrap_or_default();
            let all = missing + batches.len() as u64;
            let fault =
                format!("stream {name} lacks {missing} of {all} batches, the first: {first}");
            self.faults.push(fault);
        }
        let last_said = batches.iter().rev().find(|(_, batch)| batch.said.is_some());
        let last_said = last_said.map(|(&number, _)| number);
        for (number, batch) in batches {
            match &batch.said {
                // Facts are written in the order of the batches.
                None if last_said.is_some_and(|last| *number < last) => self.faults.push(format!(
                    "batch {number} of stream {name} has no .stream.parquet, but a later one has: \
                     its packets and latencies are missing"
                )),
                Some(said) if said.records != batch.grouped => self.faults.push(format!(
                    "batch {number} of stream {name} has groups of {} records, it had {}",
                    batch.grouped, said.records
                )),
                None => self.unsaid.push(format!("batch {number} of stream {name}")),
                Some(_) => {}
            }
        }
    }
}

fn status_of(word: &str) -> PolarsResult<Status> {
    let all = [Status::Complete, Status::Incomplete, Status::Rejected];
    all.into_iter()
        .find(|status| status.as_str() == word)
        .ok_or_else(|| polars_err!(ComputeError: "{word:?} is not a status"))
}

/// Reads a histogram in the uncompressed V2 format.
fn histogram(bytes: &[u8]) -> PolarsResult<Histogram<u64>> {
    latency::read_v2(bytes)
        .map_err(|cause| polars_err!(ComputeError: "latency_v2 is not a histogram: {cause}"))
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
