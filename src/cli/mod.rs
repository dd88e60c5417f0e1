//! The program's command line, its commands and output formats. Sockets and protocols belong to
//! `runtime` and `client`.

pub(crate) mod args;
#[cfg(feature = "aggregate")]
pub(crate) mod commands;
pub(crate) mod exit;
pub(crate) mod output;
pub(crate) mod terminal;

/// Parses the command line, runs the command and returns the exit code. Call it first in `main`,
/// before any other thread exists.
#[cfg(feature = "aggregate")]
pub fn run() -> std::process::ExitCode {
    use crate::runtime::host::{signals, stdio};
    use args::{Command, environment};
    use commands::{
        demo, doctor, gen_cert, health, load, merge, reference, replay, schema, send, serve, token,
    };
    use exit::EXIT_FAILED;
    use std::process::ExitCode;
    use terminal::logging;
    use terminal::status_line::say;

    let args = environment::parse();
    logging::start(args.debug);
    if !matches!(args.command, Command::Serve(_) | Command::Load(_)) {
        // Those two catch more. If this fails, the limit ends the command by its signal.
        let _ = signals::catch_file_size_limit();
    }
    let prints =
        !matches!(args.command, Command::Send(_) | Command::Replay(_) | Command::Health(_));
    if prints && stdio::stdout_was_closed() {
        say("stdout is closed; to discard the output, redirect it to /dev/null");
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
        Command::Reference(options) => reference::run(&options),
        Command::Schema(options) => schema::run(&options),
    })
}
