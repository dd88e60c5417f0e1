//! Creates Polars' thread pool, which Polars itself would create on first use, and panic if it
//! could not.

use super::row_groups::RowGroups;
use polars::prelude::*;
use std::num::NonZero;
use std::panic;
use std::thread;

/// The variable that sets the size of Polars' thread pool.
const POOL_THREADS: &str = "POLARS_MAX_THREADS";

/// Polars' thread pool could not be created.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start the {threads} threads of Polars; raise the limit of processes (ulimit -u, \
     TasksMax=, --pids-limit) or of memory, or set {POOL_THREADS} lower"
)]
pub struct PoolError {
    threads: usize,
}

/// Threads of the pool that [`create_pool`] creates for this number.
pub(crate) fn pool_threads(threads: usize) -> usize {
    let Some(value) = std::env::var_os(POOL_THREADS) else { return threads.max(1) };
    let asked = value.to_str().and_then(|value| value.trim().parse().ok()).filter(|&n| n > 0);
    asked.unwrap_or_else(cores)
}

/// Sets the size of Polars' thread pool and creates it. Its threads inherit the affinity of the
/// caller, so call it before any thread is pinned.
///
/// Polars does about half of its work on the calling thread and half in the pool, so aggregation
/// threads would contend for a pool of one thread: give it one per aggregation thread.
///
/// # Errors
/// If its threads cannot be started.
///
/// # Safety
/// It sets an environment variable, so no other thread may be running yet.
pub unsafe fn create_pool(threads: usize) -> Result<(), PoolError> {
    if std::env::var_os(POOL_THREADS).is_none() {
        // SAFETY: the caller guarantees that this is the only thread.
        unsafe { std::env::set_var(POOL_THREADS, threads.max(1).to_string()) };
    }
    start_pool()
}

/// Creates the pool in the size that the environment sets, or else with a thread for each core.
///
/// # Errors
/// If its threads cannot be started.
pub(crate) fn start_pool() -> Result<(), PoolError> {
    // Polars panics if it cannot have its threads. Nobody should see that as a defect of ours.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let created = panic::catch_unwind(|| {
        // Aggregates one row, so that Polars initialises whatever it creates on first use.
        let row = DataFrame::new_infer_height(vec![Column::new("key".into(), [0u64])]);
        let _ = row.and_then(|row| Ok(RowGroups::of(&row, ["key"])?.sum(row.column("key")?)));
    });
    panic::set_hook(hook);
    created.map_err(|_| PoolError { threads: pool_threads(cores()) })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
