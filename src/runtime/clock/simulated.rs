//! The clocks of a simulation: the world's virtual time.

use crate::runtime::world::{self, VirtualSleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock shows this when a world begins, in milliseconds since 1970.
const WALL_BEGIN_MS: i64 = 1_800_000_000_000;

/// A wait took too long.
#[derive(Debug)]
pub(crate) struct TimedOut;

/// The current time.
pub(crate) fn now() -> Instant {
    world::look_at_clock()
}

/// The time since `begun`.
pub(crate) fn since(begun: Instant) -> Duration {
    now().saturating_duration_since(begun)
}

/// The time on the wall clock, which may be set.
pub(crate) fn wall() -> SystemTime {
    let ms = WALL_BEGIN_MS + world::wall_step_ms();
    UNIX_EPOCH + Duration::from_millis(ms.max(0).unsigned_abs()) + world::now()
}

/// Waits for `time`.
pub(crate) fn sleep(time: Duration) -> VirtualSleep {
    VirtualSleep::of(time)
}

/// Waits until `at`.
pub(crate) fn sleep_until(at: Instant) -> VirtualSleep {
    VirtualSleep::until(world::time_of(at))
}

/// Waits for `work`, but not longer than `time`.
pub(crate) async fn timeout<F: Future>(time: Duration, work: F) -> Result<F::Output, TimedOut> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = sleep(time) => Err(TimedOut),
    }
}
