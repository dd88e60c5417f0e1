//! Frames records as packets and sends streams through the engine in pieces, for tests. Judging the
//! outcome is up to the caller.

use crate::config::Config;
use crate::engine::aggregate::{FinishedGroups, GroupAggregate};
use crate::engine::groups::columns::ColumnSet;
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::engine::stream::intake::{Counts, NextStep, RecordIntake, Refused};
use crate::wire::schema::{End, Endian, Length, Schema};
use std::sync::Arc;
use std::time::Instant;

/// A packet of records, or bare records if packets have no length.
pub(crate) fn packet(schema: &Schema, records: &[Vec<u8>]) -> Vec<u8> {
    let framing = schema.framing();
    let own = match framing.length {
        Length::U32 => 4,
        Length::U16 => 2,
        Length::None => 0,
    };
    let body = records.concat();
    let length = body.len() + if framing.includes_itself { own } else { 0 };
    // Least significant byte first, then reversed if big-endian.
    let mut header: Vec<u8> = (0..own).map(|i| (length >> (8 * i)) as u8).collect();
    if framing.endian == Endian::Big {
        header.reverse();
    }
    assert!(own == 0 || length >> (8 * own) == 0, "{length} is too long for a packet's length");
    [header, body].concat()
}

/// A whole stream.
#[derive(Clone, Debug)]
pub(crate) struct NaiveStream {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// The counts that an intake must have at the end.
    pub counts: Counts,
}

impl NaiveStream {
    /// Packets with these numbers of records, repeated until all are sent, then the end.
    pub(crate) fn new(schema: &Schema, records: &[Vec<u8>], sizes: &[usize]) -> Self {
        let end = vec![0; schema.record_bytes()];
        let ends_by_record = schema.framing().end == End::ZeroRecord;
        let mut sent: Vec<Vec<u8>> = records.to_vec();
        if ends_by_record {
            sent.push(end);
        }
        let bare = schema.framing().length == Length::None;
        let (mut bytes, mut packets, mut rest) = (Vec::new(), 0, &sent[..]);
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = (*sizes.next().expect("there are sizes")).min(rest.len());
            bytes.extend(packet(schema, &rest[..size]));
            packets += if bare { size } else { 1 };
            rest = &rest[size..];
        }
        let counts = Counts {
            records: records.len() as u64,
            packets: packets as u64,
            bytes: bytes.len() as u64,
            bytes_after_end: 0,
        };
        NaiveStream { bytes, counts }
    }
}

/// How a stream goes through the engine.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// Where reads end, besides the end of the window.
    pub cuts: Vec<usize>,
    /// Size of the window.
    pub window_bytes: usize,
    /// Rows after which a batch is handed over.
    pub rows: usize,
}

/// The outcome of a stream.
pub(crate) struct StreamOutcome {
    /// The result.
    pub finished: FinishedGroups,
    /// The counts.
    pub counts: Counts,
    /// Whether the stream was complete.
    pub is_complete: bool,
}

/// Feeds pieces of a stream to an intake until it ends or is rejected.
fn feed(
    bytes: &[u8],
    path: &Path,
    intake: &mut RecordIntake,
    mut poll: impl FnMut(&mut RecordIntake, &[u8]) -> Result<NextStep, Refused>,
) -> Result<(), Refused> {
    let mut buffer = vec![0xaa; path.window_bytes];
    let mut at = 0;
    for &end in path.cuts.iter().chain([&bytes.len()]) {
        while at < end {
            let free = intake.free();
            let read = free.len().min(end - at);
            assert!(read > 0, "a window is never full between reads");
            buffer[free.start..free.start + read].copy_from_slice(&bytes[at..at + read]);
            at += read;
            intake.handle_read(read, Instant::now());
            while poll(intake, &buffer)? == NextStep::Rows {}
            intake.compact(&mut buffer);
        }
    }
    Ok(())
}

/// Sends a stream through columns that Polars aggregates.
pub(crate) fn through_columns(
    plan: &Arc<Plan>,
    config: &Config,
    bytes: &[u8],
    path: &Path,
) -> StreamOutcome {
    let mut intake = RecordIntake::new(plan, config, path.window_bytes, Instant::now());
    let mut aggregate = GroupAggregate::new(plan);
    let mut set = ColumnSet::with_rows(plan, path.rows);
    let fed = feed(bytes, path, &mut intake, |intake, buffer| {
        let next = intake.poll_rows(buffer, &mut set)?;
        if set.rows_free() == 0 {
            aggregate.add(&mut set).expect("Polars takes any rows");
            assert!(set.is_empty());
        }
        Ok(next)
    });
    aggregate.add(&mut set).expect("Polars takes any rows");
    outcome(intake, aggregate, fed)
}

/// Sends a stream through groups, whose partials are combined at the end.
pub(crate) fn through_groups(
    plan: &Arc<Plan>,
    config: &Config,
    bytes: &[u8],
    path: &Path,
) -> StreamOutcome {
    let mut intake = RecordIntake::new(plan, config, path.window_bytes, Instant::now());
    let mut aggregate = GroupAggregate::new(plan);
    let table = || GroupTable::with_limits(plan, config.groups_limit, path.rows as u64);
    let mut groups = table();
    let fed = feed(bytes, path, &mut intake, |intake, buffer| {
        let next = intake.poll_groups(buffer, &mut groups)?;
        if groups.rows_free() == 0 {
            let full = std::mem::replace(&mut groups, table());
            aggregate.add_table(&full).expect("Polars takes any partials");
        }
        Ok(next)
    });
    aggregate.add_table(&groups).expect("Polars takes any partials");
    outcome(intake, aggregate, fed)
}

fn outcome(
    intake: RecordIntake,
    aggregate: GroupAggregate,
    fed: Result<(), Refused>,
) -> StreamOutcome {
    fed.expect("the streams of these tests are valid");
    let (counts, is_complete) = (intake.counts(), intake.cut().is_none());
    let texts = intake.into_texts();
    let finished = aggregate.finish(&texts).expect("Polars takes any partials");
    StreamOutcome { finished, counts, is_complete }
}
