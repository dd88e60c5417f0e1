//! Signals: the first SIGTERM or SIGINT asks the engine to stop, further SIGTERMs change nothing, a
//! second SIGINT some time after the first ends the process, and SIGHUP asks the engine to reload
//! its files. SIGXFSZ is caught, so that it does not kill.

use crate::config::{SECOND_SIGINT_AFTER, STOPPED_START};
use crate::runtime::connection::caught::caught;
use crate::runtime::failpoint::failpoint;
use crate::wire::text::time_text;
use rustix::process::Signal as Number;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::{sleep, timeout};

/// More descriptors than catching signals takes: two sockets, an epoll, its copy, a waker.
const DESCRIPTORS: usize = 8;
/// The name of the thread.
pub(crate) const SIGNALS: &str = "signals";
/// Exit code after a second SIGINT: 128 + SIGINT, as shells count.
pub(crate) const EXIT_SECOND_SIGINT: i32 = 130;

/// What signals do to a program that has started.
pub(crate) struct Reactions {
    /// Called at the first SIGTERM or SIGINT, with its name. Returns how long to wait before
    /// `stop`.
    pub leave: Box<dyn FnOnce(&'static str) -> Duration + Send>,
    /// Called that time later, with the name again.
    pub stop: Box<dyn FnOnce(&'static str) + Send>,
    /// Called at each SIGHUP, on a thread of its own: it may take its time.
    pub reload: Arc<dyn Fn() + Send + Sync>,
    /// Called before a second SIGINT exits with [`EXIT_SECOND_SIGINT`].
    pub before_exit: Box<dyn FnOnce() + Send>,
    /// Called if the thread that watches the signals panics, with what it said: from then on no
    /// signal but SIGKILL would do anything.
    pub died: Box<dyn FnOnce(&str) + Send>,
}

/// SIGHUPs that have been caught and wait to be acted upon.
pub(crate) struct Hangups {
    runtime: Runtime,
    hangup: Signal,
}

/// Signals that are watched, for a program that has yet to say what they do.
#[must_use]
pub(crate) struct Watch {
    reactions: oneshot::Sender<Reactions>,
}

/// From now on SIGXFSZ does not end the process. Makes no thread.
///
/// # Errors
/// If the runtime cannot be created.
pub(crate) fn catch_file_size_limit() -> io::Result<()> {
    caught_file_size_limit().map(drop)
}

/// From now on SIGHUP and SIGXFSZ do not end the process. Makes no thread.
///
/// # Errors
/// If the runtime cannot be created.
pub(crate) fn catch_hangups() -> io::Result<Hangups> {
    let runtime = caught_file_size_limit()?;
    let inside = runtime.enter();
    let hangup = signal(SignalKind::hangup())?;
    drop(inside);
    Ok(Hangups { runtime, hangup })
}

/// A runtime that has caught SIGXFSZ; it stays caught after the runtime has ended.
fn caught_file_size_limit() -> io::Result<Runtime> {
    // A file size limit (RLIMIT_FSIZE) makes the excess write fail with EFBIG, which is handled.
    // The signal that comes with it would end the process, so it is caught, for good.
    let too_large = SignalKind::from_raw(Number::XFSZ.as_raw());
    // tokio panics if it cannot have the two sockets that pass signals on.
    let spare = (0..DESCRIPTORS).map(|_| File::open("/dev/null"));
    drop(spare.collect::<io::Result<Vec<_>>>()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    drop(signal(too_large)?);
    drop(inside);
    Ok(runtime)
}

impl Hangups {
    /// Starts a thread that watches all signals. SIGTERM and SIGINT are caught when this returns.
    ///
    /// Until [`Watch::react`], the first of them gives the start [`STOPPED_START`] to finish, and
    /// then ends the process: nothing has been accepted. A SIGHUP waits for the start.
    ///
    /// # Errors
    /// If the thread cannot be created.
    pub(crate) fn watch(self) -> io::Result<Watch> {
        let Hangups { runtime, hangup } = self;
        let inside = runtime.enter();
        let stops = StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        drop(inside);
        let (reactions, started) = oneshot::channel();
        std::thread::Builder::new()
            .name(SIGNALS.to_owned())
            .spawn(move || runtime.block_on(act(stops, hangup, started)))?;
        Ok(Watch { reactions })
    }
}

impl Watch {
    /// Tells what signals do from now on.
    pub(crate) fn react(self, reactions: Reactions) {
        // Fails only if the process is exiting already.
        let _ = self.reactions.send(reactions);
    }
}

/// Acts on signals until the process ends.
async fn act(mut stops: StopSignals, hangup: Signal, mut started: oneshot::Receiver<Reactions>) {
    let begun = match caught(wait_for_start(&mut stops, &mut started)).await {
        Ok(begun) => begun,
        Err(panic) => return tell_of_death(started.await, &panic),
    };
    // Without reactions the start has failed, and the process is about to exit.
    let (asked, Ok(Reactions { leave, stop, reload, before_exit, died })) = begun else { return };
    let stopping = stop_when_asked(stops, asked, leave, stop, before_exit);
    let both = async { tokio::join!(reload_at_each(hangup, reload), stopping) };
    if let Err(panic) = caught(both).await {
        died(&panic);
    }
}

/// Waits for the reactions. If a signal asks for an end meanwhile, the start has a moment left.
async fn wait_for_start(
    stops: &mut StopSignals,
    started: &mut oneshot::Receiver<Reactions>,
) -> (Option<StopSignal>, Result<Reactions, RecvError>) {
    failpoint("signals_start");
    tokio::select! {
        biased;
        reactions = &mut *started => (None, reactions),
        asked = stops.next() => match timeout(STOPPED_START, started).await {
            Ok(reactions) => (Some(asked), reactions),
            Err(_) => {
                tracing::info!("{}: stopped before the start was finished", asked.name());
                std::process::exit(0);
            }
        },
    }
}

fn tell_of_death(reactions: Result<Reactions, RecvError>, panic: &str) {
    if let Ok(Reactions { died, .. }) = reactions {
        died(panic);
    }
}

/// Waits for a signal that asks for an end, unless one has come, and stops. Never returns.
async fn stop_when_asked(
    mut stops: StopSignals,
    asked: Option<StopSignal>,
    leave: Box<dyn FnOnce(&'static str) -> Duration + Send>,
    stop: Box<dyn FnOnce(&'static str) + Send>,
    before_exit: Box<dyn FnOnce() + Send>,
) {
    let first = match asked {
        Some(asked) => asked,
        None => stops.next().await,
    };
    failpoint(SIGNALS);
    let mut requests = StopRequests::default();
    requests.ends_at_once(first, Instant::now());
    let delay = leave(first.name());
    let delayed_stop = async {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        stop(first.name());
    };
    tokio::join!(delayed_stop, async {
        loop {
            let next = stops.next().await;
            if requests.ends_at_once(next, Instant::now()) {
                tracing::warn!("second SIGINT: exiting at once");
                break;
            }
            let name = next.name();
            tracing::info!(
                "{name}: already stopping. Another SIGINT, at least {} after the first, exits at \
                 once",
                time_text(SECOND_SIGINT_AFTER)
            );
        }
        before_exit();
        std::process::exit(EXIT_SECOND_SIGINT);
    });
}

/// Reloads at each SIGHUP, on a thread: SIGTERM must not wait for files of a file system that
/// hangs. A reload that fails changes nothing.
async fn reload_at_each(mut hangup: Signal, reload: Arc<dyn Fn() + Send + Sync>) {
    while hangup.recv().await.is_some() {
        let reload = Arc::clone(&reload);
        let (done, ended) = oneshot::channel();
        let run = move || {
            failpoint("reload");
            reload();
            // Fails only if the process is exiting.
            let _ = done.send(());
        };
        // tokio's own threads panic where the system allows no more.
        match std::thread::Builder::new().name("reload".to_owned()).spawn(run) {
            Ok(_) if ended.await.is_ok() => {}
            Ok(_) => tracing::error!("reloading panicked: this is a bug, please report it"),
            Err(error) => tracing::error!(
                "SIGHUP: cannot start a thread to reload the files: {error}; nothing has changed. \
                 Raise the limit of processes (ulimit -u, TasksMax=) and send SIGHUP again"
            ),
        }
    }
}

/// A signal that asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopSignal {
    Terminate,
    Interrupt,
}

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            StopSignal::Terminate => "SIGTERM",
            StopSignal::Interrupt => "SIGINT",
        }
    }
}

/// The streams of both.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.terminate.recv() => StopSignal::Terminate,
            _ = self.interrupt.recv() => StopSignal::Interrupt,
        }
    }
}

/// Decides which signal ends the process at once.
///
/// Supervisors repeat SIGTERM, and `timeout`, shells and wrappers deliver the same signal once to
/// the group and once more by forwarding it. Only a person presses Ctrl-C again a second later.
#[derive(Debug, Default)]
struct StopRequests {
    interrupted: Option<Instant>,
}

impl StopRequests {
    /// Whether `signal`, which came at `now`, ends the process at once.
    fn ends_at_once(&mut self, signal: StopSignal, now: Instant) -> bool {
        if signal == StopSignal::Terminate {
            return false;
        }
        let first = *self.interrupted.get_or_insert(now);
        now.saturating_duration_since(first) >= SECOND_SIGINT_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::StopSignal::{Interrupt, Terminate};
    use super::*;

    /// What each signal of a sequence does, by its time after the first in milliseconds.
    fn judged(signals: &[(StopSignal, u64)]) -> Vec<bool> {
        let (mut requests, begun) = (StopRequests::default(), Instant::now());
        let judge = |&(signal, ms): &(StopSignal, u64)| {
            requests.ends_at_once(signal, begun + Duration::from_millis(ms))
        };
        signals.iter().map(judge).collect()
    }

    #[test]
    fn no_number_of_sigterms_ends_the_process() {
        let hour = 3_600_000;
        let signals = [0, 0, 1, 999, 1000, 1001, hour].map(|ms| (Terminate, ms));
        assert_eq!(judged(&signals), [false; 7]);
    }

    #[test]
    fn a_second_sigint_ends_the_process_a_second_after_the_first() {
        let edge = [(Interrupt, 0), (Interrupt, 0), (Interrupt, 999), (Interrupt, 1000)];
        assert_eq!(judged(&edge), [false, false, false, true]);
        // The first SIGINT is not a second one, however long after a SIGTERM it comes.
        let mixed = [(Terminate, 0), (Interrupt, 5000), (Terminate, 6000), (Interrupt, 6000)];
        assert_eq!(judged(&mixed), [false, false, false, true]);
    }
}
