//! A timer that an epoll waits for, finer than epoll's own milliseconds: reads no clock.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Wakes its epoll once, some time after it was armed.
pub(crate) struct Timer {
    file: OwnedFd,
}

impl Timer {
    /// One that wakes `registry` with `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&file.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Timer { file })
    }

    /// Wakes after `after_ns`, and no more at the time that was set before. It need not be read:
    /// epoll is told of each expiry, and arming it forgets the last.
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
            // Before it is armed: whoever is held up in between has waited less.
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
