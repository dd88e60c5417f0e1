//! Returns memory that was given back to the system. The allocator of the C library keeps freed
//! pieces for later, in an arena for each thread; after a flood that may be nearly all of it.

use crate::config::{TRIM_BYTES, TRIM_INTERVAL};
use crate::engine::memory::account::MemoryAccount;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

/// Returns what `account` has seen given back, now and then, until the sender of `end` is dropped.
/// Blocks, since walking the arenas of a large process takes milliseconds.
pub(crate) fn run(account: &MemoryAccount, end: &Receiver<()>) {
    let mut before = 0;
    while end.recv_timeout(TRIM_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let released = account.released();
        if released.wrapping_sub(before) >= TRIM_BYTES {
            before = released;
            trim();
        }
    }
}

/// Returns all whole pages that are free.
#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes no pointer, may be called at any time from any thread, and touches only
    // memory that is free.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries return them by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
