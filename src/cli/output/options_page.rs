//! docs/reference/options.md: every option of every command, as Markdown. Takes all of it from the
//! command line's definition, so that the page cannot differ from the program.

use clap::{Arg, ArgAction, Command};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Options

Every command and its options. This page is printed by the program itself:

```sh
ringest reference options > docs/reference/options.md
```

Most options can also be set through an environment variable; the command line wins. Sizes take
units, such as `64KiB` or `1MB`, and so do times, such as `500ms`, `10s` or `2h`. Switches take no
value; their variables take `true` or `false`. The variables `RATE_LIMIT` and `MAX_CONNECTIONS` are
read as well where the longer name is not set.
";

/// Heading of the options that have none.
const WITHOUT_HEADING: &str = "Options";

/// The page, from the definition of the whole command line.
pub(crate) fn options_page(mut root: Command) -> String {
    // Gives every command its full name, and makes options known that are shared by all.
    root.build();
    let mut page = INTRODUCTION.to_owned();
    let about = "Every command takes these";
    write_command(&mut page, &root, "All commands", about, &|arg| arg.is_global_set());
    for command in root.get_subcommands().filter(|command| is_shown(command)) {
        write_with_children(&mut page, command);
    }
    page
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn write_with_children(page: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let title = format!("`{name}`");
    write_command(page, command, &title, &about, &|arg| !arg.is_global_set());
    for child in command.get_subcommands().filter(|child| is_shown(child)) {
        write_with_children(page, child);
    }
}

fn write_command(
    page: &mut String,
    command: &Command,
    title: &str,
    about: &str,
    includes: &dyn Fn(&Arg) -> bool,
) {
    line(page, format_args!("\n## {title}\n\n{about}."));
    let shown = |arg: &&Arg| {
        let is_help = matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort);
        !arg.is_hide_set() && !is_help && arg.get_id() != "help" && includes(arg)
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    let (positional, options): (Vec<_>, Vec<_>) =
        arguments.into_iter().partition(|arg| arg.is_positional());
    write_section(page, "Arguments", &positional);
    let mut headings: Vec<&str> = Vec::new();
    for option in &options {
        if !headings.contains(&heading(option)) {
            headings.push(heading(option));
        }
    }
    for name in headings {
        let section: Vec<&Arg> =
            options.iter().copied().filter(|option| heading(option) == name).collect();
        write_section(page, name, &section);
    }
}

fn heading(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or(WITHOUT_HEADING)
}

fn write_section(page: &mut String, heading: &str, arguments: &[&Arg]) {
    if arguments.is_empty() {
        return;
    }
    line(page, format_args!("\n### {heading}\n"));
    line(page, format_args!("| Option | Variable | Default | Values | Meaning |"));
    line(page, format_args!("| --- | --- | --- | --- | --- |"));
    for argument in arguments {
        write_row(page, argument);
    }
}

fn write_row(page: &mut String, arg: &Arg) {
    let (meaning, range) = meaning(arg);
    let variable = variable(arg).map(|name| format!("`{name}`")).unwrap_or_default();
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    // A switch is off by default, which its variable could say as `false`.
    let default = if arg.get_action().takes_values() { defaults.join(", ") } else { String::new() };
    let choices: Vec<String> = possible_values(arg).map(|(name, _)| format!("`{name}`")).collect();
    let values = range.unwrap_or_else(|| choices.join(", "));
    let name = name(arg);
    let meaning = cell(&meaning);
    line(page, format_args!("| `{name}` | {variable} | {default} | {values} | {meaning} |"));
}

/// The option as it is typed, with the name of its value.
fn name(arg: &Arg) -> String {
    let values: Vec<&str> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let value = if values.is_empty() { arg.get_id().as_str() } else { &values.join(" ") };
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None if matches!(arg.get_num_args(), Some(range) if range.max_values() > 1) => {
            format!("{value}...")
        }
        None => value.to_owned(),
    }
}

/// The variable that sets an option. Where the environment of this process has the short name of
/// one, clap was given that; the page must not depend on it.
fn variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?;
    Some(match name.starts_with("RINGEST_") {
        true => name.to_owned(),
        false => format!("RINGEST_{name}"),
    })
}

/// The help as one paragraph, and the range of values that its first sentence ends with, in
/// brackets.
fn meaning(arg: &Arg) -> (String, Option<String>) {
    let (short, long) = (arg.get_help(), arg.get_long_help());
    let short = short.or(long).map(ToString::to_string).unwrap_or_default();
    let all = long.map(ToString::to_string).unwrap_or_else(|| short.clone());
    let rest = all.strip_prefix(&short).unwrap_or_default();
    let (first, range) = match short.strip_suffix(']').and_then(|text| text.rsplit_once(" [")) {
        Some((first, range)) => (first, Some(range.to_owned())),
        None => (short.as_str(), None),
    };
    let mut meaning = first.to_owned();
    if !meaning.is_empty() && !meaning.ends_with('.') {
        meaning.push('.');
    }
    for paragraph in rest.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
        meaning.push(' ');
        meaning.push_str(paragraph);
        if !paragraph.ends_with('.') {
            meaning.push('.');
        }
    }
    for (name, help) in possible_values(arg) {
        if let Some(help) = help {
            write!(meaning, "<br>`{name}`: {help}").expect("a string takes all");
        }
    }
    (meaning, range)
}

/// The names to choose from and what each means; none for a switch.
fn possible_values(arg: &Arg) -> impl Iterator<Item = (String, Option<String>)> {
    let values = if arg.get_action().takes_values() { arg.get_possible_values() } else { vec![] };
    values
        .into_iter()
        .map(|value| (value.get_name().to_owned(), value.get_help().map(|help| help.to_string())))
}

/// Text for a cell of a table: on one line, with nothing that Markdown or HTML would take as its
/// own.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

fn line(page: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(page, "{line}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let first = Command::new("first")
            .about("Do it")
            .arg(Arg::new("file").value_name("FILE").num_args(1..).help("What to read"))
            .arg(
                Arg::new("form")
                    .long("form")
                    .env("FORM")
                    .default_value("a")
                    .value_parser(["a", "b"])
                    .help("Form of a|b")
                    .long_help("Form of a|b\n\nMore about it"),
            )
            .arg(
                Arg::new("size")
                    .long("size")
                    .value_name("N")
                    .help_heading("Limits")
                    .help("Size of it [1 to 9]"),
            )
            .arg(Arg::new("on").long("on").action(ArgAction::SetTrue).help("Turn it on"));
        Command::new("tool")
            .arg(Arg::new("debug").long("debug").global(true).action(ArgAction::SetTrue))
            .subcommand(first)
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn a_page_lists_each_option_once_under_its_heading() {
        let page = options_page(command());
        let expected = "
## `tool first`

Do it.

### Arguments

| Option | Variable | Default | Values | Meaning |
| --- | --- | --- | --- | --- |
| `FILE...` |  |  |  | What to read. |

### Options

| Option | Variable | Default | Values | Meaning |
| --- | --- | --- | --- | --- |
| `--form form` | `RINGEST_FORM` | `a` | `a`, `b` | Form of a\\|b. More about it. |
| `--on` |  |  |  | Turn it on. |

### Limits

| Option | Variable | Default | Values | Meaning |
| --- | --- | --- | --- | --- |
| `--size N` |  |  | 1 to 9 | Size of it. |
";
        assert!(page.ends_with(expected), "{page}");
        assert_eq!(page.matches("`--debug`").count(), 1, "{page}");
        assert!(!page.contains("secret"), "{page}");
    }
}
