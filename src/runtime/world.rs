//! The world of a simulation: virtual time, the seed's dice, the log of what happened, and the
//! executor. One per thread; knows neither sockets nor the engine. Only in builds with the feature
//! `simulation`.
//!
//! Time moves in two ways: it jumps to the next timer when no task can go on, and each look at the
//! clock costs what the world says. So a run of minutes takes milliseconds, and nothing but the
//! seed decides what happens.

use crate::engine::blocks::hash_keys::seed_hashes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Turns of the executor without any progress of time, after which a world has hung.
const TURNS_MAX: u64 = 2_000_000;

/// A world's settings.
#[derive(Clone, Copy, Debug)]
pub struct WorldSettings {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How much time each look at the clock takes at most.
    pub look_cost: Duration,
    /// The virtual time after which a run is given up.
    pub limit: Duration,
}

/// Why a run has no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing can go on, and no timer is set.
    Deadlock,
    /// Tasks go on for ever without any time passing.
    Livelock,
    /// The limit has passed.
    TimeUp,
}

struct WorldState {
    /// What instants are counted from.
    base: Cell<Option<Instant>>,
    now: Cell<Duration>,
    look_cost: Cell<Duration>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    timer_numbers: Cell<u64>,
    dice: RefCell<fastrand::Rng>,
    /// By how much the wall clock has been set forward, and back, in milliseconds.
    wall_step_ms: Cell<i64>,
    /// Places where a panic is planned, and after how many passes.
    panics: RefCell<BTreeMap<String, u64>>,
    log: RefCell<Vec<String>>,
}

thread_local! {
    static WORLD: WorldState = WorldState {
        base: Cell::new(None),
        now: Cell::new(Duration::ZERO),
        look_cost: Cell::new(Duration::ZERO),
        timers: RefCell::default(),
        timer_numbers: Cell::new(0),
        dice: RefCell::new(fastrand::Rng::with_seed(0)),
        wall_step_ms: Cell::new(0),
        panics: RefCell::default(),
        log: RefCell::default(),
    };
}

/// What is woken when a task of the world can go on.
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a world until `root` is done. Tasks that it has spawned and that still run are dropped.
///
/// # Errors
/// [`Stuck`].
pub fn run_world<T>(settings: WorldSettings, root: impl Future<Output = T>) -> Result<T, Stuck> {
    begin(settings);
    let local = LocalSet::new();
    let alarm = Arc::new(Alarm(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&alarm));
    let mut context = Context::from_waker(&waker);
    let mut running = pin!(local.run_until(root));
    let mut turns = 0;
    loop {
        while alarm.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(value) = running.as_mut().poll(&mut context) {
                return Ok(value);
            }
            fire_due_timers();
            turns += 1;
            if turns > TURNS_MAX {
                return Err(Stuck::Livelock);
            }
        }
        turns = 0;
        if !jump() {
            return Err(Stuck::Deadlock);
        }
        if now() > settings.limit {
            return Err(Stuck::TimeUp);
        }
    }
}

fn begin(settings: WorldSettings) {
    WORLD.with(|world| {
        // Any base does, as long as times before it exist.
        seed_hashes(settings.seed);
        world.base.set(Some(Instant::now() + Duration::from_secs(3600)));
        world.now.set(Duration::ZERO);
        world.look_cost.set(settings.look_cost);
        world.timers.borrow_mut().clear();
        world.timer_numbers.set(0);
        *world.dice.borrow_mut() = fastrand::Rng::with_seed(settings.seed);
        world.wall_step_ms.set(0);
        world.panics.borrow_mut().clear();
        world.log.borrow_mut().clear();
    });
}

/// Moves time to the next timer; false if there is none.
fn jump() -> bool {
    let next = WORLD.with(|world| {
        let next = world.timers.borrow().keys().next().map(|&(at, _)| at);
        if let Some(at) = next {
            world.now.set(world.now.get().max(at));
        }
        next
    });
    fire_due_timers();
    next.is_some()
}

fn fire_due_timers() {
    let due = |world: &WorldState| {
        let mut timers = world.timers.borrow_mut();
        let first = timers.first_entry()?;
        (first.key().0 <= world.now.get()).then(|| first.remove())
    };
    while let Some(waker) = WORLD.with(due) {
        waker.wake();
    }
}

/// Time since the world began.
pub fn now() -> Duration {
    WORLD.with(|world| world.now.get())
}

/// The same as an instant, for code that keeps those. Looking takes its time.
pub(crate) fn look_at_clock() -> Instant {
    let cost = WORLD.with(|world| world.look_cost.get());
    if !cost.is_zero() {
        let cost = Duration::from_nanos(dice(|dice| dice.u64(0..=cost.as_nanos() as u64)));
        WORLD.with(|world| world.now.set(world.now.get() + cost));
    }
    base() + now()
}

/// An instant as the time since the world began.
pub(crate) fn time_of(at: Instant) -> Duration {
    at.saturating_duration_since(base())
}

fn base() -> Instant {
    WORLD.with(|world| world.base.get()).expect("a clock is read within a world only")
}

/// By how much the wall clock differs from the world's time, in milliseconds.
pub(crate) fn wall_step_ms() -> i64 {
    WORLD.with(|world| world.wall_step_ms.get())
}

/// Sets the wall clock forward or back.
pub fn step_wall_clock(by_ms: i64) {
    WORLD.with(|world| world.wall_step_ms.set(world.wall_step_ms.get() + by_ms));
    note(format_args!("the wall clock is set by {by_ms} ms"));
}

/// Asks the seed.
pub fn dice<T>(roll: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
    WORLD.with(|world| roll(&mut world.dice.borrow_mut()))
}

/// Makes the `pass`-th pass of the failpoint `name` panic, counted from 1.
pub fn plan_panic(name: &str, pass: u64) {
    WORLD.with(|world| world.panics.borrow_mut().insert(name.to_owned(), pass));
}

/// Whether a planned panic is due at the failpoint `name`.
pub(crate) fn panic_is_due(name: &str) -> bool {
    WORLD.with(|world| {
        let mut panics = world.panics.borrow_mut();
        let Some(left) = panics.get_mut(name) else { return false };
        *left -= 1;
        let due = *left == 0;
        if due {
            panics.remove(name);
        }
        due
    })
}

/// Adds a line to the log.
pub fn note(line: impl std::fmt::Display) {
    WORLD.with(|world| {
        let micros = world.now.get().as_micros();
        world.log.borrow_mut().push(format!(
            "{}.{:06} {line}",
            micros / 1_000_000,
            micros % 1_000_000
        ));
    });
}

/// The log so far.
pub fn take_log() -> Vec<String> {
    WORLD.with(|world| std::mem::take(&mut *world.log.borrow_mut()))
}

/// A wait until a time of the world.
pub struct VirtualSleep {
    at: Duration,
    timer: Option<u64>,
}

impl VirtualSleep {
    /// Until `at`, counted from the world's beginning.
    pub fn until(at: Duration) -> Self {
        VirtualSleep { at, timer: None }
    }

    /// For `time` from now on.
    pub fn of(time: Duration) -> Self {
        Self::until(now().saturating_add(time))
    }
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.at <= now() {
            return Poll::Ready(());
        }
        WORLD.with(|world| {
            let number = *self.timer.get_or_insert_with(|| {
                world.timer_numbers.set(world.timer_numbers.get() + 1);
                world.timer_numbers.get()
            });
            world.timers.borrow_mut().insert((self.at, number), context.waker().clone());
        });
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        if let Some(number) = self.timer {
            WORLD.with(|world| world.timers.borrow_mut().remove(&(self.at, number)));
        }
    }
}
