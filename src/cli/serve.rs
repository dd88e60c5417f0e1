//! `ringest serve`: starts the engine, prints its results, waits for its end. Receives nothing
//! itself.

use super::args::{Format, ServeOptions};
use super::latency_files::LatencyFiles;
use super::live::{Listeners, Live};
use super::render::write_report;
use super::{EXIT_FAILED, EXIT_HOST, EXIT_OK, EXIT_USAGE, say, status_line};
use crate::config::{Config, DRAIN_TIMEOUT};
use crate::engine::aggregate;
use crate::engine::counters::{Counters, Protocol};
use crate::engine::snapshot::messages;
use crate::runtime::host::{self, Verdict};
use crate::runtime::reporter::{Outcome, Sink};
use crate::runtime::server::{Engine, StartError};
use crate::runtime::signals;
use std::io::{self, BufWriter, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Runs the command and returns its exit code.
pub fn run(options: &ServeOptions) -> u8 {
    // Whoever reads stderr must not be able to hold up results, nor the end.
    status_line::limit_waits();
    let config = options.config();
    // Before the engine starts, so that a wrong name costs nothing.
    let files = config.hgrm.as_deref().map(|path| LatencyFiles::open(path, SystemTime::now()));
    let files = match files.transpose() {
        Ok(files) => files,
        Err(error) => {
            say(error);
            return EXIT_USAGE;
        }
    };
    let missing_files = files.as_ref().map(|files| Arc::clone(files.missing()));
    let engine = match start(&config, to_stdout_and_files(options.format, files)) {
        Ok(engine) => engine,
        Err(code) => return code,
    };
    let stopper = engine.stopper();
    let signalled = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&signalled);
    let stop = move |signal| {
        seen.store(true, Ordering::Relaxed);
        tracing::info!(
            "{signal}: no more connections are taken, running streams have {} s; a second signal \
             exits at once",
            DRAIN_TIMEOUT.as_secs()
        );
        stopper.stop(DRAIN_TIMEOUT);
    };
    let reloader = engine.reloader();
    let watching = signals::watch(stop, move || reloader.reload(), status_line::remove);
    if let Err(error) = watching {
        say(format_args!("cannot catch signals: {error}"));
        return EXIT_HOST;
    }
    announce(&engine);
    let live = match start_live(&config, &engine) {
        Ok(live) => live,
        Err(error) => {
            say(StartError::Thread(error));
            return EXIT_HOST;
        }
    };
    let counters = Arc::clone(engine.counters());
    let outcome = engine.wait();
    if let Some(live) = live {
        live.stop();
    }
    sum_up(&counters);
    let missing_files = missing_files.and_then(|missing| missing.summary());
    // Whoever stops the engine knows that connections may be cut.
    let must_be_complete = options.exit_after.is_some() && !signalled.load(Ordering::Relaxed);
    exit_code(&outcome, must_be_complete, missing_files)
}

/// Starts the live line where one is asked for.
fn start_live(config: &Config, engine: &Engine) -> io::Result<Option<Live>> {
    let Some(interval) = config.interval else { return Ok(None) };
    let listeners = Listeners {
        records: engine.records_address().is_some(),
        messages: engine.messages_address().is_some(),
    };
    Live::start(Arc::clone(engine.counters()), interval, listeners).map(Some)
}

/// Says where to connect to; port 0 has become a real one.
fn announce(engine: &Engine) {
    let workers = engine.workers();
    say(format_args!("ready for admin on http://{}/", engine.admin_address()));
    let listeners =
        [("messages", engine.messages_address()), ("records", engine.records_address())];
    for (what, address) in listeners {
        if let Some(address) = address {
            say(format_args!("ready for {what} on {address} with {workers} workers"));
        }
    }
}

/// What the message server did, once it is over.
fn sum_up(counters: &Counters) {
    let opened = counters.sum(|tally| &tally.opened[Protocol::Messages as usize]);
    if opened == 0 {
        return;
    }
    let messages = messages(counters).sum();
    let latency = counters.message_latency().summary();
    say(format_args!(
        "{opened} message connections, {messages} messages; latency of {} replies: p50 {:.1} µs, \
         p90 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs",
        latency.count, latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max
    ));
}

/// Prepares the process and starts the engine; where that fails, says why and what to do.
pub fn start(config: &Config, sink: Sink) -> Result<Engine, u8> {
    if let Err(error) = config.check() {
        say(error);
        return Err(EXIT_USAGE);
    }
    // SAFETY: commands run in `main` before it has made a thread.
    unsafe { aggregate::create_pool(host::workers(config)) };
    if let Err(error) = host::raise_open_files(config) {
        say(error);
        return Err(EXIT_HOST);
    }
    let mut fitted = config.clone();
    let locked_memory = host::fit_locked_memory(&mut fitted);
    if locked_memory.verdict != Verdict::Pass {
        tracing::warn!("{}", locked_memory.found);
    }
    Engine::start(fitted, sink).map_err(|error| {
        say(&error);
        match error {
            StartError::Config(_)
            | StartError::Cores(_)
            | StartError::Auth(_)
            | StartError::Tls(_) => EXIT_USAGE,
            StartError::Listen(_) | StartError::Worker(_) | StartError::Thread(_) => {
                explain(config);
                EXIT_HOST
            }
        }
    })
}

/// What `ringest doctor` finds wrong, on stderr.
fn explain(config: &Config) {
    for finding in host::examine(config) {
        if finding.verdict == Verdict::Fail {
            say(finding);
        }
    }
    say("`ringest doctor` examines this host, with the same options");
}

/// Prints each report to stdout, whole, and flushes it.
pub fn to_stdout(format: Format) -> Sink {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout());
    Box::new(move |report| {
        let written = write_report(format, report, &mut out);
        if written.is_err() {
            // What is buffered cannot be written; dropping the writer must not try again.
            let broken = std::mem::replace(&mut out, BufWriter::new(io::stdout()));
            let _ = broken.into_parts();
        }
        written
    })
}

/// The same, out of the live line's way, and then the stream's file where files are asked for: it
/// does not count as printing.
fn to_stdout_and_files(format: Format, mut files: Option<LatencyFiles>) -> Sink {
    let mut print = to_stdout(format);
    let on_terminal = io::stdout().is_terminal();
    Box::new(move |report| {
        let held = on_terminal.then(status_line::hold);
        let printed = print(report);
        drop(held);
        if let Some(files) = &mut files {
            files.add(report);
        }
        printed
    })
}

fn exit_code(outcome: &Outcome, must_be_complete: bool, missing_files: Option<String>) -> u8 {
    let Outcome { reported, complete, lost, output_error, acceptor_error } = outcome;
    let files_missing = missing_files.is_some();
    missing_files.into_iter().for_each(say);
    if let Some(error) = output_error {
        say(format_args!(
            "cannot write results to stdout: {error}; {lost} results are lost. Whatever reads \
             stdout must stay, and a file needs space"
        ));
        return EXIT_FAILED;
    }
    if let Some(error) = acceptor_error {
        say(format_args!("stopped, since no more connections could be accepted: {error}"));
        return EXIT_FAILED;
    }
    tracing::info!("stopped: {reported} connections reported, {complete} of them complete");
    let failed = files_missing || must_be_complete && complete < reported;
    if failed { EXIT_FAILED } else { EXIT_OK }
}
