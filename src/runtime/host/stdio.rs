//! Finds out whether the process was started with its stdout closed. Writes nothing.
//!
//! Before `main`, Rust's runtime opens /dev/null in place of a closed standard stream. That is
//! safe, since no socket can then get the descriptor of stdout, but results would be lost silently.
//! So this file checks before the runtime does.

use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started without a stdout.
pub(crate) fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: F_GETFD only queries the descriptor; if it is closed, the call returns EBADF.
    let stdout = unsafe { std::os::fd::BorrowedFd::borrow_raw(1) };
    STDOUT_CLOSED.store(rustix::io::fcntl_getfd(stdout).is_err(), Ordering::Relaxed);
}

// SAFETY: the loader calls each function of this section once, on the only thread, before Rust's
// runtime begins. `look` makes one system call and stores one flag: it needs nothing of that
// runtime, allocates nothing and cannot panic.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_BEFORE_MAIN: extern "C" fn() = look;
