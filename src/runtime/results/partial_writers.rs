//! Threads that write batches of partials, so that a slow disk holds up no aggregation thread while
//! there is room. They encode nothing.
//!
//! ```text
//! aggregation threads ──▶ a queue for each stream ──▶ writers ──▶ a batch each, at the same time
//!                                                        │
//!                                                        └─ after its last batch ─▶ the result
//! ```
//!
//! The batches of one stream are written one after the other, in their order: whoever merges while
//! the engine runs must not find a stream complete that lacks a batch. Its result follows the last
//! of them, since it says how many could not be written.

use super::partial_files::{EncodedBatch, PartialFiles};
use super::reporter::FinishedConnection;
use crate::config::PARTIALS_WAITING_BYTES;
use crate::engine::stream::received::PartialsLack;
use crate::runtime::connection::caught::caught_now;
use crate::runtime::failpoint::failpoint;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// Writes a batch; several threads call it at the same time.
type StoreBatch = Box<dyn Fn(&EncodedBatch) -> Result<(), String> + Send + Sync>;

/// What the writers share.
pub(crate) struct PartialWriters {
    files: Arc<PartialFiles>,
    store: StoreBatch,
    backlog: Mutex<Backlog>,
    /// Notified when there is something to write, and when there will be nothing more.
    work: Condvar,
    /// Notified when there is more room, and when nobody writes any more.
    room: Condvar,
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Backlog {
    streams: HashMap<u64, StreamBacklog>,
    /// Streams with something to write of which nothing is being written, in the order in which
    /// they came.
    ready: VecDeque<u64>,
    /// Streams of which something is being written.
    busy: usize,
    /// Bytes of the batches that wait or are being written.
    bytes: usize,
    /// Who waits for room is served in order: the next number, and the one that is served.
    turns: (u64, u64),
    /// Those that may still bring something.
    sources: usize,
    writers: usize,
}

/// What waits of one stream.
#[derive(Debug, Default)]
struct StreamBacklog {
    waiting: VecDeque<Waiting>,
    busy: bool,
    /// The batches that could not be written.
    lack: PartialsLack,
}

#[derive(Debug)]
enum Waiting {
    Batch(EncodedBatch),
    /// The result, and who gets it.
    Finish(Box<FinishedConnection>, mpsc::Sender<FinishedConnection>),
}

impl PartialWriters {
    /// For batches in these files. Nothing is written until threads [run](PartialWriter::run).
    pub(crate) fn new(files: Arc<PartialFiles>) -> Arc<Self> {
        let stored_to = Arc::clone(&files);
        Self::with_store(files, Box::new(move |batch| stored_to.store(batch)))
    }

    fn with_store(files: Arc<PartialFiles>, store: StoreBatch) -> Arc<Self> {
        let (backlog, work, room) = (Mutex::default(), Condvar::new(), Condvar::new());
        Arc::new(PartialWriters { files, store, backlog, work, room })
    }

    /// A handle for an aggregation thread. The writers end when all are dropped and everything is
    /// written.
    pub(crate) fn source(self: &Arc<Self>) -> PartialSource {
        self.lock().sources += 1;
        PartialSource { writers: Arc::clone(self) }
    }

    /// A place for a thread that will write.
    pub(crate) fn writer(self: &Arc<Self>) -> PartialWriter {
        self.lock().writers += 1;
        PartialWriter { writers: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to do; `None` if there will be none.
    fn take(&self) -> Option<TakenWork<'_>> {
        let mut backlog = self.lock();
        loop {
            if let Some(stream) = backlog.ready.pop_front() {
                let entry = backlog.streams.entry(stream).or_default();
                entry.busy = true;
                let waiting = entry.waiting.pop_front();
                backlog.busy += 1;
                return Some(TakenWork { writers: self, stream, waiting, bytes: 0 });
            }
            // What is being written may be followed by more of its stream.
            if backlog.sources == 0 && backlog.busy == 0 {
                return None;
            }
            backlog = self.work.wait(backlog).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for room for a batch, and takes it.
    ///
    /// # Errors
    /// If no thread writes.
    fn make_room(&self, bytes: usize) -> Result<(), &'static str> {
        let begun = Instant::now();
        let mut backlog = self.lock();
        let turn = backlog.turns.0;
        backlog.turns.0 += 1;
        let mut waited = false;
        let fits = |backlog: &Backlog| {
            let free = backlog.bytes == 0 || backlog.bytes + bytes <= PARTIALS_WAITING_BYTES;
            backlog.turns.1 == turn && (free || backlog.writers == 0)
        };
        while !fits(&backlog) {
            waited = true;
            backlog = self.room.wait(backlog).unwrap_or_else(PoisonError::into_inner);
        }
        backlog.turns.1 += 1;
        let dead = backlog.writers == 0;
        if !dead {
            self.add_bytes(&mut backlog, bytes);
        }
        drop(backlog);
        self.room.notify_all();
        if waited {
            self.files.counts().add_wait_time(begun.elapsed());
        }
        if dead { Err("the threads that write partials have died (see the log)") } else { Ok(()) }
    }

    fn add_bytes(&self, backlog: &mut Backlog, bytes: usize) {
        backlog.bytes += bytes;
        self.files.counts().set_waiting_bytes(backlog.bytes);
    }

    fn free_bytes(&self, backlog: &mut Backlog, bytes: usize) {
        backlog.bytes -= bytes;
        self.files.counts().set_waiting_bytes(backlog.bytes);
    }

    fn add(&self, stream: u64, waiting: Waiting) {
        let mut backlog = self.lock();
        let entry = backlog.streams.entry(stream).or_default();
        let first = !entry.busy && entry.waiting.is_empty();
        entry.waiting.push_back(waiting);
        if first {
            backlog.ready.push_back(stream);
            drop(backlog);
            self.work.notify_one();
        }
    }
}

/// What an aggregation thread gives its batches and results to.
pub(crate) struct PartialSource {
    writers: Arc<PartialWriters>,
}

impl PartialSource {
    /// The files that the batches are for.
    pub(crate) fn files(&self) -> &PartialFiles {
        &self.writers.files
    }

    /// Has a batch of a stream written. Waits while too much waits for the disk.
    ///
    /// # Errors
    /// If no thread writes; that is counted and logged.
    pub(crate) fn write(&self, stream: u64, batch: EncodedBatch) -> Result<(), String> {
        if let Err(cause) = self.writers.make_room(batch.bytes()) {
            self.files().give_up(&batch.name, cause);
            return Err(cause.to_owned());
        }
        self.writers.add(stream, Waiting::Batch(batch));
        Ok(())
    }

    /// Passes a result on once all batches of its stream are written, with the number of those that
    /// could not be.
    pub(crate) fn finish(
        &self,
        finished: FinishedConnection,
        to: &mpsc::Sender<FinishedConnection>,
    ) {
        if self.writers.lock().writers == 0 {
            // Fails only if the reporter is gone.
            let _ = to.blocking_send(finished);
            return;
        }
        let stream = finished.report.received.connection;
        self.writers.add(stream, Waiting::Finish(Box::new(finished), to.clone()));
    }
}

impl Clone for PartialSource {
    fn clone(&self) -> Self {
        self.writers.source()
    }
}

impl Drop for PartialSource {
    fn drop(&mut self) {
        self.writers.lock().sources -= 1;
        self.writers.work.notify_all();
    }
}

/// A thread that writes, before it runs.
pub(crate) struct PartialWriter {
    writers: Arc<PartialWriters>,
}

impl PartialWriter {
    /// Writes until there will be nothing more.
    pub(crate) fn run(self) {
        while let Some(mut taken) = self.writers.take() {
            failpoint("partials");
            taken.work();
        }
    }
}

impl Drop for PartialWriter {
    /// Also if the thread panics: nobody must wait for room that it would make.
    fn drop(&mut self) {
        self.writers.lock().writers -= 1;
        self.writers.room.notify_all();
    }
}

/// Something of a stream that is being written. Dropping it lets the next of that stream follow.
struct TakenWork<'a> {
    writers: &'a PartialWriters,
    stream: u64,
    waiting: Option<Waiting>,
    /// Bytes to be given back.
    bytes: usize,
}

impl TakenWork<'_> {
    fn work(&mut self) {
        match self.waiting.take() {
            Some(Waiting::Batch(batch)) => {
                self.bytes = batch.bytes();
                if let Err(cause) = self.store(&batch) {
                    self.with_stream(|stream| stream.lack.add(cause));
                }
            }
            Some(Waiting::Finish(mut finished, to)) => {
                let lack = self.with_stream(|stream| std::mem::take(&mut stream.lack));
                finished.report.received.partials.merge(lack);
                // Fails only if the reporter is gone.
                let _ = to.blocking_send(*finished);
            }
            None => {}
        }
    }

    /// A panic costs the batch.
    fn store(&self, batch: &EncodedBatch) -> Result<(), String> {
        let PartialWriters { files, store, .. } = self.writers;
        caught_now(|| store(batch)).unwrap_or_else(|panic| {
            let cause = format!("writing it {panic}; this is a bug");
            files.give_up(&batch.name, &cause);
            Err(cause)
        })
    }

    fn with_stream<T>(&self, change: impl FnOnce(&mut StreamBacklog) -> T) -> T {
        change(self.writers.lock().streams.entry(self.stream).or_default())
    }
}

impl Drop for TakenWork<'_> {
    fn drop(&mut self) {
        let mut backlog = self.writers.lock();
        self.writers.free_bytes(&mut backlog, self.bytes);
        backlog.busy -= 1;
        let entry = backlog.streams.entry(self.stream).or_default();
        entry.busy = false;
        // A thread that dies before it begins leaves it to another.
        self.waiting.take().into_iter().for_each(|waiting| entry.waiting.push_front(waiting));
        if !entry.waiting.is_empty() {
            backlog.ready.push_back(self.stream);
        } else if entry.lack.failed == 0 {
            backlog.streams.remove(&self.stream);
        }
        drop(backlog);
        self.writers.room.notify_all();
        self.writers.work.notify_all();
    }
}

#[cfg(test)]
#[path = "partial_writers_tests.rs"]
mod tests;
