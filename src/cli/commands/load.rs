//! `ringest load`: puts load on a message server and prints the result. `client::load` sends and
//! measures.

use super::client_tls::client_tls;
use crate::cli::args::environment::complain;
use crate::cli::args::load::{LoadFormat, LoadOptions};
use crate::cli::exit::{EXIT_FAILED, EXIT_HOST, EXIT_OK, EXIT_USAGE};
use crate::cli::output::hgrm::write_percentiles;
use crate::cli::output::load_report::{write_json, write_table};
use crate::cli::terminal::status_line::say;
use crate::client::load::{self, LoadError, LoadOutcome, LoadProgress, Login, Settings};
use crate::client::messages::transport::resolve;
use crate::engine::stream::latency::summary;
use crate::runtime::host::signals::{self, Hangups, Reactions, SIGNALS};
use crate::runtime::results::output_path::OutputPath;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::env::VarError;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often progress is shown.
const POLL: Duration = Duration::from_millis(100);
/// How long an address may take to accept, if the host has several.
const PROBE: Duration = Duration::from_secs(2);
/// Messages sent this much later than planned are reported, since it is part of their latency.
const LATE_US: f64 = 1000.0;

/// Runs the command and returns its exit code.
pub(crate) fn run(options: &LoadOptions) -> u8 {
    let prepared = settings(options).and_then(|settings| {
        // First, so that a wrong path is reported before anything is sent.
        let open = |path| OutputPath::open("--hgrm", path);
        Ok((settings, options.hgrm.as_deref().map(open).transpose()?))
    });
    let (settings, percentiles) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            complain(error);
            return EXIT_USAGE;
        }
    };
    let outcome = match run_with_progress(&settings) {
        Ok(outcome) => outcome,
        Err(error) => {
            complain(&error);
            return match error {
                LoadError::Settings(_) => EXIT_USAGE,
                LoadError::OpenFiles { .. } | LoadError::System { .. } => EXIT_HOST,
                LoadError::NoConnection { .. } | LoadError::Refused { .. } => EXIT_FAILED,
            };
        }
    };
    warn_of_lateness(&outcome);
    let printed = write_outcome(options.format, &settings, &outcome);
    let printed = printed.map_err(|error| format!("cannot write the result to stdout: {error}"));
    let percentiles = percentiles.zip(options.hgrm.as_deref());
    let written = percentiles.map_or(Ok(()), |(file, path)| {
        let written = file.write(|out| write_percentiles(&outcome.tally.latency, out));
        written.map_err(|error| format!("cannot write --hgrm {}: {error}", path.display()))
    });
    let all_written = printed.is_ok() && written.is_ok();
    [printed, written].into_iter().filter_map(Result::err).for_each(say);
    if all_written && outcome.tally.is_clean() { EXIT_OK } else { EXIT_FAILED }
}

// ---- options ----

fn settings(options: &LoadOptions) -> Result<Settings, String> {
    let tls = client_tls(options.tls, &options.trust, &options.host)?;
    let login = login(options)?;
    let addresses = resolve(&options.host, options.port);
    let addresses = addresses.map_err(|error| format!("--host: {error}"))?;
    let (address, found) = first_that_accepts(&addresses);
    Ok(Settings {
        found,
        tls,
        login,
        connections: options.connections as usize,
        threads: options.threads as usize,
        traffic: options.traffic.into(),
        payload_bytes: options.payload_bytes as usize,
        pipeline: options.pipeline as usize,
        rate: options.rate,
        senders: options.senders as usize,
        warm_up: options.warm_up,
        duration: options.duration,
        ..Settings::new(address)
    })
}

/// Picks the first address that accepts, since a name such as `localhost` may have others. Also
/// returns the connection that showed it.
fn first_that_accepts(addresses: &[SocketAddr]) -> (SocketAddr, Option<Arc<TcpStream>>) {
    let accepts = |&address: &SocketAddr| {
        let stream = TcpStream::connect_timeout(&address, PROBE).ok()?;
        Some((address, Some(Arc::new(stream))))
    };
    match addresses {
        [only] => (*only, None),
        _ => addresses.iter().find_map(accepts).unwrap_or((addresses[0], None)),
    }
}

fn login(options: &LoadOptions) -> Result<Option<Login>, String> {
    let Some(user) = options.user.clone() else { return Ok(None) };
    let token = match &options.token_file {
        Some(path) => fs::read_to_string(path)
            .map_err(|error| format!("cannot read --token-file {}: {error}", path.display()))?,
        None => std::env::var("RINGEST_TOKEN").map_err(|error| match error {
            VarError::NotPresent => "--user needs a token, in RINGEST_TOKEN or --token-file FILE",
            VarError::NotUnicode(_) => "RINGEST_TOKEN is not UTF-8, so it is no token",
        })?,
    };
    // Editors and `echo` end a file with a line break that is not part of the token, and some begin
    // it with a byte order mark.
    let token = token.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']).to_owned();
    if token.is_empty() {
        return Err("the token is empty; put one into RINGEST_TOKEN or --token-file".to_owned());
    }
    Ok(Some(Login { user, token }))
}

// ---- the run ----

/// Runs the load in a second thread while this one shows its progress.
fn run_with_progress(settings: &Settings) -> Result<LoadOutcome, LoadError> {
    let progress = Arc::new(LoadProgress::default());
    let [stopped, hung_up, died] = [(); 3].map(|()| Arc::clone(&progress));
    let watching = signals::catch_hangups().and_then(Hangups::watch);
    let watching =
        watching.map_err(|source| LoadError::System { what: "catch signals", source })?;
    watching.react(Reactions {
        leave: Box::new(|_| Duration::ZERO),
        stop: Box::new(move |_| stopped.stop()),
        reload: Arc::new(move || hung_up.stop()),
        before_exit: Box::new(|| {}),
        died: Box::new(move |panic| {
            say(format_args!("the thread {SIGNALS} {panic}; this is a bug, please report it"));
            died.stop();
        }),
    });
    thread::scope(|scope| {
        let running = thread::Builder::new().spawn_scoped(scope, || load::run(settings, &progress));
        let running =
            running.map_err(|source| LoadError::System { what: "start a thread", source })?;
        show(settings, &progress, &|| running.is_finished());
        running.join().expect("a run that panics is a bug; please report it")
    })
}

/// Shows a progress bar on stderr until the run ends; hidden if stderr is not a terminal.
fn show(settings: &Settings, progress: &LoadProgress, is_finished: &dyn Fn() -> bool) {
    let time = settings.warm_up.saturating_add(settings.duration);
    let bar = ProgressBar::new(time.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
        bar.set_style(style);
    }
    let (mut begun, mut before) = (None, 0);
    while !is_finished() {
        thread::sleep(if bar.is_hidden() { Duration::from_millis(5) } else { POLL });
        if !progress.running() {
            let (made, all) = (progress.connected(), settings.connections);
            bar.set_message(format!("{made} of {all} connections"));
            continue;
        }
        let begun = *begun.get_or_insert_with(Instant::now);
        bar.set_position(begun.elapsed().min(time).as_millis() as u64);
        let answers = progress.answers();
        let rate = (answers - before) as f64 / POLL.as_secs_f64();
        before = answers;
        bar.set_message(format!("{} answers, {}/s", HumanCount(answers), HumanCount(rate as u64)));
    }
    bar.finish_and_clear();
}

/// Warns if this process could not keep its schedule, which makes the latencies longer.
fn warn_of_lateness(outcome: &LoadOutcome) {
    let late = summary(&outcome.tally.lateness);
    if late.p99 > LATE_US {
        say(format_args!(
            "this process could not keep its schedule: messages were sent late by {:.1} ms (p99) \
             and {:.1} ms (max), which the latencies include. Give it a core to itself, more \
             --threads or a lower --rate",
            late.p99 / 1000.0,
            late.max / 1000.0,
        ));
    }
}

fn write_outcome(format: LoadFormat, settings: &Settings, outcome: &LoadOutcome) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        LoadFormat::Table => write_table(settings, outcome, &mut out)?,
        LoadFormat::Json => write_json(settings, outcome, &mut out)?,
    }
    out.flush()
}
