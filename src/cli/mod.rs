//! Flags and environment to one validated configuration, one file a command, and output formats:
//! opens no socket itself and knows no protocol.

pub mod args;
pub mod cpu_list;
pub mod demo;
pub mod doctor;
pub mod engine_args;
pub mod gen_cert;
pub mod health;
pub mod hgrm;
pub mod latency_files;
pub mod live;
pub mod load;
pub mod load_args;
pub mod load_report;
pub mod logging;
pub mod merge;
pub mod merge_render;
pub mod output_args;
pub mod output_files;
pub mod partials_args;
pub mod progress;
pub mod render;
pub mod replay;
pub mod replay_args;
pub mod schema;
pub mod schema_args;
pub mod send;
pub mod send_args;
pub mod serve;
pub mod status_line;
pub mod stderr;
pub mod token;

use crate::runtime::stdio;
use args::{Args, Command};
use clap::Parser;
use std::fmt::Display;
use std::process::ExitCode;

/// Everything went well.
pub const EXIT_OK: u8 = 0;
/// The work was done and came out wrong: a connection not complete, a difference, lost output.
pub const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The host cannot run the engine as asked.
pub const EXIT_HOST: u8 = 3;

/// Parses the command line, runs the chosen command and returns the exit code. To be called
/// first thing in `main`, while there is one thread.
pub fn run() -> ExitCode {
    let args = Args::parse();
    logging::start(args.debug);
    let prints =
        !matches!(args.command, Command::Send(_) | Command::Replay(_) | Command::Health(_));
    if prints && stdio::stdout_was_closed() {
        say("stdout is closed, so nothing could be printed; to discard it, give >/dev/null");
        return ExitCode::from(EXIT_FAILED);
    }
    ExitCode::from(match args.command {
        Command::Serve(options) => serve::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Send(options) => send::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Merge(options) => merge::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Health(options) => health::run(&options),
        Command::GenCert(options) => gen_cert::run(&options),
        Command::Token(options) => token::run(&options),
        Command::Schema(options) => schema::run(&options),
    })
}

/// One line on stderr. A stderr that is closed must not stop an engine, so failing is no error
/// (`eprintln!` would panic).
fn say(line: impl Display) {
    let _ = status_line::print(format!("ringest: {line}\n").as_bytes());
}
