//! The aggregation thread of a worker: turns batches into results, one connection beside the
//! other. A plain thread, since Polars must not run in an async runtime; reads no socket.

use super::pool::PooledSet;
use super::reporter::Finished;
use super::slots::Held;
use crate::config::{AggregateMode, Config};
use crate::engine::aggregate::{Aggregate, AggregateError, Grouped};
use crate::engine::columns::PartialSet;
use crate::engine::groups::GroupTable;
use crate::engine::report::{Reason, Received, Report, Status};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

/// What a worker asks of its aggregation thread.
pub enum Job {
    /// Fold rows into their connection's groups.
    Add {
        /// Number of the connection.
        connection: u64,
        /// The rows.
        rows: Rows,
        /// To be set where the connection has too many groups.
        over_groups: Arc<AtomicBool>,
    },
    /// Make the result of a connection; all its batches came before.
    Finish {
        /// What was received.
        received: Box<Received>,
        /// What it holds, to be given back when the result is printed.
        held: Held,
    },
}

/// Records of one connection, as its worker hands them over.
pub enum Rows {
    /// A batch. The set goes back to its pool.
    Columns(PooledSet),
    /// The groups that the worker has folded them into, mostly those of all records. Their memory
    /// is given up here and not on the worker.
    Groups(Box<GroupTable>),
}

/// The connections of one aggregation thread.
struct Aggregator {
    groups_limit: usize,
    running: HashMap<u64, Result<Aggregate, String>>,
    /// Where partials become columns.
    partials: PartialSet,
}

/// Runs until every sender of jobs is gone.
pub fn run(mut jobs: mpsc::Receiver<Job>, finished: mpsc::Sender<Finished>, config: &Config) {
    let partials_rows = match config.aggregate {
        AggregateMode::Columns => 0,
        AggregateMode::TwoPhase => config.batch_rows,
    };
    let mut aggregator = Aggregator {
        groups_limit: config.groups_limit,
        running: HashMap::new(),
        partials: PartialSet::with_rows(partials_rows),
    };
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Add { connection, rows, over_groups } => {
                if aggregator.add(connection, rows) {
                    over_groups.store(true, Ordering::Relaxed);
                }
            }
            Job::Finish { received, held } => {
                let report = aggregator.finish(*received);
                if finished.blocking_send(Finished { report, _held: Some(held) }).is_err() {
                    return;
                }
            }
        }
    }
}

impl Aggregator {
    /// Folds rows in; true where the connection has too many groups by now.
    fn add(&mut self, connection: u64, rows: Rows) -> bool {
        let entry = self.running.entry(connection).or_insert_with(|| Ok(Aggregate::default()));
        let Ok(aggregate) = entry else { return false };
        let added = guarded(|| match rows {
            Rows::Columns(mut set) => aggregate.add(&mut set),
            Rows::Groups(groups) => aggregate.add_partials(groups.partials(), &mut self.partials),
        });
        match added {
            Ok(()) => aggregate.groups_known() > self.groups_limit,
            Err(defect) => {
                *entry = Err(defect);
                false
            }
        }
    }

    fn finish(&mut self, mut received: Received) -> Report {
        let aggregate = self.running.remove(&received.connection);
        let texts = std::mem::take(&mut received.texts);
        let grouped = match aggregate {
            None => Ok(Grouped::default()),
            Some(Ok(aggregate)) => guarded(|| aggregate.finish(&texts)),
            Some(Err(defect)) => Err(defect),
        };
        let grouped = grouped.unwrap_or_else(|defect| {
            received.reason = Some(Reason::InternalError);
            received.detail = Some(format!("{defect}; this is a defect, please report it"));
            Grouped::default()
        });
        if grouped.len() > self.groups_limit && received.status() != Status::Rejected {
            let (groups, limit) = (grouped.len(), self.groups_limit);
            received.reason = Some(Reason::GroupsLimit);
            received.detail =
                Some(format!("{groups} groups, allowed are {limit} (--groups-limit)"));
        }
        Report { received, grouped, aggregated: Instant::now() }
    }
}

/// Runs Polars so that a defect in it costs one connection its result and not the process.
fn guarded<T>(work: impl FnOnce() -> Result<T, AggregateError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the aggregation panicked, see the log".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FOLD_ROWS_MAX;
    use crate::engine::columns::ColumnSet;

    fn table(keys: std::ops::Range<u64>) -> Rows {
        let mut set = ColumnSet::with_rows(10);
        keys.for_each(|key| set.push_row(key, 1, 1.0, 1));
        let mut groups = GroupTable::with_limits(10, FOLD_ROWS_MAX);
        groups.fold(&set);
        Rows::Groups(Box::new(groups))
    }

    /// A stream so long that it hands several tables over has the groups of all of them.
    #[test]
    fn the_groups_of_several_tables_count_together() {
        let partials = PartialSet::with_rows(3);
        let mut aggregator = Aggregator { groups_limit: 10, running: HashMap::new(), partials };
        for keys in [0..10, 0..10, 5..10] {
            assert!(!aggregator.add(1, table(keys)));
        }
        assert!(!aggregator.add(2, table(0..10)));
        assert!(aggregator.add(1, table(10..11)));
        assert!(!aggregator.add(2, table(3..7)));
    }
}
