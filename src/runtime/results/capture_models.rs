//! Models of the budget that all captures share.

use super::*;
use crate::sync::modelled::{model, spawn};

#[test]
fn captures_together_never_take_more_than_the_limit() {
    model(|| {
        let budget = Arc::new(Budget::new(10));
        let others = [4, 7].map(|wanted| {
            let budget = Arc::clone(&budget);
            spawn(move || budget.take(wanted))
        });
        let own = budget.take(5);
        let taken = own + others.map(|other| other.join().unwrap()).iter().sum::<u64>();
        assert_eq!((taken, budget.take(1)), (10, 0));
    });
}

/// One capture fails while others take what is left, or what it gives back.
#[test]
fn bytes_that_are_given_back_are_neither_lost_nor_doubled() {
    model(|| {
        let budget = Arc::new(Budget::new(10));
        let failing = Arc::clone(&budget);
        let thread = spawn(move || {
            let taken = failing.take(6);
            failing.give_back(taken);
        });
        let kept = budget.take(8);
        thread.join().unwrap();
        assert!((4..=8).contains(&kept), "{kept} bytes");
        assert_eq!(kept + budget.take(100), 10);
    });
}
