//! The figures of a run and the machine it ran on, as written to the JSON file.

use crate::Options;
use crate::goals::Verdict;
use crate::shapes::Shape;
use crate::turn::Turn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::SystemTime;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Machine, build and options.
    pub conditions: Conditions,
    /// The shapes that were run, in order.
    pub shapes: Vec<Measured>,
    /// The goals and whether they were met.
    pub goals: Vec<Verdict>,
}

/// A shape and every turn of every receiver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What was sent.
    pub shape: Shape,
    /// One turn for each round, by name of the receiver.
    pub turns: BTreeMap<String, Vec<Turn>>,
}

impl Measured {
    /// A figure of every turn of a receiver; none if it had no turn.
    pub fn figures(&self, receiver: &str, figure: impl Fn(&Turn) -> f64) -> Option<Vec<f64>> {
        self.turns.get(receiver).map(|turns| turns.iter().map(figure).collect())
    }

    /// The ratio of two receivers in each round. Within a round, anything that slows the machine
    /// down affects both.
    pub fn ratios(
        &self,
        receiver: &str,
        other: &str,
        figure: impl Fn(&Turn) -> f64 + Copy,
    ) -> Option<Vec<f64>> {
        let (figures, others) = (self.figures(receiver, figure)?, self.figures(other, figure)?);
        Some(figures.iter().zip(&others).map(|(figure, other)| figure / other).collect())
    }
}

/// Machine, build and options of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conditions {
    date: String,
    command: Vec<String>,
    commit: String,
    cpu_model: String,
    cores: usize,
    kernel: String,
    rustc: String,
    rustflags: String,
    profile: String,
    server_core: usize,
    client_core: usize,
    free_core: usize,
    rounds: usize,
    seconds: f64,
    buffer_bytes: usize,
    pandas_batch_bytes: usize,
    serve_args: String,
    congestion: String,
}

const UNKNOWN: &str = "unknown";

impl Conditions {
    /// The conditions of this process.
    pub fn of(options: &Options) -> Self {
        let uname = rustix::system::uname();
        Conditions {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            // Without the program's path, which means nothing elsewhere.
            command: std::env::args().skip(1).collect(),
            commit: commit(),
            cpu_model: cpu_model().unwrap_or_else(|| UNKNOWN.to_owned()),
            cores: thread_count(),
            kernel: uname.release().to_string_lossy().into_owned(),
            rustc: output_of("rustc", &["--version"]).unwrap_or_else(|| UNKNOWN.to_owned()),
            rustflags: option_env!("RUSTFLAGS").unwrap_or_default().to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            server_core: options.server_core,
            client_core: options.client_core,
            free_core: options.free_core(),
            rounds: options.rounds,
            seconds: options.seconds,
            buffer_bytes: options.buffer_bytes,
            pandas_batch_bytes: options.pandas_batch_bytes,
            serve_args: options.serve_args.clone(),
            congestion: options.congestion.clone(),
        }
    }
}

/// Number of all cores, not only those this thread is pinned to.
fn thread_count() -> usize {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo.lines().filter(|line| line.starts_with("processor")).count()
}

fn cpu_model() -> Option<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(model.trim_start_matches(['\t', ' ', ':']).to_owned())
}

/// The commit of the working tree, marked if files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        output_of("git", &[&["-C", env!("CARGO_MANIFEST_DIR")], arguments].concat())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return UNKNOWN.to_owned() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} and changes"),
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
