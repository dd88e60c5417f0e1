//! Tests of the account: its edge, who is condemned, who is served, and that it ends at zero.

use super::*;
use crate::engine::memory::held::HeldBytes;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use std::thread;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A holder, as streams are: it asks, and waits when it is refused.
struct Holder {
    owner: ShareOwner,
    held: HeldBytes,
    woken: Arc<Woken>,
}

impl Holder {
    fn of(account: &Arc<MemoryAccount>, bytes: usize) -> Self {
        let owner = account.join();
        let mut held = HeldBytes::of(owner.share());
        assert!(bytes == 0 || held.ask(bytes), "{bytes} must be free");
        Holder { owner, held, woken: Arc::default() }
    }

    fn poll(&self) -> Poll<bool> {
        self.owner.share().poll_room(&Waker::from(Arc::clone(&self.woken)))
    }

    /// Asks, and waits if it is refused.
    fn want(&mut self, bytes: usize) -> Poll<bool> {
        if self.held.ask(bytes) { Poll::Ready(true) } else { self.poll() }
    }

    fn condemned(&self) -> bool {
        self.owner.share().is_condemned()
    }

    fn wakes(&self) -> usize {
        self.woken.0.load(Ordering::SeqCst)
    }
}

#[test]
fn the_limit_is_exact() {
    let account = MemoryAccount::new(1000, 100);
    let mut holder = Holder::of(&account, 899);
    assert_eq!(account.used(), 999);
    assert!(holder.held.ask(1));
    assert_eq!(account.used(), 1000);
    assert!(!holder.held.ask(1));
    assert_eq!((account.used(), holder.held.bytes()), (1000, 900));
    holder.held.set(899);
    assert!(holder.held.ask(1) && !holder.held.ask(1));
    drop(holder);
    assert_eq!((account.used(), account.released()), (100, 901));
}

#[test]
fn a_sum_beyond_all_numbers_is_refused() {
    let account = MemoryAccount::new(usize::MAX, 1);
    let holder = Holder::of(&account, 1);
    assert!(!holder.owner.share().ask(usize::MAX));
    assert_eq!(account.used(), 2);
}

/// The asker waits for the memory of the largest, and nobody else is condemned.
#[test]
fn the_largest_must_leave_and_only_it() {
    let account = MemoryAccount::new(1000, 0);
    let mut holders: Vec<Holder> =
        [100, 400, 300, 200].map(|bytes| Holder::of(&account, bytes)).into();
    assert_eq!(holders[0].want(50), Poll::Pending);
    let condemned: Vec<bool> = holders.iter().map(Holder::condemned).collect();
    assert_eq!(condemned, [false, true, false, false]);
    // Others need some as well. What is on its way out is enough for all of them.
    assert_eq!(holders[2].want(50), Poll::Pending);
    assert_eq!(holders[3].want(300), Poll::Pending);
    assert!(holders.iter().filter(|holder| holder.condemned()).count() == 1);
    assert_eq!(holders[0].wakes(), 0);
    drop(holders.remove(1));
    assert!(holders.iter().all(|holder| holder.wakes() == 1));
    for (holder, bytes) in holders.iter_mut().zip([50, 50, 300]) {
        assert_eq!(holder.poll(), Poll::Ready(true));
        assert!(holder.held.ask(bytes), "what was granted is there for the one who waited");
    }
    assert_eq!(account.used(), 1000);
}

/// One that asks for more than anybody holds is itself the largest.
#[test]
fn the_one_that_asks_may_be_the_largest() {
    let account = MemoryAccount::new(1000, 0);
    let (mut small, big) = (Holder::of(&account, 100), Holder::of(&account, 500));
    assert_eq!(small.want(450), Poll::Ready(false));
    assert!(small.condemned() && !big.condemned());
    assert!(!small.held.ask(1), "one that must leave gets nothing");
    let mut alone = Holder::of(&account, 400);
    drop(small);
    drop(big);
    assert_eq!(alone.want(601), Poll::Ready(false));
    assert_eq!(account.used(), 400);
}

/// As many are condemned as are needed, the largest first.
#[test]
fn one_may_not_be_enough() {
    let account = MemoryAccount::new(1000, 500);
    let mut holders: Vec<Holder> =
        [10, 200, 140, 150].map(|bytes| Holder::of(&account, bytes)).into();
    // With what it asks for it would be the largest, but for 200.
    assert_eq!(holders[0].want(185), Poll::Pending);
    let condemned: Vec<bool> = holders.iter().map(Holder::condemned).collect();
    assert_eq!(condemned, [false, true, false, false]);
    holders[3].owner.share().force(20);
    let condemned: Vec<bool> = holders.iter().map(Holder::condemned).collect();
    assert_eq!(condemned, [false, true, false, false], "500 + 10 + 140 + 170 + 185 is 1005");
    assert_eq!(holders[2].want(1), Poll::Pending);
    assert!(!holders[2].condemned() && !holders[3].condemned());
    holders[3].owner.share().give_back(20);
}

/// Who holds little is served before who holds much, in whatever order they asked.
#[test]
fn the_smallest_is_served_first() {
    let account = MemoryAccount::new(1000, 0);
    let mut large = Holder::of(&account, 300);
    let mut small = Holder::of(&account, 10);
    let largest = Holder::of(&account, 690);
    assert_eq!(large.want(100), Poll::Pending);
    assert_eq!(small.want(100), Poll::Pending);
    largest.owner.share().give_back(150);
    assert_eq!((large.wakes(), small.wakes()), (0, 1));
    assert_eq!(large.poll(), Poll::Pending);
    assert_eq!(small.poll(), Poll::Ready(true));
    assert!(small.held.ask(100));
    largest.owner.share().force(150);
}

/// Bytes that are counted without asking condemn the largest as well, but never for the sake of one
/// that is leaving: its result is on its way out.
#[test]
fn forced_bytes_condemn_the_largest() {
    let account = MemoryAccount::new(1000, 0);
    let (big, mut small) = (Holder::of(&account, 600), Holder::of(&account, 390));
    small.held.set(400);
    assert!(!big.condemned() && !small.condemned());
    small.held.set(401);
    assert!(big.condemned() && !small.condemned());
    big.owner.share().force(500);
    assert!(!small.condemned(), "the one that leaves may need more");
    big.owner.share().give_back(500);
    let mut finished = Holder::of(&MemoryAccount::new(10, 0), 10);
    finished.owner.finish();
    finished.held.set(20);
    assert!(!finished.condemned());
}

/// What one holds that has finished is given back by itself: nobody is condemned for its sake.
#[test]
fn finished_ones_are_waited_for() {
    let account = MemoryAccount::new(1000, 0);
    let (finished, mut asker) = (Holder::of(&account, 400), Holder::of(&account, 600));
    finished.owner.finish();
    assert_eq!(asker.want(400), Poll::Pending);
    assert!(!asker.condemned());
    drop(finished);
    assert_eq!((asker.poll(), asker.wakes()), (Poll::Ready(true), 1));
    // A grant that is never used is given back with its share.
    assert_eq!(account.used(), 1000);
    drop(asker);
    assert_eq!(account.used(), 0);
}

/// One that waits is woken when it must leave, and so is one that watches.
#[test]
fn the_condemned_are_told() {
    let account = MemoryAccount::new(1000, 0);
    let (mut waits, watches) = (Holder::of(&account, 400), Holder::of(&account, 500));
    let watcher = Waker::from(Arc::clone(&watches.woken));
    assert_eq!(watches.owner.share().poll_condemned(&watcher), Poll::Pending);
    let mut third = Holder::of(&account, 100);
    assert_eq!(waits.want(50), Poll::Pending);
    assert_eq!(watches.wakes(), 1);
    assert_eq!(watches.owner.share().poll_condemned(&watcher), Poll::Ready(()));
    third.held.set(700);
    assert!(!waits.condemned() && third.condemned());
    third.held.set(100);
    let mut fourth = account.join();
    fourth.share().force(1);
    assert_eq!(waits.wakes(), 0);
    // A waiter that is gone is not waited for.
    drop(waits);
    drop(watches);
    drop(third);
    fourth.share().give_back(1);
    fourth = account.join();
    assert_eq!((account.used(), fourth.share().bytes()), (0, 0));
}

/// Many threads take and give back: the limit holds at all times, everyone gets what they want or
/// is condemned, and at the end nothing is counted.
#[test]
fn many_at_the_same_time() {
    const LIMIT: usize = 3000;
    let account = MemoryAccount::new(LIMIT, 0);
    let endings: Vec<bool> = thread::scope(|scope| {
        let holders: Vec<_> = (0..8)
            .map(|number| {
                let account = &account;
                scope.spawn(move || {
                    let mut condemned = false;
                    for round in 0..200 {
                        let owner = account.join();
                        let mut held = HeldBytes::of(owner.share());
                        for step in 0..20 {
                            let bytes = 1 + (number * 31 + round * 7 + step * 3) % 400;
                            if !held.ask(bytes) && !wait(owner.share()) {
                                condemned = true;
                                break;
                            }
                            assert!(account.used() <= LIMIT);
                        }
                        owner.finish();
                    }
                    condemned
                })
            })
            .collect();
        holders.into_iter().map(|holder| holder.join().unwrap()).collect()
    });
    assert!(endings.contains(&true), "somebody had to leave");
    assert_eq!(account.used(), 0);
    let mut roll = locked(&account.roll);
    roll.forget_empty();
    assert!(roll.staying.is_empty() && roll.leaving.is_empty() && roll.waiting.is_empty());
}

/// Waits as a task does; false if the share is condemned.
fn wait(share: &Arc<MemoryShare>) -> bool {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match share.poll_room(&waker) {
            Poll::Ready(granted) => return granted,
            Poll::Pending => thread::park(),
        }
    }
}
