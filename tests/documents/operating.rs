//! The operating pages have every metric, every key of the state, and every check of `doctor`.

use super::{files_below, output_of, read, row, section};
use ringest::internals::{Counters, EngineState, Facts, Rates, Snapshot, exposition};
use std::time::Duration;

const METRICS: &str = "docs/operating/metrics.md";

/// The state of an engine with one worker that has just begun.
fn snapshot() -> Snapshot {
    let facts = Facts {
        state: EngineState::Ready,
        uptime: Duration::ZERO,
        started: Duration::ZERO,
        resident_bytes: Some(1),
        cores: &[0],
    };
    Snapshot::take(&Counters::new(1).0, &facts, &Rates::default())
}

#[test]
fn every_metric_is_documented() {
    let page = read(METRICS);
    let text = exposition(snapshot()).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut count = 0;
    for (name, kind) in names {
        let row = row(&page, name).unwrap_or_else(|| panic!("{name} in {METRICS}"));
        assert!(row.contains(kind), "{name} is a {kind}: {row}");
        count += 1;
    }
    assert!(count >= 20, "{text}");
}

#[test]
fn every_key_of_the_state_is_documented() {
    let page = section(&read(METRICS), "### stats.json");
    let state = serde_json::to_value(snapshot()).unwrap();
    for (key, value) in state.as_object().unwrap() {
        let row = row(&page, key).unwrap_or_else(|| panic!("{key} in {METRICS}"));
        let inner = value.as_array().map_or(value, |list| &list[0]);
        // Reasons and faults have tables of their own.
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
    let page = read("docs/operating/install.md");
    for finding in findings["findings"].as_array().unwrap() {
        let check = finding["check"].as_str().unwrap();
        assert!(row(&page, check).is_some(), "{check}");
    }
}

/// What the sources print, with continued string literals joined.
fn sources() -> String {
    let files = files_below("src", ".rs").into_iter().chain(files_below("deploy", ".py"));
    let text: String = files.map(|path| read(&path)).collect();
    let mut joined = String::with_capacity(text.len());
    for piece in text.split("\\\n") {
        joined.push_str(if joined.is_empty() { piece } else { piece.trim_start() });
    }
    joined
}

/// A key has words of the program around what varies: `…`, `N`, an option, an error of the system.
#[test]
fn the_keys_of_troubleshooting_are_texts_of_the_program() {
    // Printed by the option parser, made of a name, or put together from several literals.
    const OTHERS: [&str; 3] = ["error: invalid value", "FILE:LINE:COLUMN", "cannot read or write"];
    let page = read("docs/operating/troubleshooting.md");
    let (own, _) = page.split_once("\n## Build and containers").expect("the last part");
    let sources = sources();
    let mut count = 0;
    for key in own.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
        if OTHERS.iter().any(|other| key.starts_with(other)) {
            continue;
        }
        let varies = |word: &str| {
            let word = word.trim_matches(['.', ';', ':', ',', '(', ')', '"']);
            matches!(word, "N" | "FILE" | "DIR") || word.contains('…') || word.starts_with("--")
        };
        let key: Vec<&str> = key.split(' ').collect();
        let pieces = key.split(|word| varies(word)).map(|words| words.join(" "));
        let pieces: Vec<String> = pieces
            .flat_map(|words| words.split(": ").map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let words = pieces.iter().map(|piece| piece.trim_matches([' ', '.', ';', '(', ')']));
        let mut words = words.filter(|words| words.len() >= 8).peekable();
        if words.peek().is_none() {
            continue;
        }
        assert!(words.any(|words| sources.contains(words)), "no text of the program: {key:?}");
        count += 1;
    }
    assert!(count >= 80, "{count} keys");
}

/// The groups of results whose file is missing, from the printed lines, with every digit.
#[test]
fn groups_of_missing_files_are_recovered_with_every_digit() {
    let page = section(&read("docs/operating/results.md"), "## A full disk");
    let (_, recipe) = page.split_once("```sh\n").expect("a recipe");
    let (recipe, _) = recipe.split_once("\n```").expect("its end");
    let group = r#"{"site": "Zürich\\x00", "u": 18446744073709551615, "i": -9223372036854775808}"#;
    let line =
        |error: &str, groups: &str| format!("{{\"file_error\":{error},\"groups\":[{groups}]}}\n");
    let results = [line("null", "{}"), line("\"No space left on device\"", group)].concat();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("results.ndjson"), results).unwrap();
    let mut shell = std::process::Command::new("bash");
    let shell = shell.args(["-c", recipe]).current_dir(directory.path()).env("PYTHONUTF8", "1");
    let output = shell.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{group}\n"));
}
