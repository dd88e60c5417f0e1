//! One token bucket per user, shared by all connections of the user on all workers, so that
//! reconnecting does not refill it. Reads no clock.

use crate::config::SWEEP_PAUSE_NS;
use crate::sync::Mutex;
use crate::wire::messages::limiter::{SharedBucket, TokenBucket};
use std::collections::HashMap;
use std::sync::PoisonError;

/// Buckets of users, shared by all workers.
pub(crate) struct UserBuckets {
    rate: u32,
    limit: usize,
    users: Mutex<Users>,
}

#[derive(Default)]
struct Users {
    buckets: HashMap<Box<str>, SharedBucket>,
    /// The earliest time of the next sweep.
    sweep_at_ns: u64,
}

impl UserBuckets {
    /// Buckets of `rate` messages a second with a burst of the same size, for at most `limit`
    /// users at a time. A rate of 0 means no limit, and nothing is stored.
    pub(crate) fn new(rate: u32, limit: usize) -> Self {
        UserBuckets { rate, limit, users: Mutex::default() }
    }

    /// The bucket of `user`. Everyone who takes it while it is held or not yet full again gets the
    /// same one. `None` if there are `limit` others that cannot be dropped yet; the connection then
    /// uses its own bucket.
    pub(crate) fn take(&self, user: &str, now_ns: u64) -> Option<SharedBucket> {
        if self.rate == 0 {
            return Some(self.new_bucket());
        }
        // A panic in here leaves the table consistent.
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = users.buckets.get(user) {
            return Some(SharedBucket::clone(bucket));
        }
        if users.buckets.len() >= self.limit {
            users.sweep(now_ns);
        }
        if users.buckets.len() >= self.limit {
            return None;
        }
        let bucket = self.new_bucket();
        users.buckets.insert(user.into(), SharedBucket::clone(&bucket));
        Some(bucket)
    }

    /// Number of users stored.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).buckets.len()
    }

    fn new_bucket(&self) -> SharedBucket {
        SharedBucket::new(TokenBucket::new(self.rate, self.rate))
    }
}

impl Users {
    /// Drops the buckets that are full and held by no connection. Buckets are handed out under the
    /// lock only, so one that only the table holds cannot be taken in the meantime; and exclusive
    /// access means that this thread sees what the last holder took from it.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns < self.sweep_at_ns {
            return;
        }
        let keep = |bucket: &mut TokenBucket| !bucket.is_full(now_ns);
        self.buckets.retain(|_, bucket| SharedBucket::get_mut(bucket).is_none_or(keep));
        self.sweep_at_ns = now_ns.saturating_add(SWEEP_PAUSE_NS);
    }
}

#[cfg(test)]
#[path = "user_buckets_models.rs"]
mod models;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn reconnecting_does_not_refill_the_bucket() {
        let users = UserBuckets::new(3, 10);
        let first = users.take("ann", 0).unwrap();
        assert!((0..3).all(|_| first.try_take(0)));
        drop(first);
        let again = users.take("ann", 1).unwrap();
        assert!(!again.try_take(1));
        assert!(users.take("bob", 1).unwrap().try_take(1), "other users have their own");
    }

    #[test]
    fn connections_of_one_user_share_a_bucket() {
        let users = UserBuckets::new(3, 10);
        let (one, two) = (users.take("ann", 0).unwrap(), users.take("ann", 0).unwrap());
        assert!(SharedBucket::ptr_eq(&one, &two));
        assert_eq!(users.len(), 1);
    }

    #[test]
    fn at_the_limit_only_full_unused_buckets_are_dropped() {
        let users = UserBuckets::new(1, 3);
        let held = users.take("held", 0).unwrap();
        assert!(users.take("used", 0).unwrap().try_take(0));
        users.take("idle", 0).unwrap();
        assert!(users.take("new", 0).is_some(), "replaces `idle`");
        assert_eq!(users.len(), 3);
        assert!(!users.take("used", 1).unwrap().try_take(1), "not dropped");
        assert!(SharedBucket::ptr_eq(&held, &users.take("held", 1).unwrap()));
    }

    #[test]
    fn there_is_no_bucket_while_all_are_held() {
        let users = UserBuckets::new(1, 2);
        let held: Vec<_> = ["a", "b"].map(|user| users.take(user, 0).unwrap()).into();
        assert!(users.take("c", 0).is_none());
        assert!(users.take("a", 0).is_some(), "existing users keep their bucket");
        drop(held);
        assert!(users.take("c", SWEEP_PAUSE_NS - 1).is_none(), "not swept again so soon");
        assert!(users.take("c", SWEEP_PAUSE_NS).is_some());
    }

    #[test]
    fn a_used_bucket_is_kept_until_it_is_full() {
        let users = UserBuckets::new(1, 1);
        assert!(users.take("ann", 0).unwrap().try_take(0));
        assert!(users.take("bob", SECOND - 1).is_none());
        assert!(users.take("bob", SECOND + SWEEP_PAUSE_NS).is_some());
    }

    #[test]
    fn without_a_rate_nothing_is_stored() {
        let users = UserBuckets::new(0, 0);
        let bucket = users.take("ann", 0).unwrap();
        assert!((0..1000).all(|_| bucket.try_take(0)));
        assert_eq!(users.len(), 0);
    }

    /// The protocol core uses no threads, so this also tests its bucket under contention.
    #[test]
    fn concurrent_workers_take_exactly_the_burst() {
        const RATE: u32 = 20_000;
        let users = UserBuckets::new(RATE, 8);
        let passed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let bucket = users.take("ann", SECOND).expect("there is room");
                    for _ in 0..RATE {
                        passed.fetch_add(u32::from(bucket.try_take(SECOND)), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), RATE);
    }
}
