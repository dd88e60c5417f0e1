//! Runs a load: starts the threads, waits for them and adds up their measurements.

use super::settings::{LoadError, Settings};
use super::shared::{LoadProgress, Shared};
use super::tally::LoadTally;
use super::worker::LoadWorker;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Open files of the process other than its connections and those of its threads.
const FILES_OTHER: u64 = 64;
/// Open files of each thread: epoll, timer, waker.
const FILES_OF_THREAD: u64 = 3;

/// The measurements of a run.
#[derive(Debug)]
pub struct LoadOutcome {
    /// How long the measurement took.
    pub measured: Duration,
    /// Connections that were made.
    pub connected: u64,
    /// The counters and histograms.
    pub tally: LoadTally,
}

impl LoadOutcome {
    /// An amount per second of the measurement; 0 if it took no time.
    pub fn per_second(&self, amount: u64) -> f64 {
        let seconds = self.measured.as_secs_f64();
        if seconds > 0.0 { amount as f64 / seconds } else { 0.0 }
    }
}

/// Connects, sends and receives for the time that `settings` say, and returns the measurements.
/// Blocks; another thread can watch and stop it through `progress`. Raises the process's soft limit
/// of open files if needed.
///
/// # Errors
/// [`LoadError`]. Problems with single connections or messages are not errors; they are counted in
/// the tally.
pub fn run(settings: &Settings, progress: &LoadProgress) -> Result<LoadOutcome, LoadError> {
    settings.check()?;
    raise_open_files(settings)?;
    let shared = Shared::new(settings, progress);
    let tallies = thread::scope(|scope| {
        let shared = &shared;
        let start = |number| {
            let thread =
                thread::Builder::new().spawn_scoped(scope, move || run_thread(shared, number));
            thread.map_err(|source| {
                // Otherwise the other threads would wait for this one.
                shared.aborted.store(true, Ordering::Relaxed);
                LoadError::System { what: "start a thread", source }
            })
        };
        let threads: Vec<_> = (0..settings.threads).map(start).collect();
        let join = |thread: Result<thread::ScopedJoinHandle<'_, _>, _>| {
            thread.and_then(|thread| thread.join().expect("no panic"))
        };
        threads.into_iter().map(join).collect::<Vec<Result<LoadTally, LoadError>>>()
    });
    let mut tally = LoadTally::default();
    for of_thread in tallies {
        tally.merge(&of_thread?);
    }
    if let Some(error) = shared.error.lock().expect("no panic").take() {
        return Err(error);
    }
    let connected = progress.connected();
    if connected == 0 && !progress.stopped() {
        let cause = tally.first_problem.unwrap_or_else(|| "none was made in time".to_owned());
        return Err(LoadError::NoConnection { address: settings.address, cause });
    }
    Ok(LoadOutcome { measured: shared.measured(), connected, tally })
}

fn run_thread(shared: &Shared<'_>, number: usize) -> Result<LoadTally, LoadError> {
    let done = LoadWorker::new(shared, number).and_then(LoadWorker::run);
    if done.is_err() {
        // Otherwise the other threads would wait for this one.
        shared.aborted.store(true, Ordering::Relaxed);
    }
    done
}

/// Raises the soft limit of open files to what the connections need, within the hard limit.
fn raise_open_files(settings: &Settings) -> Result<(), LoadError> {
    let (connections, threads) = (settings.connections as u64, settings.threads as u64);
    let need = connections + threads * FILES_OF_THREAD + FILES_OTHER;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= need) {
        return Ok(());
    }
    if let Some(hard) = maximum.filter(|&hard| hard < need) {
        return Err(LoadError::OpenFiles { need, hard });
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum }).map_err(|error| {
        LoadError::System { what: "raise the limit of open files", source: error.into() }
    })
}
