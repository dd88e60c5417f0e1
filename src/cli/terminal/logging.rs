//! The log on stderr.

use super::status_line::{Lines, say};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. RUST_LOG sets the level if it is set, otherwise `debug` does. Colours appear
/// only on a terminal and without NO_COLOR.
pub(crate) fn start(debug: bool) {
    let default = if debug { "ringest=debug" } else { "ringest=info" };
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            EnvFilter::try_new(&directives).unwrap_or_else(|error| {
                say(format_args!("RUST_LOG is ignored: {error}"));
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
        // Reporting an error of a closed stderr would panic, and must not stop an engine.
        .log_internal_errors(false)
        .init();
}
