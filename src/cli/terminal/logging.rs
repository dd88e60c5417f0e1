//! Logs on stderr: writes no result.

use super::status_line::Lines;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. RUST_LOG decides what is written where it is set, else `debug` does. Colours
/// only on a terminal and without NO_COLOR.
pub(crate) fn start(debug: bool) {
    let default = if debug { "ringest=debug" } else { "ringest=info" };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).unwrap_or_else(|error| {
                crate::cli::say(format_args!("RUST_LOG is ignored: {error}"));
                EnvFilter::new(default)
            })
        }
        _ => EnvFilter::new(default),
    };
    let colours_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines)
        .with_ansi(std::io::stderr().is_terminal() && !colours_refused)
        .with_target(false)
        // A stderr that is closed must not stop an engine: saying about it would panic.
        .log_internal_errors(false)
        .init();
}
