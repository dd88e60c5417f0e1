//! Options of `ringest serve`. Checks single values; whether they go together is for
//! `Config::check` to say.

use super::engine::EngineOptions;
use super::heading;
use super::output::OutputOptions;
use super::partials::PartialsOptions;
use crate::cli::output::format::Format;
use crate::config::Config;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `ringest serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "These are the options that most people need; `ringest serve --help` shows all.",
    after_long_help = "Every option can be given as an environment variable instead; the command \
                       line wins."
)]
pub(crate) struct ServeCommandOptions {
    /// What is to run
    #[command(flatten)]
    pub serve: ServeOptions,
    /// Format of the results on stdout
    #[arg(
        long,
        env = "RINGEST_FORMAT",
        help_heading = heading::RESULTS,
        value_enum,
        default_value_t = Format::Table
    )]
    pub format: Format,
}

/// What `serve` runs, and `doctor` checks.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeOptions {
    /// The engine
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Accept N record connections, report them, then exit: 0 if all are complete, 1 if not
    ///
    /// A connection that closes without a byte does not count, unless --report-empty is given.
    #[arg(
        long,
        env = "RINGEST_EXIT_AFTER",
        help_heading = heading::RESULTS,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub exit_after: Option<u64>,
    /// Report record connections that close without sending a byte, as health checks do
    ///
    /// Without this they are only counted, in the metric ringest_connections_empty_total.
    #[arg(
        long,
        env = "RINGEST_REPORT_EMPTY",
        help_heading = heading::RESULTS,
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue,
        hide_short_help = true
    )]
    pub report_empty: bool,
    /// File that results are appended to instead of stdout; reopened on SIGHUP, after it was moved
    #[arg(
        long,
        env = "RINGEST_RESULTS",
        help_heading = heading::RESULTS,
        value_name = "FILE",
        hide_short_help = true
    )]
    pub results: Option<PathBuf>,
    /// Print throughput to stderr at this interval [100ms to 1h]
    ///
    /// On a terminal this is one line that changes in place, otherwise one line per interval.
    #[arg(
        long,
        env = "RINGEST_INTERVAL",
        help_heading = heading::RESULTS,
        value_name = "TIME",
        value_parser = humantime::parse_duration
    )]
    pub interval: Option<Duration>,
    /// Result files
    #[command(flatten)]
    pub output: OutputOptions,
    /// Directory for packet latencies: one HdrHistogram file (.hgrm) per record stream
    ///
    /// Each has percentiles in microseconds, in the text format that HdrHistogram's tools read.
    #[arg(
        long,
        env = "RINGEST_HGRM",
        help_heading = heading::RESULTS,
        value_name = "DIR",
        hide_short_help = true
    )]
    pub hgrm: Option<PathBuf>,
    /// Captures and partials
    #[command(flatten)]
    pub partials: PartialsOptions,
}

impl ServeOptions {
    /// The configuration that the options describe, not yet checked.
    pub(crate) fn config(&self) -> Config {
        self.partials.apply(Config {
            exit_after: self.exit_after,
            report_empty: self.report_empty,
            interval: self.interval,
            hgrm: self.hgrm.clone(),
            ..self.output.apply(self.engine.config())
        })
    }
}
