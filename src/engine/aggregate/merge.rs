//! Merges files of partials from many streams into one result, and validates them. The caller finds
//! the files and prints the outcome.
//!
//! Rows with the same batch and keys count once, however often they occur. The facts recorded about
//! each batch are compared with its rows, so that missing ones are noticed.

use super::column_types::{dtype_of, empty_frame};
use super::grouped::Grouped;
use super::parts::{self, FinishedFrame};
use super::row_groups::RowGroups;
use crate::config::{LATENCY_DIGITS, LATENCY_NS_MAX, LATENCY_NS_MIN};
use crate::engine::stream::received::Status;
use crate::wire::schema::columns::{COUNT, NamedType, ORIGIN_COLUMNS, Part};
use crate::wire::schema::{Kind, Schema};
use crate::wire::text::unescape;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use polars::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why partials cannot be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// A file could not be read.
    #[error(
        "cannot read {file}: {cause}; it is cut off, not Parquet, or not readable by this user. \
         Copy it again: the engine writes only whole files. Without it, its groups are missing"
    )]
    Unreadable {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A file has other columns.
    #[error("{file} does not belong to these partials: {difference}; move it elsewhere")]
    Foreign {
        /// The file.
        file: String,
        /// How its columns differ.
        difference: String,
    },
    /// Polars failed.
    #[error("merging failed: {0}")]
    Polars(#[from] PolarsError),
}

fn unreadable(file: &Path, cause: impl ToString) -> MergeError {
    MergeError::Unreadable { file: file.display().to_string(), cause: cause.to_string() }
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
        }
    }
}

/// Merges the partials in the files `groups`; the files `streams` hold facts about their batches.
/// `schema` is the schema of the files, `result` the same or one with fewer keys.
///
/// # Errors
/// Names the first file that cannot be read or has other columns.
pub(crate) fn merge(
    schema: &Schema,
    result: &Arc<Schema>,
    groups: &[PathBuf],
    streams: &[PathBuf],
) -> Result<Merged, MergeError> {
    let mut batches = Batches::default();
    for file in streams {
        batches.add_said(file)?;
    }
    let rows = read_groups(schema, result, groups)?;
    batches.add_grouped(&rows)?;
    let merged = parts::merged(result, &rows, result.keys().map(|key| &key.name))?;
    let FinishedFrame { frame, overflowed } =
        parts::finish(result, &sort_by_keys(result, merged)?)?;
    let grouped = Grouped::new(Arc::clone(result), frame);
    Ok(Merged { grouped, overflowed, facts: batches.into_facts() })
}

/// The rows of all files in the order of their batches, without duplicates.
fn read_groups(
    schema: &Schema,
    result: &Schema,
    files: &[PathBuf],
) -> Result<DataFrame, MergeError> {
    let expected = schema.partial_columns();
    for file in files {
        check_columns(file, &expected)?;
    }
    let names = || expected.iter().map(|(name, _)| name.as_str());
    let mut all = empty_frame(expected.iter().cloned())?;
    for file in files {
        let frame = open(file)?.finish().map_err(|error| unreadable(file, error))?;
        all.vstack_mut_owned(frame.select(names())?)?;
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

fn open(file: &Path) -> Result<ParquetReader<File>, MergeError> {
    Ok(ParquetReader::new(File::open(file).map_err(|error| unreadable(file, error))?))
}

fn check_columns(file: &Path, expected: &[NamedType]) -> Result<(), MergeError> {
    let found = open(file)?.schema().map_err(|error| unreadable(file, error))?;
    let found = polars::prelude::Schema::from_arrow_schema(&found);
    let mut found: Vec<(PlSmallStr, DataType)> = found.into_iter().collect();
    let foreign =
        |difference| Err(MergeError::Foreign { file: file.display().to_string(), difference });
    for (name, of) in expected {
        let dtype = dtype_of(*of);
        match found.iter().position(|(found, _)| found == name) {
            None => return foreign(format!("it has no column {name}")),
            Some(at) if found[at].1 != dtype => {
                let is = &found[at].1;
                return foreign(format!("its column {name} is {is} instead of {dtype}"));
            }
            Some(at) => drop(found.swap_remove(at)),
        }
    }
    match found.first() {
        Some((name, _)) => foreign(format!("it has an extra column {name}")),
        None => Ok(()),
    }
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
    streams: BTreeMap<PartialStream, BTreeMap<u32, Batch>>,
    facts: MergedFacts,
}

impl Batches {
    /// Adds the facts that a file records about batches.
    fn add_said(&mut self, file: &Path) -> Result<(), MergeError> {
        let frame = open(file)?.finish().map_err(|error| unreadable(file, error))?;
        self.add_rows(&frame).map_err(|error| MergeError::Foreign {
            file: file.display().to_string(),
            difference: error.to_string(),
        })
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
            let latency = histogram(latency.get(row).ok_or_else(null)?).map_err(
                |cause| polars_err!(ComputeError: "latency_v2 is not a histogram: {cause}"),
            )?;
            let added = self.facts.latency.add(&latency);
            added.map_err(|cause| polars_err!(ComputeError: "latency_v2: {cause}"))?;
            batch.said = Some(Said {
                status: status.get(row).map(status_of).transpose()?,
                records: records.get(row).ok_or_else(null)?,
                packets: packets.get(row).ok_or_else(null)?,
                bytes: bytes.get(row).ok_or_else(null)?,
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

    fn into_facts(self) -> MergedFacts {
        let Batches { streams, mut facts } = self;
        let nodes: BTreeSet<&String> = streams.keys().map(|(node, _)| node).collect();
        facts.nodes = nodes.len();
        for ((node, connection), batches) in &streams {
            let name = format!("{connection} of {node}");
            facts.batches += batches.len() as u64;
            facts.records += batches.values().map(|batch| batch.grouped).sum::<u64>();
            let said = || batches.values().filter_map(|batch| batch.said.as_ref());
            facts.packets += said().map(|said| said.packets).sum::<u64>();
            facts.bytes += said().map(|said| said.bytes).sum::<u64>();
            match said().find_map(|said| said.status) {
                Some(status) => facts.ended[status as usize] += 1,
                None => facts.unfinished.push(name.clone()),
            }
            look_for_faults(&mut facts, &name, batches);
        }
        facts
    }
}

/// Notes the batches of a stream that are missing or contradict the facts recorded about them.
fn look_for_faults(facts: &mut MergedFacts, name: &str, batches: &BTreeMap<u32, Batch>) {
    let last = batches.keys().last().copied().unwrap_or_default();
    let missing = u64::from(last) + 1 - batches.len() as u64;
    if missing > 0 {
        let first = (0..).find(|number| !batches.contains_key(number)).unwrap_or_default();
        let fault = format!(
            "stream {name} lacks {missing} of {} batches, the first: {first}",
            u64::from(last) + 1
        );
        facts.faults.push(fault);
    }
    for (number, batch) in batches {
        match &batch.said {
            Some(said) if said.records != batch.grouped => facts.faults.push(format!(
                "batch {number} of stream {name} has groups of {} records, it had {}",
                batch.grouped, said.records
            )),
            None => facts.unsaid.push(format!("batch {number} of stream {name}")),
            Some(_) => {}
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
fn histogram(bytes: &[u8]) -> io::Result<Histogram<u64>> {
    const HEADER_BYTES: usize = 40;
    // The deserializer trusts the payload length, so it must not claim gigabytes.
    let payload = bytes.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok());
    let length = payload.map(|length| u32::from_be_bytes(length) as usize);
    if length.is_none_or(|length| HEADER_BYTES + length != bytes.len()) {
        return Err(io::Error::other("wrong length"));
    }
    let read = Deserializer::new().deserialize(&mut &bytes[..]);
    read.map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
