//! The admin listener of `ringest serve`: one thread that serves metrics, health and state over
//! HTTP/1. It changes nothing and never blocks a worker: it only reads counters, and it limits the
//! memory and time that its clients can use.

use super::connection::{self, Questions};
use super::site::Site;
use crate::config::{ACCEPT_PAUSE, ADMIN_COMPLAINTS, ADMIN_SAMPLE};
use crate::runtime::connection::caught::caught;
use crate::runtime::connection::defects::Defects;
use crate::runtime::failpoint::failpoint;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

pub(crate) use super::connection::Limits;
pub use super::site::AdminState;

/// A running admin thread. It keeps serving while the engine drains. [`stop`](Self::stop) ends it;
/// it also ends some time after the handle is dropped.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Option<()>>,
}

impl AdminHandle {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and all connections and waits for the thread, which finishes at most
    /// the reply it is making.
    pub fn stop(self) {
        // Both fail only if the thread has panicked, which is reported as a defect.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Serves on a bound listener, on a new thread.
///
/// # Errors
/// If the thread or its runtime cannot be created, or the listener is unusable.
pub fn start(listener: std::net::TcpListener, state: AdminState) -> io::Result<AdminHandle> {
    start_watched(listener, state, &Defects::alone())
}

/// [`start`] for an engine, whose defect it is if the thread panics.
///
/// # Errors
/// Those of [`start`].
pub(crate) fn start_watched(
    listener: std::net::TcpListener,
    state: AdminState,
    defects: &Defects,
) -> io::Result<AdminHandle> {
    start_with(listener, state, Limits::default(), defects)
}

/// The same with other limits.
///
/// # Errors
/// Those of [`start`].
pub(crate) fn start_with(
    listener: std::net::TcpListener,
    state: AdminState,
    limits: Limits,
    defects: &Defects,
) -> io::Result<AdminHandle> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let run = move || serve(&runtime, listener, state, limits, stopped);
    let thread = defects.spawn("admin", run)?;
    Ok(AdminHandle { address, stop, thread })
}

fn serve(
    runtime: &Runtime,
    listener: TcpListener,
    state: AdminState,
    limits: Limits,
    stopped: oneshot::Receiver<()>,
) {
    let site = Rc::new(Site::new(state));
    let sampling = sample(Rc::clone(&site));
    let accepting = accept(listener, site, limits);
    let all = async {
        tokio::select! {
            // Told to stop, or the handle was dropped.
            _ = stopped => {}
            () = sampling => {}
            () = accepting => {}
        }
    };
    LocalSet::new().block_on(runtime, all);
}

/// Samples rates even if no one is asking, so that the first request already gets them.
async fn sample(site: Rc<Site>) {
    let first = tokio::time::Instant::now() + ADMIN_SAMPLE;
    let mut ticks = tokio::time::interval_at(first, ADMIN_SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        failpoint("admin_sample");
        site.sample(Instant::now());
    }
}

async fn accept(listener: TcpListener, site: Rc<Site>, limits: Limits) {
    let mut connections = JoinSet::new();
    let mut health = HealthPlaces::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failpoint("admin");
                while connections.try_join_next().is_some() {}
                if connections.len() < limits.connections {
                    let site = Rc::clone(&site);
                    let serving = connection::serve(stream, site, limits, Questions::All);
                    connections.spawn_local(serve_one(serving));
                } else {
                    health.serve(stream, &site, limits);
                }
            }
            Err(error) => {
                // Most likely out of file descriptors; some will be free again later.
                tracing::warn!("cannot accept an admin connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection. A panic ends only that.
async fn serve_one(serving: impl Future<Output = ()>) {
    if let Err(panic) = caught(serving).await {
        tracing::error!("an admin connection {panic}: this is a bug, please report it");
    }
}

/// Places for questions about health when all others are taken. A newcomer gets the place of the
/// oldest: whoever asks has its answer within moments, and only those who ask nothing wait.
#[derive(Default)]
struct HealthPlaces {
    connections: JoinSet<()>,
    /// Its connections, the oldest first.
    places: VecDeque<AbortHandle>,
    complained: Option<Instant>,
}

impl HealthPlaces {
    fn serve(&mut self, stream: TcpStream, site: &Rc<Site>, limits: Limits) {
        self.complain(limits, Instant::now());
        while self.connections.try_join_next().is_some() {}
        self.places.retain(|place| !place.is_finished());
        while self.places.len() >= limits.health_connections
            && let Some(oldest) = self.places.pop_front()
        {
            oldest.abort();
        }
        let serving = connection::serve(stream, Rc::clone(site), limits, Questions::Health);
        self.places.push_back(self.connections.spawn_local(serve_one(serving)));
    }

    fn complain(&mut self, limits: Limits, now: Instant) {
        if self.complained.is_some_and(|last| now - last < ADMIN_COMPLAINTS) {
            return;
        }
        self.complained = Some(now);
        tracing::warn!(
            "{} admin connections are open: until one closes, further ones are answered about \
             /healthz and /readyz only; `ss -tnp` lists who holds them",
            limits.connections
        );
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
