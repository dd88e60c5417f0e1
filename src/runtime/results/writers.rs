//! Threads that write the files of results, so that a slow disk holds up no worker. They print
//! nothing; the reporter does, in the order in which the results came.
//!
//! ```text
//! aggregation threads ──▶ queue ──▶ writers ──▶ a file each, at the same time
//!                                      │
//!                                      └──────▶ places ──▶ reporter: prints the first place
//! ```
//!
//! Who takes a result from the queue also takes its place in the order, under the same lock. There
//! are as many places as writers, so a slow stdout still reaches back to the senders.

use super::report::{FileWriter, Report, ResultFile};
use super::reporter::{Filed, FinishedConnection, ReportSource};
use crate::config::FILE_WRITERS;
use crate::runtime::clock;
use crate::runtime::connection::caught::caught_now;
use crate::runtime::failpoint::failpoint;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// What the writers share.
pub(crate) struct Writers {
    intake: Mutex<Intake>,
    write: FileWriter,
}

struct Intake {
    finished: mpsc::Receiver<FinishedConnection>,
    places: SyncSender<oneshot::Receiver<Filed>>,
}

impl Writers {
    /// Writers for results from `finished`, and what the reporter prints from.
    pub(crate) fn new(
        finished: mpsc::Receiver<FinishedConnection>,
        write: FileWriter,
    ) -> (Arc<Self>, ReportSource) {
        let (places, filed) = sync_channel(FILE_WRITERS);
        let writers = Writers { intake: Mutex::new(Intake { finished, places }), write };
        (Arc::new(writers), ReportSource::Filed(filed))
    }

    /// The work of one writer: until every sender of finished connections is gone, or the reporter.
    pub(crate) fn run(&self) {
        while let Some((finished, place)) = self.take() {
            failpoint("writer");
            let begun = clock::now();
            let file = self.write(&finished.report);
            // Fails only if the reporter is gone.
            let _ = place.send(Filed { finished, file, took: clock::since(begun) });
        }
    }

    fn take(&self) -> Option<(FinishedConnection, oneshot::Sender<Filed>)> {
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = intake.finished.blocking_recv()?;
        let (place, filed) = oneshot::channel();
        // Waits while all places are taken, and with this lock the other writers do.
        intake.places.send(filed).ok()?;
        Some((finished, place))
    }

    /// A panic costs the file, not the result.
    fn write(&self, report: &Report) -> Option<ResultFile> {
        caught_now(|| (self.write)(report)).unwrap_or_else(|panic| {
            let connection = report.received.connection;
            tracing::error!(connection, "writing its files {panic}: this is a bug");
            Some(Some(Err(format!("writing it {panic}"))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stream::received::Received;
    use crate::wire::schema::Schema;
    use std::path::PathBuf;
    use std::sync::{Barrier, Condvar};
    use std::thread;
    use std::time::Instant;

    fn finished(number: u64) -> FinishedConnection {
        let received = Received::nothing(number, "[::1]:9".parse().unwrap(), Instant::now());
        FinishedConnection::refused(received, &Schema::built_in())
    }

    fn number(filed: &Filed) -> u64 {
        filed.finished.report.received.connection
    }

    /// The first file is written last; all are written at the same time.
    #[test]
    fn files_are_written_at_the_same_time_and_results_keep_their_order() {
        let (results, queue) = mpsc::channel(FILE_WRITERS);
        let all = Barrier::new(FILE_WRITERS);
        let first_done = (Mutex::new(false), Condvar::new());
        let shared = Arc::new((all, first_done));
        let write = {
            let shared = Arc::clone(&shared);
            move |report: &Report| {
                let (all, (done, changed)) = &*shared;
                // Returns only if as many are being written as there are writers.
                all.wait();
                let number = report.received.connection;
                let mut done = done.lock().unwrap();
                while number == 0 && !*done {
                    done = changed.wait(done).unwrap();
                }
                *done |= number as usize == FILE_WRITERS - 1;
                changed.notify_all();
                Some(Some(Ok(PathBuf::from(number.to_string()))))
            }
        };
        let (writers, mut source) = Writers::new(queue, Arc::new(write));
        thread::scope(|scope| {
            for _ in 0..FILE_WRITERS {
                scope.spawn(|| writers.run());
            }
            for count in 0..FILE_WRITERS as u64 {
                results.blocking_send(finished(count)).unwrap();
            }
            for count in 0..FILE_WRITERS as u64 {
                let filed = source.next().unwrap();
                assert_eq!(number(&filed), count);
                let Some(Some(Ok(path))) = filed.file else { panic!("no file") };
                assert_eq!(path, PathBuf::from(count.to_string()));
            }
            drop(results);
        });
        drop(writers);
        assert!(source.next().is_none());
    }

    /// While nobody prints, the queue fills up, and whoever finishes streams waits.
    #[test]
    fn no_more_results_wait_than_there_are_places_and_writers() {
        let (results, queue) = mpsc::channel(1);
        let (writers, mut source) = Writers::new(queue, Arc::new(|_: &Report| None));
        thread::scope(|scope| {
            for _ in 0..FILE_WRITERS {
                scope.spawn(|| writers.run());
            }
            // As many places, one result that waits for a place, and one in the queue.
            let most = FILE_WRITERS as u64 + 2;
            for count in 0..most {
                results.blocking_send(finished(count)).unwrap();
            }
            assert!(results.try_send(finished(most)).is_err());
            assert_eq!(number(&source.next().unwrap()), 0);
            // Now there is room for one more.
            results.blocking_send(finished(most)).unwrap();
            assert!(results.try_send(finished(most + 1)).is_err());
            drop(results);
            let rest = std::iter::from_fn(|| source.next()).map(|filed| number(&filed));
            assert_eq!(
                rest.take(most as usize).collect::<Vec<_>>(),
                (1..=most).collect::<Vec<_>>()
            );
        });
    }

    #[test]
    fn a_panic_costs_the_file_and_not_the_result() {
        let (results, queue) = mpsc::channel(2);
        let write = |report: &Report| -> Option<ResultFile> {
            assert!(report.received.connection != 1, "no ink");
            None
        };
        let (writers, mut source) = Writers::new(queue, Arc::new(write));
        (1..3).for_each(|count| results.blocking_send(finished(count)).unwrap());
        drop(results);
        writers.run();
        let (first, second) = (source.next().unwrap(), source.next().unwrap());
        assert!(matches!(first.file, Some(Some(Err(cause))) if cause.contains("no ink")));
        assert!(second.file.is_none() && number(&second) == 2);
    }
}
