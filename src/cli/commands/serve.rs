//! `ringest serve`: starts the engine, prints its results and waits for its end.

use crate::cli::args::environment::complain;
use crate::cli::args::serve::{ServeCommandOptions, ServeOptions};
use crate::cli::exit::{EXIT_FAILED, EXIT_HOST, EXIT_OK, EXIT_USAGE};
use crate::cli::output::format::Format;
use crate::cli::output::latency_files::{self, LatencyFiles};
use crate::cli::output::lines::Percentiles;
use crate::cli::output::output_files::{self, OutputFiles};
use crate::cli::output::render::StreamFiles;
use crate::cli::output::results_output::{Reopener, ResultsFile, ResultsOutput};
use crate::cli::terminal::live::{Listeners, Live};
use crate::cli::terminal::status_line;
use crate::cli::terminal::status_line::say;
use crate::config::{Config, DRAIN_DELAY_CHECKED, SECOND_SIGINT_AFTER};
use crate::engine::aggregate;
use crate::engine::groups::plan::Plan;
use crate::engine::observe::counters::{Counters, Protocol};
use crate::engine::observe::snapshot::messages;
use crate::runtime::host::finding::Verdict;
use crate::runtime::host::findings;
use crate::runtime::host::reserve;
use crate::runtime::host::signals::{self, Reactions, SIGNALS};
use crate::runtime::host::threads;
use crate::runtime::results::capture::CaptureError;
use crate::runtime::results::partial_files;
use crate::runtime::results::report::{FileWriter, Report};
use crate::runtime::results::reporter::{ReporterOutcome, Sink};
use crate::runtime::results::whole_file::node_name;
use crate::runtime::server::engine::{Engine, StartError};
use crate::wire::schema::Schema;
use crate::wire::text::{counted, time_text};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Runs the command and returns its exit code.
pub(crate) fn run(ServeCommandOptions { serve: options, format }: &ServeCommandOptions) -> u8 {
    // First of all: a SIGHUP before this ends the process.
    let hangups = match signals::catch_hangups() {
        Ok(hangups) => hangups,
        Err(error) => return no_signals(&error),
    };
    // A stderr that nobody reads must delay neither results nor the end.
    status_line::limit_waits();
    let config = options.config();
    let schema = match options.engine.schema.load() {
        Ok(schema) => schema,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    // Opened first, so that a wrong path is reported before the engine starts.
    let opened = Directories::open(&config, &schema)
        .and_then(|directories| Ok((directories, open_results(options.results.as_deref())?)));
    let (directories, (printed_to, reopener)) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    let missing = directories.missing();
    let (files, sink) = to_output_and_files(*format, &config, printed_to, directories);
    let fitted = match prepare(&config, &schema) {
        Ok(fitted) => fitted,
        Err(code) => return code,
    };
    let watch = match hangups.watch() {
        Ok(watch) => watch,
        Err(error) => return no_signals(&error),
    };
    let engine = match launch(fitted, &schema, files, sink) {
        Ok(engine) => engine,
        Err(code) => return code,
    };
    let signalled = Arc::new(AtomicBool::new(false));
    watch.react(reactions(&config, &engine, reopener, Arc::clone(&signalled)));
    announce(&engine);
    let live = match start_live(&config, &engine) {
        Ok(live) => live,
        Err(error) => {
            complain(StartError::Thread(error));
            return EXIT_HOST;
        }
    };
    let counters = Arc::clone(engine.counters());
    let missing_partials = engine.missing_partials();
    let defects = engine.defects();
    let mut outcome = engine.wait();
    if let Some(live) = live {
        live.stop();
    }
    // The threads beside the engine may have had theirs a moment ago.
    outcome.defect = defects.first().map(str::to_owned);
    sum_up(&counters);
    // Stopping the engine by a signal may cut connections, so incomplete ones are not a failure
    // then.
    let must_be_complete = options.exit_after.is_some() && !signalled.load(Ordering::Relaxed);
    let missing_partials = missing_partials.and_then(|missing| partial_files::summary(&missing));
    let missing = missing().into_iter().chain(missing_partials).collect();
    exit_code(&outcome, must_be_complete, missing, options)
}

/// Where results are printed, and what opens that again.
fn open_results(path: Option<&Path>) -> Result<(ResultsOutput, Option<Reopener>), String> {
    let Some(path) = path else { return Ok((ResultsOutput::stdout(), None)) };
    let file = ResultsFile::open(path)?;
    let reopener = file.reopener();
    Ok((ResultsOutput::File(file), Some(reopener)))
}

fn no_signals(error: &io::Error) -> u8 {
    complain(format_args!(
        "cannot catch signals: {error}; raise the limits of open files and of processes \
         (ulimit -n, ulimit -u)"
    ));
    EXIT_HOST
}

/// What signals do to the engine; `signalled` becomes true once it has been asked to stop.
fn reactions(
    config: &Config,
    engine: &Engine,
    results: Option<Reopener>,
    signalled: Arc<AtomicBool>,
) -> Reactions {
    let (asked_delay, drain) = (config.drain_delay, config.drain_timeout);
    let (leaver, stopper, reloader) = (engine.stopper(), engine.stopper(), engine.reloader());
    let defects = engine.defects();
    let leave = move |signal: &str| {
        signalled.store(true, Ordering::Relaxed);
        let checked = if leaver.is_checked() { DRAIN_DELAY_CHECKED } else { Duration::ZERO };
        let delay = asked_delay.unwrap_or(checked);
        leaver.leave();
        if !delay.is_zero() {
            tracing::info!(
                "{signal}: not ready from now on; connections are accepted for {} more \
                 (--drain-delay), until every load balancer has noticed",
                time_text(delay)
            );
        }
        delay
    };
    let stop = move |signal: &str| {
        tracing::info!(
            "{signal}: no new connections; running streams have {} to finish. SIGINT twice, {} \
             apart, exits at once",
            time_text(drain),
            time_text(SECOND_SIGINT_AFTER)
        );
        stopper.stop(drain);
    };
    Reactions {
        leave: Box::new(leave),
        stop: Box::new(stop),
        reload: Arc::new(move || {
            reloader.reload();
            results.iter().for_each(Reopener::reopen);
        }),
        before_exit: Box::new(status_line::remove),
        died: Box::new(move |panic| defects.report_thread(SIGNALS, panic)),
    }
}

/// The directories for files, as far as files are asked for.
struct Directories {
    output: Option<OutputFiles>,
    latency: Option<LatencyFiles>,
}

impl Directories {
    fn open(config: &Config, schema: &Schema) -> Result<Self, String> {
        config.check().map_err(|error| error.to_string())?;
        let open = |path| LatencyFiles::open(path, &node_name(config), SystemTime::now());
        let latency = config.hgrm.as_deref().map(open).transpose()?;
        Ok(Directories { output: OutputFiles::open(config, schema)?, latency })
    }

    /// Writes the files of a report; `None` if there are none.
    fn into_writer(self) -> Option<FileWriter> {
        let Directories { output, latency } = self;
        if output.is_none() && latency.is_none() {
            return None;
        }
        Some(Arc::new(move |report: &Report| {
            let result = output.as_ref().map(|files| files.add(report));
            latency.iter().for_each(|files| files.add(report));
            result
        }))
    }

    /// Describes, after the run, the files that could not be written.
    fn missing(&self) -> impl FnOnce() -> Vec<String> + use<> {
        let results = self.output.as_ref().map(|files| Arc::clone(files.missing()));
        let latencies = self.latency.as_ref().map(|files| Arc::clone(files.missing()));
        move || {
            let results = results.and_then(|missing| output_files::summary(&missing));
            let latencies = latencies.and_then(|missing| latency_files::summary(&missing));
            results.into_iter().chain(latencies).collect()
        }
    }
}

/// Starts the live line (`--interval`).
fn start_live(config: &Config, engine: &Engine) -> io::Result<Option<Live>> {
    let Some(interval) = config.interval else { return Ok(None) };
    let listeners = Listeners {
        records: !engine.records_addresses().is_empty(),
        messages: !engine.messages_addresses().is_empty(),
    };
    let counters = Arc::clone(engine.counters());
    Live::start(counters, interval, listeners, &engine.defects()).map(Some)
}

/// Prints the addresses to connect to, with the actual ports.
fn announce(engine: &Engine) {
    let workers = counted(engine.workers(), "worker");
    say(format_args!("ready for admin on http://{}/", engine.admin_address()));
    let listeners =
        [("messages", engine.messages_addresses()), ("records", engine.records_addresses())];
    for (what, addresses) in listeners {
        for address in addresses {
            say(format_args!("ready for {what} on {address} with {workers}"));
        }
    }
}

/// Prints the totals of the message server after the run.
fn sum_up(counters: &Counters) {
    let opened = counters.sum(|tally| &tally.opened[Protocol::Messages as usize]);
    if opened == 0 {
        return;
    }
    let messages = messages(counters).sum();
    let latency = counters.message_latency().summary();
    say(format_args!(
        "{}, {}; latency of {}: {}",
        counted(opened, "message connection"),
        counted(messages, "message"),
        counted(latency.count, "reply"),
        Percentiles(&latency),
    ));
}

/// Prepares the process and starts the engine. On failure, prints why and what to do, and returns
/// the exit code.
pub(crate) fn start(config: &Config, schema: &Arc<Schema>, sink: Sink) -> Result<Engine, u8> {
    launch(prepare(config, schema)?, schema, None, sink)
}

/// Prepares the process for an engine; returns the configuration that fits it. Call it before any
/// other thread exists.
fn prepare(config: &Config, schema: &Arc<Schema>) -> Result<Config, u8> {
    let config = &Config { record: Plan::new(Arc::clone(schema)).sizes(), ..config.clone() };
    if let Err(error) = config.check() {
        complain(&error);
        return Err(EXIT_USAGE);
    }
    let refused = |error: &dyn Display| {
        complain(error);
        EXIT_HOST
    };
    findings::raise_open_files(config).map_err(|error| refused(&error))?;
    let workers = findings::workers(config);
    let need = threads::threads_needed(config, workers);
    reserve::reserve(config, workers, need).map_err(|error| refused(&error))?;
    // Some libraries panic if they cannot have a thread: if one is missing, nothing starts.
    threads::rehearse(need).map_err(|error| refused(&error))?;
    // SAFETY: commands run in `main` before it has made a thread that is still there.
    unsafe { aggregate::create_pool(workers) }.map_err(|error| refused(&error))?;
    let mut fitted = config.clone();
    let locked_memory = findings::fit_locked_memory(&mut fitted);
    if locked_memory.verdict != Verdict::Pass {
        tracing::warn!("{}", locked_memory.found);
    }
    Ok(fitted)
}

fn launch(
    config: Config,
    schema: &Arc<Schema>,
    files: Option<FileWriter>,
    sink: Sink,
) -> Result<Engine, u8> {
    Engine::start(config.clone(), schema, files, sink).map_err(|error| {
        complain(&error);
        match error {
            StartError::Config(_)
            | StartError::Cores(_)
            | StartError::Memory(_)
            | StartError::Auth(_)
            | StartError::Partials(_)
            | StartError::Tls(_) => EXIT_USAGE,
            StartError::Capture(CaptureError::Directory(_)) => EXIT_USAGE,
            StartError::Capture(CaptureError::Thread(_)) => EXIT_HOST,
            StartError::Listen(_) | StartError::Worker(_) | StartError::Thread(_) => {
                explain(&config);
                EXIT_HOST
            }
        }
    })
}

/// Prints what `ringest doctor` finds wrong to stderr.
fn explain(config: &Config) {
    for finding in findings::examine(config) {
        if finding.verdict == Verdict::Fail {
            complain(finding);
        }
    }
    say("for a full check, run `ringest doctor` with the same options");
}

/// Prints each whole report to stdout and flushes it.
pub(crate) fn to_stdout(format: Format) -> Sink {
    let mut out = ResultsOutput::stdout();
    Box::new(move |report, _| out.print(format, report, &StreamFiles::default()))
}

/// The same, or to a file, with files and without disturbing the live line. The files of a result
/// are written before it is printed, so that a reader of the printed path finds the file.
fn to_output_and_files(
    format: Format,
    config: &Config,
    mut out: ResultsOutput,
    directories: Directories,
) -> (Option<FileWriter>, Sink) {
    let on_terminal = matches!(out, ResultsOutput::Stdout(_)) && io::stdout().is_terminal();
    let (captures, partials) = (config.capture.is_some(), config.partials.is_some());
    let sink: Sink = Box::new(move |report, result| {
        let _held = on_terminal.then(status_line::hold);
        let result = result.cloned();
        out.print(format, report, &StreamFiles { result, captures, partials })
    });
    (directories.into_writer(), sink)
}

fn exit_code(
    outcome: &ReporterOutcome,
    must_be_complete: bool,
    missing_files: Vec<String>,
    options: &ServeOptions,
) -> u8 {
    let ReporterOutcome { reported, complete, lost, output_error, defect, .. } = outcome;
    let failed_captures = outcome.capture_error.as_ref().map(|cause| {
        let count = outcome.captures_failed;
        format!(
            "{} could not be written (--capture); the first: {}: {cause}. The results are not \
             affected. Check that the directory exists and has space",
            counted(count, "capture"),
            options.output.capture.as_deref().unwrap_or(Path::new("")).display()
        )
    });
    let files_missing = !missing_files.is_empty() || failed_captures.is_some();
    missing_files.into_iter().chain(failed_captures).for_each(say);
    if let Some(error) = output_error {
        match &options.results {
            Some(path) => complain(format_args!(
                "cannot write results to --results {}: {error}; {} lost",
                path.display(),
                counted(lost, "result")
            )),
            None => complain(format_args!(
                "cannot write results to stdout: {error}; {} lost. Check that the program reading \
                 stdout still runs, or that the disk has space",
                counted(lost, "result")
            )),
        }
        return EXIT_FAILED;
    }
    if let Some(defect) = defect {
        say(format_args!(
            "stopped because {defect}. {} reported; others may be lost. Please report it with the \
             log",
            counted(reported, "connection")
        ));
        return EXIT_FAILED;
    }
    let ended = counted(reported, "connection");
    tracing::info!("stopped: {ended} reported, {complete} of them complete");
    let failed = files_missing || must_be_complete && complete < reported;
    if failed { EXIT_FAILED } else { EXIT_OK }
}

#[cfg(test)]
#[cfg(feature = "simulated-disk")]
#[path = "serve_disk_tests.rs"]
mod disk_tests;
