//! Models of the users' buckets: connections of a user come and go while the table is swept.

use super::*;
use crate::sync::modelled::{model, spawn};
use std::sync::Arc;

/// A user leaves and comes back while another one needs the only place in the table, which only a
/// sweep can give to them. A table of one also makes each run of the model alike.
#[test]
fn no_sweep_refills_the_bucket_of_a_user_who_comes_back() {
    model(|| {
        let users = Arc::new(UserBuckets::new(1, 1));
        let own = Arc::clone(&users);
        let thread = spawn(move || {
            let passes = |now_ns| own.take("ann", now_ns).is_some_and(|b| b.try_take(now_ns));
            // The second time is late enough for another sweep, and too early for another token.
            u32::from(passes(0)) + u32::from(passes(SWEEP_PAUSE_NS))
        });
        drop(users.take("bob", 0));
        let passed = thread.join().unwrap();
        assert!(passed <= 1, "ann passed {passed} messages, with a burst of 1");
    });
}
