//! Starts the engine's threads and waits for them to end.
//!
//! They end by closing channels from the outside in: when the acceptor ends, the inboxes close;
//! each worker then finishes its connections and ends, which closes its job queue; each aggregation
//! thread finishes its jobs and ends; last, the reporter ends because all senders of finished
//! connections are gone.

use super::acceptor::{Acceptor, Door};
use super::refusal::Refusals;
use super::worker::{Common, WorkerError, WorkerThread};
use crate::config::{
    AGGREGATION_QUEUE, AggregateMode, BATCHES_IN_FLIGHT, Config, ConfigError, FILE_WRITERS, INBOX,
    REPORT_QUEUE,
};
use crate::engine::groups::plan::Plan;
use crate::engine::memory::account::MemoryAccount;
use crate::engine::observe::counters::{Counters, Protocol};
use crate::runtime::admin::listener as admin;
use crate::runtime::admin::listener::{AdminHandle, AdminState};
use crate::runtime::admin::readiness::Readiness;
use crate::runtime::clock;
use crate::runtime::connection::defects::Defects;
use crate::runtime::connection::quota::Quota;
use crate::runtime::connection::slots::Slots;
use crate::runtime::host::auth_file::AuthFileError;
use crate::runtime::host::cores::{self, CoresError};
use crate::runtime::host::listener::{self, ADMIN, ListenError, MESSAGES, RECORDS};
use crate::runtime::host::memory_limit::{LimitTooLow, memory_limit};
use crate::runtime::host::trim;
use crate::runtime::messages::gate::Gate;
use crate::runtime::messages::hub::Hub;
use crate::runtime::network;
use crate::runtime::results::aggregator;
use crate::runtime::results::capture::{self, CaptureError};
use crate::runtime::results::column_pool::ColumnPool;
use crate::runtime::results::partial_files::{PartialFiles, PartialFilesError};
use crate::runtime::results::partial_writers::{PartialSource, PartialWriters};
use crate::runtime::results::report::FileWriter;
use crate::runtime::results::reporter::{self, ReportSource, ReporterOutcome, Sink};
use crate::runtime::results::whole_file::MissingFiles;
use crate::runtime::results::writers::Writers;
use crate::runtime::tls::config::{Certificates, TlsConfigError, load_certificates};
use crate::wire::messages::limiter::TokenBucket;
use crate::wire::messages::session::Policy;
use crate::wire::schema::Schema;
use core_affinity::CoreId;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A limit is out of range, or options conflict.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A core may not be used.
    #[error(transparent)]
    Cores(#[from] CoresError),
    /// The auth file cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The directory for partials cannot be used.
    #[error(transparent)]
    Partials(#[from] PartialFilesError),
    /// The limit on memory is too low.
    #[error(transparent)]
    Memory(#[from] LimitTooLow),
    /// Captures cannot be started.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker could not create its ring or be pinned to its core.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; raise the limit of processes (ulimit -u)")]
    Thread(#[from] io::Error),
}

/// Threads whose panic is a defect.
type WatchedThreads = Vec<JoinHandle<Option<()>>>;

/// A running engine. Dropping the handle does not stop it: `Stopper::stop` does.
pub struct Engine {
    records_addresses: Vec<SocketAddr>,
    messages_addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    drain: watch::Sender<Option<Instant>>,
    readiness: Arc<Readiness>,
    defects: Defects,
    threads: WatchedThreads,
    reporter: JoinHandle<Option<ReporterOutcome>>,
    admin: AdminHandle,
    reloader: Reloader,
    partials: Option<Arc<PartialFiles>>,
    trimmer: Trimmer,
}

/// The thread that returns memory to the system, and what ends it when it is dropped.
struct Trimmer {
    thread: JoinHandle<Option<()>>,
    end: std::sync::mpsc::Sender<()>,
}

impl Trimmer {
    fn start(counters: &Arc<Counters>, defects: &Defects) -> io::Result<Self> {
        let (end, ended) = std::sync::mpsc::channel();
        let counters = Arc::clone(counters);
        let thread = defects.spawn("memory", move || trim::run(&counters.memory, &ended))?;
        Ok(Trimmer { thread, end })
    }
}

/// Stops an engine, from any thread.
#[derive(Clone)]
pub struct Stopper {
    drain: watch::Sender<Option<Instant>>,
    readiness: Arc<Readiness>,
}

impl Stopper {
    /// Makes `/readyz` say that the engine is stopping. It goes on accepting until
    /// [`stop`](Self::stop).
    pub(crate) fn leave(&self) {
        self.readiness.leave();
    }

    /// Whether somebody asks `/readyz`, who will send new connections elsewhere.
    pub(crate) fn is_checked(&self) -> bool {
        self.readiness.has_been_asked()
    }

    /// Stops accepting connections and lets running record streams continue for `grace`, then ends
    /// them as `incomplete`, `shutdown`. Message connections that carry no records end at once.
    pub fn stop(&self, grace: Duration) {
        self.drain.send_replace(Some(clock::now() + grace));
    }
}

/// Makes an engine reload its certificates and users, from any thread.
#[derive(Clone)]
pub struct Reloader {
    certificates: Option<Arc<Certificates>>,
    gate: Arc<Gate>,
}

impl Reloader {
    /// Reloads the certificates and the auth file, and logs the outcome. If one cannot be loaded,
    /// the old one stays in use. Existing connections are not affected.
    pub fn reload(&self) {
        if let Some(certificates) = &self.certificates {
            match certificates.reload() {
                Ok(()) => tracing::info!("certificates reloaded"),
                Err(error) => tracing::error!("keeping the old certificates: {error}"),
            }
            warn_of_validity(certificates);
        }
        match self.gate.reload() {
            Ok(Some(users)) => tracing::info!(users, "auth file reloaded"),
            Ok(None) => {}
            Err(error) => tracing::error!("keeping the old users: {error}"),
        }
    }
}

impl Engine {
    /// Starts listeners, workers and aggregation, for records of `schema`. When this returns,
    /// connections are being accepted.
    ///
    /// # Errors
    /// `StartError`; anything already started is stopped again.
    pub fn start(
        mut config: Config,
        schema: &Arc<Schema>,
        files: Option<FileWriter>,
        sink: Sink,
    ) -> Result<Self, StartError> {
        let plan = Plan::new(Arc::clone(schema));
        config.record = plan.sizes();
        config.check()?;
        let cores = cores::choose(&config.cores, &cores::allowed()?)?;
        let gate = Arc::new(Gate::new(&config)?);
        let certificates = load_certificates(&config)?.map(Arc::new);
        certificates.iter().for_each(|certificates| warn_of_validity(certificates));
        let limit = memory_limit(&config, cores.len())?;
        let fixed = config.memory(cores.len()).fixed();
        let memory = MemoryAccount::new(usize::try_from(limit).unwrap_or(usize::MAX), fixed);
        let (counters, tallies) = Counters::with_memory(cores.len(), memory);
        let partials = PartialFiles::start(&config, schema, &counters.partials)?;
        let (drain, drained) = watch::channel(None);
        let defects = Defects::new(drain.clone(), config.drain_timeout);
        let (partial_source, mut threads) = start_partial_writers(partials.as_ref(), &defects)?;
        let captures = match capture::start(&config, &defects)? {
            Some(started) => {
                threads.extend(started.threads);
                Some(started.captures)
            }
            None => None,
        };
        let doors = open_doors(&config, certificates.as_ref())?;
        let addresses_of = |protocol| {
            let doors = doors.iter().filter(|(_, door)| door.protocol == protocol);
            doors.map(|(listener, _)| listener.local_addr()).collect::<io::Result<Vec<_>>>()
        };
        let (records_addresses, messages_addresses) =
            (addresses_of(Protocol::Records)?, addresses_of(Protocol::Messages)?);
        let readiness = Arc::<Readiness>::default();
        let admin = admin::start_watched(
            listener::listen(ADMIN, &config.admin_host, config.admin_port())?,
            AdminState {
                counters: Arc::clone(&counters),
                cores: cores.iter().map(|core| core.id).collect(),
                drain: drained.clone(),
                readiness: Arc::clone(&readiness),
                started: clock::now(),
            },
            &defects,
        )?;
        let (finished, results) = mpsc::channel(REPORT_QUEUE);
        let (source, writers) = start_writers(results, files, &defects)?;
        threads.extend(writers);
        let reporter = defects.spawn("reporter", {
            let (drain, tally) = (drain.clone(), tallies.reporter);
            move || reporter::run(source, sink, &drain, &tally)
        })?;
        let mut engine = Engine {
            records_addresses,
            messages_addresses,
            counters: Arc::clone(&counters),
            drain: drain.clone(),
            readiness,
            defects: defects.clone(),
            threads,
            reporter,
            admin,
            reloader: Reloader { certificates, gate: Arc::clone(&gate) },
            partials,
            trimmer: Trimmer::start(&counters, &defects)?,
        };
        let slots = Slots::new(config.max_connections, config.max_streams, cores.len());
        let (hub, pieces) = Hub::new(cores.len());
        let pool = new_pool(&plan, &config, cores.len());
        let policy = new_policy(&config);
        let refusals = Arc::new(Refusals::new(config.refused_linger));
        let quota = Quota::new(config.exit_after, drain);
        let config = Arc::new(config);
        let common = Common {
            config,
            plan,
            pool,
            counters,
            policy,
            gate,
            hub,
            captures,
            defects: defects.clone(),
            drain: drained.clone(),
        };
        let mut inboxes = Vec::new();
        let (ready, starting) = std::sync::mpsc::channel();
        let workers = cores.into_iter().zip(tallies.workers).zip(pieces);
        for (index, ((core, tally), pieces)) in workers.enumerate() {
            let (jobs, work) = mpsc::channel(AGGREGATION_QUEUE);
            let (inbox, accepted) = mpsc::channel(INBOX);
            inboxes.push(inbox);
            let partials = partial_source.clone();
            engine.start_aggregator(core, work, finished.clone(), partials, &common)?;
            let common = common.clone();
            let worker = WorkerThread { core, index, tally, common, jobs, pieces };
            let ready = ready.clone();
            let run = move || worker.run(accepted, ready);
            engine.threads.push(defects.spawn(&format!("worker-{}", core.id), run)?);
        }
        let Common { config, .. } = common;
        drop(ready);
        for started in starting {
            started?;
        }
        let schema = Arc::clone(schema);
        let acceptor = Acceptor {
            slots,
            quota,
            admit_timeout: config.admit_timeout,
            report_empty: config.report_empty,
            inboxes,
            finished,
            tally: tallies.acceptor,
            drain: drained,
            schema,
            refusals,
        };
        let doors = doors.into_iter().map(|(listener, door)| (network::bound(listener), door));
        let doors = doors.collect();
        let run = {
            let defects = defects.clone();
            move || {
                if let Err(error) = acceptor.run(doors) {
                    defects.report(format!("connections can no longer be accepted: {error}"));
                }
            }
        };
        engine.threads.push(defects.spawn("acceptor", run)?);
        Ok(engine)
    }

    fn start_aggregator(
        &mut self,
        core: CoreId,
        work: mpsc::Receiver<aggregator::Job>,
        finished: mpsc::Sender<reporter::FinishedConnection>,
        partials: Option<PartialSource>,
        common: &Common,
    ) -> io::Result<()> {
        let (plan, config) = (Arc::clone(&common.plan), Arc::clone(&common.config));
        let run = move || aggregator::run(work, finished, &plan, &config, partials);
        let thread = self.defects.spawn(&format!("aggregate-{}", core.id), run)?;
        self.threads.push(thread);
        Ok(())
    }

    /// The first address for records, if there is one.
    pub fn records_address(&self) -> Option<SocketAddr> {
        self.records_addresses.first().copied()
    }

    /// The addresses for records: all that the configured name has.
    pub fn records_addresses(&self) -> &[SocketAddr] {
        &self.records_addresses
    }

    /// The addresses for messages.
    pub fn messages_addresses(&self) -> &[SocketAddr] {
        &self.messages_addresses
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The record of partials that could not be written; `None` if partials are off.
    pub fn missing_partials(&self) -> Option<Arc<MissingFiles>> {
        self.partials.as_ref().map(|files| Arc::clone(files.missing()))
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.counters.workers.len()
    }

    /// A handle to stop the engine.
    pub fn stopper(&self) -> Stopper {
        Stopper { drain: self.drain.clone(), readiness: Arc::clone(&self.readiness) }
    }

    /// Where threads that watch the engine report that they panicked.
    pub(crate) fn defects(&self) -> Defects {
        self.defects.clone()
    }

    /// A handle to reload certificates and users.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Waits until the engine has stopped: by `Stopper::stop`, after `exit_after` connections,
    /// because its sink failed, or because a thread or task of it panicked.
    ///
    /// # Panics
    /// If a thread panicked outside of its work.
    pub fn wait(self) -> ReporterOutcome {
        const PANICKED: &str = "a thread of the engine panicked";
        for thread in self.threads {
            thread.join().expect(PANICKED);
        }
        let outcome = self.reporter.join().expect(PANICKED).unwrap_or_default();
        let Trimmer { thread, end } = self.trimmer;
        drop(end);
        thread.join().expect(PANICKED);
        self.reloader.gate.count_suppressed();
        self.admin.stop();
        ReporterOutcome { defect: self.defects.first().map(str::to_owned), ..outcome }
    }
}

/// Warns about certificates that are not valid. They are used anyway, because some clients may
/// accept them.
fn warn_of_validity(certificates: &Certificates) {
    for dated in certificates.doubtful(clock::wall()) {
        tracing::warn!("{dated}");
    }
}

/// Binds the configured listeners.
fn open_doors(
    config: &Config,
    certificates: Option<&Arc<Certificates>>,
) -> Result<Vec<(TcpListener, Door)>, ListenError> {
    let encrypted = |tls: bool| certificates.filter(|_| tls).cloned();
    let mut doors = Vec::new();
    let wanted = [
        (Protocol::Records, RECORDS, config.records_port, config.tls.records),
        (Protocol::Messages, MESSAGES, config.port, config.tls.messages),
    ];
    for (protocol, place, port, tls) in wanted {
        let Some(port) = port else { continue };
        let listeners = listener::listen_on_all(place, &config.host, port)?;
        let door = |listener| (listener, Door { protocol, certificates: encrypted(tls) });
        doors.extend(listeners.into_iter().map(door));
    }
    Ok(doors)
}

/// Starts the threads that write partials, if there are any. They end after the last clone of the
/// source is dropped.
fn start_partial_writers(
    partials: Option<&Arc<PartialFiles>>,
    defects: &Defects,
) -> io::Result<(Option<PartialSource>, WatchedThreads)> {
    let Some(files) = partials else { return Ok((None, Vec::new())) };
    let writers = PartialWriters::new(Arc::clone(files));
    let source = writers.source();
    let start = |number: usize| {
        let writer = writers.writer();
        defects.spawn(&format!("partials-{number}"), move || writer.run())
    };
    let threads = (0..FILE_WRITERS).map(start).collect::<io::Result<_>>()?;
    Ok((Some(source), threads))
}

/// Starts the threads that write the files of results, if there are any; returns what the reporter
/// reads from.
fn start_writers(
    results: mpsc::Receiver<reporter::FinishedConnection>,
    files: Option<FileWriter>,
    defects: &Defects,
) -> io::Result<(ReportSource, WatchedThreads)> {
    let Some(files) = files else { return Ok((ReportSource::Finished(results), Vec::new())) };
    let (writers, source) = Writers::new(results, files);
    let start = |number: usize| {
        let writers = Arc::clone(&writers);
        defects.spawn(&format!("writer-{number}"), move || writers.run())
    };
    Ok((source, (0..FILE_WRITERS).map(start).collect::<io::Result<_>>()?))
}

/// The rules of every message session.
pub(super) fn new_policy(config: &Config) -> Arc<Policy> {
    let rate = config.global_rate_limit;
    Arc::new(Policy {
        require_auth: config.require_auth,
        idle_timeout: config.idle_timeout,
        frame_timeout: config.frame_timeout,
        auth_timeout: config.auth_timeout,
        all: TokenBucket::new(rate, rate),
        strangers: TokenBucket::new(rate, rate),
        epoch: clock::now(),
    })
}

/// Creates the pool: one set for each stream, and some more in flight for each worker.
pub(super) fn new_pool(plan: &Arc<Plan>, config: &Config, workers: usize) -> Arc<ColumnPool> {
    let in_flight = workers * BATCHES_IN_FLIGHT;
    let ready = match config.aggregate {
        AggregateMode::Columns => in_flight,
        // Workers fold records into groups and need no sets.
        AggregateMode::TwoPhase => 0,
    };
    ColumnPool::new(plan, config.max_streams + in_flight, ready, config.batch_rows)
}
