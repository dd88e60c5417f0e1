//! How many threads an engine needs, and whether the system lets it start them. The limits that
//! apply are many (of users, units, containers, the kernel), and some cannot be read, so they are
//! tried: as many threads as are needed run at the same time, and end.

use super::finding::Finding;
use super::proc_files::running_threads;
use crate::config::{Config, FILE_WRITERS};
use crate::engine::aggregate::pool_threads;
use std::io;
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that every engine has besides those of its workers: acceptor, admin listener, reporter,
/// signals, and the one that returns memory.
const THREADS_FIXED: usize = 5;
/// For each worker: the worker, and its aggregation thread.
const THREADS_PER_WORKER: usize = 2;
/// With captures: one writes, the others finish files.
const THREADS_OF_CAPTURES: usize = 1 + FILE_WRITERS;
/// Threads that may exist for a short time: the kernel starts some for rings, libraries for names
/// of hosts.
const THREADS_SPARE: usize = 4;
/// How long an ended thread may still count.
const LEAVING: Duration = Duration::from_secs(1);

/// The system does not let the engine start its threads.
#[derive(Debug, thiserror::Error)]
#[error(
    "{need} threads are needed, but only {started} can be started: {source}; raise the limit of \
     processes (ulimit -u, TasksMax=, --pids-limit), which a user's, a unit's or a container's \
     processes share, and that of address space, if there is one (ulimit -v), or name fewer cores \
     with --cores"
)]
pub(crate) struct TooFewThreads {
    need: usize,
    started: usize,
    source: io::Error,
}

/// Threads that an engine with `config` may have in addition to the first one.
pub(crate) fn threads_needed(config: &Config, workers: usize) -> usize {
    THREADS_FIXED
        + THREADS_PER_WORKER * workers
        + pool_threads(workers)
        + if config.output.is_some() || config.hgrm.is_some() { FILE_WRITERS } else { 0 }
        + if config.partials.is_some() { FILE_WRITERS } else { 0 }
        + if config.capture.is_some() { THREADS_OF_CAPTURES } else { 0 }
        + usize::from(config.interval.is_some())
        + THREADS_SPARE
}

/// The finding about threads.
pub(crate) fn threads(need: usize) -> Finding {
    match rehearse(need) {
        Ok(()) => Finding::pass("threads", format!("{need} needed, all can be started")),
        Err(error) => Finding::fail_with_remedy("threads", &error.to_string()),
    }
}

/// Starts `need` threads that run at the same time, and waits until they are gone.
///
/// # Errors
/// [`TooFewThreads`], with the remedy.
pub(crate) fn rehearse(need: usize) -> Result<(), TooFewThreads> {
    let before = running_threads();
    let gate = RwLock::new(());
    let refused = thread::scope(|scope| {
        let _closed = gate.write().unwrap_or_else(PoisonError::into_inner);
        let wait = || drop(gate.read().unwrap_or_else(PoisonError::into_inner));
        (0..need).find_map(|started| {
            let thread = thread::Builder::new().spawn_scoped(scope, wait);
            thread.err().map(|source| TooFewThreads { need, started, source })
        })
    });
    // The kernel counts a thread for a moment after it has ended.
    let end = Instant::now() + LEAVING;
    while running_threads() > before && Instant::now() < end {
        thread::yield_now();
    }
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::path::PathBuf;

    #[test]
    fn threads_are_counted_by_option() {
        let plain = Config::default();
        let of_two = 5 + 4 + pool_threads(2) + 4;
        assert_eq!(threads_needed(&plain, 2), of_two);
        let more = Config {
            capture: Some(PathBuf::from("d")),
            interval: Some(Duration::from_secs(1)),
            ..plain.clone()
        };
        assert_eq!(threads_needed(&more, 2), of_two + 9 + 1);
        let directory = || Some(PathBuf::from("d"));
        for (output, hgrm) in [(directory(), None), (None, directory()), (directory(), directory())]
        {
            let files = Config { output, hgrm, ..plain.clone() };
            assert_eq!(threads_needed(&files, 2), of_two + 8);
        }
        let partials = Config { partials: directory(), ..plain };
        assert_eq!(threads_needed(&partials, 2), of_two + 8);
    }

    #[test]
    fn as_many_as_are_asked_for_run_and_end() {
        rehearse(20).unwrap();
        rehearse(0).unwrap();
        let source = io::Error::from_raw_os_error(Errno::AGAIN.raw_os_error());
        let error = TooFewThreads { need: 14, started: 3, source };
        let finding = Finding::fail_with_remedy("threads", &error.to_string());
        assert!(finding.found.starts_with("14 threads are needed, but only 3 can be started: "));
        assert!(finding.remedy.unwrap().contains("TasksMax="));
    }
}
