//! A worker: a pinned thread with a ring, an inbox and a timer. It runs one task per connection.

use crate::config::Config;
use crate::engine::groups::plan::Plan;
use crate::engine::messages::outbox::Broadcasts;
use crate::engine::observe::counters::{Counters, Protocol};
use crate::engine::stream::received::{Reason, Received};
use crate::runtime::connection::accepted::Accepted;
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::messages::connection::MessageConnection;
use crate::runtime::messages::gate::Gate;
use crate::runtime::messages::hub::{self, Hub};
use crate::runtime::messages::peer::Peers;
use crate::runtime::messages::shared::MessageShared;
use crate::runtime::records::coalescer::Coalescer;
use crate::runtime::records::connection::RecordConnection;
use crate::runtime::records::stream as record_stream;
use crate::runtime::results::aggregator::Job;
use crate::runtime::results::capture::Captures;
use crate::runtime::results::column_pool::ColumnPool;
use crate::runtime::ring::{self, Buffers, RingError, out_of_memory};
use crate::runtime::worker::Worker;
use crate::wire::messages::fault::Fault;
use crate::wire::messages::session::Policy;
use core_affinity::CoreId;
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Common {
    /// The limits.
    pub config: Arc<Config>,
    /// How records are decoded.
    pub plan: Arc<Plan>,
    /// The pool of column sets.
    pub pool: Arc<ColumnPool>,
    /// The engine's counters.
    pub counters: Arc<Counters>,
    /// The rules of message sessions.
    pub policy: Arc<Policy>,
    /// Checks credentials.
    pub gate: Arc<Gate>,
    /// Passes broadcasts to all workers.
    pub hub: Hub,
    /// Captures raw bytes; `None` if captures are off.
    pub captures: Option<Arc<Captures>>,
    /// Holds an instant once the engine has been told to stop.
    pub drain: watch::Receiver<Option<Instant>>,
}

/// The thread of a worker, before it runs.
pub(crate) struct WorkerThread {
    /// The core that it runs on.
    pub core: CoreId,
    /// Its index among the workers.
    pub index: usize,
    /// What it shares with the others.
    pub common: Common,
    /// Connections assigned to it.
    pub inbox: mpsc::Receiver<Accepted>,
    /// The queue of its aggregation thread.
    pub jobs: mpsc::Sender<Job>,
    /// Broadcasts for its clients.
    pub pieces: mpsc::Receiver<Broadcasts>,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its ring could not be created.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Its thread could not be pinned.
    #[error("cannot pin a worker to core {core}: the kernel refused; leave it out of --cores")]
    Pin {
        /// The core.
        core: usize,
    },
}

type Ready = std::sync::mpsc::Sender<Result<(), WorkerError>>;

impl WorkerThread {
    /// Runs until the inbox is closed and every connection has ended. Reports through `ready`
    /// whether it can take connections.
    pub(crate) fn run(self, ready: Ready) {
        let core = self.core;
        if !core_affinity::set_for_current(core) {
            let _ = ready.send(Err(WorkerError::Pin { core: core.id }));
            return;
        }
        match ring::runtime() {
            Ok(runtime) => runtime.block_on(self.take_connections(ready)),
            Err(error) => drop(ready.send(Err(error.into()))),
        }
    }

    async fn take_connections(self, ready: Ready) {
        let buffers = match register(&self.common.config) {
            Ok(buffers) => buffers,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        let WorkerThread { index, common, mut inbox, jobs, pieces, .. } = self;
        let Common { config, plan, pool, counters, policy, gate, hub, captures, drain } = common;
        let coalescer = Coalescer::new(config.coalesce_delay);
        let worker = Rc::new(Worker {
            config,
            plan,
            pool,
            captures,
            counters,
            index,
            jobs,
            buffers,
            deadlines: Rc::default(),
            packet_latency: RefCell::default(),
            message_latency: RefCell::default(),
        });
        let peers = Peers::new(Rc::clone(&worker));
        let timer = tokio_uring::spawn(watch_deadlines(Rc::clone(&worker), drain));
        let gathering = tokio_uring::spawn(watch_marks(Rc::clone(&coalescer)));
        let delivery = tokio_uring::spawn(hub::deliver_all(Rc::clone(&peers), pieces));
        let messages =
            Rc::new(MessageShared { worker: Rc::clone(&worker), policy, gate, hub, peers });
        let _ = ready.send(Ok(()));
        drop(ready);

        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = inbox.recv() => match accepted {
                    Some(accepted) => {
                        serve(accepted, &worker, &coalescer, &messages, &mut connections);
                    }
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
        for task in [timer, gathering, delivery] {
            task.abort();
            // Wait until the task has dropped its references, which keep the job queue open.
            let _ = task.await;
        }
        note_progress(&worker);
    }
}

/// Ends overdue connections at each tick, forever.
async fn watch_deadlines(worker: Rc<Worker>, drain: watch::Receiver<Option<Instant>>) {
    worker.deadlines.watch(drain, || note_progress(&worker)).await;
}

/// Ends waits for more bytes, forever.
async fn watch_marks(coalescer: Rc<Coalescer>) {
    coalescer.watch().await;
}

/// Publishes this worker's latencies and CPU time, which others see at most one tick late.
fn note_progress(worker: &Worker) {
    worker.each_tick();
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let ns = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    worker.tally().cpu_ns.set(ns);
}

/// The registered windows, or none if locked memory has run out: RLIMIT_MEMLOCK counts all
/// processes of a user together, and how much others hold cannot be known in advance.
fn register(config: &Config) -> Result<Buffers, RingError> {
    let registered = Buffers::register(config.registered_buffers, config.buffer_bytes);
    match registered {
        Err(RingError::Register { bytes, source }) if out_of_memory(&source) => {
            tracing::warn!(
                bytes,
                "locked memory is used up (RLIMIT_MEMLOCK counts all processes of a user), so this \
                 worker uses plain memory instead of registered windows"
            );
            Ok(Buffers::plain(config.buffer_bytes))
        }
        other => other,
    }
}

/// Starts the task of a connection.
fn serve(
    accepted: Accepted,
    worker: &Rc<Worker>,
    coalescer: &Rc<Coalescer>,
    messages: &Rc<MessageShared>,
    connections: &mut JoinSet<()>,
) {
    match accepted.protocol {
        Protocol::Records => {
            let (worker, coalescer) = (Rc::clone(worker), Rc::clone(coalescer));
            connections.spawn_local(serve_records(accepted, worker, coalescer));
        }
        Protocol::Messages => {
            connections.spawn_local(serve_messages(accepted, Rc::clone(messages)));
        }
    }
}

/// Serves one record connection. A panic ends only that connection, which is still reported.
async fn serve_records(accepted: Accepted, worker: Rc<Worker>, coalescer: Rc<Coalescer>) {
    let Accepted { number, stream, peer, slot, tls, .. } = accepted;
    let begun = Instant::now();
    let jobs = worker.jobs.clone();
    let serving = RecordConnection::serve(number, stream, peer, tls, worker, coalescer);
    let received = tokio_uring::spawn(serving).await.unwrap_or_else(|panic| {
        let mut received = Received::nothing(number, peer, begun);
        received.reason = Some(Reason::InternalError);
        received.detail = Some(format!("{panic}; this is a bug, please report it"));
        received
    });
    record_stream::report(&jobs, received, StreamHold::Connection(slot)).await;
}

/// Serves one message connection. A panic ends only that connection.
async fn serve_messages(accepted: Accepted, shared: Rc<MessageShared>) {
    let (number, peer) = (accepted.number, accepted.peer);
    let guard = Defect { worker: Rc::clone(&shared.worker), number, armed: true };
    match MessageConnection::start(accepted, shared).map(Box::new) {
        Ok(mut connection) => connection.run().await,
        Err(error) => tracing::error!(connection = number, %peer, "cannot start TLS: {error}"),
    }
    guard.disarm();
}

/// Counts a connection whose task panics. A second task per connection could do that too, but would
/// cost memory.
struct Defect {
    worker: Rc<Worker>,
    number: u64,
    armed: bool,
}

impl Defect {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Defect {
    fn drop(&mut self) {
        if self.armed && std::thread::panicking() {
            self.worker.tally().count_fault(Fault::InternalError);
            let connection = self.number;
            tracing::error!(connection, "its task panicked: this is a bug, please report it");
        }
    }
}
