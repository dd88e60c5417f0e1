//! Models of the quota: tickets that are returned while others wait for one.

use super::*;
use crate::sync::modelled::{block_on, model, spawn};

/// The only ticket is returned by an empty connection while another one begins to wait for it.
#[test]
fn a_returned_ticket_is_never_missed() {
    model(|| {
        let (drain, drained) = watch::channel(None);
        let quota = Quota::new(Some(1), drain);
        let empty = quota.try_take().expect("the first ticket");
        let waiting = Arc::clone(&quota);
        let thread = spawn(move || block_on(waiting.take()).count());
        drop(empty);
        thread.join().unwrap();
        assert!(drained.borrow().is_some() && quota.try_take().is_none());
    });
}

#[test]
fn the_engine_is_told_to_stop_once_and_with_the_last() {
    model(|| {
        let (drain, drained) = watch::channel(None);
        let quota = Quota::new(Some(2), drain);
        let told = drained.clone();
        let threads = [true, false].map(|counts| {
            let quota = Arc::clone(&quota);
            spawn(move || {
                let ticket = quota.try_take();
                ticket.into_iter().filter(|_| counts).for_each(Ticket::count);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(told.borrow().is_none(), "only one connection counted");
        quota.try_take().expect("the other ticket was returned").count();
        assert!(drained.borrow().is_some() && quota.try_take().is_none());
    });
}
