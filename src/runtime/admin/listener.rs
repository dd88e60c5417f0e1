//! The admin listener of `ringest serve`: one thread that serves metrics, health and state over
//! HTTP/1. It changes nothing and never blocks a worker: it only reads counters, and it limits the
//! memory and time that its clients can use.

use super::connection;
use super::site::Site;
use crate::config::{ACCEPT_PAUSE, ADMIN_SAMPLE};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

pub(crate) use super::connection::Limits;
pub use super::site::AdminState;

/// The whole reply to a connection above the limit.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 27\r\nconnection: close\r\n\r\n\
    too many admin connections\n";

/// A running admin thread. It keeps serving while the engine drains. [`stop`](Self::stop) ends it;
/// it also ends some time after the handle is dropped.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl AdminHandle {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and all connections and waits for the thread, which finishes at most
    /// the reply it is making.
    pub fn stop(self) {
        // Fails only if the thread has already ended.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("the admin thread panicked: this is a bug, please report it");
        }
    }
}

/// Serves on a bound listener, on a new thread.
///
/// # Errors
/// If the thread or its runtime cannot be created, or the listener is unusable.
pub fn start(listener: std::net::TcpListener, state: AdminState) -> io::Result<AdminHandle> {
    start_with(listener, state, Limits::default())
}

/// [`start`] with other limits.
///
/// # Errors
/// Those of [`start`].
pub(crate) fn start_with(
    listener: std::net::TcpListener,
    state: AdminState,
    limits: Limits,
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
    let thread = thread::Builder::new().name("admin".to_owned()).spawn(run)?;
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
        site.sample(Instant::now());
    }
}

async fn accept(listener: TcpListener, site: Rc<Site>, limits: Limits) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                if connections.len() < limits.connections {
                    connections.spawn_local(connection::serve(stream, Rc::clone(&site), limits));
                } else {
                    refuse(stream);
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

/// Tells a client above the limit so. A new socket takes these bytes without blocking.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(BUSY);
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
