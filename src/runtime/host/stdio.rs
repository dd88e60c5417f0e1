//! Whether the process was started with its stdout closed: writes nothing.
//!
//! Rust's runtime opens /dev/null in the place of a standard stream that is closed, before `main`.
//! That is safe, since no socket can then get the number of stdout, but results would vanish
//! without a word. So a look is taken before that.

use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// True where nobody gave this process a stdout.
pub(crate) fn stdout_was_closed() -> bool {
    STDOUT_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: the number is only asked about. Where it is closed the answer is EBADF.
    let stdout = unsafe { std::os::fd::BorrowedFd::borrow_raw(1) };
    STDOUT_CLOSED.store(rustix::io::fcntl_getfd(stdout).is_err(), Ordering::Relaxed);
}

// SAFETY: the loader calls each function of this section once, on the only thread, before Rust's
// runtime begins. `look` makes one system call and stores one flag: it needs nothing of that
// runtime, allocates nothing and cannot panic.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_BEFORE_MAIN: extern "C" fn() = look;
