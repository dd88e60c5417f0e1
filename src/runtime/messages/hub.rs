//! Broadcasts on their way to every worker, and on each worker to its clients: owns no socket and
//! orders nothing but what one sender sent.

use super::peer::{Peer, Peers};
use crate::config::{DELIVERIES_AT_ONCE, DELIVERY_BYTES, HUB_QUEUE};
use crate::engine::messages::outbox::Broadcasts;
use crate::runtime::ring;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A way to every worker, in the workers' order.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    workers: Arc<[mpsc::Sender<Broadcasts>]>,
}

impl Hub {
    /// A hub for `workers` workers, and where each of them gets its pieces from.
    pub(crate) fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Broadcasts>>) {
        let (senders, receivers): (Vec<_>, _) =
            (0..workers).map(|_| mpsc::channel(HUB_QUEUE)).unzip();
        (Hub { workers: senders.into() }, receivers)
    }

    /// Passes a piece on to every worker. Waits where one is behind with its deliveries: no worker
    /// waits for another while it delivers, so this ends.
    pub(crate) async fn publish(&self, piece: Broadcasts) {
        for worker in self.workers.iter() {
            // Fails where that worker has ended, with all its clients.
            let _ = worker.send(piece.clone()).await;
        }
    }
}

/// Delivers to the clients of one worker, for ever. Pieces that came meanwhile are delivered
/// together.
pub(crate) async fn deliver_all(peers: Rc<Peers>, mut pieces: mpsc::Receiver<Broadcasts>) {
    let mut batch = Vec::with_capacity(HUB_QUEUE);
    let mut receivers: Vec<Rc<Peer>> = Vec::new();
    while let Some(first) = pieces.recv().await {
        let mut bytes = first.frames.len();
        batch.push(first);
        // No more than a receiver can have waiting: one that reads must get the time to do so.
        while bytes < DELIVERY_BYTES
            && let Ok(piece) = pieces.try_recv()
        {
            bytes += piece.frames.len();
            batch.push(piece);
        }
        // Clients come and go while the ring is looked after in between.
        peers.list(&mut receivers);
        for some in receivers.chunks(DELIVERIES_AT_ONCE) {
            some.iter().for_each(|peer| peer.deliver(&batch));
            // Also where there are few: pieces may come faster than they are delivered.
            ring::pause().await;
        }
        receivers.clear();
        batch.clear();
    }
}
