//! One record stream on its worker, whatever its source. Decoding is in the engine; this reads no
//! socket and keeps no deadlines. It waits for column sets, for room in the aggregation's queue,
//! and for the worker's other connections.

use super::open_batch::OpenBatch;
use crate::config::{AggregateMode, FOLD_ROWS_MAX, LATENCY_BYTES, TURN};
use crate::engine::groups::table::GroupTable;
use crate::engine::memory::account::{MemoryShare, ShareOwner};
use crate::engine::memory::held::HeldBytes;
use crate::engine::stream::intake::{NextStep, RecordIntake, Refused};
use crate::engine::stream::received::{BufferKind, Reason, Received, StreamMemory};
use crate::runtime::clock;
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::results::aggregator::{Job, StreamRows};
use crate::runtime::results::capture::Capture;
use crate::runtime::results::column_pool::PooledSet;
use crate::runtime::ring;
use crate::runtime::worker::Worker;
use bytesize::ByteSize;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Why a stream ended without its end record.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The reason.
    pub reason: Reason,
    /// Its details, in words and numbers.
    pub detail: String,
}

impl Failure {
    /// A failure with this reason and detail.
    pub(crate) fn of(reason: impl Into<Reason>, detail: impl ToString) -> Self {
        Failure { reason: reason.into(), detail: detail.to_string() }
    }

    /// A stream that has ended this way.
    pub(crate) fn of_stream(self, received: Received) -> Received {
        Received { reason: Some(self.reason), detail: Some(self.detail), ..received }
    }

    /// A panic, with what it said.
    pub(crate) fn bug(panic: &str) -> Self {
        Failure::of(Reason::InternalError, format!("{panic}; this is a bug, please report it"))
    }
}

/// A new stream's share of the engine's memory, with `bytes` for its start. Waits until there is
/// room for them.
///
/// # Errors
/// [`Failure`] if no other stream holds more.
pub(crate) async fn admit(worker: &Worker, bytes: usize) -> Result<StreamMemory, Failure> {
    let owner = worker.counters.memory.join();
    let mut held = HeldBytes::of(owner.share());
    while !held.ask(bytes) {
        room(owner.share()).await?;
    }
    Ok(StreamMemory { owner: Some(owner), held: vec![held] })
}

/// After a refusal, waits until what was asked for is granted.
///
/// # Errors
/// [`Failure`] if the stream has to end, because none holds more.
async fn room(share: &Arc<MemoryShare>) -> Result<(), Failure> {
    match poll_fn(|context| share.poll_room(context.waker())).await {
        true => Ok(()),
        false => Err(out_of_memory(share)),
    }
}

fn out_of_memory(share: &MemoryShare) -> Failure {
    let (limit, held) = (share.account().limit() as u64, share.bytes() as u64);
    let detail = format!(
        "the engine reached {} (--memory-limit), and this stream held the most: {}; its result has \
         the records before that",
        ByteSize(limit),
        ByteSize(held),
    );
    Failure::of(Reason::MemoryLimit, detail)
}

/// Decoded records that have not been handed to the aggregation; `None` before the first record and
/// right after handing over.
enum Gathered {
    /// The batch being filled.
    Columns(Option<PooledSet>),
    /// The groups of the records.
    Groups(Option<Box<GroupTable>>),
}

/// A record stream.
pub(crate) struct RecordStream {
    worker: Rc<Worker>,
    intake: RecordIntake,
    gathered: Gathered,
    /// Its share of the engine's memory; `None` if nothing is counted.
    share: Option<Arc<MemoryShare>>,
    /// Set by the aggregation when the connection has too many groups.
    over_groups: Arc<AtomicBool>,
    /// The open batch, from the first byte on, if partials are written.
    batch: Option<OpenBatch>,
    capture: Option<Capture>,
    /// When the worker last turned to this stream, and when the last pass ended.
    turn_began: Instant,
    pass_ended: Instant,
    received: Received,
}

impl RecordStream {
    /// A new stream, read into a window of `window_bytes`. `memory` was [admitted](admit).
    pub(crate) fn start(
        worker: Rc<Worker>,
        number: u64,
        peer: SocketAddr,
        buffer: BufferKind,
        window_bytes: usize,
        now: Instant,
        memory: StreamMemory,
    ) -> Self {
        let mut received = Received::nothing(number, peer, now);
        received.buffer = buffer;
        let gathered = match worker.config.aggregate {
            AggregateMode::Columns => Gathered::Columns(None),
            AggregateMode::TwoPhase => Gathered::Groups(None),
        };
        let mut intake = RecordIntake::new(&worker.plan, &worker.config, window_bytes, now);
        let share = memory.owner.as_ref().map(|owner| Arc::clone(owner.share()));
        share.iter().for_each(|share| intake.count_in(share));
        received.memory = memory;
        let capture = worker.captures.as_ref().map(|captures| captures.stream(number));
        let (over_groups, batch) = (Arc::default(), None);
        RecordStream {
            intake,
            gathered,
            share,
            over_groups,
            batch,
            capture,
            turn_began: now,
            pass_ended: now,
            received,
            worker,
        }
    }

    /// The number under which it is reported.
    pub(crate) fn number(&self) -> u64 {
        self.received.connection
    }

    /// Its share of the engine's memory; `None` if nothing is counted.
    pub(crate) fn share(&self) -> Option<&Arc<MemoryShare>> {
        self.share.as_ref()
    }

    /// Why it ends, if it holds the most when memory is short.
    pub(crate) fn condemned(&self) -> Option<Failure> {
        let share = self.share.as_ref().filter(|share| share.is_condemned())?;
        Some(out_of_memory(share))
    }

    /// The state of its decoder.
    pub(crate) fn intake(&self) -> &RecordIntake {
        &self.intake
    }

    /// The range of the window that the next read may fill.
    pub(crate) fn free(&self) -> Range<usize> {
        self.intake.free()
    }

    /// Decodes `bytes` bytes read to the start of [`free`](Self::free). Latencies are measured from
    /// `taken_over`, when the read's completion was taken over.
    ///
    /// # Errors
    /// [`Failure`]; the stream has ended.
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
            self.received.started = clock::wall();
        }
        if let Some(capture) = &mut self.capture {
            let begin = self.intake.free().start;
            let came = &buffer[begin..begin + bytes];
            // Its state is large, and most engines capture nothing.
            Box::pin(capture.add(came, self.received.started)).await;
        }
        if let Some(interval) = self.worker.partials_interval() {
            // As above.
            Box::pin(self.turn_batch(taken_over, interval)).await;
        }
        self.intake.handle_read(bytes, taken_over);
        self.turn_began = self.turn_began.max(taken_over);
        let digested = loop {
            if self.intake.ended() {
                break Ok(());
            }
            self.give_way().await;
            match self.poll_rows(buffer, taken_over).await {
                Ok(NextStep::Rows) => {}
                Ok(NextStep::Memory) => {
                    // Rare, and its state need not be part of every stream's.
                    if let Err(failure) = Box::pin(self.wait_for_memory()).await {
                        break Err(failure);
                    }
                }
                Ok(NextStep::Read | NextStep::Ended) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        let counts = self.intake.counts();
        let tally = self.worker.tally();
        tally.add(|tally| &tally.records, counts.records - before.records);
        tally.add(|tally| &tally.packets, counts.packets - before.packets);
        if self.intake.ended() && !ended {
            self.hand_over().await;
        }
        digested
    }

    /// Moves unparsed bytes to the front of the window.
    pub(crate) fn compact(&mut self, buffer: &mut [u8]) {
        self.intake.compact(buffer);
    }

    /// Extends the deadlines by the time that was spent on a read.
    pub(crate) fn forgive(&mut self, spent: Duration) {
        self.intake.forgive(spent);
    }

    /// Forgets a window that was parsed completely.
    pub(crate) fn forget_window(&mut self) {
        self.intake.forget_window();
    }

    /// Waits until there is memory for the next record. The stream may hold the most, with what it
    /// needs, and then it ends.
    async fn wait_for_memory(&mut self) -> Result<(), Failure> {
        let Some(share) = &self.share else { return Ok(()) };
        room(share).await?;
        self.turn_began = clock::now();
        Ok(())
    }

    /// Lets the other connections of the worker have their turn, if this stream has had its.
    async fn give_way(&mut self) {
        if self.pass_ended.saturating_duration_since(self.turn_began) >= TURN {
            ring::pause().await;
            self.turn_began = clock::now();
        }
    }

    /// Makes one pass over the received bytes. Waits only for a column set and the aggregation's
    /// queue.
    async fn poll_rows(&mut self, buffer: &[u8], taken_over: Instant) -> Result<NextStep, Failure> {
        self.make_room().await?;
        let packets_before = self.intake.counts().packets;
        let next = match &mut self.gathered {
            Gathered::Columns(set) => {
                let set = set.as_mut().expect("make_room leaves a set");
                self.intake.poll_rows(buffer, set)
            }
            Gathered::Groups(groups) => {
                let (plan, limit) = (&self.worker.plan, self.worker.config.groups_limit);
                let share = self.share.as_ref();
                let groups = groups.get_or_insert_with(|| {
                    let table = GroupTable::with_limits(plan, limit, FOLD_ROWS_MAX);
                    Box::new(match share {
                        Some(share) => table.count_in(share),
                        None => table,
                    })
                });
                self.intake.poll_groups(buffer, groups)
            }
        };
        // The clock is read once for all packets of the pass.
        let packets = self.intake.counts().packets - packets_before;
        self.pass_ended = clock::now();
        let latency = self.pass_ended.saturating_duration_since(taken_over);
        self.received.latency.record(latency, packets);
        self.worker.packet_latency.borrow_mut().record(latency, packets);
        next.map_err(|refused| Failure::of(refused, refused))
    }

    /// Ensures that there is room for a row; waits for a column set if the aggregation is behind.
    async fn make_room(&mut self) -> Result<(), Failure> {
        let full = match &self.gathered {
            Gathered::Columns(set) => set.as_ref().is_some_and(|set| set.rows_free() == 0),
            Gathered::Groups(groups) => groups.as_ref().is_some_and(|g| g.rows_free() == 0),
        };
        if full {
            self.hand_over().await;
        }
        if self.over_groups.load(Ordering::Relaxed) {
            let limit = self.worker.config.groups_limit;
            let refused = Refused::Groups { limit };
            return Err(Failure::of(refused, refused));
        }
        if let Some(failure) = self.condemned() {
            return Err(failure);
        }
        if let Gathered::Columns(set @ None) = &mut self.gathered {
            let mut memory = self.share.as_ref().map(HeldBytes::of).unwrap_or_default();
            while !memory.ask(self.worker.pool.set_bytes()) {
                if let Some(share) = &self.share {
                    Box::pin(room(share)).await?;
                }
            }
            *set = Some(self.worker.pool.take().await);
            set.iter_mut().for_each(|set| set.memory.absorb(std::mem::take(&mut memory)));
        }
        Ok(())
    }

    /// Counts what the rows of a set will take once they are grouped: as many groups, at worst.
    /// Waits until there is room, unless the stream has to end anyway.
    async fn count_rows(&self, set: &mut PooledSet) {
        let Some(share) = self.share.as_ref().filter(|share| !share.is_leaving()) else { return };
        let more = set.rows() * self.worker.config.record.group_bytes();
        while !set.memory.ask(more) && Box::pin(room(share)).await.is_ok() {}
    }

    /// Hands the decoded records to the aggregation; waits if its queue is full.
    async fn hand_over(&mut self) {
        let rows = match &mut self.gathered {
            Gathered::Columns(set) => {
                set.take().filter(|set| !set.is_empty()).map(StreamRows::Columns)
            }
            Gathered::Groups(groups) => groups.take().map(StreamRows::Groups),
        };
        let Some(mut rows) = rows else { return };
        if let StreamRows::Columns(set) = &mut rows {
            self.count_rows(set).await;
        }
        let connection = self.received.connection;
        let job = Job::Add { connection, rows, over_groups: Arc::clone(&self.over_groups) };
        // Fails only if the aggregation thread is gone; `report` will log that.
        let _ = self.worker.jobs.send(job).await;
    }

    /// When the open batch must be closed, even if nothing more arrives; `None` if it is empty or
    /// no partials are written.
    pub(crate) fn batch_ends(&self) -> Option<Instant> {
        let (batch, interval) = (self.batch.as_ref()?, self.worker.partials_interval()?);
        (!batch.is_empty(self.intake.counts())).then(|| batch.ends(interval))
    }

    /// Opens the first batch, or closes one whose time is up and opens the next.
    async fn turn_batch(&mut self, now: Instant, interval: Duration) {
        let counts = self.intake.counts();
        let batch = self.batch.get_or_insert_with(|| OpenBatch::first(now, clock::wall()));
        if batch.is_empty(counts) {
            batch.begin_at(now, clock::wall());
        } else if batch.ends(interval) <= now {
            self.close_batch(now).await;
        }
    }

    /// Closes the batch and opens the next.
    pub(crate) async fn close_batch(&mut self, now: Instant) {
        self.hand_over().await;
        let Some(batch) = &mut self.batch else { return };
        let latency = std::mem::take(&mut self.received.latency);
        let batch = Box::new(batch.close(&self.intake, latency, now, clock::wall()));
        let (connection, over_groups) = (self.received.connection, Arc::clone(&self.over_groups));
        // Fails only if the aggregation thread is gone; `report` will log that.
        let _ = self.worker.jobs.send(Job::Close { connection, batch, over_groups }).await;
    }

    /// Ends the stream: hands over its last rows and returns what was received.
    pub(crate) async fn finish(mut self, ended: Result<(), Failure>) -> Received {
        self.received.memory.owner.iter().for_each(ShareOwner::finish);
        self.hand_over().await;
        if let Err(Failure { reason, detail }) = ended {
            self.received.reason = Some(reason);
            self.received.detail = Some(detail);
        }
        self.received.last_byte = clock::now();
        self.received.counts = self.intake.counts();
        if let Some(batch) = self.batch {
            let latency = std::mem::take(&mut self.received.latency);
            let batch = batch.close_last(self.received.counts, latency);
            self.received.batch = Some(Box::new(batch));
        }
        // What the start took goes with the window, but for the histograms.
        self.received.memory.held.iter_mut().for_each(|held| {
            held.set(held.bytes().min(LATENCY_BYTES));
        });
        self.received.memory.held.extend(self.intake.take_memory());
        self.received.texts = self.intake.into_texts();
        if let Some(capture) = self.capture {
            self.received.capture = Some(Box::pin(capture.finish()).await);
        }
        self.received
    }
}

/// Hands a [finished](RecordStream::finish) stream to the aggregation, which produces its result.
pub(crate) async fn report(jobs: &mpsc::Sender<Job>, received: Received, held: StreamHold) {
    let connection = received.connection;
    let job = Job::Finish { received: Box::new(received), held };
    if jobs.send(job).await.is_err() {
        tracing::error!(connection, "the aggregation has died: this is a bug, please report it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::wire::schema::Schema;
    use std::cell::Cell;

    /// In both modes, since the aggregation thread may detect too many groups late.
    #[test]
    fn a_stream_ends_once_the_aggregation_has_found_too_many_groups() {
        // A stream may pause, which needs a ring.
        ring::runtime().unwrap().block_on(async {
            let packet = [&271_u32.to_be_bytes()[..], &[1; 267]].concat();
            for aggregate in [AggregateMode::Columns, AggregateMode::TwoPhase] {
                let config = Config { aggregate, batch_rows: 1, ..Config::default() };
                let (worker, mut work) = Worker::alone(config);
                let (peer, now) = ("[::1]:9".parse().unwrap(), Instant::now());
                let mut stream = RecordStream::start(
                    worker,
                    7,
                    peer,
                    BufferKind::Plain,
                    4096,
                    now,
                    StreamMemory::default(),
                );
                stream.digest(&packet, packet.len(), now).await.unwrap();
                stream.forget_window();
                stream.hand_over().await;
                let Some(Job::Add { connection: 7, rows, over_groups }) = work.recv().await else {
                    panic!("no rows were handed over");
                };
                assert_eq!(
                    matches!(rows, StreamRows::Columns(_)),
                    aggregate == AggregateMode::Columns
                );
                over_groups.store(true, Ordering::Relaxed);
                let refused = stream.digest(&packet, packet.len(), now).await.unwrap_err();
                assert_eq!(refused.reason, Reason::GroupsLimit);
                let received = stream.finish(Err(refused)).await;
                assert_eq!((received.counts.records, received.reason.is_some()), (1, true));
                assert!(work.try_recv().is_err(), "no rows remain");
            }
        });
    }

    /// A read of many short records takes far longer than a turn. Others get theirs in between:
    /// here a task that counts its turns.
    #[test]
    fn a_long_read_gives_way_to_other_connections() {
        ring::runtime().unwrap().block_on(async {
            let schema = "name = 'bytes'\nfield = [{ name = 'k', type = 'u8' }]\n\
                          [packet]\nlength = 'none'\nend = 'close'\n\
                          [result]\nby = ['k']\naggregates = []";
            let bytes = vec![7; 4 << 20];
            for aggregate in [AggregateMode::Columns, AggregateMode::TwoPhase] {
                let config = Config { aggregate, batch_rows: bytes.len(), ..Config::default() };
                let schema = Arc::new(Schema::from_toml(schema).unwrap());
                let (worker, _work) = Worker::alone_with(schema, config);
                let (peer, now) = ("[::1]:9".parse().unwrap(), Instant::now());
                let window_bytes = bytes.len() + 1;
                let mut stream = RecordStream::start(
                    worker,
                    7,
                    peer,
                    BufferKind::Plain,
                    window_bytes,
                    now,
                    StreamMemory::default(),
                );
                let turns = Rc::new(Cell::new(0));
                let others = Rc::clone(&turns);
                let other = tokio_uring::spawn(async move {
                    loop {
                        ring::pause().await;
                        others.set(others.get() + 1);
                    }
                });
                stream.digest(&bytes, bytes.len(), Instant::now()).await.unwrap();
                other.abort();
                assert!(turns.get() > 1, "{} turns", turns.get());
                assert_eq!(stream.intake().counts().records, bytes.len() as u64);
            }
        });
    }
}
