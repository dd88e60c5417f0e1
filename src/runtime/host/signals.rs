//! Signals: the first SIGTERM or SIGINT asks the engine to stop, the second ends the process, and
//! SIGHUP asks the engine to reload its files. SIGXFSZ is caught, so that it does not kill.

use rustix::process::Signal;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code after a second signal: 128 + SIGINT, as shells count.
pub(crate) const EXIT_SECOND_SIGNAL: i32 = 130;

/// Starts a thread that calls `first` at the first signal, `before_exit` at the second, which exits
/// with [`EXIT_SECOND_SIGNAL`], and `hangup` at each SIGHUP. Signals are caught when this returns.
///
/// # Errors
/// If the thread or its runtime cannot be created.
pub(crate) fn watch(
    first: impl FnOnce(&'static str) + Send + 'static,
    hangup: impl Fn() + Send + 'static,
    before_exit: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    // A file size limit (RLIMIT_FSIZE) makes the excess write fail with EFBIG, which is handled.
    // The signal that comes with it would end the process, so it is caught, for good.
    let too_large = SignalKind::from_raw(Signal::XFSZ.as_raw());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt, mut hung_up) = {
        let _inside = runtime.enter();
        drop(signal(too_large)?);
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let reload = async move {
        while hung_up.recv().await.is_some() {
            hangup();
        }
    };
    let wait = async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        first(name);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: exiting at once");
        before_exit();
        std::process::exit(EXIT_SECOND_SIGNAL);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.spawn(reload);
        runtime.block_on(wait)
    })?;
    Ok(())
}
