//! Options that come from the environment: what Kubernetes sets for a Service is not a port, and an
//! error about a value names the variable that it came from.

use super::Args;
use crate::cli::terminal::status_line::say;
use crate::wire::text::Escaped;
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

/// The options of this process whose values come from the environment, with their variables.
static ORIGINS: OnceLock<Vec<OptionOrigin>> = OnceLock::new();

/// An option whose value comes from the environment.
struct OptionOrigin {
    /// As errors name it: an option with its dashes, an argument in brackets.
    name: String,
    variable: String,
}

impl OptionOrigin {
    /// Whether a text is about the option: it names it, or its value.
    fn is_in(&self, text: &str) -> bool {
        let named = text.match_indices(&self.name).any(|(at, _)| {
            let next = text[at + self.name.len()..].chars().next();
            !next.is_some_and(|next| next.is_ascii_alphanumeric() || next == '-')
        });
        // Only one that cannot be anything else by chance.
        named
            || self.value().is_some_and(|value| value.contains(['/', '.']) && text.contains(&value))
    }

    /// The value, if it is UTF-8.
    fn value(&self) -> Option<String> {
        std::env::var(&self.variable).ok()
    }

    fn told(&self) -> String {
        format!("{} comes from the environment variable {}", self.name, self.variable)
    }
}

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
    // The variables that Kubernetes sets are out of it by now.
    let origins = origins(&command, &arguments);
    let parsed = command
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| Args::from_arg_matches(&matches).map_err(|e| e.format(&mut command)));
    let parsed = parsed.unwrap_or_else(|error| with_variables(error, &origins).exit());
    let _ = ORIGINS.set(origins);
    parsed
}

/// The options of a command and of the subcommands on the command line that come from the
/// environment.
fn origins(command: &Command, arguments: &[OsString]) -> Vec<OptionOrigin> {
    let own = command.get_arguments().filter_map(|arg| origin(arg, arguments));
    let inner = arguments.iter().skip(1).find_map(|word| command.find_subcommand(word));
    own.chain(inner.map(|inner| origins(inner, arguments)).unwrap_or_default()).collect()
}

/// Where the value of an option comes from, if that is the environment.
fn origin(arg: &Arg, arguments: &[OsString]) -> Option<OptionOrigin> {
    let variable = variable(arg)?;
    std::env::var_os(&variable)?;
    let name = match arg.get_long() {
        Some(long) if is_given(long, arguments) => return None,
        Some(long) => format!("--{long}"),
        None => arg.to_string(),
    };
    Some(OptionOrigin { name, variable })
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

/// The error, with the variables that its options come from.
fn with_variables(mut error: clap::Error, origins: &[OptionOrigin]) -> clap::Error {
    let named = match error.get(ContextKind::InvalidArg) {
        // The usage may name others, which are not wrong.
        Some(ContextValue::String(wrong)) if error.kind() != ErrorKind::ArgumentConflict => {
            wrong.clone()
        }
        _ => error.to_string(),
    };
    let concerned = |origin: &&OptionOrigin| match error.kind() {
        // This one names nothing.
        ErrorKind::InvalidUtf8 => origin.value().is_none(),
        _ => origin.is_in(&named),
    };
    let tips: Vec<_> =
        origins.iter().filter(concerned).map(|origin| origin.told().into()).collect();
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The text of an error, with the variables that the options in it come from.
pub(crate) fn explained(error: impl Display) -> String {
    let text = error.to_string();
    let origins = ORIGINS.get().map_or(&[][..], Vec::as_slice);
    let told: Vec<String> =
        origins.iter().filter(|origin| origin.is_in(&text)).map(OptionOrigin::told).collect();
    if told.is_empty() { text } else { format!("{text}; {}", told.join(", ")) }
}

/// Prints an error on stderr, with the variables that the options in it come from.
pub(crate) fn complain(error: impl Display) {
    say(explained(error));
}
