//! Passes broadcasts to all workers, and on each worker to its clients. Owns no sockets. Only the
//! broadcasts of a single sender keep their order.

use super::peer::{Peer, Peers};
use crate::config::{DELIVERIES_AT_ONCE, DELIVERY_BYTES, HUB_QUEUE};
use crate::engine::messages::outbox::Broadcasts;
use crate::runtime::failpoint::failpoint;
use crate::runtime::ring;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A queue to each worker, by worker index.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    workers: Arc<[mpsc::Sender<Broadcasts>]>,
}

impl Hub {
    /// A hub for `workers` workers, and the receiver of each.
    pub(crate) fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Broadcasts>>) {
        let (senders, receivers): (Vec<_>, _) =
            (0..workers).map(|_| mpsc::channel(HUB_QUEUE)).unzip();
        (Hub { workers: senders.into() }, receivers)
    }

    /// Sends a piece to every worker. Waits if one is behind with its deliveries; since no worker
    /// waits for another while it delivers, this cannot deadlock.
    pub(crate) async fn publish(&self, piece: Broadcasts) {
        for worker in self.workers.iter() {
            // Fails only if that worker has ended, along with all its clients.
            let _ = worker.send(piece.clone()).await;
        }
    }
}

/// Delivers to the clients of one worker, forever. Pieces that have queued up are delivered
/// together.
pub(crate) async fn deliver_all(peers: Rc<Peers>, mut pieces: mpsc::Receiver<Broadcasts>) {
    let mut batch = Vec::with_capacity(HUB_QUEUE);
    let mut receivers: Vec<Rc<Peer>> = Vec::new();
    while let Some(first) = pieces.recv().await {
        failpoint("hub");
        let mut bytes = first.frames.len();
        batch.push(first);
        // At most as much as may wait for a receiver, so that one that reads has time to do so.
        while bytes < DELIVERY_BYTES
            && let Ok(piece) = pieces.try_recv()
        {
            bytes += piece.frames.len();
            batch.push(piece);
        }
        // A copy of the list, because clients come and go during the pauses below.
        peers.list(&mut receivers);
        for some in receivers.chunks(DELIVERIES_AT_ONCE) {
            some.iter().for_each(|peer| peer.deliver(&batch));
            // Even if there are few receivers: pieces may arrive faster than they are delivered.
            ring::pause().await;
        }
        receivers.clear();
        batch.clear();
    }
}
