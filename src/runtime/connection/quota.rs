//! Counts the record connections that `--exit-after` waits for, and tells the engine to stop after
//! the last. A connection that closes without sending a byte does not count.

use crate::runtime::clock;
use crate::sync::{Mutex, interleave};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// How long running streams may continue after `--exit-after`: a century, so without limit.
const NO_END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How many record connections the engine takes.
#[derive(Debug)]
pub(crate) struct Quota {
    /// `None` means any number.
    limit: Option<u64>,
    taken: Mutex<Taken>,
    returned: Notify,
    drain: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Connections that count, or may still.
    tickets: u64,
    /// Those that count.
    counted: u64,
}

impl Quota {
    /// A quota of `limit` connections; `drain` tells the engine to stop.
    pub(crate) fn new(limit: Option<u64>, drain: watch::Sender<Option<Instant>>) -> Arc<Self> {
        Arc::new(Quota { limit, taken: Mutex::default(), returned: Notify::new(), drain })
    }

    /// A ticket for a connection; `None` while as many are out as connections are asked for.
    fn try_take(self: &Arc<Self>) -> Option<Ticket> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limit.is_some_and(|limit| taken.tickets >= limit) {
            return None;
        }
        taken.tickets += 1;
        Some(Ticket { quota: Arc::clone(self), counted: false })
    }

    /// The same, but waits until there is one. Once the quota is reached, that is never.
    pub(crate) async fn take(self: &Arc<Self>) -> Ticket {
        loop {
            let mut returned = std::pin::pin!(self.returned.notified());
            // From here on, no return is missed.
            interleave();
            returned.as_mut().enable();
            match self.try_take() {
                Some(ticket) => return ticket,
                None => returned.await,
            }
        }
    }

    /// Waits until there is a ticket, without taking it.
    pub(crate) async fn wait_for_one(self: &Arc<Self>) {
        drop(self.take().await);
    }

    fn count(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.counted += 1;
        if self.limit == Some(taken.counted) {
            self.drain.send_if_modified(|end| {
                let first = end.is_none();
                end.get_or_insert(clock::now() + NO_END);
                first
            });
        }
    }
}

/// The place of one connection in the quota. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Ticket {
    quota: Arc<Quota>,
    counted: bool,
}

impl Ticket {
    /// Counts the connection, for good.
    pub(crate) fn count(mut self) {
        self.counted = true;
        self.quota.count();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.counted {
            return;
        }
        self.quota.taken.lock().unwrap_or_else(PoisonError::into_inner).tickets -= 1;
        interleave();
        self.quota.returned.notify_waiters();
    }
}

#[cfg(test)]
#[path = "quota_models.rs"]
mod models;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_engine_stops_once_the_last_connection_counts() {
        let (drain, drained) = watch::channel(None);
        let quota = Quota::new(Some(2), drain);
        let (first, second) = (quota.take().await, quota.take().await);
        assert!(quota.try_take().is_none());
        first.count();
        // The second was empty, so another one is taken in its place.
        let waiting = tokio::spawn({
            let quota = Arc::clone(&quota);
            async move { quota.take().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && drained.borrow().is_none());
        drop(second);
        waiting.await.unwrap().count();
        assert!(drained.borrow().is_some() && quota.try_take().is_none());
    }

    #[tokio::test]
    async fn without_a_limit_the_engine_goes_on() {
        let (drain, drained) = watch::channel(None);
        let quota = Quota::new(None, drain);
        for _ in 0..3 {
            quota.wait_for_one().await;
            quota.take().await.count();
        }
        assert!(drained.borrow().is_none());
    }

    /// The quota must not postpone an end that is already set.
    #[tokio::test]
    async fn an_earlier_end_stays() {
        let end = Instant::now();
        let (drain, drained) = watch::channel(Some(end));
        Quota::new(Some(1), drain).take().await.count();
        assert_eq!(*drained.borrow(), Some(end));
    }
}
