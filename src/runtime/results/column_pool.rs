//! The column sets that go round between workers and aggregation: fills none and reads none.
//!
//! Every connection may hold one set, and [`BATCHES_IN_FLIGHT`](crate::config::BATCHES_IN_FLIGHT)
//! a worker more may be under way. Whoever waits for a set holds none; so when all are given out,
//! at least one is with the aggregation, which does not depend on any peer and brings it back. No
//! connection can keep another from going on.

use crate::engine::groups::columns::ColumnSet;
use crate::engine::groups::plan::Plan;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Sets of one size, at most so many at one time; the memory of each is taken once.
#[derive(Debug)]
pub(crate) struct ColumnPool {
    /// Sets that nobody holds, the one used last on top, since it may still be in a cache.
    free: Mutex<Vec<ColumnSet>>,
    permits: Semaphore,
    plan: Arc<Plan>,
    rows: usize,
}

impl ColumnPool {
    /// A pool of `limit` sets of `rows` rows, `ready` of them made now, the rest when needed.
    pub(crate) fn new(plan: &Arc<Plan>, limit: usize, ready: usize, rows: usize) -> Arc<Self> {
        let mut free = Vec::with_capacity(limit);
        free.extend((0..ready.min(limit)).map(|_| ColumnSet::with_rows(plan, rows)));
        let (free, permits, plan) = (Mutex::new(free), Semaphore::new(limit), Arc::clone(plan));
        Arc::new(ColumnPool { free, permits, plan, rows })
    }

    /// An empty set, at once where one is free, else as soon as one comes back.
    pub(crate) async fn take(self: &Arc<Self>) -> PooledSet {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        permit.forget();
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let set = free.unwrap_or_else(|| ColumnSet::with_rows(&self.plan, self.rows));
        PooledSet { set: Some(set), pool: Arc::clone(self) }
    }
}

/// A set on loan. Dropping it empties it and gives it back.
#[derive(Debug)]
pub(crate) struct PooledSet {
    /// `None` only within `drop`.
    set: Option<ColumnSet>,
    pool: Arc<ColumnPool>,
}

impl Deref for PooledSet {
    type Target = ColumnSet;

    fn deref(&self) -> &ColumnSet {
        self.set.as_ref().expect("a set on loan")
    }
}

impl DerefMut for PooledSet {
    fn deref_mut(&mut self) -> &mut ColumnSet {
        self.set.as_mut().expect("a set on loan")
    }
}

impl Drop for PooledSet {
    fn drop(&mut self) {
        if let Some(mut set) = self.set.take() {
            set.clear();
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(set);
        }
        self.pool.permits.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::schema::Schema;
    use std::time::Duration;

    fn pool(limit: usize, ready: usize) -> Arc<ColumnPool> {
        ColumnPool::new(&Plan::new(Schema::built_in()), limit, ready, 4)
    }

    #[tokio::test]
    async fn a_set_comes_back_empty_with_its_memory() {
        let pool = pool(1, 1);
        let mut set = pool.take().await;
        set.keys[0].push(1);
        let address = set.keys[0].as_ptr();
        drop(set);
        let set = pool.take().await;
        assert!(set.is_empty());
        assert_eq!(set.keys[0].as_ptr(), address);
    }

    #[tokio::test]
    async fn beyond_the_limit_one_waits_until_a_set_comes_back() {
        let pool = pool(2, 0);
        let (first, _second) = (pool.take().await, pool.take().await);
        let waiting = tokio::time::timeout(Duration::from_millis(20), pool.take());
        assert!(waiting.await.is_err());
        let waiting = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.take().await.rows_free() }
        });
        drop(first);
        assert_eq!(waiting.await.unwrap(), 4);
    }
}
