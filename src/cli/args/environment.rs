//! Options that come from the environment: what Kubernetes sets for a Service is not a port, and an
//! error about a value names the variable that it came from.

use super::Args;
use crate::cli::terminal::status_line::say;
use crate::config::ConfigError;
use crate::wire::text::Escaped;
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Parses the command line, as `Args::parse` does.
pub(crate) fn parse() -> Args {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = Args::command();
    let chosen = arguments.iter().skip(1).find_map(|word| {
        let name = command.find_subcommand(word)?.get_name();
        Some(name.to_owned())
    });
    if let Some(name) = &chosen {
        command = command.mut_subcommand(name, |chosen| without_service_links(chosen, &arguments));
    }
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| Args::from_arg_matches(&matches).map_err(|e| e.format(&mut command)));
    parsed.unwrap_or_else(|error| {
        let chosen = chosen.and_then(|name| command.find_subcommand(name));
        with_variable(error, chosen, &arguments).exit()
    })
}

/// Makes the ports of a command ignore the variables that Kubernetes sets for a Service: for one
/// named `ringest`, RINGEST_PORT is `tcp://10.0.0.1:5000`.
fn without_service_links(command: Command, arguments: &[OsString]) -> Command {
    let linked = |arg: &&Arg| variable(arg).is_some_and(|name| is_service_link(&name));
    let linked: Vec<_> = command.get_arguments().filter(linked).cloned().collect();
    linked.into_iter().fold(command, |command, arg| {
        let name = variable(&arg).unwrap_or_default();
        let value = std::env::var_os(&name).unwrap_or_default();
        if !is_given(arg.get_long().unwrap_or_default(), arguments) {
            say(format_args!(
                "{name}={} is ignored, since Kubernetes sets it for a Service of that name; set \
                 {name} to a number in the pod, or turn its enableServiceLinks off",
                Escaped(value.as_bytes()),
            ));
        }
        command.mut_arg(arg.get_id(), |arg| arg.env(Resettable::Reset))
    })
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env()?.to_str().map(str::to_owned)
}

fn is_service_link(name: &str) -> bool {
    let is_link = |value: OsString| {
        let value = value.as_bytes();
        [&b"tcp://"[..], b"udp://", b"sctp://"].iter().any(|scheme| value.starts_with(scheme))
    };
    name.ends_with("_PORT") && std::env::var_os(name).is_some_and(is_link)
}

/// Whether the option `--long` is on the command line.
fn is_given(long: &str, arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).any(|word| {
        let rest = word.to_str().and_then(|word| word.strip_prefix("--")?.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// The error, with the variable that the value came from.
fn with_variable(
    mut error: clap::Error,
    command: Option<&Command>,
    arguments: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let named = |arg: &&Arg| arg.to_string() == *shown;
    let arg = command.and_then(|command| command.get_arguments().find(named));
    let Some((arg, name)) = arg.and_then(|arg| Some((arg, variable(arg)?))) else { return error };
    let given = is_given(arg.get_long().unwrap_or_default(), arguments);
    if !given && std::env::var_os(&name).is_some() {
        let tip = format!("the value comes from the environment variable {name}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The text of an error in a configuration, with the variable that the value came from.
pub(crate) fn explain(error: &ConfigError) -> String {
    let ConfigError::OutOfRange(wrong) = error else { return error.to_string() };
    // A unit may follow the name.
    let option = wrong.option.split(' ').next().unwrap_or_default();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let short = option.to_uppercase().replace('-', "_");
    let names = [format!("RINGEST_{short}"), short];
    let set = names.iter().find(|name| std::env::var_os(name).is_some());
    match set.filter(|_| !is_given(option, &arguments)) {
        Some(name) => format!("{error}; the value comes from the environment variable {name}"),
        None => error.to_string(),
    }
}
