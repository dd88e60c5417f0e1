//! Accepts connections and assigns each to the worker with the fewest. Reads nothing from them.

use super::refusal::Refusals;
use crate::config::ACCEPT_PAUSE;
use crate::engine::observe::counters::{Counters, Protocol};
use crate::engine::stream::received::{Reason, Received};
use crate::runtime::connection::accepted::Accepted;
use crate::runtime::connection::slots::Slots;
use crate::runtime::results::reporter::FinishedConnection;
use crate::runtime::tls::config::Certificates;
use crate::wire::messages::fault::Fault;
use crate::wire::schema::Schema;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long running streams may continue after `--exit-after`: a century, so without limit.
const NO_END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The settings of a listener.
pub(crate) struct Door {
    /// The protocol of its connections.
    pub protocol: Protocol,
    /// The certificates; `None` without TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Stop the engine after this many connections.
    pub exit_after: Option<u64>,
}

/// What the acceptor needs.
pub(crate) struct Acceptor {
    /// The slots for connections.
    pub slots: Arc<Slots>,
    /// The workers' inboxes, by worker index.
    pub inboxes: Vec<mpsc::Sender<Accepted>>,
    /// Receives the reports of refused record connections.
    pub finished: mpsc::Sender<FinishedConnection>,
    /// The engine's counters.
    pub counters: Arc<Counters>,
    /// Tells the engine to stop.
    pub drain: watch::Sender<Option<Instant>>,
    /// The schema of the empty results of refused connections.
    pub schema: Arc<Schema>,
    /// Tells message clients that they are refused.
    pub refusals: Arc<Refusals>,
}

impl Acceptor {
    /// Accepts at every door until the engine drains; `exit_after` connections make it drain. Then
    /// closes the listeners and the inboxes, so that the workers end once their connections have.
    ///
    /// # Errors
    /// If this thread's runtime cannot be created; then no connection has been accepted.
    pub(crate) fn run(self, doors: Vec<(std::net::TcpListener, Door)>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let acceptor = Arc::new(self);
            let mut tasks: JoinSet<io::Result<()>> = doors
                .into_iter()
                .map(|(listener, door)| Arc::clone(&acceptor).accept_all(listener, door))
                .collect();
            while let Some(task) = tasks.join_next().await {
                task.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }

    async fn accept_all(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        door: Door,
    ) -> io::Result<()> {
        let mut drain = self.drain.subscribe();
        let listener = TcpListener::from_std(listener)?;
        let mut accepted_here = 0;
        while drain.borrow_and_update().is_none() {
            let accepted = tokio::select! {
                _ = drain.changed() => continue,
                accepted = listener.accept() => accepted,
            };
            // Back to a plain socket: the worker registers it with its own runtime.
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => {
                    self.deal(&door, stream, peer).await;
                    accepted_here += 1;
                    if door.exit_after == Some(accepted_here) {
                        self.drain.send_if_modified(|end| {
                            let first = end.is_none();
                            end.get_or_insert(Instant::now() + NO_END);
                            first
                        });
                    }
                }
                Err(error) => pause_after(&error).await,
            }
        }
        Ok(())
    }

    async fn deal(&self, door: &Door, stream: TcpStream, peer: SocketAddr) {
        let number = self.slots.next_number();
        let Some(slot) = self.slots.take(door.protocol) else {
            return self.refuse(door, number, stream, peer).await;
        };
        let worker = slot.worker();
        let tls = door.certificates.as_ref().map(|certificates| match door.protocol {
            Protocol::Records => certificates.current_for_senders(),
            Protocol::Messages => certificates.current(),
        });
        let accepted = Accepted { protocol: door.protocol, number, stream, peer, slot, tls };
        if self.inboxes[worker].send(accepted).await.is_err() {
            tracing::error!(worker, "a worker has died: this is a bug, please report it");
        }
    }

    async fn refuse(&self, door: &Door, number: u64, stream: TcpStream, peer: SocketAddr) {
        match door.protocol {
            Protocol::Records => {
                let mut received = Received::nothing(number, peer, Instant::now());
                received.reason = Some(Reason::ConnectionsLimit);
                received.detail = Some(
                    "no slot is free (--max-connections, --max-streams); refused unread".to_owned(),
                );
                let _ =
                    self.finished.send(FinishedConnection::refused(received, &self.schema)).await;
            }
            Protocol::Messages => {
                self.counters.acceptor.count_fault(Fault::ConnectionsLimit);
                tracing::debug!(connection = number, %peer, "refused: no slot is free");
                // A TLS client could not read the message.
                if door.certificates.is_none() {
                    self.refusals.tell(stream);
                }
            }
        }
    }
}

/// Waits before accepting again if descriptors or memory ran out, because retrying at once would
/// spin. Other errors concern a single connection and need no pause.
async fn pause_after(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
        _ => {
            tracing::warn!(
                %error,
                "cannot accept: if descriptors ran out, raise the limit (ulimit -n) or lower \
                 --max-connections"
            );
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}
