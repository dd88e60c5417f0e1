//! Runs the fuzz targets over their corpus and over damaged copies of it, on any toolchain.
//! RINGEST_FUZZ_COPIES says how many copies of each file: a fuzzer without coverage.

use super::{Body, PARQUET_TARGETS, TARGETS};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Damaged copies of each file, unless RINGEST_FUZZ_COPIES says how many.
const COPIES: usize = 30;
/// Changes of a copy.
const CHANGES_MAX: usize = 4;
/// Copies do not grow beyond this.
const COPY_BYTES_MAX: usize = 64 << 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The names of what is in a directory, without their extensions.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.expect("an entry").path())).collect()
}

/// The files of a target's corpus, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = root().join("corpus").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|_| panic!("no {}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has a corpus");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

/// Runs a body; where it fails, the input is shown.
fn run(body: Body, from: &Path, input: &[u8]) {
    let run = catch_unwind(AssertUnwindSafe(|| body(input)));
    assert!(run.is_ok(), "from {}: b\"{}\"", from.display(), input.escape_ascii());
}

/// Changes an input in up to four places.
fn damage(random: &mut fastrand::Rng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.usize(1..=CHANGES_MAX) {
        let at = random.usize(0..=input.len());
        let end = random.usize(at..=input.len().min(at + 64));
        match random.u8(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => input.insert(at, random.u8(..)),
            3 => drop(input.drain(at..end)),
            4 => input.truncate(at),
            5 => drop(input.splice(at..at, input[at..end].to_vec())),
            _ if !other.is_empty() => {
                let from = random.usize(0..other.len());
                let to = random.usize(from..=other.len().min(from + 64));
                drop(input.splice(at..end, other[from..to].iter().copied()));
            }
            _ => {}
        }
    }
    input.truncate(COPY_BYTES_MAX);
}

fn run_over_corpus(name: &str) {
    let all = TARGETS.iter().chain(PARQUET_TARGETS);
    let (_, body) = all.into_iter().find(|(known, _)| *known == name).expect("a target");
    let copies = std::env::var("RINGEST_FUZZ_COPIES").ok();
    let copies = copies.map_or(COPIES, |copies| copies.parse().expect("a number"));
    let (corpus, mut random) = (corpus(name), fastrand::Rng::with_seed(7));
    for (path, input) in &corpus {
        run(*body, path, input);
        for _ in 0..copies {
            let mut copy = input.clone();
            let (_, other) = random.choice(&corpus).expect("a file");
            damage(&mut random, &mut copy, other);
            run(*body, path, &copy);
        }
    }
}

macro_rules! corpus_tests {
    ($($name:ident),*) => {
        /// Those with a test, besides those of Parquet.
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        mod corpus_passes {
            $(#[test]
            fn $name() {
                super::run_over_corpus(stringify!($name));
            })*

            #[cfg(feature = "aggregate")]
            #[test]
            fn partials() {
                super::run_over_corpus("partials");
            }
        }
    };
}

corpus_tests!(
    auth_file,
    capture,
    client_session,
    cpu_list,
    histogram,
    http,
    ndjson,
    notation,
    records,
    schema_toml,
    session,
    text,
    tls
);

#[test]
fn every_target_has_a_test_a_program_and_a_corpus() {
    let names_of = |targets: &[(&str, Body)]| -> BTreeSet<String> {
        targets.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    let fuzzed = names_of(&TARGETS);
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), fuzzed);
    let mut all = names_of(&[("partials", |_| ())]);
    all.extend(fuzzed.iter().cloned());
    assert_eq!(names(&root().join("corpus")), all);
    assert_eq!(names(&root().join("fuzz_targets")), fuzzed);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in &fuzzed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
