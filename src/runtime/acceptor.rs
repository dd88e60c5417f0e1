//! One acceptor deals each new connection to the worker with the fewest: reads no byte of any.

use super::reporter::Finished;
use super::slots::{Slot, Slots};
use crate::config::ACCEPT_PAUSE;
use crate::engine::report::{Reason, Received};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// Number of the connection, from 1.
    pub connection: u64,
    /// Its socket.
    pub stream: TcpStream,
    /// The sender's address.
    pub peer: SocketAddr,
    /// Its slot.
    pub slot: Slot,
}

/// What the acceptor needs.
pub struct Acceptor {
    /// The bound listener, not blocking.
    pub listener: std::net::TcpListener,
    /// Where connections find their place.
    pub slots: Arc<Slots>,
    /// One inbox a worker, in the order of the slots.
    pub inboxes: Vec<mpsc::Sender<Accepted>>,
    /// Where refused connections are reported.
    pub finished: mpsc::Sender<Finished>,
    /// Stop after so many.
    pub exit_after: Option<u64>,
    /// Holds a moment once the engine is to stop.
    pub drain: watch::Receiver<Option<Instant>>,
}

impl Acceptor {
    /// Accepts until the engine drains or `exit_after` connections were accepted. Then the
    /// listener is closed and so, by and by, is everything behind the inboxes.
    ///
    /// # Errors
    /// Where the runtime of this thread cannot be made; no connection was accepted then.
    pub fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.accept_all())
    }

    async fn accept_all(mut self) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let mut connection = 0;
        while self.exit_after.is_none_or(|limit| connection < limit) {
            let accepted = tokio::select! {
                _ = self.drain.changed() => break,
                accepted = listener.accept() => accepted,
            };
            // Back to a plain socket: a worker makes its own of it.
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => {
                    connection += 1;
                    self.deal(connection, stream, peer).await;
                }
                Err(error) => pause_after(&error).await,
            }
        }
        Ok(())
    }

    async fn deal(&self, connection: u64, stream: TcpStream, peer: SocketAddr) {
        let Some(slot) = self.slots.take() else {
            let mut received = Received::nothing(connection, peer, Instant::now());
            received.reason = Some(Reason::ConnectionsLimit);
            received.detail =
                Some("every slot is taken (--max-connections); refused unread".to_owned());
            let _ = self.finished.send(Finished::refused(received)).await;
            return;
        };
        let worker = slot.worker();
        let accepted = Accepted { connection, stream, peer, slot };
        if self.inboxes[worker].send(accepted).await.is_err() {
            tracing::error!(worker, "a worker is gone: this is a defect, please report it");
        }
    }
}

/// An accept that failed concerns one connection, unless descriptors or memory ran out: then
/// trying again at once would spin.
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
