//! The system's clocks, and tokio's timers. Has a twin for simulations.

use std::time::{Duration, Instant, SystemTime};
pub(crate) use tokio::time::{sleep, timeout};

/// The current time.
#[inline(always)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time since `begun`.
#[inline(always)]
pub(crate) fn since(begun: Instant) -> Duration {
    begun.elapsed()
}

/// The time on the wall clock, which may be set.
#[inline(always)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Waits until `at`.
pub(crate) fn sleep_until(at: Instant) -> tokio::time::Sleep {
    tokio::time::sleep_until(at.into())
}
