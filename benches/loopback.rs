//! `cargo bench --bench loopback`: the record path of `ringest serve` beside a plain drain of the
//! same bytes, in one run, in turns, over loopback. Every answer is checked. Measures no message.
//!
//! Receiver and sender have a core each. All receivers get exactly the same bytes from the same
//! sender: the engine's own runtime that drops them (`drain`), `ringest serve` (`ingest`), blocking
//! reads that drop them (`blocking`), and numpy with pandas (`pandas`).

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
    /// Rounds; in each, every receiver has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each turn, roughly: so many records as the drain takes in that time
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Core of the receivers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the sender
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Core that the aggregation may use beside the receivers' in the shapes free-core… [default:
    /// the sender's]
    #[arg(long, value_name = "CORE")]
    free_core: Option<usize>,
    /// Write the figures of every round to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only shapes whose name contains this: bulk, connections, groups, small-packets, field,
    /// free-core
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Further options of `ringest serve`, separated by spaces
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    serve_args: String,
    /// Another build of ringest that has its turns, too
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Interpreter of the numpy + pandas server
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Bytes that the second numpy + pandas server gathers before it groups them; the first takes
    /// those of each read by themselves
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    pandas_batch_bytes: usize,
    /// Bytes of each read, of the engine and of the drains
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().buffer_bytes)]
    buffer_bytes: usize,
    /// Congestion control of the sender's connections, `system` for the system's own: over loopback
    /// there is nothing to control, and one that paces (bbr) keeps a sender from its full speed
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    congestion: String,
    /// Draw the plots of such a file of figures instead
    #[arg(long, value_name = "FILE", requires = "into")]
    plot: Option<PathBuf>,
    /// Directory of the plots
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// Be a drain instead: what this program starts itself as
    #[arg(long, hide = true)]
    receive: Option<receivers::Drain>,
    /// Given by `cargo bench`. Without it, as under `cargo test`, one tiny round shows that all of
    /// it works, and measures nothing
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn check(&self) -> Result<(), Box<dyn Error>> {
        if self.rounds == 0 || !(0.01..=600.0).contains(&self.seconds) {
            return Err("at least one round, of 0.01 to 600 seconds".into());
        }
        if self.buffer_bytes == 0 {
            return Err("--buffer-bytes: a read brings at least one byte".into());
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

    /// Asked once; says what is missing.
    fn python_has_pandas(&self) -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            let mut command = Command::new(&self.python);
            command.args(["-c", "import numpy, pandas"]).stdin(Stdio::null()).stderr(Stdio::null());
            let found = command.status().is_ok_and(|status| status.success());
            if !found {
                println!(
                    "PANDAS SKIPPED: {} does not run or has no numpy and pandas; --python names \
                     another",
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
        // What nobody draws for months would be found broken on the day of the release.
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
        return Err("--only names no shape; see --help".into());
    }
    let goals = goals::judge(&measured_shapes);
    table::print_goals(&goals, options);
    Ok(Run { conditions: Conditions::of(options), shapes: measured_shapes, goals })
}

/// Every receiver has its turn in every round, and each is first in turn.
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
        // All send the same, but to pandas, which takes a fraction: there rates are compared.
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

/// How many units must be sent so that a turn takes `seconds`.
fn calibrate(
    seconds: f64,
    mut turn: impl FnMut(u64) -> Result<turn::Turn, String>,
) -> Result<u64, String> {
    let mut cycles = 1;
    loop {
        let took = turn(cycles)?.seconds;
        let wanted = (cycles as f64 * seconds / took).ceil() as u64;
        // A turn of a fifth of the time tells the rate well enough.
        if took * 5.0 >= seconds || wanted <= cycles {
            return Ok(wanted.max(1));
        }
        cycles = wanted.min(cycles * 16);
    }
}
