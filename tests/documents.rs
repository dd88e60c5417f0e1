//! The documents name what the program has: options, variables, commands, reasons, metrics, keys,
//! checks, files. Judges no sentence.

use ringest::internals::{
    Counters, EngineState, Facts, Fault, Rates, Reason, Snapshot, exposition,
};
use ringest::protocol::frame::FrameType;
use ringest::protocol::payload::ErrorCode;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn output_of(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringest")).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Commands with their summary, without `help`.
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

/// Options of `serve` with their variable and, where there is one, their default.
fn options() -> Vec<(String, String, Option<String>)> {
    let help = output_of(&["serve", "--help"]);
    let mut found: Vec<(String, String, Option<String>)> = Vec::new();
    for line in help.lines().map(str::trim) {
        if let Some(option) = line.strip_prefix("--") {
            found.push((option.split(' ').next().unwrap().to_owned(), String::new(), None));
        }
        let Some(last) = found.last_mut() else { continue };
        let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest);
        if let Some(rest) = after("[env: ") {
            last.1 = rest.split('=').next().unwrap().to_owned();
        }
        if let Some(rest) = after("[default: ") {
            last.2 = Some(rest.split(']').next().unwrap().to_owned());
        }
    }
    found.retain(|(option, ..)| option != "help");
    assert!(found.len() >= 30, "{help}");
    found
}

/// A snapshot of an engine with one worker that has just begun.
fn snapshot() -> Snapshot {
    let facts = Facts {
        state: EngineState::Ready,
        uptime: Duration::ZERO,
        started: Duration::ZERO,
        resident_bytes: Some(1),
        cores: &[0],
    };
    Snapshot::take(&Counters::new(1), &facts, &Rates::default())
}

/// What stands under a heading, up to the next of its kind.
fn section(document: &str, heading: &str) -> String {
    let begin = format!("\n{heading}\n");
    let (_, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{level} ")).next().unwrap().to_owned()
}

/// The row of a table that begins with this word in its first column.
fn row<'a>(document: &'a str, word: &str) -> Option<&'a str> {
    let start = format!("| `{word}` |");
    document.lines().find(|line| line.starts_with(&start))
}

#[test]
fn the_readme_has_every_option_with_its_variable_and_default() {
    let readme = read("README.md");
    for (option, variable, default) in options() {
        let start = format!("| `--{option}` | `{variable}` |");
        let row = readme.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("README.md lacks {start}"));
        if let Some(default) = default {
            assert!(row.contains(&format!("`{default}`")), "default {default} in {row}");
        }
    }
}

#[test]
fn compose_passes_every_option_on() {
    let compose = read("compose.yaml");
    // Where it listens is the container's own affair.
    let own = |variable: &str| variable.ends_with("_HOST") || variable.ends_with("_PORT");
    let variables = options().into_iter().map(|(_, variable, _)| variable);
    let short = ["MAX_CONNECTIONS", "RATE_LIMIT"].map(str::to_owned);
    for variable in variables.filter(|variable| !own(variable)).chain(short) {
        assert!(compose.contains(&format!("    - {variable}\n")), "{variable}");
    }
}

#[test]
fn the_readme_has_every_command() {
    let readme = read("README.md");
    for command in commands() {
        assert!(readme.contains(&format!("`ringest {command}")), "{command}");
    }
}

#[test]
fn every_reason_is_documented_for_clients_and_for_operators() {
    for reason in Reason::ALL {
        let word = format!("`{}`", reason.as_str());
        let row = |path: &str, status: &str| {
            read(path).lines().any(|line| line.contains(&word) && line.contains(status))
        };
        assert!(row("docs/PROTOCOL.md", reason.status().as_str()), "{word}");
        assert!(row("docs/OPERATIONS.md", ""), "{word}");
    }
}

#[test]
fn every_fault_is_documented_for_clients_and_for_operators() {
    let protocol = read("docs/PROTOCOL.md");
    let operations = section(&read("docs/OPERATIONS.md"), "### Message connections");
    for fault in Fault::ALL {
        let word = format!("`{}`", fault.as_str());
        let code = fault.code().map_or("nothing", ErrorCode::name);
        // A word may be a record stream's reason as well: one of its rows names the code.
        let told = |line: &str| line.contains(&word) && line.contains(code);
        assert!(protocol.lines().any(told), "{word} with {code} in PROTOCOL.md");
        let said = fault.code().is_none() || protocol.contains(fault.message());
        assert!(said, "{:?} in PROTOCOL.md", fault.message());
        assert!(row(&operations, fault.as_str()).is_some(), "{word} in OPERATIONS.md");
    }
}

#[test]
fn every_type_and_every_error_code_stands_in_the_protocol() {
    let protocol = read("docs/PROTOCOL.md");
    for kind in FrameType::ALL {
        let start = format!("| {} | 0x{:02X} |", kind.name(), kind as u8);
        assert!(protocol.lines().any(|line| line.starts_with(&start)), "{start}");
    }
    for code in ErrorCode::ALL {
        let start = format!("| {} | 0x{:02X} |", code.name(), code as u8);
        assert!(protocol.lines().any(|line| line.starts_with(&start)), "{start}");
    }
}

#[test]
fn every_metric_is_documented() {
    let operations = read("docs/OPERATIONS.md");
    let text = exposition(snapshot()).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut count = 0;
    for (name, kind) in names {
        let row = row(&operations, name).unwrap_or_else(|| panic!("{name} in OPERATIONS.md"));
        assert!(row.contains(kind), "{name} is a {kind}: {row}");
        count += 1;
    }
    assert!(count >= 20, "{text}");
}

#[test]
fn every_key_of_the_state_is_documented() {
    let operations = section(&read("docs/OPERATIONS.md"), "### stats.json");
    let state = serde_json::to_value(snapshot()).unwrap();
    for (key, value) in state.as_object().unwrap() {
        let row = row(&operations, key).unwrap_or_else(|| panic!("{key} in OPERATIONS.md"));
        let inner = value.as_array().map_or(value, |list| &list[0]);
        // Words of reasons stand in tables of their own.
        let inner = inner.as_object().filter(|_| !key.ends_with("_by_reason"));
        for name in inner.into_iter().flat_map(|object| object.keys()) {
            assert!(row.contains(&format!("`{name}`")), "{key}: {name}: {row}");
        }
    }
}

#[test]
fn every_check_of_doctor_is_documented() {
    let any_port = ["--records-port", "0", "--port", "0"];
    let findings = output_of(&[&["doctor", "--format", "json"], &any_port[..]].concat());
    let findings: serde_json::Value = serde_json::from_str(&findings).unwrap();
    let operations = read("docs/OPERATIONS.md");
    for finding in findings["findings"].as_array().unwrap() {
        let check = finding["check"].as_str().unwrap();
        assert!(operations.contains(&format!("| `{check}` |")), "{check}");
    }
}

#[test]
fn the_clients_have_their_own_documents() {
    assert!(read("clients/python/README.md").contains("BinaryProtocolClient"));
    assert!(read("README.md").contains("clients/python/README.md"));
}
