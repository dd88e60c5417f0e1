//! Models of a bucket that several connections share: what passes, in every order of their
//! messages.

use super::*;
use crate::sync::modelled::{model, spawn};

const SECOND: u64 = 1_000_000_000;

/// How many of its messages one connection gets through, all at one time.
fn take(bucket: &SharedBucket, messages: u32, now_ns: u64) -> u32 {
    (0..messages).map(|_| u32::from(bucket.try_take(now_ns))).sum()
}

#[test]
fn connections_that_share_a_bucket_pass_exactly_its_burst() {
    model(|| {
        let bucket = SharedBucket::new(TokenBucket::new(3, 3));
        let others = [2, 1].map(|messages| {
            let bucket = SharedBucket::clone(&bucket);
            spawn(move || take(&bucket, messages, SECOND))
        });
        let own = take(&bucket, 2, SECOND);
        let passed = own + others.map(|other| other.join().unwrap()).iter().sum::<u32>();
        assert_eq!(passed, 3);
    });
}

/// Two connections whose clocks were read at different times, in any order.
#[test]
fn late_and_early_clocks_pass_no_more_than_was_earned() {
    model(|| {
        let bucket = SharedBucket::new(TokenBucket::new(1, 1));
        let late = SharedBucket::clone(&bucket);
        let thread = spawn(move || take(&late, 2, 2 * SECOND));
        let passed = take(&bucket, 2, SECOND) + thread.join().unwrap();
        // One token at the first second, and one more at the second.
        assert!((1..=2).contains(&passed), "{passed} passed");
        assert!(!bucket.try_take(2 * SECOND));
    });
}
