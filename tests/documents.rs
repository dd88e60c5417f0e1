//! The documents name what the program has: options, variables, reasons, checks, files.

use ringest::engine::report::Reason;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    assert!(found.len() >= 15, "{help}");
    found
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
    for (_, variable, _) in options() {
        if !matches!(variable.as_str(), "RINGEST_HOST" | "RINGEST_RECORDS_PORT") {
            assert!(compose.contains(&format!("    - {variable}\n")), "{variable}");
        }
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
fn every_check_of_doctor_is_documented() {
    let findings = output_of(&["doctor", "--records-port", "0", "--format", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&findings).unwrap();
    let operations = read("docs/OPERATIONS.md");
    for finding in findings["findings"].as_array().unwrap() {
        let check = finding["check"].as_str().unwrap();
        assert!(operations.contains(&format!("| `{check}` |")), "{check}");
    }
}

#[test]
fn every_source_file_stands_in_the_map() {
    fn visit(directory: &Path, map: &str) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                visit(&path, map);
            } else if name != "mod.rs" && !name.ends_with("_tests.rs") {
                assert!(map.contains(&format!("| `{name}` |")), "{name} in ARCHITECTURE.md");
            }
        }
    }
    visit(&root().join("src"), &read("docs/ARCHITECTURE.md"));
}
