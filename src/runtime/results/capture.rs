//! Writes the raw bytes of record streams to files, so that every result can be reproduced. It does
//! not decode them, and no worker blocks on the disk.
//!
//! A worker copies the bytes of each read into chunks and sends them to the capture thread, which
//! writes them. The number of chunks is limited: if the disk is slower than the senders, their
//! streams wait for a free chunk, and so do the senders. When a stream ends, another thread syncs
//! and renames its file, several at the same time, so that other streams need not wait for that.

use super::whole_file::{
    FileDirectory, MissingFiles, UnfinishedFile, check_named, moment, node_name,
};
use crate::config::{CAPTURE_CHUNK_BYTES, CAPTURE_CHUNKS, Config, FILE_WRITERS};
use crate::engine::stream::received::{CaptureLack, Captured};
use crate::runtime::connection::defects::Defects;
use crate::runtime::failpoint::failpoint;
use crate::sync;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// The queue from the workers to the capture thread, and what all captures share.
#[derive(Debug)]
pub(crate) struct Captures {
    orders: mpsc::Sender<Order>,
    /// Chunks that have been written and can be reused.
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    budget: Arc<Budget>,
    /// Ends of captures that found the queue full and could not wait.
    late: Arc<Mutex<Vec<Order>>>,
    /// Node and process, as used in file names.
    run: String,
}

/// What the capture thread must do for the stream with this number.
#[derive(Debug)]
struct Order {
    stream: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Create a file with this name, given without its extension. The flag is set if that or a
    /// later write fails.
    Begin { name: String, failed: Arc<AtomicBool> },
    /// Write a chunk.
    Write(Vec<u8>),
    /// Finish the file and report the outcome.
    End(CaptureEnd),
}

/// How a capture ends.
#[derive(Debug)]
struct CaptureEnd {
    /// Why it lacks bytes.
    lack: Option<CaptureLack>,
    /// Bytes that it took from the budget, to be given back if the file cannot be finished.
    taken: u64,
    reply: Option<oneshot::Sender<Captured>>,
}

/// How many bytes may still be captured.
#[derive(Debug)]
struct Budget {
    limit: u64,
    left: sync::AtomicU64,
    /// Whether the log has the line that none are left.
    said: sync::AtomicBool,
}

impl Budget {
    fn new(limit: u64) -> Self {
        Budget { limit, left: sync::AtomicU64::new(limit), said: sync::AtomicBool::new(false) }
    }

    /// Takes `wanted` bytes, or as many as are left.
    fn take(&self, wanted: u64) -> u64 {
        let take = |left: u64| Some(left - left.min(wanted));
        let before = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let taken = before.map_or(0, |before| before.min(wanted));
        if taken < wanted && !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                limit = self.limit,
                "the captures have reached --capture-bytes-limit: this process captures nothing \
                 more. Results are not affected"
            );
        }
        taken
    }

    /// Gives back the bytes of a capture that failed: its file is removed.
    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.left.fetch_add(bytes, Ordering::Relaxed);
            self.said.store(false, Ordering::Relaxed);
        }
    }
}

/// The threads that write captures.
#[derive(Debug)]
pub(crate) struct CaptureThreads {
    /// For the workers. The threads end when all workers have dropped it.
    pub captures: Arc<Captures>,
    /// To be joined after that.
    pub threads: Vec<JoinHandle<Option<()>>>,
}

/// Starts the threads if captures are enabled. One that panics is a defect.
///
/// # Errors
/// If the directory is not writable or a thread cannot be started.
pub(crate) fn start(
    config: &Config,
    defects: &Defects,
) -> Result<Option<CaptureThreads>, CaptureError> {
    let Some(work) = prepare(config).map_err(CaptureError::Directory)? else { return Ok(None) };
    let CaptureWork { captures, writer, queue, ended, missing, budget } = work;
    let mut threads = vec![defects.spawn("capture", move || writer.run(queue))?];
    let ended = Arc::new(Mutex::new(ended));
    for number in 0..FILE_WRITERS {
        let (ended, missing) = (Arc::clone(&ended), Arc::clone(&missing));
        let budget = Arc::clone(&budget);
        let run = move || end_all(&ended, &missing, &budget);
        threads.push(defects.spawn(&format!("capture-end-{number}"), run)?);
    }
    Ok(Some(CaptureThreads { captures, threads }))
}

/// What the threads do, before it is given to them.
pub(crate) struct CaptureWork {
    /// For the workers.
    pub captures: Arc<Captures>,
    writer: Writer,
    queue: mpsc::Receiver<Order>,
    ended: std::sync::mpsc::Receiver<Ending>,
    missing: Arc<MissingFiles>,
    budget: Arc<Budget>,
}

/// Prepares captures if they are enabled.
///
/// # Errors
/// If the directory is not writable: the cause and the remedy.
pub(crate) fn prepare(config: &Config) -> Result<Option<CaptureWork>, String> {
    let Some(path) = &config.capture else { return Ok(None) };
    let run = run_name(config);
    let directory = open(path, &run)?;
    let (orders, queue) = mpsc::channel(CAPTURE_CHUNKS);
    let free = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let (budget, late) =
        (Arc::new(Budget::new(config.capture_bytes_limit)), Arc::<Mutex<Vec<Order>>>::default());
    let captures = Arc::new(Captures {
        orders,
        free: Arc::clone(&free),
        budget: Arc::clone(&budget),
        late: Arc::clone(&late),
        run,
    });
    let (endings, ended) = std::sync::mpsc::channel();
    let missing = Arc::<MissingFiles>::default();
    let open = HashMap::new();
    let writer = Writer { directory, open, free, late, endings, missing: Arc::clone(&missing) };
    Ok(Some(CaptureWork { captures, writer, queue, ended, missing, budget }))
}

/// What a world on one thread does in place of the threads, a step at a time.
#[cfg(test)]
#[cfg(feature = "simulated-disk")]
impl CaptureWork {
    /// What the capture thread does next; false if it has nothing to do.
    pub(crate) fn write_next(&mut self) -> bool {
        let Ok(order) = self.queue.try_recv() else { return false };
        self.writer.handle(order);
        if self.queue.is_empty() {
            self.writer.handle_late();
        }
        true
    }

    /// What one of the other threads does next; false if they have nothing to do.
    pub(crate) fn end_next(&mut self) -> bool {
        let ending = self.ended.try_recv();
        ending.map(|ending| end(ending, &self.missing, &self.budget)).is_ok()
    }

    /// Bytes that may still be captured.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.budget.left.load(Ordering::Relaxed)
    }
}

/// Checks that captures can be written, if they are enabled. Leaves nothing behind.
///
/// # Errors
/// If the directory is not writable: the cause and the remedy.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let Some(path) = &config.capture else { return Ok(()) };
    open(path, &run_name(config)).map(drop)
}

fn run_name(config: &Config) -> String {
    format!("{}-{}", node_name(config), std::process::id())
}

fn open(path: &Path, run: &str) -> Result<FileDirectory, String> {
    check_named("--capture", path)?;
    FileDirectory::open("--capture", path, format!("{}-{run}", moment(SystemTime::now())))
}

/// Why captures could not be started.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The directory cannot be used.
    #[error("{0}")]
    Directory(String),
    /// A thread could not be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

impl Captures {
    /// The capture of a new stream.
    pub(crate) fn stream(self: &Arc<Self>, number: u64) -> Capture {
        Capture {
            captures: Arc::clone(self),
            number,
            begun: false,
            taken: 0,
            lack: None,
            failed: Arc::default(),
            ended: false,
        }
    }

    /// An empty chunk, reused if possible.
    fn chunk(&self) -> Vec<u8> {
        let used = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        used.unwrap_or_else(|| Vec::with_capacity(CAPTURE_CHUNK_BYTES))
    }
}

/// The capture of one stream. Dropping it ends its file.
#[derive(Debug)]
pub(crate) struct Capture {
    captures: Arc<Captures>,
    number: u64,
    /// Whether the thread knows about it.
    begun: bool,
    /// Bytes that it took from the budget.
    taken: u64,
    /// Why no more is captured.
    lack: Option<CaptureLack>,
    /// Set by the thread if it cannot write.
    failed: Arc<AtomicBool>,
    ended: bool,
}

impl Capture {
    /// Hands over bytes of a stream that began at `started`. Waits while there is no room.
    pub(crate) async fn add(&mut self, bytes: &[u8], started: SystemTime) {
        if self.failed.load(Ordering::Relaxed) {
            return self.give_back();
        }
        if bytes.is_empty() || self.lack.is_some() {
            return;
        }
        let allowed = self.captures.budget.take(bytes.len() as u64) as usize;
        self.taken += allowed as u64;
        if allowed < bytes.len() {
            self.lack = Some(CaptureLack::Limit(self.captures.budget.limit));
        }
        if allowed > 0 && !self.begun {
            self.begun = true;
            let name = format!("{}-{}-{}", moment(started), self.captures.run, self.number);
            self.order(What::Begin { name, failed: Arc::clone(&self.failed) }).await;
        }
        for piece in bytes[..allowed].chunks(CAPTURE_CHUNK_BYTES) {
            // Reserving room first bounds the number of chunks: one per place in the queue, plus
            // the one being written.
            let Ok(room) = self.captures.orders.reserve().await else { return };
            let mut chunk = self.captures.chunk();
            chunk.extend_from_slice(piece);
            room.send(Order { stream: self.number, what: What::Write(chunk) });
        }
    }

    /// Ends the capture; returns its outcome once the file is on disk.
    pub(crate) async fn finish(mut self) -> Captured {
        self.ended = true;
        let lack = self.lack.take();
        if !self.begun {
            return Captured { lack, ..Captured::default() };
        }
        let (reply, said) = oneshot::channel();
        let taken = std::mem::take(&mut self.taken);
        self.order(What::End(CaptureEnd { lack, taken, reply: Some(reply) })).await;
        said.await.unwrap_or_else(|_| Captured {
            lack: Some(CaptureLack::Failed("the capture thread died (see the log)".to_owned())),
            ..Captured::default()
        })
    }

    fn give_back(&mut self) {
        self.captures.budget.give_back(std::mem::take(&mut self.taken));
    }

    async fn order(&self, what: What) {
        // If the thread is gone, waiting for its reply fails as well and is reported.
        let _ = self.captures.orders.send(Order { stream: self.number, what }).await;
    }
}

impl Drop for Capture {
    /// Ends the file of a stream whose task panicked: its bytes are the ones most needed.
    fn drop(&mut self) {
        if self.begun && !self.ended {
            let end = CaptureEnd { lack: self.lack.take(), taken: self.taken, reply: None };
            let order = Order { stream: self.number, what: What::End(end) };
            // A full queue has orders, after which the thread looks for this one. Where the thread
            // is gone, nobody does.
            if let Err(mpsc::error::TrySendError::Full(order)) =
                self.captures.orders.try_send(order)
            {
                self.captures.late.lock().unwrap_or_else(PoisonError::into_inner).push(order);
            }
        }
    }
}

/// The state of the capture thread.
struct Writer {
    directory: FileDirectory,
    open: HashMap<u64, OpenCapture>,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    late: Arc<Mutex<Vec<Order>>>,
    endings: std::sync::mpsc::Sender<Ending>,
    missing: Arc<MissingFiles>,
}

/// A capture that is being written.
struct OpenCapture {
    name: String,
    /// The file, as errors name it.
    path: PathBuf,
    /// The file, or why it could not be created or written.
    file: Result<UnfinishedFile, String>,
    bytes: u64,
    failed: Arc<AtomicBool>,
}

impl OpenCapture {
    /// Gives up on the capture and removes what was written, since others need the space.
    fn fail(&mut self, stream: u64, error: &io::Error, missing: &MissingFiles) {
        self.failed.store(true, Ordering::Relaxed);
        self.file = Err(complain(stream, &self.path, error, missing));
    }
}

/// Counts a failed capture, logs it unless the log was told recently, and returns the cause.
fn complain(stream: u64, path: &Path, error: &io::Error, missing: &MissingFiles) -> String {
    if let Some(unlisted) = missing.add(error, Instant::now()) {
        let path = path.display();
        tracing::error!(connection = stream, unlisted, "cannot write a capture: {path}: {error}");
    }
    error.to_string()
}

/// A capture whose stream has ended.
struct Ending {
    stream: u64,
    capture: OpenCapture,
    end: CaptureEnd,
}

impl Writer {
    /// Runs until every sender of orders is gone.
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            failpoint("capture");
            self.handle(order);
            // Chunks of these captures may be in the queue until it is empty.
            if orders.is_empty() {
                self.handle_late();
            }
        }
        self.handle_late();
    }

    fn handle_late(&mut self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        late.into_iter().for_each(|order| self.handle(order));
    }

    fn handle(&mut self, Order { stream, what }: Order) {
        match what {
            What::Begin { name, failed } => self.begin(stream, name, failed),
            What::Write(chunk) => self.write(stream, chunk),
            What::End(end) => {
                if let Some(capture) = self.open.remove(&stream) {
                    // Fails only if all the other threads have died.
                    let _ = self.endings.send(Ending { stream, capture, end });
                }
            }
        }
    }

    fn begin(&mut self, stream: u64, name: String, failed: Arc<AtomicBool>) {
        let file_name = format!("{name}.capture");
        let path = self.directory.path().join(&file_name);
        let file = self.directory.begin(file_name).map_err(|error| {
            failed.store(true, Ordering::Relaxed);
            complain(stream, &path, &error, &self.missing)
        });
        self.open.insert(stream, OpenCapture { name, path, file, bytes: 0, failed });
    }

    fn write(&mut self, stream: u64, mut chunk: Vec<u8>) {
        if let Some(capture) = self.open.get_mut(&stream)
            && let Ok(file) = &mut capture.file
        {
            match file.write_all(&chunk) {
                Ok(()) => capture.bytes += chunk.len() as u64,
                Err(error) => capture.fail(stream, &error, &self.missing),
            }
        }
        chunk.clear();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
    }
}

/// Syncs and renames files until there are no more streams. Several threads do so, since a disk may
/// answer slowly.
fn end_all(
    ended: &Mutex<std::sync::mpsc::Receiver<Ending>>,
    missing: &MissingFiles,
    budget: &Budget,
) {
    let next = || ended.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(ending) = next() {
        failpoint("capture_end");
        end(ending, missing, budget);
    }
}

/// Syncs and renames a file, and reports to its stream. The bytes of a file that could not be
/// finished are free for others before its stream knows of it.
fn end(ending: Ending, missing: &MissingFiles, budget: &Budget) {
    let Ending { stream, capture, end: CaptureEnd { lack, taken, reply } } = ending;
    let OpenCapture { name, path, file, bytes, .. } = capture;
    let cut = if lack.is_some() { ".cut" } else { "" };
    let finished = file.and_then(|file| {
        file.finish(format!("{name}{cut}.capture"))
            .map_err(|error| complain(stream, &path, &error, missing))
    });
    let captured = match finished {
        Ok(path) => Captured { path: Some(path), bytes, lack },
        Err(cause) => {
            budget.give_back(taken);
            Captured { path: None, bytes: 0, lack: Some(CaptureLack::Failed(cause)) }
        }
    };
    if let Some(reply) = reply {
        // Fails only if the stream no longer waits for it.
        let _ = reply.send(captured);
    }
}

#[cfg(test)]
#[path = "capture_models.rs"]
mod models;

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
