//! Stand-ins for std's atomics, lock and shared pointer in unit tests. Those created in a [`model`]
//! are loom's, which tries every order of what its threads do to them, and every value that the
//! memory model lets them read; all others are std's.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{LockResult, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// How often a thread may be interrupted where it could go on. Two show nearly all faults, as
/// loom's authors found; more only take longer.
const PREEMPTIONS: usize = 3;
/// In machine words: futures and tables of unoptimised tests need more than loom's 4,096.
const STACK_WORDS: usize = 32 << 10;

/// The content of a guard or pointer.
const HELD: &str = "held until it is dropped";

thread_local! {
    // loom runs all threads of a model on one thread of the system.
    static IN_MODEL: Cell<bool> = const { Cell::new(false) };
}

loom::lazy_static! {
    /// What [`interleave`] touches.
    static ref BETWEEN: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
}

/// Runs `body` in every order in which its threads can take turns. Panics with the first order in
/// which it fails or can never end.
pub(crate) fn model(body: impl Fn() + Send + Sync + 'static) {
    struct Within;
    impl Drop for Within {
        fn drop(&mut self) {
            IN_MODEL.set(false);
        }
    }
    IN_MODEL.set(true);
    let _within = Within;
    let body = std::sync::Arc::new(body);
    let mut orders = loom::model::Builder::new();
    orders.preemption_bound.get_or_insert(PREEMPTIONS);
    orders.check(move || {
        let body = std::sync::Arc::clone(&body);
        spawn(move || body()).join().expect("the body of the model");
    });
}

/// A thread of a model.
pub(crate) fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> loom::thread::JoinHandle<T> {
    let thread = loom::thread::Builder::new().stack_size(STACK_WORDS);
    thread.spawn(body).expect("a thread of the model")
}

/// Runs a future on a thread of a model, which is blocked while the future waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Woken(loom::sync::Notify);
    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.notify();
        }
    }
    let woken = std::sync::Arc::new(Woken(loom::sync::Notify::new()));
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => woken.0.wait(),
        }
    }
}

/// In a model, lets another thread run.
pub(crate) fn interleave() {
    if IN_MODEL.get() {
        BETWEEN.fetch_add(1, Ordering::Relaxed);
    }
}

/// An atomic, once other threads may have run. loom lets them run only before an access that
/// conflicts with the last one to the same atomic: where a thread loads before it stores, that is
/// its own load, and a load of another thread before that goes unnoticed.
fn between<T>(atomic: &T) -> &T {
    interleave();
    atomic
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Debug)]
        pub(crate) enum $name {
            Plain(std::sync::atomic::$name),
            Modelled(loom::sync::atomic::$name),
        }

        #[allow(dead_code, reason = "each atomic is used for its own operations")]
        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                match IN_MODEL.get() {
                    true => $name::Modelled(loom::sync::atomic::$name::new(value)),
                    false => $name::Plain(std::sync::atomic::$name::new(value)),
                }
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                match self {
                    $name::Plain(atomic) => atomic.load(order),
                    $name::Modelled(atomic) => between(atomic).load(order),
                }
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                match self {
                    $name::Plain(atomic) => atomic.store(value, order),
                    $name::Modelled(atomic) => between(atomic).store(value, order),
                }
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                match self {
                    $name::Plain(atomic) => atomic.swap(value, order),
                    $name::Modelled(atomic) => between(atomic).swap(value, order),
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name::new(<$value>::default())
            }
        }
    };
}

macro_rules! number {
    ($name:ident, $value:ty) => {
        atomic!($name, $value);

        #[allow(dead_code, reason = "each atomic is used for its own operations")]
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                match self {
                    $name::Plain(atomic) => atomic.fetch_add(value, order),
                    $name::Modelled(atomic) => between(atomic).fetch_add(value, order),
                }
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                match self {
                    $name::Plain(atomic) => atomic.fetch_sub(value, order),
                    $name::Modelled(atomic) => between(atomic).fetch_sub(value, order),
                }
            }

            pub(crate) fn try_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                match self {
                    $name::Plain(atomic) => atomic.try_update(set, fetch, update),
                    $name::Modelled(atomic) => between(atomic).try_update(set, fetch, update),
                }
            }
        }
    };
}

atomic!(AtomicBool, bool);
number!(AtomicU64, u64);
number!(AtomicUsize, usize);

#[derive(Debug)]
pub(crate) enum Mutex<T> {
    Plain(std::sync::Mutex<T>),
    Modelled(loom::sync::Mutex<T>),
}

pub(crate) enum MutexGuard<'a, T> {
    Plain(std::sync::MutexGuard<'a, T>),
    Modelled(Option<loom::sync::MutexGuard<'a, T>>),
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        match IN_MODEL.get() {
            true => Mutex::Modelled(loom::sync::Mutex::new(value)),
            false => Mutex::Plain(std::sync::Mutex::new(value)),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        match self {
            Mutex::Plain(mutex) => match mutex.lock() {
                Ok(guard) => Ok(MutexGuard::Plain(guard)),
                Err(error) => Err(PoisonError::new(MutexGuard::Plain(error.into_inner()))),
            },
            Mutex::Modelled(mutex) => {
                let guard = mutex.lock().unwrap_or_else(|_| unreachable!("a panic ends the model"));
                Ok(MutexGuard::Modelled(Some(guard)))
            }
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            MutexGuard::Plain(guard) => guard,
            MutexGuard::Modelled(guard) => guard.as_ref().expect(HELD),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            MutexGuard::Plain(guard) => guard,
            MutexGuard::Modelled(guard) => guard.as_mut().expect(HELD),
        }
    }
}

/// A model that has failed is not run any further: loom would panic in the destructor.
impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if let MutexGuard::Modelled(guard) = self
            && std::thread::panicking()
        {
            std::mem::forget(guard.take());
        }
    }
}

#[derive(Debug)]
pub(crate) enum Arc<T> {
    Plain(std::sync::Arc<T>),
    Modelled(Option<loom::sync::Arc<T>>),
}

/// As that of a guard.
impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if let Arc::Modelled(arc) = self
            && std::thread::panicking()
        {
            std::mem::forget(arc.take());
        }
    }
}

impl<T> Arc<T> {
    pub(crate) fn new(value: T) -> Self {
        match IN_MODEL.get() {
            true => Arc::Modelled(Some(loom::sync::Arc::new(value))),
            false => Arc::Plain(std::sync::Arc::new(value)),
        }
    }

    pub(crate) fn get_mut(this: &mut Self) -> Option<&mut T> {
        match this {
            Arc::Plain(arc) => std::sync::Arc::get_mut(arc),
            Arc::Modelled(arc) => loom::sync::Arc::get_mut(arc.as_mut().expect(HELD)),
        }
    }

    pub(crate) fn ptr_eq(this: &Self, other: &Self) -> bool {
        std::ptr::eq::<T>(&**this, &**other)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        match self {
            Arc::Plain(arc) => Arc::Plain(arc.clone()),
            Arc::Modelled(arc) => Arc::Modelled(arc.clone()),
        }
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Arc::Plain(arc) => arc,
            Arc::Modelled(arc) => arc.as_ref().expect(HELD),
        }
    }
}

/// What loom finds if the code is not as it should be: without this, no model proves anything.
#[test]
#[should_panic(expected = "left: 1")]
fn a_lost_update_is_found() {
    model(|| {
        let number = std::sync::Arc::new(AtomicU64::new(0));
        let add = |number: &AtomicU64| {
            number.store(number.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        let other = std::sync::Arc::clone(&number);
        let thread = spawn(move || add(&other));
        add(&number);
        thread.join().unwrap();
        assert_eq!(number.load(Ordering::Relaxed), 2);
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn two_locks_taken_in_both_orders_are_found() {
    model(|| {
        let locks = std::sync::Arc::new((Mutex::new(()), Mutex::new(())));
        let other = std::sync::Arc::clone(&locks);
        let thread = spawn(move || {
            let _first = other.0.lock();
            let _second = other.1.lock();
        });
        let _second = locks.1.lock();
        let _first = locks.0.lock();
        drop((_first, _second));
        thread.join().unwrap();
    });
}
