//! The commands and the options of most: checks single values, combines none. Options of the
//! engine, of senders and of schemas stand in files of their own.

pub(crate) mod cpu_list;
pub(crate) mod engine;
pub(crate) mod gen_cert;
pub(crate) mod health;
pub(crate) mod load;
pub(crate) mod merge;
pub(crate) mod output;
pub(crate) mod partials;
pub(crate) mod replay;
pub(crate) mod schema;
pub(crate) mod send;
pub(crate) mod times;
pub(crate) mod token;

use crate::cli::output::format::Format;
use crate::config::Config;
use clap::{Parser, Subcommand, ValueEnum};
use engine::{EngineOptions, LimitOptions};
use gen_cert::GenCertOptions;
use health::HealthOptions;
use load::LoadOptions;
use merge::MergeOptions;
use output::OutputOptions;
use partials::PartialsOptions;
use replay::ReplayOptions;
use schema::SchemaCommandOptions;
use send::SendOptions;
use std::path::PathBuf;
use std::time::Duration;
use token::TokenOptions;

/// io_uring ingest engine: fixed-width record streams over TCP in, one exact grouped DataFrame for
/// each out, with its time, rate and latency; and a server of framed messages beside it.
#[derive(Debug, Parser)]
#[command(
    name = "ringest",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done; 1 a result is not complete or differs, or output was lost; \
                  2 wrong usage; 3 the host cannot run it as asked; 130 second signal.\n\
                  Start with: ringest doctor, ringest demo, ringest serve."
)]
pub(crate) struct Args {
    /// Verbose logs. RUST_LOG is honoured and wins; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        env = "RINGEST_DEBUG",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::SetTrue
    )]
    pub debug: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Receive record streams and print one result for each; serve messages
    Serve(ServeOptions),
    /// Start an engine on a free loopback port, send it records, compare the results
    Demo(DemoOptions),
    /// Send record streams to an engine
    Send(SendOptions),
    /// Send captured streams to an engine again
    Replay(ReplayOptions),
    /// Put load on a message server and print rates and latencies
    Load(LoadOptions),
    /// Merge the partials that engines have left in directories (`serve --partials`)
    Merge(MergeOptions),
    /// Examine whether this host can run the engine as configured
    Doctor(DoctorOptions),
    /// Check a schema of records, or print one as TOML
    Schema(SchemaCommandOptions),
    /// Exit 0 where the engine of this host is ready, for container health checks
    Health(HealthOptions),
    /// Write certificates for trials of TLS
    GenCert(GenCertOptions),
    /// Make a token for a user of the message server
    Token(TokenOptions),
}

/// Options of `ringest serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeOptions {
    /// The engine
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Accept so many record connections, report them, and exit: 0 if all were complete, else 1
    #[arg(
        long,
        env = "RINGEST_EXIT_AFTER",
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub exit_after: Option<u64>,
    /// Form of the results on stdout
    #[arg(long, env = "RINGEST_FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Say on stderr how much comes, that often: in one line that changes on a terminal, otherwise
    /// in a line each time [100ms to 1h]
    #[arg(
        long,
        env = "RINGEST_INTERVAL",
        value_name = "TIME",
        value_parser = humantime::parse_duration
    )]
    pub interval: Option<Duration>,
    /// Directory that gets a file for each record stream: the percentiles of its packets'
    /// latencies, in microseconds, as the tools of HdrHistogram read them
    #[arg(long, env = "RINGEST_HGRM", value_name = "DIR")]
    pub hgrm: Option<PathBuf>,
    /// Files of results, and captures
    #[command(flatten)]
    pub output: OutputOptions,
    /// Partials for a merge
    #[command(flatten)]
    pub partials: PartialsOptions,
}

impl ServeOptions {
    /// The configuration that the options describe, not yet checked.
    pub(crate) fn config(&self) -> Config {
        self.partials.apply(Config {
            exit_after: self.exit_after,
            interval: self.interval,
            hgrm: self.hgrm.clone(),
            ..self.output.apply(self.engine.config())
        })
    }
}

/// Options of `ringest demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoOptions {
    /// Connections to send over
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub connections: u32,
    /// Records over each
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub records: u64,
    /// Form of the results on stdout
    #[arg(long, env = "RINGEST_FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The engine's limits
    #[command(flatten)]
    pub limits: LimitOptions,
}

/// Options of `ringest doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorOptions {
    /// The engine that is to run here
    #[command(flatten)]
    pub engine: EngineOptions,
    /// Form of the findings
    #[arg(long, value_enum, default_value_t = DoctorFormat::Text)]
    pub format: DoctorFormat,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorFormat {
    /// A line a finding, and its remedy
    Text,
    /// One JSON object
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_config() {
        let args = Args::parse_from(["ringest", "serve"]);
        let Command::Serve(options) = args.command else { panic!("serve was asked for") };
        assert_eq!(options.config(), Config::default());
    }
}
