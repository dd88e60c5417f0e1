//! Options, environment variables and commands, as `--help` prints them, are in the documents.

use super::{common, output_of, read};

/// The names of all commands, without `help`.
fn commands() -> Vec<String> {
    let help = output_of(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        // Continued summaries are indented further.
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split(' ').next()
    });
    let found: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(found.len() >= 7, "{help}");
    found
}

/// An option of `serve`, as `--help` shows it.
#[derive(Default)]
pub struct ServeOption {
    pub name: String,
    pub variable: String,
    pub default: Option<String>,
}

/// The options of `serve`.
pub fn options() -> Vec<ServeOption> {
    let help = output_of(&["serve", "--help"]);
    let mut found: Vec<ServeOption> = Vec::new();
    for line in help.lines().map(str::trim) {
        // An option may have a short form before it.
        let long = line.split_once("-h, ").map_or(line, |(_, rest)| rest);
        if let Some(option) = long.strip_prefix("--") {
            let name = option.split(' ').next().unwrap().to_owned();
            found.push(ServeOption { name, ..ServeOption::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest);
        if let Some(rest) = after("[env: ") {
            last.variable = rest.split('=').next().unwrap().to_owned();
        }
        if let Some(rest) = after("[default: ") {
            last.default = Some(rest.split(']').next().unwrap().to_owned());
        }
    }
    found.retain(|option| option.name != "help");
    assert!(found.len() >= 30, "{help}");
    found
}

#[test]
fn the_page_of_options_is_what_the_program_prints() {
    let printed = output_of(&["reference", "options"]);
    assert!(!printed.is_empty());
    assert!(
        read("docs/reference/options.md") == printed,
        "it is out of date; run `cargo run -- reference options > docs/reference/options.md`"
    );
}

/// Neither the terminal nor variables that set options change the page.
#[test]
fn the_page_of_options_does_not_depend_on_the_environment() {
    let mut command = common::ringest();
    command.args(["reference", "options"]);
    command.envs([("COLUMNS", "40"), ("TERM", "x"), ("RATE_LIMIT", "5"), ("RINGEST_PORT", "1")]);
    let printed = String::from_utf8(common::run(&mut command).stdout).expect("UTF-8");
    assert_eq!(printed, output_of(&["reference", "options"]));
}

#[test]
fn the_page_of_options_has_every_command_and_every_option_of_serve() {
    let page = read("docs/reference/options.md");
    for command in commands() {
        assert!(page.contains(&format!("ringest {command}")), "{command}");
    }
    for ServeOption { name, variable, .. } in options() {
        assert!(page.contains(&format!("`--{name}")), "{name}");
        assert!(page.contains(&format!("`{variable}`")), "{variable}");
    }
}

#[test]
fn compose_passes_every_option_on() {
    let compose = read("compose.yaml");
    // Where it listens is the container's own affair.
    let own = |variable: &str| variable.ends_with("_HOST") || variable.ends_with("_PORT");
    let variables = options().into_iter().map(|option| option.variable);
    let short = ["MAX_CONNECTIONS", "RATE_LIMIT"].map(str::to_owned);
    for variable in variables.filter(|variable| !own(variable)).chain(short) {
        assert!(compose.contains(&format!("    - {variable}\n")), "{variable}");
    }
}
