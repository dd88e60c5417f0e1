//! `cargo bench --bench loopback`: compares the record path of `ringest serve` with plain drains of
//! the same bytes over loopback, in one run and in turns. Checks every answer.
//!
//! Receiver and sender have one core each. All receivers get exactly the same bytes from the same
//! sender: the engine's own runtime discarding them (`drain`), `ringest serve` (`ingest`), blocking
//! reads discarding them (`blocking`), and numpy with pandas (`pandas`). Messages are measured by
//! the benchmark `messages`.

#[path = "loopback/goals.rs"]
mod goals;
#[path = "loopback/plots.rs"]
mod plots;
#[path = "common/process.rs"]
mod process;
#[path = "loopback/receivers.rs"]
mod receivers;
#[path = "loopback/run.rs"]
mod run;
#[path = "loopback/sender.rs"]
mod sender;
#[path = "loopback/servers.rs"]
mod servers;
#[path = "loopback/shapes.rs"]
mod shapes;
#[path = "common/spread.rs"]
mod spread;
#[path = "loopback/table.rs"]
mod table;
#[path = "loopback/turn.rs"]
mod turn;

use clap::Parser;
use ringest::internals::Config;
use run::{Conditions, Measured, Run};
use sender::{Stream, unit_records};
use servers::Server;
use shapes::{Shape, shapes};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Compares `ringest serve` with plain drains of the same record streams
#[derive(Parser)]
struct Options {
    /// Number of rounds; in each, every receiver has one turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Approximate seconds of each turn: as many records as the drain can take in that time
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Core of the receivers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the sender
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Additional core for the aggregation in the free-core… shapes [default: the sender's]
    #[arg(long, value_name = "CORE")]
    free_core: Option<usize>,
    /// Also write the figures of every round to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only shapes whose name contains this: bulk, connections, groups, small-packets, field,
    /// free-core
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Additional options for `ringest serve`, separated by spaces
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    serve_args: String,
    /// Another build of ringest to compare with
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Python interpreter for the numpy + pandas server
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Bytes that the second numpy + pandas server collects before grouping them; the first groups
    /// after every read
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    pandas_batch_bytes: usize,
    /// Bytes of each read by the engine and the drains
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().buffer_bytes)]
    buffer_bytes: usize,
    /// Congestion control of the sender's connections, `system` for the system default. A pacing
    /// one such as bbr slows the sender down on loopback
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    congestion: String,
    /// Draw plots from a file written with --json instead of measuring
    #[arg(long, value_name = "FILE", requires = "into")]
    plot: Option<PathBuf>,
    /// Directory for the plots
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// Run as a drain; the benchmark starts itself with this
    #[arg(long, hide = true)]
    receive: Option<receivers::Drain>,
    /// Passed by `cargo bench`. Without it, as in `cargo test`, a single tiny round checks that
    /// everything works, and its figures mean nothing
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn check(&self) -> Result<(), Box<dyn Error>> {
        if self.rounds == 0 || !(0.01..=600.0).contains(&self.seconds) {
            return Err("--rounds must be at least 1 and --seconds from 0.01 to 600".into());
        }
        if self.buffer_bytes == 0 {
            return Err("--buffer-bytes must be at least 1".into());
        }
        Ok(())
    }

    fn wants(&self, shape: &Shape) -> bool {
        self.only.as_ref().is_none_or(|only| shape.name.contains(only.as_str()))
    }

    fn congestion(&self) -> Option<&str> {
        (self.congestion != "system").then_some(self.congestion.as_str())
    }

    fn free_core(&self) -> usize {
        self.free_core.unwrap_or(self.client_core)
    }

    /// Whether Python has numpy and pandas. Checked once; prints a line if they are missing.
    fn python_has_pandas(&self) -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            let mut command = Command::new(&self.python);
            command.args(["-c", "import numpy, pandas"]).stdin(Stdio::null()).stderr(Stdio::null());
            let found = command.status().is_ok_and(|status| status.success());
            if !found {
                println!(
                    "PANDAS SKIPPED: {} does not run or lacks numpy or pandas; use --python for \
                     another interpreter",
                    self.python.display()
                );
            }
            found
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::parse();
    if !options.bench {
        options.rounds = 1;
    }
    options.check()?;
    if let Some(drain) = options.receive {
        return receivers::run(drain, options.buffer_bytes);
    }
    if let (Some(file), Some(directory)) = (&options.plot, &options.into) {
        let run: Run = serde_json::from_slice(&std::fs::read(file)?)?;
        return plots::draw_all(&run, directory);
    }
    process::raise_open_files()?;
    process::pin(options.client_core)?;
    let run = measure_all(&options)?;
    let written = serde_json::to_string_pretty(&run)? + "\n";
    if let Some(path) = &options.json {
        std::fs::write(path, &written)?;
    }
    if !options.bench {
        // Draw the plots too, so that a broken plot shows now and not at the next release.
        let directory = tempfile::tempdir()?;
        plots::draw_all(&serde_json::from_str(&written)?, directory.path())?;
    }
    Ok(())
}

fn measure_all(options: &Options) -> Result<Run, Box<dyn Error>> {
    table::print_head(options);
    let mut measured_shapes = Vec::new();
    for shape in shapes().iter().filter(|shape| options.wants(shape)) {
        let measured =
            measure(options, shape).map_err(|error| format!("{}: {error}", shape.name))?;
        table::print_shape(&measured, options);
        measured_shapes.push(measured);
    }
    if measured_shapes.is_empty() {
        return Err("--only matches no shape; see --help".into());
    }
    let goals = goals::judge(&measured_shapes);
    table::print_goals(&goals, options);
    Ok(Run { conditions: Conditions::of(options), shapes: measured_shapes, goals })
}

/// Measures all receivers. Each has one turn in every round, and they take turns at going first.
fn measure(options: &Options, shape: &Shape) -> Result<Measured, Box<dyn Error>> {
    let unit = unit_records(shape, !options.bench);
    let mut servers = Server::start_all(options, shape)?;
    let mut answers = Vec::new();
    let mut turn = |server: &mut Server, cycles| {
        let stream = Stream::new(shape, unit * cycles, options.congestion());
        turn::run(server, shape.connections, &stream, &mut answers)
            .map_err(|error| format!("{}: {error}", server.kind.name()))
    };
    let mut plans = Vec::new();
    for server in &mut servers {
        // All receivers get the same number of records, except pandas: it is much slower, so it
        // gets fewer, and rates are compared.
        let cycles = match plans.first() {
            _ if !options.bench => 2,
            Some(&cycles) if !server.kind.is_slow() => cycles,
            _ => calibrate(options.seconds, |cycles| turn(server, cycles))?,
        };
        if options.bench {
            turn(server, cycles.div_ceil(4))?;
        }
        plans.push(cycles);
    }
    let mut turns: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for round in 0..options.rounds {
        for place in 0..servers.len() {
            let which = (place + round) % servers.len();
            let done = turn(&mut servers[which], plans[which])?;
            turns.entry(servers[which].kind.name().to_owned()).or_default().push(done);
        }
    }
    Ok(Measured { shape: shape.clone(), turns })
}

/// The number of units to send so that a turn takes `seconds`.
fn calibrate(
    seconds: f64,
    mut turn: impl FnMut(u64) -> Result<turn::Turn, String>,
) -> Result<u64, String> {
    let mut cycles = 1;
    loop {
        let took = turn(cycles)?.seconds;
        let wanted = (cycles as f64 * seconds / took).ceil() as u64;
        // A turn of a fifth of the time is long enough to estimate the rate.
        if took * 5.0 >= seconds || wanted <= cycles {
            return Ok(wanted.max(1));
        }
        cycles = wanted.min(cycles * 16);
    }
}
