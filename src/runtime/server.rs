//! Starts the threads of the engine and waits for their end: serves nothing itself.
//!
//! The end comes by closing, from the outside in: the acceptor leaves and with it the inboxes
//! close; each worker finishes its connections and leaves, its jobs close; each aggregation thread
//! finishes and leaves; the reporter, last, sees that nobody can finish a connection any more.

use super::acceptor::Acceptor;
use super::aggregator;
use super::cores::{self, CoresError};
use super::listener::{self, ListenError};
use super::pool::ColumnPool;
use super::reporter::{self, Outcome, Sink};
use super::slots::Slots;
use super::worker::{Worker, WorkerError};
use crate::config::{
    AGGREGATION_QUEUE, BATCHES_IN_FLIGHT, Config, INBOX, OutOfRange, REPORT_QUEUE,
};
use core_affinity::CoreId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A limit is out of its range.
    #[error(transparent)]
    Config(#[from] OutOfRange),
    /// A core may not be used.
    #[error(transparent)]
    Cores(#[from] CoresError),
    /// There is no listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A worker has no ring or no core.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A thread could not be made.
    #[error("cannot start a thread: {0}; raise the limit of processes (ulimit -u)")]
    Thread(#[from] io::Error),
}

/// A running engine. Dropping the handle does not stop it: [`Stopper::stop`] does.
pub struct Engine {
    address: SocketAddr,
    workers: usize,
    drain: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
    acceptor: Option<JoinHandle<io::Result<()>>>,
    reporter: JoinHandle<Outcome>,
}

/// Lets an engine stop from another thread.
#[derive(Clone)]
pub struct Stopper {
    drain: watch::Sender<Option<Instant>>,
}

impl Stopper {
    /// Accepts no more and lets running connections go on for `grace`, then ends them as
    /// `incomplete`, `shutdown`.
    pub fn stop(&self, grace: Duration) {
        self.drain.send_replace(Some(Instant::now() + grace));
    }
}

impl Engine {
    /// Starts listener, workers and aggregation. When this returns, connections are taken.
    ///
    /// # Errors
    /// [`StartError`]; what had been started is stopped again.
    pub fn start(config: Config, sink: Sink) -> Result<Self, StartError> {
        config.check()?;
        let cores = cores::choose(&config.cores, &cores::allowed()?)?;
        let listener = listener::listen(&config.host, config.records_port)?;
        let address = listener.local_addr()?;
        let config = Arc::new(config);
        let (drain, drained) = watch::channel(None);
        let (finished, results) = mpsc::channel(REPORT_QUEUE);
        let reporter = spawn("reporter", {
            let drain = drain.clone();
            move || reporter::run(results, sink, &drain)
        })?;
        let mut engine = Engine {
            address,
            workers: cores.len(),
            drain,
            threads: Vec::new(),
            acceptor: None,
            reporter,
        };
        let mut inboxes = Vec::new();
        let (ready, starting) = std::sync::mpsc::channel();
        let pool = new_pool(&config, cores.len());
        for core in cores {
            let (jobs, work) = mpsc::channel(AGGREGATION_QUEUE);
            let (inbox, accepted) = mpsc::channel(INBOX);
            inboxes.push(inbox);
            engine.start_aggregator(core, work, finished.clone(), config.groups_limit)?;
            let (config, pool) = (Arc::clone(&config), Arc::clone(&pool));
            let drain = drained.clone();
            let worker = Worker { core, config, inbox: accepted, pool, jobs, drain };
            let ready = ready.clone();
            let name = format!("worker-{}", core.id);
            engine.threads.push(spawn(&name, move || worker.run(ready))?);
        }
        drop(ready);
        for started in starting {
            started?;
        }
        let slots = Slots::new(config.max_connections, engine.workers);
        let exit_after = config.exit_after;
        let acceptor = Acceptor { listener, slots, inboxes, finished, exit_after, drain: drained };
        engine.acceptor = Some(spawn("acceptor", move || acceptor.run())?);
        Ok(engine)
    }

    fn start_aggregator(
        &mut self,
        core: CoreId,
        work: mpsc::Receiver<aggregator::Job>,
        finished: mpsc::Sender<reporter::Finished>,
        groups_limit: usize,
    ) -> io::Result<()> {
        let name = format!("aggregate-{}", core.id);
        let thread = spawn(&name, move || aggregator::run(work, finished, groups_limit))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The address that the listener got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A handle to stop the engine from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper { drain: self.drain.clone() }
    }

    /// Waits until the engine has stopped: by [`Stopper::stop`], after `exit_after` connections,
    /// or because its sink failed.
    ///
    /// # Panics
    /// Where a thread of the engine panicked, which is a defect.
    pub fn wait(self) -> Outcome {
        const PANICKED: &str = "a thread of the engine panicked";
        let accepted = self.acceptor.map(|acceptor| acceptor.join().expect(PANICKED));
        for thread in self.threads {
            thread.join().expect(PANICKED);
        }
        let outcome = self.reporter.join().expect(PANICKED);
        Outcome { acceptor_error: accepted.and_then(Result::err), ..outcome }
    }
}

/// Each connection may hold a set, and each worker have some more under way.
fn new_pool(config: &Config, workers: usize) -> Arc<ColumnPool> {
    let in_flight = workers * BATCHES_IN_FLIGHT;
    ColumnPool::new(config.max_connections + in_flight, in_flight, config.batch_rows)
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
