//! The engine of a simulation: the parts that [`Engine`](super::engine::Engine) starts as threads,
//! here as tasks of one thread, between a network in memory and a sink that keeps reports. Only the
//! loops around the parts are other ones, so that a slow thread is one that sleeps.

use super::acceptor::{Acceptor, Door};
use super::engine::{new_policy, new_pool};
use super::refusal::Refusals;
use super::worker::{Common, WorkerThread};
use crate::config::{AGGREGATION_QUEUE, Config, INBOX, REPORT_QUEUE};
use crate::engine::aggregate::Grouped;
use crate::engine::groups::plan::Plan;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::observe::counters::{Counters, Protocol, TallyWriter};
use crate::engine::stream::intake::Counts;
use crate::engine::stream::received::Reason;
use crate::runtime::clock;
use crate::runtime::connection::defects::Defects;
use crate::runtime::connection::quota::Quota;
use crate::runtime::connection::slots::Slots;
use crate::runtime::messages::gate::Gate;
use crate::runtime::messages::hub::Hub;
use crate::runtime::network::{Dialer, new_listener};
use crate::runtime::results::aggregator::{Aggregator, Job};
use crate::runtime::results::reporter::{
    Filed, FinishedConnection, Reporter, ReporterOutcome, Sink,
};
use crate::runtime::ring::Buffers;
use crate::runtime::tls::config::load_certificates;
use crate::runtime::world::{VirtualSleep, dice, note};
use crate::wire::schema::Schema;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How slow the parts are that have threads of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadDelays {
    /// The longest that an aggregation thread takes for a job.
    pub aggregation: Duration,
    /// The longest that it stands still now and then, as for a slow disk.
    pub stall: Duration,
    /// The longest that the reporter takes for a report.
    pub report: Duration,
}

/// An engine of the world.
pub struct SimulatedEngine {
    dialers: [Dialer; 2],
    counters: Arc<Counters>,
    slots: Arc<Slots>,
    limits: (usize, usize),
    memory_fixed: usize,
    drain: watch::Sender<Option<Instant>>,
    defects: Defects,
    reports: Arc<Mutex<Vec<SimulatedReport>>>,
    tasks: Vec<JoinHandle<()>>,
    reporter: JoinHandle<ReporterOutcome>,
}

/// What was reported of a stream.
#[derive(Clone, Debug)]
pub struct SimulatedReport {
    /// Its number.
    pub connection: u64,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Why it is not complete.
    pub reason: Option<Reason>,
    /// The reason in words.
    pub detail: Option<String>,
    /// Records, packets and bytes.
    pub counts: Counts,
    /// Its result.
    pub grouped: Grouped,
}

/// Everything that an engine leaves behind.
pub struct EngineRemains {
    /// What was reported, in order.
    pub reports: Vec<SimulatedReport>,
    /// What the reporter did.
    pub outcome: ReporterOutcome,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Connections and streams whose slots were not freed.
    pub slots_taken: (usize, usize),
    /// Bytes of memory that no peer causes.
    pub memory_fixed: usize,
    /// What ended the engine without being asked.
    pub defect: Option<String>,
}

impl SimulatedEngine {
    /// Starts the parts as tasks of the current world, with `workers` workers.
    ///
    /// # Panics
    /// If the configuration does not allow a start.
    pub fn start(
        mut config: Config,
        schema: &Arc<Schema>,
        workers: usize,
        delays: ThreadDelays,
    ) -> Self {
        let plan = Plan::new(Arc::clone(schema));
        config.record = plan.sizes();
        config.check().expect("a configuration within its limits");
        let certificates = load_certificates(&config).expect("files that can be read");
        let certificates = certificates.map(Arc::new);
        let gate = Arc::new(Gate::new(&config).expect("no auth file, or one that can be read"));
        let (fixed, least) = (config.memory(workers).fixed(), config.memory(workers).least());
        let limit = config.memory_limit.map_or(isize::MAX as usize, |limit| limit as usize);
        let memory = MemoryAccount::new(limit.max(least), fixed);
        let (counters, tallies) = Counters::with_memory(workers, memory);
        let (drain, drained) = watch::channel(None);
        let (finished, results) = mpsc::channel(REPORT_QUEUE);
        let defects = Defects::new(drain.clone(), config.drain_timeout);
        let reports = Arc::<Mutex<Vec<SimulatedReport>>>::default();
        let reporter = tokio::task::spawn_local(report_all(
            results,
            keep(&reports),
            drain.clone(),
            tallies.reporter,
            delays.report,
        ));
        let slots = Slots::new(config.max_connections, config.max_streams, workers);
        let (hub, pieces) = Hub::new(workers);
        let config = Arc::new(config);
        let common = Common {
            plan: Arc::clone(&plan),
            pool: new_pool(&plan, &config, workers),
            counters: Arc::clone(&counters),
            policy: new_policy(&config),
            gate,
            hub,
            captures: None,
            defects: defects.clone(),
            drain: drained.clone(),
            config: Arc::clone(&config),
        };
        let (mut inboxes, mut tasks) = (Vec::new(), Vec::new());
        for (index, (pieces, tally)) in pieces.into_iter().zip(tallies.workers).enumerate() {
            let (jobs, work) = mpsc::channel(AGGREGATION_QUEUE);
            let (inbox, mut accepted) = mpsc::channel(INBOX);
            inboxes.push(inbox);
            let aggregator = Aggregator::new(&plan, &config, None);
            let aggregating = aggregate_all(aggregator, work, finished.clone(), delays);
            tasks.push(tokio::task::spawn_local(aggregating));
            let core = core_affinity::CoreId { id: index };
            let common = common.clone();
            let worker = WorkerThread { core, index, tally, common, jobs, pieces };
            let buffers = Buffers::plain(config.buffer_bytes);
            tasks.push(tokio::task::spawn_local(async move {
                worker.serve_all(&mut accepted, buffers, || {}).await;
            }));
        }
        let acceptor = Acceptor {
            slots: Arc::clone(&slots),
            quota: Quota::new(config.exit_after, drain.clone()),
            admit_timeout: config.admit_timeout,
            report_empty: config.report_empty,
            inboxes,
            finished,
            tally: tallies.acceptor,
            drain: drained,
            schema: Arc::clone(schema),
            refusals: Arc::new(Refusals::new(config.refused_linger)),
        };
        let (listeners, dialers): (Vec<_>, Vec<_>) = Protocol::ALL
            .map(|protocol| {
                let (listener, dialer) = new_listener();
                let encrypted = match protocol {
                    Protocol::Records => config.tls.records,
                    Protocol::Messages => config.tls.messages,
                };
                let certificates = certificates.clone().filter(|_| encrypted);
                ((listener, Door { protocol, certificates }), dialer)
            })
            .into_iter()
            .unzip();
        tasks.push(tokio::task::spawn_local(async move {
            acceptor.accept_at(listeners).await.expect("accepting goes on after errors");
        }));
        SimulatedEngine {
            dialers: dialers.try_into().expect("one for each protocol"),
            counters,
            slots,
            limits: (config.max_connections, config.max_streams),
            memory_fixed: fixed,
            drain,
            defects,
            reports,
            tasks,
            reporter,
        }
    }

    /// Where peers connect.
    pub fn dialer(&self, protocol: Protocol) -> &Dialer {
        &self.dialers[protocol as usize]
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Whether the engine has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Stops like [`Stopper::stop`](super::engine::Stopper::stop).
    pub fn stop(&self, grace: Duration) {
        note(format_args!("the engine is told to stop within {grace:?}"));
        self.drain.send_replace(Some(clock::now() + grace));
    }

    /// Waits until the engine has stopped.
    ///
    /// # Panics
    /// If one of its tasks has panicked.
    pub async fn wait(self) -> EngineRemains {
        for task in self.tasks {
            task.await.expect("a thread of the engine panicked");
        }
        let outcome = self.reporter.await.expect("the reporter panicked");
        let free = self.slots.free();
        EngineRemains {
            reports: std::mem::take(&mut *lock(&self.reports)),
            outcome,
            counters: self.counters,
            memory_fixed: self.memory_fixed,
            slots_taken: (self.limits.0 - free.0, self.limits.1 - free.1),
            defect: self.defects.first().map(str::to_owned),
        }
    }
}

fn lock(reports: &Mutex<Vec<SimulatedReport>>) -> MutexGuard<'_, Vec<SimulatedReport>> {
    reports.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink that keeps what it gets.
fn keep(reports: &Arc<Mutex<Vec<SimulatedReport>>>) -> Sink {
    let reports = Arc::clone(reports);
    Box::new(move |report, _| {
        let (received, grouped) = (&report.received, &report.grouped);
        note(format_args!(
            "report {} {}: {} {}, {} records, {} bytes, {} groups",
            received.connection,
            received.peer,
            received.status().as_str(),
            received.reason.map_or("", |reason| reason.as_str()),
            received.counts.records,
            received.counts.bytes,
            grouped.len()
        ));
        lock(&reports).push(SimulatedReport {
            connection: received.connection,
            peer: received.peer,
            reason: received.reason,
            detail: received.detail.clone(),
            counts: received.counts,
            grouped: grouped.clone(),
        });
        Ok(())
    })
}

/// The loop of an aggregation thread.
async fn aggregate_all(
    mut aggregator: Aggregator,
    mut jobs: mpsc::Receiver<Job>,
    finished: mpsc::Sender<FinishedConnection>,
    delays: ThreadDelays,
) {
    while let Some(job) = jobs.recv().await {
        take_time(delays.aggregation).await;
        if dice(|dice| dice.u8(..32)) == 0 {
            take_time(delays.stall).await;
        }
        if let Some(connection) = aggregator.handle(job)
            && finished.send(connection).await.is_err()
        {
            return;
        }
    }
}

/// The loop of the reporter.
async fn report_all(
    mut results: mpsc::Receiver<FinishedConnection>,
    mut sink: Sink,
    drain: watch::Sender<Option<Instant>>,
    tally: TallyWriter,
    delay: Duration,
) -> ReporterOutcome {
    let mut reporter = Reporter::new();
    while let Some(finished) = results.recv().await {
        take_time(delay).await;
        let filed = Filed { finished, file: None, took: Duration::ZERO };
        reporter.handle(filed, &mut sink, &drain, &tally);
    }
    reporter.end()
}

/// A thread has the processor to itself, and a processor is not always there.
async fn take_time(longest: Duration) {
    let longest = longest.as_micros() as u64;
    if longest > 0 && dice(|dice| dice.bool()) {
        VirtualSleep::of(Duration::from_micros(dice(|dice| dice.u64(0..=longest)))).await;
    }
}
