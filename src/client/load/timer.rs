//! A one-shot timer for epoll, finer than the milliseconds of epoll's own timeout. Reads no clock.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Wakes its epoll once each time it is armed.
pub(crate) struct Timer {
    file: OwnedFd,
}

impl Timer {
    /// Registers a timer that wakes `registry`'s poll with `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&file.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer { file })
    }

    /// Sets the timer to wake after `after_ns`, in place of any earlier setting. It need not be
    /// read: each expiry triggers epoll anew, and arming clears the last one.
    pub(crate) fn arm(&self, after_ns: u64) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // All zero would disarm it.
        let after_ns = after_ns.max(1);
        let after = Timespec {
            tv_sec: (after_ns / 1_000_000_000) as i64,
            tv_nsec: (after_ns % 1_000_000_000) as i64,
        };
        let spec = Itimerspec { it_interval: never, it_value: after };
        timerfd_settime(&self.file, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::{Duration, Instant};

    #[test]
    fn it_wakes_each_time_it_is_armed() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let timer = Timer::new(poll.registry(), Token(7)).unwrap();
        for after_ns in [0, 300_000, 300_000] {
            // Read before arming, so that a delay in between cannot make the wait look too short.
            let begun = Instant::now();
            timer.arm(after_ns).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(7)]);
            assert!(begun.elapsed() >= Duration::from_nanos(after_ns));
        }
        poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        assert!(events.is_empty());
    }
}
