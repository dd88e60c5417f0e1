//! Writes to stderr that do not block for long. If stderr is a pipe that nobody reads or a stopped
//! terminal, one write waits; later lines are dropped until stderr accepts data again.

use crate::config::STDERR_PATIENCE;
use crate::wire::text::counted;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The state of stderr, one per process.
pub(crate) struct Stderr {
    /// Tells whether a write would block; `None` if writes may block.
    watch: Option<(Poll, Events)>,
    /// Whether the last wait timed out.
    stuck: bool,
    lines_lost: u64,
}

impl Stderr {
    /// Writes may block.
    pub(crate) const fn unlimited() -> Self {
        Stderr { watch: None, stuck: false, lines_lost: 0 }
    }

    /// From now on, writes wait for [`STDERR_PATIENCE`] at most. This changes nothing for a file,
    /// which never blocks, or for a closed stderr.
    pub(crate) fn limit_waits(&mut self) {
        let watch = || -> io::Result<(Poll, Events)> {
            let poll = Poll::new()?;
            let fd = io::stderr().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::WRITABLE)?;
            Ok((poll, Events::with_capacity(1)))
        };
        self.watch = watch().ok();
    }

    /// Writes bytes, at most a page of a pipe. If stderr does not accept them in time they are
    /// dropped and counted, and the next write reports how many were.
    ///
    /// # Errors
    /// Those of the write.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut out = io::stderr();
        let patience = if self.stuck { Duration::ZERO } else { STDERR_PATIENCE };
        self.stuck =
            self.watch.as_mut().is_some_and(|(poll, events)| !is_writable(poll, events, patience));
        if self.stuck {
            self.lines_lost += 1;
            return Ok(());
        }
        if self.lines_lost > 0 {
            let lost = std::mem::take(&mut self.lines_lost);
            let lost = counted(lost, "log line");
            writeln!(out, "ringest: {lost} dropped: stderr was not being read")?;
        }
        out.write_all(bytes)
    }
}

/// Whether a write would not block, now or within `patience`. If that cannot be determined, the
/// write itself will report what is wrong.
fn is_writable(poll: &mut Poll, events: &mut Events, patience: Duration) -> bool {
    let fd = io::stderr().as_raw_fd();
    // Register again, since readiness is reported only once.
    if poll.registry().reregister(&mut SourceFd(&fd), Token(0), Interest::WRITABLE).is_err() {
        return true;
    }
    let deadline = Instant::now() + patience;
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        match poll.poll(events, Some(rest)) {
            Ok(()) => return !events.is_empty(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}
