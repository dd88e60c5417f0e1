//! Makes a worker's io_uring, and finds out whether it works. Operations on sockets are in
//! [`operations`](super::operations).

use crate::config::{RING_ENTRIES, RING_PATIENCE};
use std::io;

/// Why a worker has no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `io_uring_setup` failed.
    #[error("cannot create an io_uring: {0}")]
    Create(#[source] io::Error),
    /// The windows could not be registered with the ring.
    #[error("cannot register {bytes} bytes of receive windows with an io_uring: {source}")]
    Register {
        /// How many bytes.
        bytes: usize,
        /// The system's error.
        source: io::Error,
    },
    /// The system lets a ring be created, but not used.
    #[error("cannot use an io_uring: {call} fails: {source}")]
    Refused {
        /// The system call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// An operation does not come back.
    #[error("cannot use an io_uring: an operation did not complete within {RING_PATIENCE:?}")]
    Silent,
}

/// Whether the system's error is ENOMEM.
pub(crate) fn out_of_memory(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOMEM)
}

/// Creates a runtime with a ring. Call this on the thread that will use it, because the ring
/// accepts submissions from one thread only.
///
/// # Errors
/// `RingError::Create` with the system's error; `RingError::Refused` if the ring could be created
/// but not used.
pub fn runtime() -> Result<tokio_uring::Runtime, RingError> {
    let mut flags = tokio_uring::uring_builder();
    // Only one thread submits, so the kernel can skip locking. Completions wait for our next
    // system call instead of interrupting us. (Not DEFER_TASKRUN: the driver waits with epoll, and
    // deferred completions would never arrive.)
    flags.setup_single_issuer().setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&flags);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(RingError::Create)?;
    check_enter().map_err(|source| RingError::Refused { call: "io_uring_enter", source })?;
    Ok(runtime)
}

/// Whether this process may submit operations: a filter can allow `io_uring_setup` and forbid the
/// call after it. tokio-uring ignores that error, so operations would never complete, and a driver
/// that has begun one cannot even be dropped.
fn check_enter() -> io::Result<()> {
    let nothing: libc::c_long = 0;
    // SAFETY: the call gets no pointer, and -1 is not a descriptor: the kernel returns an error
    // before it looks at anything else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            -1 as libc::c_long,
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
        )
    };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // What the kernel itself says to such a descriptor.
        Some(libc::EBADF) => Ok(()),
        _ if result >= 0 => Ok(()),
        _ => Err(error),
    }
}

/// Lets the ring of the current runtime do an operation, to see whether it works.
///
/// # Errors
/// `RingError::Refused` or, if nothing happens, `RingError::Silent`.
pub(crate) async fn prove() -> Result<(), RingError> {
    match tokio::time::timeout(RING_PATIENCE, tokio_uring::no_op()).await {
        Ok(done) => done.map_err(|source| RingError::Refused { call: "a ring's NOP", source }),
        Err(_) => Err(RingError::Silent),
    }
}

/// Whether an operation ended because it was cancelled.
pub(crate) fn is_cancelled(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::CANCELED)
}
