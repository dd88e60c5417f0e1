//! `ringest-sim`: the engine in a simulated world, decided by a seed, and judged by an oracle.
//! docs/internals/simulation.md says what it is and how to run it.

mod line;
mod model;
mod oracle;
mod peers;
mod runs;
mod scenario;

use runs::{Selection, fails, repeat_of, run, shrink};
use std::env;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Seeds of a run without wishes.
const SEEDS: u64 = 1000;

/// Seeds that found a fault once.
const KEPT: &[u64] = &[
    // No descriptors when the time to drain was over: the queue was reset without a report.
    184,
    // Streams waited for memory before they began, and were cut for their peers' silence.
    8816, 9497,
];

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Planned panics are no news.
fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
}

/// Describes a failure: the smallest world that still fails, its log, and how to repeat it.
fn describe(seed: u64) -> String {
    let all = Selection::all(seed);
    let small = shrink(&all);
    let run = run(&small);
    let what = run.verdict.err().unwrap_or_else(|| "it does not fail again".to_owned());
    let tail = run.log.len().saturating_sub(120);
    let log = run.log[tail..].join("\n  ");
    format!(
        "seed {seed} fails: {what}\nsmallest world: {}\n  {log}\nrepeat it with\n  {}",
        small.describe(),
        repeat_of(&small)
    )
}

/// Runs seeds on all processors; returns what failed.
fn run_seeds(first: u64, count: u64, soak: Option<Duration>) -> (u64, Vec<u64>) {
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let end = soak.map(|time| Instant::now() + time);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = match end {
                        Some(end) => Instant::now() >= end,
                        None => seed >= first + count,
                    };
                    let failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if over || failed().len() >= 5 {
                        return;
                    }
                    if fails(&Selection::all(seed)) {
                        failed().push(seed);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    (done.into_inner(), failed)
}

/// `RINGEST_SIM_SEED` runs one world, `RINGEST_SIM_SEEDS` that many, `RINGEST_SIM_SOAK_S` for that
/// long; `RINGEST_SIM_FIRST` is the first seed.
#[test]
fn worlds_hold() {
    be_quiet();
    if let Some(seed) = number("RINGEST_SIM_SEED") {
        let selection = Selection::from_environment(seed);
        let run = run(&selection);
        println!("{}\n  {}", selection.describe(), run.log.join("\n  "));
        let verdict = run.verdict;
        assert!(verdict.is_ok(), "seed {seed} fails: {}", verdict.unwrap_err());
        return;
    }
    let begun = Instant::now();
    let soak = number("RINGEST_SIM_SOAK_S").map(Duration::from_secs);
    let first = number("RINGEST_SIM_FIRST").unwrap_or(0);
    let count = number("RINGEST_SIM_SEEDS").unwrap_or(SEEDS);
    let (done, failed) = run_seeds(first, count, soak);
    println!("{done} worlds from seed {first} on in {:.1} s", begun.elapsed().as_secs_f64());
    if let Some(seed) = failed.first() {
        let text = describe(*seed);
        println!("failed seeds: {failed:?}; the first:\n{text}");
        panic!("failed seeds: {failed:?}");
    }
    assert!(done > 0, "no world was run");
}

#[test]
fn seeds_that_found_a_fault_hold() {
    be_quiet();
    for seed in KEPT {
        assert!(!fails(&Selection::all(*seed)), "{}", describe(*seed));
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    be_quiet();
    for seed in (0..80).chain(KEPT.iter().copied()) {
        let (first, second) = (run(&Selection::all(seed)), run(&Selection::all(seed)));
        let different = first.log.iter().zip(&second.log).position(|(a, b)| a != b);
        if let Some(line) = different {
            let text = format!("seed {seed}: {} became {}", first.log[line], second.log[line]);
            println!("{text}");
            panic!("{text}");
        }
        assert_eq!(first.log.len(), second.log.len(), "seed {seed}");
    }
}
