//! The aggregation thread of a worker: turns batches into results, for many connections at a time.
//! A plain thread, because Polars must not run in an async runtime; it reads no socket.

use super::column_pool::PooledSet;
use super::partial_files::{EncodedBatch, PartialFiles};
use super::partial_writers::PartialSource;
use super::report::Report;
use super::reporter::FinishedConnection;
use crate::config::{AggregateMode, Config};
use crate::engine::aggregate::partial_file::BatchFacts;
use crate::engine::aggregate::{self, AggregateError, BatchGroups, GroupAggregate, Grouped};
use crate::engine::decode::texts::Texts;
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::engine::memory::held::HeldBytes;
use crate::engine::stream::intake::Counts;
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::{ClosedBatch, PartialsLack, Reason, Received, Status};
use crate::runtime::clock;
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::failpoint::failpoint;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// What a worker tells its aggregation thread to do.
pub(crate) enum Job {
    /// Fold rows into their connection's groups.
    Add {
        /// Number of the connection.
        connection: u64,
        /// The rows.
        rows: StreamRows,
        /// Set if the connection has too many groups.
        over_groups: Arc<AtomicBool>,
    },
    /// Close a batch: write the rows added since the previous `Close` as a partial for a merge.
    Close {
        /// Number of the connection.
        connection: u64,
        /// The batch's counts, texts and latencies.
        batch: Box<ClosedBatch>,
        /// Set if the connection has too many groups.
        over_groups: Arc<AtomicBool>,
    },
    /// Produce the result of a connection; all its rows have been added.
    Finish {
        /// What was received.
        received: Box<Received>,
        /// Its slot, freed once the result is printed.
        held: StreamHold,
    },
}

/// Records of one connection, as its worker hands them over.
pub(crate) enum StreamRows {
    /// A batch. The set goes back to its pool.
    Columns(PooledSet),
    /// The groups that the worker has folded them into, usually for the whole stream. Their memory
    /// is freed on this thread, not on the worker.
    Groups(Box<GroupTable>),
}

impl StreamRows {
    /// Hands over what they hold of the stream's memory.
    fn take_memory(&mut self) -> HeldBytes {
        match self {
            StreamRows::Columns(set) => std::mem::take(&mut set.memory),
            StreamRows::Groups(groups) => groups.take_memory(),
        }
    }
}

/// The connections of one aggregation thread.
pub(crate) struct Aggregator {
    plan: Arc<Plan>,
    groups_limit: usize,
    /// Bytes that a partial takes, with the copies of it that Polars will make.
    partial_bytes: usize,
    running: HashMap<u64, Result<Running, String>>,
    /// Who writes the batches, if partials are written.
    partials: Option<PartialSource>,
    /// The batches that could not even be encoded, by connection.
    lacks: HashMap<u64, PartialsLack>,
}

/// A connection that has not finished.
struct Running {
    /// Its groups, without those of the open batch.
    total: GroupAggregate,
    /// The open batch; `None` if no partials are written.
    open: Option<Open>,
    /// What all of it holds of the stream's memory.
    memory: HeldBytes,
}

/// The open batch of a connection, with the texts and latencies of the closed ones.
struct Open {
    groups: GroupAggregate,
    texts: Vec<Texts>,
    latency: Latency,
}

impl Running {
    fn new(plan: &Arc<Plan>, partials: bool) -> Self {
        let open = partials.then(|| Open {
            groups: GroupAggregate::new(plan),
            texts: Vec::new(),
            latency: Latency::default(),
        });
        Running { total: GroupAggregate::new(plan), open, memory: HeldBytes::default() }
    }

    /// Counts what it takes now. The worker has asked for it already, but for a stream's second
    /// table and the texts of its batches.
    fn count(&mut self, partial_bytes: usize) {
        let (rows, texts) = self.open.as_ref().map_or((0, 0), |open| {
            (open.groups.rows(), open.texts.iter().map(Texts::memory_bytes).sum())
        });
        self.memory.set((self.total.rows() + rows) * partial_bytes + texts);
    }

    /// The groups that new rows are added to.
    fn groups(&mut self) -> &mut GroupAggregate {
        match &mut self.open {
            Some(open) => &mut open.groups,
            None => &mut self.total,
        }
    }

    /// A lower bound on the number of groups.
    fn groups_known(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.groups.groups_known());
        self.total.groups_known().max(open)
    }
}

/// Runs until every sender of jobs is gone.
pub(crate) fn run(
    mut jobs: mpsc::Receiver<Job>,
    finished: mpsc::Sender<FinishedConnection>,
    plan: &Arc<Plan>,
    config: &Config,
    partials: Option<PartialSource>,
) {
    let mut aggregator = Aggregator::new(plan, config, partials);
    while let Some(job) = jobs.blocking_recv() {
        let Some(connection) = aggregator.handle(job) else { continue };
        match &aggregator.partials {
            Some(partials) => partials.finish(connection, &finished),
            None => {
                if finished.blocking_send(connection).is_err() {
                    return;
                }
            }
        }
    }
}

impl Aggregator {
    /// Without connections yet.
    pub(crate) fn new(plan: &Arc<Plan>, config: &Config, partials: Option<PartialSource>) -> Self {
        Aggregator {
            plan: Arc::clone(plan),
            groups_limit: config.groups_limit,
            partial_bytes: match config.aggregate {
                AggregateMode::Columns => config.record.group_bytes(),
                AggregateMode::TwoPhase => plan.result_bytes(),
            },
            running: HashMap::new(),
            partials,
            lacks: HashMap::new(),
        }
    }

    /// Does one job; returns the connection that it finished.
    pub(crate) fn handle(&mut self, job: Job) -> Option<FinishedConnection> {
        match job {
            Job::Add { connection, rows, over_groups } => {
                if self.add(connection, rows) {
                    over_groups.store(true, Ordering::Relaxed);
                }
                None
            }
            Job::Close { connection, batch, over_groups } => {
                if self.close(connection, *batch) {
                    over_groups.store(true, Ordering::Relaxed);
                }
                None
            }
            Job::Finish { received, held } => {
                failpoint("aggregator");
                let report = self.finish(*received);
                Some(FinishedConnection { report, _held: Some(held) })
            }
        }
    }

    /// Folds rows in; true if the connection now has too many groups.
    fn add(&mut self, connection: u64, rows: StreamRows) -> bool {
        let partials = self.partials.is_some();
        let entry = self.running.entry(connection);
        let entry = entry.or_insert_with(|| Ok(Running::new(&self.plan, partials)));
        let Ok(running) = entry else { return false };
        let mut rows = rows;
        running.memory.absorb(rows.take_memory());
        let aggregate = running.groups();
        let added = guarded(|| match rows {
            StreamRows::Columns(mut set) => aggregate.add(&mut set),
            StreamRows::Groups(groups) => aggregate.add_table(&groups),
        });
        running.count(self.partial_bytes);
        match added {
            Ok(()) => running.groups_known() > self.groups_limit,
            Err(defect) => {
                *entry = Err(defect);
                false
            }
        }
    }

    /// Closes a batch that is not the last; true if the connection now has too many groups.
    fn close(&mut self, connection: u64, batch: ClosedBatch) -> bool {
        let Some(partials) = &self.partials else { return false };
        let (limit, number) = (self.groups_limit, batch.number);
        let entry = self.running.entry(connection);
        let entry = entry.or_insert_with(|| Ok(Running::new(&self.plan, true)));
        let closed = match entry {
            Ok(running) => {
                let closed = guarded(|| running.close(connection, batch, partials.files()));
                running.count(self.partial_bytes);
                closed
            }
            Err(defect) => Err(defect.clone()),
        };
        let encoded = closed.unwrap_or_else(|defect| {
            partials.files().give_up(&name_of(connection, number), &defect);
            *entry = Err(defect.clone());
            Err(defect)
        });
        let over_groups = entry.as_ref().is_ok_and(|running| running.groups_known() > limit);
        let written = encoded.and_then(|encoded| partials.write(connection, encoded));
        if let Err(lack) = written {
            self.lacks.entry(connection).or_default().add(lack);
        }
        over_groups
    }

    fn finish(&mut self, mut received: Received) -> Report {
        let connection = received.connection;
        let mut last = received.batch.take();
        let running = match self.running.remove(&connection) {
            None if last.is_some() => Some(Ok(Running::new(&self.plan, self.partials.is_some()))),
            running => running,
        };
        let (mut groups, mut memory) = (None, HeldBytes::default());
        let result = match running {
            None => Ok(aggregate::FinishedGroups::empty(&self.plan)),
            Some(Ok(mut running)) => {
                if let (Some(open), Some(last)) = (&mut running.open, &last) {
                    open.latency.merge(&last.latency);
                    std::mem::swap(&mut received.latency, &mut open.latency);
                }
                memory = std::mem::take(&mut running.memory);
                guarded(|| {
                    groups = running.take_last()?;
                    running.total.finish(&received.texts)
                })
            }
            Some(Err(defect)) => Err(defect),
        };
        let grouped = self.judge(&mut received, result);
        let aggregated = clock::now();
        received.partials = self.lacks.remove(&connection).unwrap_or_default();
        if let (Some(partials), Some(last)) = (&self.partials, last.take()) {
            let encoded = encode_last(partials.files(), &received, *last, groups);
            let written = encoded.and_then(|encoded| partials.write(connection, encoded));
            written.unwrap_or_else(|lack| received.partials.add(lack));
        }
        received.texts = Vec::new();
        memory.set(grouped.memory_bytes());
        received.memory.held = vec![memory];
        Report { received, grouped, aggregated }
    }

    /// Sets the stream's reason and detail if its result is lacking; returns the groups.
    fn judge(
        &self,
        received: &mut Received,
        result: Result<aggregate::FinishedGroups, String>,
    ) -> Grouped {
        let aggregate::FinishedGroups { grouped, overflowed } = result.unwrap_or_else(|defect| {
            received.reason = Some(Reason::InternalError);
            received.detail = Some(format!("{defect}; this is a bug, please report it"));
            aggregate::FinishedGroups::empty(&self.plan)
        });
        if !overflowed.is_empty() && received.reason.is_none() {
            received.reason = Some(Reason::SumOverflow);
            received.detail = Some(format!(
                "sums of {} do not fit in 64 bits and are null; their means are correct",
                overflowed.join(", ")
            ));
        }
        if grouped.len() > self.groups_limit && received.status() != Status::Rejected {
            let (groups, limit) = (grouped.len(), self.groups_limit);
            received.reason = Some(Reason::GroupsLimit);
            received.detail =
                Some(format!("{groups} groups; the limit is {limit} (--groups-limit)"));
        }
        grouped
    }
}

impl Running {
    /// Encodes the open batch and opens the next. The inner error is why it could not be encoded.
    fn close(
        &mut self,
        connection: u64,
        batch: ClosedBatch,
        files: &PartialFiles,
    ) -> Result<Result<EncodedBatch, String>, AggregateError> {
        let open = self.open.as_mut().expect("partials are written");
        open.texts.resize_with(batch.texts.len(), Texts::default);
        for (texts, new) in open.texts.iter_mut().zip(&batch.texts) {
            texts.append(new);
        }
        open.latency.merge(&batch.latency);
        let groups = open.groups.take_batch()?;
        let origin = files.origin(connection, batch.number, batch.began);
        let facts = facts(batch, None, None);
        let encoded = files
            .encode(connection, &origin, &facts, |out| groups.write(&open.texts, &origin, out));
        self.total.add_batch(groups)?;
        Ok(encoded)
    }

    /// Adds the groups of the last batch to the total and returns them; `None` if no partials are
    /// written.
    fn take_last(&mut self) -> Result<Option<BatchGroups>, AggregateError> {
        let Some(open) = &mut self.open else { return Ok(None) };
        let groups = open.groups.take_batch()?;
        self.total.add_batch(groups.clone())?;
        Ok(Some(groups))
    }
}

/// Encodes the last batch of a stream, with the status in which the stream ended.
///
/// # Errors
/// Why it could not be encoded.
fn encode_last(
    files: &PartialFiles,
    received: &Received,
    batch: ClosedBatch,
    groups: Option<BatchGroups>,
) -> Result<EncodedBatch, String> {
    let (connection, number) = (received.connection, batch.number);
    let origin = files.origin(connection, number, batch.began);
    let reason = received.reason.map(Reason::as_str);
    let facts = facts(batch, Some(received.status()), reason);
    let encoded = guarded(|| {
        let Some(groups) = groups else { return Ok(None) };
        let texts = &received.texts;
        let encoded =
            files.encode(connection, &origin, &facts, |out| groups.write(texts, &origin, out));
        Ok(Some(encoded))
    });
    let defect = match encoded {
        Ok(Some(encoded)) => return encoded,
        Ok(None) => "its groups were lost".to_owned(),
        Err(defect) => defect,
    };
    files.give_up(&name_of(connection, number), &defect);
    Err(defect)
}

/// What a batch without files is called.
fn name_of(connection: u64, number: u32) -> String {
    format!("stream {connection}, batch {number}")
}

fn facts(batch: ClosedBatch, status: Option<Status>, reason: Option<&'static str>) -> BatchFacts {
    let Counts { records, packets, bytes, .. } = batch.counts;
    let (status, latency) = (status.map(Status::as_str), batch.latency);
    BatchFacts { status, reason, records, packets, bytes, latency }
}

/// Runs Polars in such a way that a panic costs one connection its result, not the whole process.
fn guarded<T>(work: impl FnOnce() -> Result<T, AggregateError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the aggregation panicked (see the log)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FOLD_ROWS_MAX;
    use crate::engine::blocks::block::{Block, BlockRecords};
    use crate::wire::records::packets::Run;
    use crate::wire::schema::Schema;

    fn table(plan: &Arc<Plan>, keys: std::ops::Range<u64>) -> StreamRows {
        let mut groups = GroupTable::with_limits(plan, 10, FOLD_ROWS_MAX);
        let keys: Vec<u64> = keys.collect();
        let run = [Run { records: keys.len(), ..Run::default() }];
        let records = vec![1; 267 * keys.len()];
        let mut block = Block::new();
        block.fill(&mut BlockRecords::of(&run, &records, 267));
        groups.fold(&block, keys.len(), &keys);
        StreamRows::Groups(Box::new(groups))
    }

    /// A stream long enough to hand over several tables has the groups of all of them.
    #[test]
    fn the_groups_of_several_tables_count_together() {
        let plan = &Plan::new(Schema::built_in());
        let mut aggregator = Aggregator {
            plan: Arc::clone(plan),
            groups_limit: 10,
            partial_bytes: 1,
            running: HashMap::new(),
            partials: None,
            lacks: HashMap::new(),
        };
        for keys in [0..10, 0..10, 5..10] {
            assert!(!aggregator.add(1, table(plan, keys)));
        }
        assert!(!aggregator.add(2, table(plan, 0..10)));
        assert!(aggregator.add(1, table(plan, 10..11)));
        assert!(!aggregator.add(2, table(plan, 3..7)));
    }
}
