//! A pinned thread with its ring, its inbox and its timer: reads no connection itself.

use super::acceptor::Accepted;
use super::aggregator::Job;
use super::deadlines::Deadlines;
use super::pool::ColumnPool;
use super::record_conn::{RecordConnection, Shared};
use super::ring::{self, Buffers, RingError, out_of_memory};
use crate::config::Config;
use crate::engine::report::{Reason, Received};
use core_affinity::CoreId;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// What a worker needs.
pub struct Worker {
    /// The core that it runs on.
    pub core: CoreId,
    /// The limits.
    pub config: Arc<Config>,
    /// Connections that were dealt to it.
    pub inbox: mpsc::Receiver<Accepted>,
    /// Where column sets come from.
    pub pool: Arc<ColumnPool>,
    /// Its aggregation thread.
    pub jobs: mpsc::Sender<Job>,
    /// Holds a moment once the engine is to stop.
    pub drain: watch::Receiver<Option<Instant>>,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its ring could not be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Its thread could not be pinned.
    #[error("cannot pin a worker to core {core}: the kernel refused; try --cores without it")]
    Pin {
        /// The core.
        core: usize,
    },
}

impl Worker {
    /// Runs until the inbox is closed and every connection is done. Says through `ready` whether
    /// it got that far as to take connections.
    pub fn run(self, ready: std::sync::mpsc::Sender<Result<(), WorkerError>>) {
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

    async fn take_connections(mut self, ready: std::sync::mpsc::Sender<Result<(), WorkerError>>) {
        let buffers = match register(&self.config) {
            Ok(buffers) => buffers,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        let shared = Rc::new(Shared {
            config: self.config,
            pool: self.pool,
            jobs: self.jobs,
            buffers,
            deadlines: Deadlines::default(),
        });
        let timer = tokio_uring::spawn({
            let (shared, drain) = (Rc::clone(&shared), self.drain);
            async move { shared.deadlines.watch(drain).await }
        });
        let _ = ready.send(Ok(()));
        drop(ready);

        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.inbox.recv() => match accepted {
                    Some(accepted) => {
                        connections.spawn_local(serve(accepted, Rc::clone(&shared)));
                    }
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
        timer.abort();
        // The timer holds a share, and with it the way to the aggregation: wait until it let go.
        let _ = timer.await;
    }
}

/// The registered windows, or none where locked memory has run out: RLIMIT_MEMLOCK counts all
/// processes of a user together, and what others hold cannot be seen before.
fn register(config: &Config) -> Result<Buffers, RingError> {
    let registered = Buffers::register(config.registered_buffers, config.buffer_bytes);
    match registered {
        Err(RingError::Register { bytes, source }) if out_of_memory(&source) => {
            tracing::warn!(
                bytes,
                "locked memory is used up (RLIMIT_MEMLOCK counts all processes of a user): this \
                 worker uses plain memory instead of registered windows"
            );
            Ok(Buffers::plain(config.buffer_bytes))
        }
        other => other,
    }
}

/// Serves one connection. A defect in it costs that connection, with a report, and no other.
async fn serve(accepted: Accepted, shared: Rc<Shared>) {
    let Accepted { connection, stream, peer, slot } = accepted;
    let begun = Instant::now();
    let served = tokio_uring::spawn({
        let shared = Rc::clone(&shared);
        async move { RecordConnection::start(connection, stream, peer, shared).run().await }
    });
    let received = served.await.unwrap_or_else(|panic| {
        let mut received = Received::nothing(connection, peer, begun);
        received.reason = Some(Reason::InternalError);
        received.detail = Some(format!("{panic}; this is a defect, please report it"));
        received
    });
    shared.deadlines.remove(connection);
    let job = Job::Finish { received: Box::new(received), slot };
    if shared.jobs.send(job).await.is_err() {
        tracing::error!(connection, "the aggregation is gone: this is a defect, please report it");
    }
}
