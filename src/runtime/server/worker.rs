//! A worker: a pinned thread with a ring, an inbox and a timer. It runs one task per connection.

use crate::config::{Config, TICK};
use crate::engine::groups::plan::Plan;
use crate::engine::messages::outbox::Broadcasts;
use crate::engine::observe::counters::{Counters, Protocol, TallyWriter};
use crate::runtime::clock;
use crate::runtime::connection::accepted::Accepted;
use crate::runtime::connection::caught::{caught, caught_now};
use crate::runtime::connection::defects::Defects;
use crate::runtime::connection::slots::StreamHold;
use crate::runtime::failpoint::failpoint;
use crate::runtime::messages::connection::MessageConnection;
use crate::runtime::messages::gate::Gate;
use crate::runtime::messages::hub::{self, Hub};
use crate::runtime::messages::peer::Peers;
use crate::runtime::messages::shared::MessageShared;
use crate::runtime::records::coalescer::Coalescer;
use crate::runtime::records::connection::RecordConnection;
use crate::runtime::records::unreported::Unreported;
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
    /// Where a task that panicked is reported.
    pub defects: Defects,
    /// Holds an instant once the engine has been told to stop.
    pub drain: watch::Receiver<Option<Instant>>,
}

/// The thread of a worker, before it runs.
pub(crate) struct WorkerThread {
    /// The core that it runs on.
    pub core: CoreId,
    /// Its index among the workers.
    pub index: usize,
    /// Writes its counters.
    pub tally: TallyWriter,
    /// What it shares with the others.
    pub common: Common,
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
    /// Runs until `inbox`, with the connections assigned to it, is closed and every connection has
    /// ended. Reports through `ready` whether it can take connections.
    pub(crate) fn run(self, mut inbox: mpsc::Receiver<Accepted>, ready: Ready) {
        let core = self.core;
        if !core_affinity::set_for_current(core) {
            let _ = ready.send(Err(WorkerError::Pin { core: core.id }));
            return;
        }
        let runtime = match ring::runtime() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        let (jobs, defects) = (self.jobs.clone(), self.common.defects.clone());
        let serving = self.take_connections(&mut inbox, ready);
        let served = caught_now(|| runtime.block_on(serving));
        // A dead worker's connections go with its runtime.
        let ended = served.and(caught_now(|| drop(runtime)));
        if let Err(panic) = ended {
            defects.report_thread(&format!("worker-{}", core.id), &panic);
            inbox.close();
            while let Ok(accepted) = inbox.try_recv() {
                drop(unreported(accepted, &jobs));
            }
        }
    }

    async fn take_connections(self, inbox: &mut mpsc::Receiver<Accepted>, ready: Ready) {
        let buffers = match register(&self.common.config) {
            Ok(buffers) => buffers,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        if let Err(error) = ring::prove().await {
            return drop(ready.send(Err(error.into())));
        }
        let started = move || drop(ready.send(Ok(())));
        self.serve_all(inbox, buffers, started).await;
    }

    /// Serves connections until `inbox` is closed and every connection has ended. Calls `started`
    /// when it can take connections.
    pub(crate) async fn serve_all(
        self,
        inbox: &mut mpsc::Receiver<Accepted>,
        buffers: Buffers,
        started: impl FnOnce(),
    ) {
        let WorkerThread { core, index, tally, common, jobs, pieces } = self;
        let Common { config, plan, pool, counters, policy, gate, hub, captures, defects, drain } =
            common;
        let coalescer = Coalescer::new(config.coalesce_delay);
        let worker = Rc::new(Worker {
            config,
            plan,
            pool,
            captures,
            counters,
            index,
            tally: Rc::new(tally),
            jobs,
            buffers,
            deadlines: Rc::default(),
            packet_latency: RefCell::default(),
            message_latency: RefCell::default(),
        });
        let peers = Peers::new(Rc::clone(&worker));
        let mut helpers = JoinSet::new();
        helpers.spawn_local(named("timer", watch_deadlines(Rc::clone(&worker), drain.clone())));
        helpers.spawn_local(named("coalescer", watch_marks(Rc::clone(&coalescer))));
        helpers.spawn_local(named("hub", hub::deliver_all(Rc::clone(&peers), pieces)));
        let messages =
            Rc::new(MessageShared { worker: Rc::clone(&worker), policy, gate, hub, peers });
        started();

        let mut connections = JoinSet::new();
        let (mut open, mut healthy) = (true, true);
        while open || !connections.is_empty() {
            failpoint("worker");
            // In a fixed order, so that a run can be repeated: connections that have ended are few,
            // and those that begin are bounded by the inbox.
            tokio::select! {
                biased;
                Some(_) = connections.join_next() => {}
                accepted = inbox.recv(), if open => match accepted {
                    Some(accepted) => {
                        serve(accepted, &worker, &coalescer, &messages, &mut connections);
                    }
                    None => open = false,
                },
                Some(Ok((name, panic))) = helpers.join_next() => {
                    let core = core.id;
                    defects.report(format!("the {name} of worker-{core} {panic}; this is a bug"));
                    healthy = false;
                }
                // If it was the timer, nobody else ends connections.
                () = clock::sleep(TICK), if !healthy => {
                    worker.deadlines.look(clock::now(), *drain.borrow());
                }
            }
        }
        // Waits until the tasks have dropped their references, which keep the job queue open.
        helpers.shutdown().await;
        note_progress(&worker);
    }
}

/// Runs a task that never ends by itself; returns its name and what its panic said.
async fn named(name: &'static str, task: impl Future<Output = ()>) -> (&'static str, String) {
    (name, caught(task).await.err().unwrap_or_else(|| "ended".to_owned()))
}

/// Ends overdue connections at each tick, forever.
async fn watch_deadlines(worker: Rc<Worker>, drain: watch::Receiver<Option<Instant>>) {
    let each_tick = || {
        failpoint("timer");
        note_progress(&worker);
    };
    worker.deadlines.watch(drain, each_tick).await;
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
    worker.tally().set(|tally| &tally.cpu_ns, ns);
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
fn serve_records(
    accepted: Accepted,
    worker: Rc<Worker>,
    coalescer: Rc<Coalescer>,
) -> impl Future<Output = ()> {
    let Accepted { number, stream, peer, slot, tls, ticket, .. } = accepted;
    let held = StreamHold::Connection(slot);
    // Made before the task first runs: it may never do so.
    let unreported = Unreported::new(number, peer, worker.jobs.clone(), held);
    let serving = RecordConnection::serve(number, stream, peer, tls, ticket, worker, coalescer);
    async move {
        match serving.await {
            Some(received) => unreported.report(received).await,
            None => unreported.forget(),
        }
    }
}

/// The record stream of a connection that nobody will serve.
fn unreported(accepted: Accepted, jobs: &mpsc::Sender<Job>) -> Option<Unreported> {
    let Accepted { protocol, number, peer, slot, .. } = accepted;
    let held = StreamHold::Connection(slot);
    (protocol == Protocol::Records).then(|| Unreported::new(number, peer, jobs.clone(), held))
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
