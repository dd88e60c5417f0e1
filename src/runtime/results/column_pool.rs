//! The pool of column sets that circulate between workers and aggregation. It neither fills nor
//! reads them.
//!
//! Each connection may hold one set, and each worker may have another
//! [`BATCHES_IN_FLIGHT`](crate::config::BATCHES_IN_FLIGHT) on their way to aggregation. A
//! connection that waits for a set holds none. So when all sets are in use, at least one is with
//! the aggregation, which depends on no peer and will return it: no connection can block another.

use crate::engine::groups::columns::ColumnSet;
use crate::engine::groups::plan::Plan;
use crate::engine::memory::held::HeldBytes;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Sets of equal size, up to a limit. Their memory is reused until no stream has any more.
#[derive(Debug)]
pub(crate) struct ColumnPool {
    /// Free sets; the most recently used one is on top, since it may still be in a cache.
    free: Mutex<Vec<ColumnSet>>,
    permits: Semaphore,
    limit: usize,
    ready: usize,
    plan: Arc<Plan>,
    rows: usize,
}

impl ColumnPool {
    /// A pool of `limit` sets of `rows` rows; `ready` of them are allocated now, the others on
    /// demand.
    pub(crate) fn new(plan: &Arc<Plan>, limit: usize, ready: usize, rows: usize) -> Arc<Self> {
        let mut free = Vec::with_capacity(limit);
        free.extend((0..ready.min(limit)).map(|_| ColumnSet::with_rows(plan, rows)));
        let (free, permits, plan) = (Mutex::new(free), Semaphore::new(limit), Arc::clone(plan));
        Arc::new(ColumnPool { free, permits, limit, ready, plan, rows })
    }

    /// An empty set; waits for one to come back if none is free.
    pub(crate) async fn take(self: &Arc<Self>) -> PooledSet {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        permit.forget();
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let set = free.unwrap_or_else(|| ColumnSet::with_rows(&self.plan, self.rows));
        PooledSet { set: Some(set), memory: HeldBytes::default(), pool: Arc::clone(self) }
    }

    /// Bytes of one set.
    pub(crate) fn set_bytes(&self) -> usize {
        self.rows * self.plan.sizes().row_bytes
    }

    /// Takes back an empty set. With the last one, keeps only as many as at the start.
    fn put(&self, set: ColumnSet) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(set);
        let is_last = self.permits.available_permits() + 1 == self.limit;
        let kept = if is_last { self.ready.max(1) } else { free.len() };
        let kept = kept.min(free.len());
        let surplus = free.split_off(kept);
        drop(free);
        drop(surplus);
    }
}

/// A set taken from a pool. Dropping it empties and returns it.
#[derive(Debug)]
pub(crate) struct PooledSet {
    /// `None` only during `drop`.
    set: Option<ColumnSet>,
    /// What it and its rows hold of their stream's memory.
    pub memory: HeldBytes,
    pool: Arc<ColumnPool>,
}

impl Deref for PooledSet {
    type Target = ColumnSet;

    fn deref(&self) -> &ColumnSet {
        self.set.as_ref().expect("the set is there until drop")
    }
}

impl DerefMut for PooledSet {
    fn deref_mut(&mut self) -> &mut ColumnSet {
        self.set.as_mut().expect("the set is there until drop")
    }
}

impl Drop for PooledSet {
    fn drop(&mut self) {
        if let Some(mut set) = self.set.take() {
            set.clear();
            self.pool.put(set);
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
    async fn above_the_limit_take_waits_until_a_set_comes_back() {
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
