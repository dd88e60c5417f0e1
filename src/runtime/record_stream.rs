//! One record stream on its worker, wherever its bytes come from: understands no byte itself
//! (`engine` does), reads no socket and keeps no deadline. Waits only for column sets and for room
//! in the aggregation's queue.

use super::aggregator::Job;
use super::pool::{ColumnPool, PooledSet};
use super::slots::Held;
use crate::config::Config;
use crate::engine::counters::{Counters, Tally};
use crate::engine::intake::{Next, RecordIntake};
use crate::engine::latency::Latency;
use crate::engine::report::{BufferKind, Reason, Received};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What the record streams of one worker share.
pub struct Streams {
    /// The limits.
    pub config: Arc<Config>,
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
}

impl Streams {
    /// The worker's own counts.
    pub fn tally(&self) -> &Tally {
        &self.counters.workers[self.worker]
    }

    /// Notes the latency of packets, beside that of their own stream.
    fn record_latency(&self, latency: Duration, packets: u64) {
        self.latency.borrow_mut().record(latency, packets);
    }

    /// What the worker's timer does at each tick.
    pub fn each_tick(&self) {
        self.tally().merge_packet_latency(&mut self.latency.borrow_mut());
    }
}

/// Why a stream ends without its end record having come.
#[derive(Debug)]
pub struct Failure {
    /// The stable word.
    pub reason: Reason,
    /// The same in words and numbers.
    pub detail: String,
}

impl Failure {
    /// Both parts.
    pub fn of(reason: impl Into<Reason>, detail: impl ToString) -> Self {
        Failure { reason: reason.into(), detail: detail.to_string() }
    }
}

/// A record stream.
pub struct RecordStream {
    shared: Rc<Streams>,
    intake: RecordIntake,
    /// The batch that is being filled; none before the first record and while waiting for one.
    set: Option<PooledSet>,
    /// Set by the aggregation when the connection has too many groups.
    over_groups: Arc<AtomicBool>,
    received: Received,
}

impl RecordStream {
    /// A stream at its start, read into a window of `window_bytes`.
    pub fn start(
        shared: Rc<Streams>,
        number: u64,
        peer: SocketAddr,
        buffer: BufferKind,
        window_bytes: usize,
        now: Instant,
    ) -> Self {
        let mut received = Received::nothing(number, peer, now);
        received.buffer = buffer;
        RecordStream {
            intake: RecordIntake::new(&shared.config, window_bytes),
            set: None,
            over_groups: Arc::new(AtomicBool::new(false)),
            received,
            shared,
        }
    }

    /// The number under which it is reported.
    pub fn number(&self) -> u64 {
        self.received.connection
    }

    /// Its place in its protocol.
    pub fn intake(&self) -> &RecordIntake {
        &self.intake
    }

    /// Where in the window the next read may put bytes.
    pub fn free(&self) -> Range<usize> {
        self.intake.free()
    }

    /// Decodes `bytes` that were put at the start of [`free`](Self::free). A latency begins at
    /// `taken_over`, where the completion was.
    ///
    /// # Errors
    /// [`Failure`]: the stream is over.
    pub async fn digest(
        &mut self,
        buffer: &[u8],
        bytes: usize,
        taken_over: Instant,
    ) -> Result<(), Failure> {
        let before = self.intake.counts();
        let ended = self.intake.ended();
        if before.bytes == 0 {
            self.received.first_byte = taken_over;
        }
        self.intake.handle_read(bytes);
        let digested = loop {
            if self.intake.ended() {
                break Ok(());
            }
            match self.poll_rows(buffer, taken_over).await {
                Ok(Next::Rows) => {}
                Ok(Next::Read | Next::Ended) => break Ok(()),
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
    pub fn compact(&mut self, buffer: &mut [u8]) {
        self.intake.compact(buffer);
    }

    /// Forgets a window that was understood whole.
    pub fn forget_window(&mut self) {
        self.intake.forget_window();
    }

    /// One pass over what has come in. Waits only for a column set.
    async fn poll_rows(&mut self, buffer: &[u8], taken_over: Instant) -> Result<Next, Failure> {
        self.make_room().await?;
        let set = self.set.as_mut().expect("make_room leaves a set");
        let packets_before = self.intake.counts().packets;
        let next = self.intake.poll_rows(buffer, set);
        // One reading of the clock for all packets of the pass.
        let packets = self.intake.counts().packets - packets_before;
        let latency = taken_over.elapsed();
        self.received.latency.record(latency, packets);
        self.shared.record_latency(latency, packets);
        next.map_err(|refused| Failure::of(refused, refused))
    }

    /// Sees to it that there is a set with a free row, waiting for one where the aggregation is
    /// behind.
    async fn make_room(&mut self) -> Result<(), Failure> {
        if self.set.as_ref().is_some_and(|set| set.rows_free() == 0) {
            self.hand_over().await;
        }
        if self.over_groups.load(Ordering::Relaxed) {
            let limit = self.shared.config.groups_limit;
            let detail = format!("more than {limit} groups (--groups-limit)");
            return Err(Failure::of(Reason::GroupsLimit, detail));
        }
        if self.set.is_none() {
            self.set = Some(self.shared.pool.take().await);
        }
        Ok(())
    }

    /// Gives the batch to the aggregation, waiting where its queue is full.
    async fn hand_over(&mut self) {
        let Some(set) = self.set.take() else { return };
        if set.is_empty() {
            return;
        }
        let over_groups = Arc::clone(&self.over_groups);
        let job = Job::Batch { connection: self.received.connection, set, over_groups };
        // Fails only where the aggregation thread is gone; finishing will say so.
        let _ = self.shared.jobs.send(job).await;
    }

    /// Ends the stream: its last rows go to the aggregation, and what was received is said.
    pub async fn finish(mut self, ended: Result<(), Failure>) -> Received {
        self.hand_over().await;
        if let Err(Failure { reason, detail }) = ended {
            self.received.reason = Some(reason);
            self.received.detail = Some(detail);
        }
        self.received.last_byte = Instant::now();
        self.received.counts = self.intake.counts();
        self.received.texts = self.intake.into_texts();
        self.received
    }
}

/// Has the aggregation make the result of a stream that was [finished](RecordStream::finish).
pub async fn report(jobs: &mpsc::Sender<Job>, received: Received, held: Held) {
    let connection = received.connection;
    let job = Job::Finish { received: Box::new(received), held };
    if jobs.send(job).await.is_err() {
        tracing::error!(connection, "the aggregation is gone: this is a defect, please report it");
    }
}
