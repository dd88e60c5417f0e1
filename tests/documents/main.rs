//! The documents against the program and against each other: names, formats, links, test vectors.
//! Does not judge prose.

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod formats;
mod limits;
mod links;
mod operating;
mod options;
mod protocol;
mod snippets;
mod vectors;

use common::root;
use std::fs;
use std::path::Path;

/// A file of the repository, by its path from the root.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths from the root of all files below `directory` that end in `ending`, sorted.
fn files_below(directory: &str, ending: &str) -> Vec<String> {
    fn visit(directory: &Path, ending: &str, found: &mut Vec<String>) {
        let entries = fs::read_dir(directory);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.to_str().expect("paths are UTF-8").to_owned();
            match path.is_dir() {
                true => visit(&path, ending, found),
                false if name.ends_with(ending) => found.push(name),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    visit(&root().join(directory), ending, &mut found);
    let root = format!("{}/", root().display());
    let mut found: Vec<String> =
        found.iter().map(|path| path.strip_prefix(&root).unwrap().to_owned()).collect();
    found.sort();
    found
}

/// What the program prints on stdout.
fn output_of(arguments: &[&str]) -> String {
    let output = common::run(common::ringest().args(arguments));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The text under a heading, up to the next heading of its level.
fn section(document: &str, heading: &str) -> String {
    let begin = format!("\n{heading}\n");
    let (_, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("no {heading}"));
    let level = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{level} ")).next().unwrap().to_owned()
}

/// The row of a table with this name in its first column.
fn row<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("| `{name}` |");
    document.lines().find(|line| line.starts_with(&start))
}

/// The names in the first column of all tables.
fn names(document: &str) -> Vec<&str> {
    document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name))
        .collect()
}
