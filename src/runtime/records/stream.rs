//! One record stream on its worker, wherever its bytes come from: understands no byte itself
//! (`engine` does), reads no socket and keeps no deadline. Waits only for column sets and for room
//! in the aggregation's queue.

use super::open_batch::OpenBatch;
use crate::config::{AggregateMode, Config, FOLD_ROWS_MAX};
use crate::engine::groups::plan::Plan;
use crate::engine::groups::table::GroupTable;
use crate::engine::observe::counters::{Counters, WorkerTally};
use crate::engine::stream::intake::{NextStep, RecordIntake, Refused};
use crate::engine::stream::latency::Latency;
use crate::engine::stream::received::{BufferKind, Reason, Received};
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::results::aggregator::{Job, StreamRows};
use crate::runtime::results::capture::{Capture, Captures};
use crate::runtime::results::column_pool::{ColumnPool, PooledSet};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// What the record streams of one worker share.
pub(crate) struct Streams {
    /// The limits.
    pub config: Arc<Config>,
    /// What records are.
    pub plan: Arc<Plan>,
    /// Where column sets come from.
    pub pool: Arc<ColumnPool>,
    /// The worker's aggregation thread.
    pub jobs: mpsc::Sender<Job>,
    /// Where the worker counts, in `workers`.
    pub counters: Arc<Counters>,
    /// The worker's place.
    pub worker: usize,
    /// Latencies of packets since the last tick.
    pub latency: RefCell<Latency>,
    /// How long batches are, where partials are kept.
    pub partials_interval: Option<Duration>,
    /// Where raw bytes go; `None` where none are captured.
    pub captures: Option<Arc<Captures>>,
}

impl Streams {
    /// What the streams of worker number `worker` share. Captures nothing.
    pub(crate) fn new(
        config: Arc<Config>,
        plan: Arc<Plan>,
        pool: Arc<ColumnPool>,
        jobs: mpsc::Sender<Job>,
        counters: Arc<Counters>,
        worker: usize,
    ) -> Self {
        let latency = RefCell::default();
        let partials_interval = config.partials.as_ref().map(|_| config.partials_interval);
        Streams {
            config,
            plan,
            pool,
            jobs,
            counters,
            worker,
            latency,
            partials_interval,
            captures: None,
        }
    }

    /// The worker's own counts.
    pub(crate) fn tally(&self) -> &WorkerTally {
        &self.counters.workers[self.worker]
    }

    /// Notes the latency of packets, beside that of their own stream.
    fn record_latency(&self, latency: Duration, packets: u64) {
        self.latency.borrow_mut().record(latency, packets);
    }

    /// What the worker's timer does at each tick.
    pub(crate) fn each_tick(&self) {
        self.tally().merge_packet_latency(&mut self.latency.borrow_mut());
    }
}

/// Why a stream ends without its end record having come.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The stable word.
    pub reason: Reason,
    /// The same in words and numbers.
    pub detail: String,
}

impl Failure {
    /// Both parts.
    pub(crate) fn of(reason: impl Into<Reason>, detail: impl ToString) -> Self {
        Failure { reason: reason.into(), detail: detail.to_string() }
    }
}

/// What a stream's records have become and is not yet with the aggregation; nothing before the
/// first of them and right after it was handed over.
enum Gathered {
    /// The batch that is being filled.
    Columns(Option<PooledSet>),
    /// Their groups.
    Groups(Option<Box<GroupTable>>),
}

/// A record stream.
pub(crate) struct RecordStream {
    shared: Rc<Streams>,
    intake: RecordIntake,
    gathered: Gathered,
    /// Set by the aggregation when the connection has too many groups.
    over_groups: Arc<AtomicBool>,
    /// From the first byte on, where partials are kept.
    batch: Option<OpenBatch>,
    capture: Option<Capture>,
    received: Received,
}

impl RecordStream {
    /// A stream at its start, read into a window of `window_bytes`.
    pub(crate) fn start(
        shared: Rc<Streams>,
        number: u64,
        peer: SocketAddr,
        buffer: BufferKind,
        window_bytes: usize,
        now: Instant,
    ) -> Self {
        let mut received = Received::nothing(number, peer, now);
        received.buffer = buffer;
        let gathered = match shared.config.aggregate {
            AggregateMode::Columns => Gathered::Columns(None),
            AggregateMode::TwoPhase => Gathered::Groups(None),
        };
        let intake = RecordIntake::new(&shared.plan, &shared.config, window_bytes, now);
        let capture = shared.captures.as_ref().map(|captures| captures.stream(number));
        let (over_groups, batch) = (Arc::default(), None);
        RecordStream { intake, gathered, over_groups, batch, capture, received, shared }
    }

    /// The number under which it is reported.
    pub(crate) fn number(&self) -> u64 {
        self.received.connection
    }

    /// Its place in its protocol.
    pub(crate) fn intake(&self) -> &RecordIntake {
        &self.intake
    }

    /// Where in the window the next read may put bytes.
    pub(crate) fn free(&self) -> Range<usize> {
        self.intake.free()
    }

    /// Decodes `bytes` that were put at the start of [`free`](Self::free). A latency begins at
    /// `taken_over`, where the completion was.
    ///
    /// # Errors
    /// [`Failure`]: the stream is over.
    pub(crate) async fn digest(
        &mut self,
        buffer: &[u8],
        bytes: usize,
        taken_over: Instant,
    ) -> Result<(), Failure> {
        let before = self.intake.counts();
        let ended = self.intake.ended();
        if before.bytes == 0 {
            self.received.first_byte = taken_over;
            self.received.started = SystemTime::now();
        }
        if let Some(capture) = &mut self.capture {
            let begin = self.intake.free().start;
            let came = &buffer[begin..begin + bytes];
            // Its state is large, and most engines capture nothing.
            Box::pin(capture.add(came, self.received.started)).await;
        }
        if let Some(interval) = self.shared.partials_interval {
            // As above.
            Box::pin(self.turn_batch(taken_over, interval)).await;
        }
        self.intake.handle_read(bytes, taken_over);
        let digested = loop {
            if self.intake.ended() {
                break Ok(());
            }
            match self.poll_rows(buffer, taken_over).await {
                Ok(NextStep::Rows) => {}
                Ok(NextStep::Read | NextStep::Ended) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        let counts = self.intake.counts();
        let tally = self.shared.tally();
        tally.records.add(counts.records - before.records);
        tally.packets.add(counts.packets - before.packets);
        if self.intake.ended() && !ended {
            self.hand_over().await;
        }
        digested
    }

    /// Moves what is left over to the front of its window.
    pub(crate) fn compact(&mut self, buffer: &mut [u8]) {
        self.intake.compact(buffer);
    }

    /// The peer is not held to account for the time that was spent on a read.
    pub(crate) fn forgive(&mut self, spent: Duration) {
        self.intake.forgive(spent);
    }

    /// Forgets a window that was understood whole.
    pub(crate) fn forget_window(&mut self) {
        self.intake.forget_window();
    }

    /// One pass over what has come in. Waits only for a column set and the aggregation's queue.
    async fn poll_rows(&mut self, buffer: &[u8], taken_over: Instant) -> Result<NextStep, Failure> {
        self.make_room().await?;
        let packets_before = self.intake.counts().packets;
        let next = match &mut self.gathered {
            Gathered::Columns(set) => {
                self.intake.poll_rows(buffer, set.as_mut().expect("make_room leaves a set"))
            }
            Gathered::Groups(groups) => {
                let (plan, limit) = (&self.shared.plan, self.shared.config.groups_limit);
                let groups = groups.get_or_insert_with(|| {
                    Box::new(GroupTable::with_limits(plan, limit, FOLD_ROWS_MAX))
                });
                self.intake.poll_groups(buffer, groups)
            }
        };
        // One reading of the clock for all packets of the pass.
        let packets = self.intake.counts().packets - packets_before;
        let latency = taken_over.elapsed();
        self.received.latency.record(latency, packets);
        self.shared.record_latency(latency, packets);
        next.map_err(|refused| Failure::of(refused, refused))
    }

    /// Sees to it that there is room for a row, waiting for a column set where the aggregation is
    /// behind.
    async fn make_room(&mut self) -> Result<(), Failure> {
        let full = match &self.gathered {
            Gathered::Columns(set) => set.as_ref().is_some_and(|set| set.rows_free() == 0),
            Gathered::Groups(groups) => groups.as_ref().is_some_and(|g| g.rows_free() == 0),
        };
        if full {
            self.hand_over().await;
        }
        if self.over_groups.load(Ordering::Relaxed) {
            let limit = self.shared.config.groups_limit;
            let refused = Refused::Groups { limit };
            return Err(Failure::of(refused, refused));
        }
        if let Gathered::Columns(set @ None) = &mut self.gathered {
            *set = Some(self.shared.pool.take().await);
        }
        Ok(())
    }

    /// Gives what was gathered to the aggregation, waiting where its queue is full.
    async fn hand_over(&mut self) {
        let rows = match &mut self.gathered {
            Gathered::Columns(set) => {
                set.take().filter(|set| !set.is_empty()).map(StreamRows::Columns)
            }
            Gathered::Groups(groups) => groups.take().map(StreamRows::Groups),
        };
        let Some(rows) = rows else { return };
        let connection = self.received.connection;
        let job = Job::Add { connection, rows, over_groups: Arc::clone(&self.over_groups) };
        // Fails only where the aggregation thread is gone; finishing will say so.
        let _ = self.shared.jobs.send(job).await;
    }

    /// When the batch with what has come is to be closed, whether more comes or not; `None` where
    /// there is nothing in it, or where no partials are kept.
    pub(crate) fn batch_ends(&self) -> Option<Instant> {
        let (batch, interval) = (self.batch.as_ref()?, self.shared.partials_interval?);
        (!batch.is_empty(self.intake.counts())).then(|| batch.ends(interval))
    }

    /// Opens the first batch, or closes one that is over and opens the next.
    async fn turn_batch(&mut self, now: Instant, interval: Duration) {
        let counts = self.intake.counts();
        let batch = self.batch.get_or_insert_with(|| OpenBatch::first(now));
        if batch.is_empty(counts) {
            batch.begin_at(now);
        } else if batch.ends(interval) <= now {
            self.close_batch(now).await;
        }
    }

    /// Closes the batch and opens the next.
    pub(crate) async fn close_batch(&mut self, now: Instant) {
        self.hand_over().await;
        let Some(batch) = &mut self.batch else { return };
        let latency = std::mem::take(&mut self.received.latency);
        let batch = Box::new(batch.close(&self.intake, latency, now));
        let (connection, over_groups) = (self.received.connection, Arc::clone(&self.over_groups));
        // Fails only where the aggregation thread is gone; finishing will say so.
        let _ = self.shared.jobs.send(Job::Close { connection, batch, over_groups }).await;
    }

    /// Ends the stream: its last rows go to the aggregation, and what was received is said.
    pub(crate) async fn finish(mut self, ended: Result<(), Failure>) -> Received {
        self.hand_over().await;
        if let Err(Failure { reason, detail }) = ended {
            self.received.reason = Some(reason);
            self.received.detail = Some(detail);
        }
        self.received.last_byte = Instant::now();
        self.received.counts = self.intake.counts();
        if let Some(batch) = self.batch {
            let latency = std::mem::take(&mut self.received.latency);
            let batch = batch.close_last(self.received.counts, latency);
            self.received.batch = Some(Box::new(batch));
        }
        self.received.texts = self.intake.into_texts();
        if let Some(capture) = self.capture {
            self.received.capture = Some(Box::pin(capture.finish()).await);
        }
        self.received
    }
}

/// Has the aggregation make the result of a stream that was [finished](RecordStream::finish).
pub(crate) async fn report(jobs: &mpsc::Sender<Job>, received: Received, held: StreamHold) {
    let connection = received.connection;
    let job = Job::Finish { received: Box::new(received), held };
    if jobs.send(job).await.is_err() {
        tracing::error!(connection, "the aggregation is gone: this is a defect, please report it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::Schema;

    /// In both ways of aggregating, whose threads may find late that there are too many groups.
    #[tokio::test]
    async fn a_stream_ends_once_the_aggregation_has_found_too_many_groups() {
        let packet = [&271_u32.to_be_bytes()[..], &[1; 267]].concat();
        for aggregate in [AggregateMode::Columns, AggregateMode::TwoPhase] {
            let config = Arc::new(Config { aggregate, batch_rows: 1, ..Config::default() });
            let (jobs, mut work) = mpsc::channel(4);
            let plan = Plan::new(Schema::built_in());
            let pool = ColumnPool::new(&plan, 4, 0, config.batch_rows);
            let streams = Streams::new(config, plan, pool, jobs, Counters::new(1), 0);
            let (peer, now) = ("[::1]:9".parse().unwrap(), Instant::now());
            let mut stream =
                RecordStream::start(Rc::new(streams), 7, peer, BufferKind::Plain, 4096, now);
            stream.digest(&packet, packet.len(), now).await.unwrap();
            stream.forget_window();
            stream.hand_over().await;
            let Some(Job::Add { connection: 7, rows, over_groups }) = work.recv().await else {
                panic!("rows were handed over");
            };
            assert_eq!(matches!(rows, StreamRows::Columns(_)), aggregate == AggregateMode::Columns);
            over_groups.store(true, Ordering::Relaxed);
            let refused = stream.digest(&packet, packet.len(), now).await.unwrap_err();
            assert_eq!(refused.reason, Reason::GroupsLimit);
            let received = stream.finish(Err(refused)).await;
            assert_eq!((received.counts.records, received.reason.is_some()), (1, true));
            assert!(work.try_recv().is_err(), "no rows are left");
        }
    }
}
