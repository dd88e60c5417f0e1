//! The page of formats against what the program writes: keys of the JSON objects, names of files,
//! their metadata and columns.

use super::common::{Engine, ringest, run, send, stderr_of};
use super::vectors::vectors;
use super::{names, read, section};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FORMATS: &str = "docs/reference/results-format.md";

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The names in the first column of the tables of a text.
fn listed(text: &str) -> BTreeSet<&str> {
    names(text).into_iter().collect()
}

/// The one file below `directory` whose name ends in `ending`.
fn file(directory: &Path, ending: &str) -> Vec<u8> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.to_str().unwrap().ends_with(ending));
    let path = found.next().unwrap_or_else(|| panic!("no {ending}"));
    assert!(found.next().is_none(), "one {ending}");
    fs::read(path).unwrap()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Every key of a line, and every file that belongs to it.
#[test]
fn a_line_and_its_files_are_what_the_page_says() {
    let directories = ["output", "capture", "partials", "hgrm"].map(|name| {
        let directory = tempfile::tempdir().unwrap();
        (format!("--{name}"), directory)
    });
    let mut options = vec!["--exit-after", "1", "--node", "here"];
    for (option, directory) in &directories {
        options.extend([option.as_str(), directory.path().to_str().unwrap()]);
    }
    let engine = Engine::start(&options);
    let vectors = vectors();
    let stream = &vectors["schemas"][0]["streams"][0];
    let sent = super::vectors::bytes(&stream["bytes"]);
    send(&engine, &sent);
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");

    let page = read(FORMATS);
    let ndjson = section(&page, "## ndjson");
    let (table, _) = ndjson.split_once("```json").unwrap();
    assert_eq!(keys(&results[0]), listed(table));
    for key in keys(&results[0]["latency_us"]) {
        assert!(table.contains(&format!("`{key}`")), "{key} of latency_us");
    }

    let [output, capture, partials, hgrm] = directories.each_ref().map(|(_, path)| path.path());
    let parquet = file(output, ".parquet");
    for name in names(&section(&page, "## Result files")) {
        // Without --output-columns these are metadata only.
        let is_metadata = name.starts_with("ringest.");
        assert!(!is_metadata || contains(&parquet, name), "{name} in the file's metadata");
    }
    assert_eq!(file(capture, "-1.capture"), sent);
    assert!(file(hgrm, "-1.hgrm").starts_with(b"       Value     Percentile TotalCount"));

    let (groups, stream) =
        (file(partials, "-1-000000.groups.parquet"), file(partials, "-1-000000.stream.parquet"));
    let columns = section(&page, "## Partials");
    let (own, about) = columns.split_once("**`.stream.parquet`**").unwrap();
    for name in names(own).into_iter().filter(|name| !name.contains("_X")) {
        assert!(contains(&groups, name) && contains(&stream, name), "{name} in both files");
    }
    for name in names(about) {
        assert!(contains(&stream, name), "{name} in the file about the batch");
    }
    merged_lines_are_what_the_page_says(&page, partials);
}

fn merged_lines_are_what_the_page_says(page: &str, partials: &Path) {
    let merged = run(ringest().args(["merge", "--format", "ndjson"]).arg(partials));
    assert_eq!(merged.status.code(), Some(0), "{}", stderr_of(&merged));
    let line: Value = serde_json::from_slice(&merged.stdout).unwrap();
    let section = section(page, "## Merged results");
    let (own, scripts) = section.split_once("The merges for DuckDB and Spark").unwrap();
    assert_eq!(keys(&line), listed(own));
    // What the scripts print is a part of it; the page says which keys they lack.
    let lacking = scripts.split_once("They lack ").unwrap().1.split('.').next().unwrap();
    for key in keys(&line) {
        let (printed, lacks) =
            (listed(scripts).contains(key), lacking.contains(&format!("`{key}`")));
        assert!(printed != lacks, "{key}: printed {printed}, said to lack {lacks}");
    }
}
