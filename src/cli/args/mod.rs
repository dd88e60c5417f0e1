//! The command line: its commands, and one file of options per command. Runs nothing.

pub(crate) mod cpu_list;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod environment;
pub(crate) mod gen_cert;
pub(crate) mod heading;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod load;
pub(crate) mod merge;
pub(crate) mod output;
pub(crate) mod partials;
pub(crate) mod reference;
pub(crate) mod replay;
pub(crate) mod schema;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod size;
pub(crate) mod times;
pub(crate) mod token;
pub(crate) mod trust;

use clap::{Parser, Subcommand};
use demo::DemoOptions;
use doctor::DoctorOptions;
use gen_cert::GenCertOptions;
use health::HealthOptions;
use load::LoadOptions;
use merge::MergeOptions;
use reference::ReferenceOptions;
use replay::ReplayOptions;
use schema::SchemaCommandOptions;
use send::SendOptions;
use serve::ServeCommandOptions;
use token::TokenOptions;

/// Ingest engine on io_uring: fixed-width record streams over TCP in, one exact grouped DataFrame
/// per stream out, with its time, throughput and latency. Also serves framed messages.
#[derive(Debug, Parser)]
#[command(
    name = "ringest",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 success; 1 a result is incomplete or differs, or output was lost; \
                  2 wrong usage; 3 the host cannot run the engine as configured; 130 second \
                  SIGINT.\n\
                  Start with: ringest doctor, ringest demo, ringest serve."
)]
pub(crate) struct Args {
    /// Verbose log
    ///
    /// RUST_LOG is read as well and wins. NO_COLOR turns colours off.
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
    /// Receive record streams, print a result for each, and serve messages
    Serve(ServeCommandOptions),
    /// Start an engine on a free loopback port, send it records and compare the results
    Demo(DemoOptions),
    /// Send generated record streams to an engine
    Send(SendOptions),
    /// Send captured record streams to an engine again
    Replay(ReplayOptions),
    /// Put load on a message server and print throughput and latency
    Load(LoadOptions),
    /// Merge the partial results that engines wrote with `serve --partials`
    Merge(MergeOptions),
    /// Check whether this host can run the engine as configured
    Doctor(DoctorOptions),
    /// Check a schema, or print one as TOML
    Schema(SchemaCommandOptions),
    /// Exit 0 if the engine on this host is ready, for container health checks
    Health(HealthOptions),
    /// Create certificates for trying out TLS
    GenCert(GenCertOptions),
    /// Create a token for a user of the message server
    Token(TokenOptions),
    /// Print a page of docs/reference
    #[command(hide = true)]
    Reference(ReferenceOptions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_config() {
        let args = Args::parse_from(["ringest", "serve"]);
        let Command::Serve(options) = args.command else { panic!("serve was asked for") };
        assert_eq!(options.serve.config(), Config::default());
    }

    /// A help text may end with the range of an option's values, in brackets: both ends are taken,
    /// and what lies beyond them is not.
    #[test]
    fn ranges_in_help_texts_are_those_that_are_checked() {
        let mut command = Args::command();
        command.build();
        let serve = command.find_subcommand("serve").expect("a command");
        let takes = |option: &str, value: &str| {
            // Some options need one of these.
            let needed = ["ringest", "serve", "--capture=d", "--output=d"];
            let option = format!("--{option}={value}");
            Args::try_parse_from(needed.into_iter().chain([option.as_str()])).is_ok_and(|args| {
                let Command::Serve(options) = args.command else { panic!("serve was asked for") };
                options.serve.config().check().is_ok()
            })
        };
        let mut ranges = 0;
        for arg in serve.get_arguments() {
            let (Some(help), Some(option)) = (arg.get_help(), arg.get_long()) else { continue };
            let help = help.to_string();
            let Some((_, range)) = help.trim_end_matches(']').rsplit_once(" [") else { continue };
            let (min, max) = range.split_once(" to ").expect("two ends");
            // An end may be words where other options decide it.
            let numbers = [min, max].into_iter().filter(|end| end.starts_with(char::is_numeric));
            for end in numbers {
                assert!(takes(option, end), "--{option}: {range}");
            }
            let below = min.parse::<u64>().ok().and_then(|min| min.checked_sub(1));
            let above = max.parse::<u64>().ok().map(|max| max + 1);
            for beyond in below.into_iter().chain(above) {
                assert!(!takes(option, &beyond.to_string()), "--{option}={beyond}: {range}");
            }
            ranges += 1;
        }
        assert!(ranges >= 15, "{ranges}");
    }

    #[test]
    fn short_help_is_short_and_says_where_the_rest_is() {
        for (name, options) in [("serve", 10), ("send", 8), ("load", 9)] {
            let mut command = Args::command();
            command.build();
            let command = command.find_subcommand(name).expect("a command");
            let help = command.clone().term_width(100).render_help().to_string();
            let own = help.lines().filter(|line| line.trim_start().starts_with("--")).count();
            // And --debug.
            assert_eq!(own, options + 1, "{help}");
            assert!(help.ends_with(&format!("`ringest {name} --help` shows all.\n")), "{help}");
            assert!(help.lines().count() <= 40, "{help}");
        }
    }
}
