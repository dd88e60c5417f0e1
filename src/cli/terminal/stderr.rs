//! stderr, which may be a pipe that nobody reads or a terminal that was stopped: a process that
//! serves others waits for it once, and from then on goes without lines until it takes some.
//! Formats nothing but how many those were.

use crate::config::STDERR_PATIENCE;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What is known of stderr. One for the process.
pub(crate) struct Stderr {
    /// Tells whether a write would block; `None` where all writes may.
    watch: Option<(Poll, Events)>,
    /// Whether it took nothing when it was waited for last.
    stuck: bool,
    lines_lost: u64,
}

impl Stderr {
    /// Writes wait as long as they must.
    pub(crate) const fn unlimited() -> Self {
        Stderr { watch: None, stuck: false, lines_lost: 0 }
    }

    /// From now on writes wait for [`STDERR_PATIENCE`] at most. Nothing changes for a file, which
    /// takes everything, nor where there is no stderr.
    pub(crate) fn limit_waits(&mut self) {
        let watch = || -> io::Result<(Poll, Events)> {
            let poll = Poll::new()?;
            let fd = io::stderr().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::WRITABLE)?;
            Ok((poll, Events::with_capacity(1)))
        };
        self.watch = watch().ok();
    }

    /// Writes bytes, at most a pipe's page. Where they are not taken in time they are left out and
    /// counted; how many were is said before what is written next.
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
            writeln!(out, "ringest: {lost} lines are missing here, since nobody read them")?;
        }
        out.write_all(bytes)
    }
}

/// Whether a write would not block, now or within `patience`. Where that is not to be known, a
/// write will say what is wrong.
fn is_writable(poll: &mut Poll, events: &mut Events, patience: Duration) -> bool {
    let fd = io::stderr().as_raw_fd();
    // Asks anew: what was ready once is not said again by itself.
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
