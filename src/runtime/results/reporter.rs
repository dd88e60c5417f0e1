//! The thread that outputs results one at a time, so that no two interleave. It neither computes
//! nor formats them.

use super::report::{Report, ResultFile};
use crate::engine::aggregate::Grouped;
use crate::engine::observe::counters::TallyWriter;
use crate::engine::stream::received::{CaptureLack, Received, Status};
use crate::runtime::clock;
use crate::runtime::connection::line_budget::LineBudget;
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::failpoint::failpoint;
use crate::wire::schema::Schema;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// A report to be output, with its stream's slot.
#[derive(Debug)]
pub(crate) struct FinishedConnection {
    /// The report.
    pub report: Report,
    /// Freed when the report has been output.
    pub _held: Option<StreamHold>,
}

impl FinishedConnection {
    /// The report of a connection that got no slot.
    pub(crate) fn refused(received: Received, schema: &Arc<Schema>) -> Self {
        let grouped = Grouped::empty(Arc::clone(schema));
        let report = Report { received, grouped, aggregated: clock::now() };
        FinishedConnection { report, _held: None }
    }
}

/// A finished connection whose files have been written.
#[derive(Debug)]
pub(crate) struct Filed {
    /// The connection.
    pub finished: FinishedConnection,
    /// Its result file; `None` if results have no files.
    pub file: Option<ResultFile>,
    /// How long writing its files took.
    pub took: Duration,
}

/// Where the reporter gets finished connections from, in the order in which it outputs them.
pub(crate) enum ReportSource {
    /// From the aggregation, where results have no files.
    Finished(mpsc::Receiver<FinishedConnection>),
    /// From the writers of files: a place for each connection, filled when its files are written.
    Filed(Receiver<oneshot::Receiver<Filed>>),
}

impl ReportSource {
    /// The next connection, once its files are written; `None` when there will be no more.
    pub(crate) fn next(&mut self) -> Option<Filed> {
        match self {
            ReportSource::Finished(queue) => {
                let finished = queue.blocking_recv()?;
                Some(Filed { finished, file: None, took: Duration::ZERO })
            }
            ReportSource::Filed(places) => loop {
                // Fails only if the writer died, which is reported as a defect.
                if let Ok(filed) = places.recv().ok()?.blocking_recv() {
                    return Some(filed);
                }
            },
        }
    }
}

/// Outputs a report and the name of its file: prints or compares it. Called from one thread only.
pub type Sink = Box<dyn FnMut(&Report, Option<&ResultFile>) -> io::Result<()> + Send>;

/// What the reporter had done by the time the engine stopped.
#[derive(Debug, Default)]
pub struct ReporterOutcome {
    /// Connections reported.
    pub reported: u64,
    /// How many of them were complete.
    pub complete: u64,
    /// Reports that could not be output.
    pub lost: u64,
    /// Captures that failed.
    pub captures_failed: u64,
    /// Why the first of them failed.
    pub capture_error: Option<String>,
    /// Why reports could not be output.
    pub output_error: Option<io::Error>,
    /// What ended the engine although nobody asked for it, such as a thread that panicked.
    pub defect: Option<String>,
}

impl ReporterOutcome {
    fn count_capture(&mut self, received: &Received, tally: &TallyWriter) {
        let Some(capture) = &received.capture else { return };
        tally.add(|tally| &tally.captured_bytes, capture.bytes);
        tally.add(|tally| &tally.captures_incomplete, u64::from(capture.lack.is_some()));
        if let Some(CaptureLack::Failed(cause)) = &capture.lack {
            self.captures_failed += 1;
            self.capture_error.get_or_insert_with(|| cause.clone());
        }
    }
}

/// Runs until every sender of finished connections is gone. If the sink fails, tells the engine to
/// stop through `drain`, and counts that report and all later ones as lost.
pub(crate) fn run(
    mut source: ReportSource,
    mut sink: Sink,
    drain: &watch::Sender<Option<Instant>>,
    tally: &TallyWriter,
) -> ReporterOutcome {
    let mut reporter = Reporter::new();
    while let Some(filed) = source.next() {
        reporter.handle(filed, &mut sink, drain, tally);
    }
    reporter.end()
}

/// What has been output so far.
pub(crate) struct Reporter {
    outcome: ReporterOutcome,
    lines: LineBudget,
}

impl Reporter {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let lines = LineBudget::new("further failures suppressed");
        Reporter { outcome: ReporterOutcome::default(), lines }
    }

    /// Outputs one connection, and frees its slot.
    pub(crate) fn handle(
        &mut self,
        filed: Filed,
        sink: &mut Sink,
        drain: &watch::Sender<Option<Instant>>,
        tally: &TallyWriter,
    ) {
        let Filed { finished, file, took } = filed;
        let outcome = &mut self.outcome;
        // The slot is free only once the report has been output.
        let FinishedConnection { report, _held } = finished;
        failpoint("reporter");
        log(&mut self.lines, &report);
        tally.count_stream(report.received.reason);
        outcome.count_capture(&report.received, tally);
        tally.add(|tally| &tally.result_write_ns, took.as_nanos() as u64);
        match &file {
            Some(Some(Ok(_))) => tally.add(|tally| &tally.result_files_written, 1),
            Some(Some(Err(_))) => tally.add(|tally| &tally.result_files_failed, 1),
            Some(None) | None => {}
        }
        if outcome.output_error.is_some() {
            outcome.lost += 1;
            return;
        }
        let output = sink(&report, file.as_ref());
        tally.add(|tally| &tally.result_wait_ns, clock::since(report.aggregated).as_nanos() as u64);
        match output {
            Ok(()) => {
                outcome.reported += 1;
                outcome.complete += u64::from(report.received.status() == Status::Complete);
            }
            Err(error) => {
                outcome.output_error = Some(error);
                outcome.lost += 1;
                drain.send_replace(Some(clock::now()));
            }
        }
    }

    /// The outcome, once there are no more connections.
    pub(crate) fn end(mut self) -> ReporterOutcome {
        self.lines.count_suppressed();
        self.outcome
    }
}

/// Logs a stream that has ended, in a line of `lines` unless it is complete.
fn log(lines: &mut LineBudget, report: &Report) {
    let received = &report.received;
    let (connection, peer, status) =
        (received.connection, received.peer, received.status().as_str());
    let Some(reason) = received.reason else {
        tracing::debug!(connection, %peer, status, records = received.counts.records);
        return;
    };
    if lines.allow(clock::now()) {
        let (reason, records) = (reason.as_str(), received.counts.records);
        let detail = received.detail.as_deref().unwrap_or_default();
        tracing::warn!(connection, %peer, status, reason, records, "{detail}");
    }
}
