//! The layout of src/ as DESIGN wants it: imports only go down, Polars and tokio-uring are named
//! where they belong, and the protocol core stays pure.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer and those that it may import. `client` stands beside `runtime`.
const LAYERS: [(&str, &[&str]); 6] = [
    ("config", &[]),
    ("wire", &["config"]),
    ("engine", &["wire", "config"]),
    ("runtime", &["engine", "wire", "config"]),
    ("client", &["engine", "wire", "config"]),
    ("cli", &["client", "runtime", "engine", "wire", "config"]),
];

const FILE_LINES_MAX: usize = 600;
const LINE_COLUMNS_MAX: usize = 100;

fn sources() -> Vec<(PathBuf, String)> {
    fn collect(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the sources are there");
    found
}

/// First part of the path within src/, without `.rs`.
fn layer_of(path: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Code without comments; strings may stay, they name no modules.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    (1..).zip(lines)
}

/// The layers that a line imports through `crate::`.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, prefix) in line.match_indices("crate::").chain(line.match_indices("ringest::")) {
        let rest = &line[at + prefix.len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split(',').collect(),
            None => vec![rest],
        };
        found.extend(names.into_iter().map(|name| {
            name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        }));
    }
    found
}

#[test]
fn imports_only_go_down() {
    for (path, text) in sources() {
        let layer = layer_of(&path);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            assert!(matches!(layer.as_str(), "main" | "lib"), "{layer} is no layer");
            continue;
        };
        for (number, line) in code(&text) {
            for import in imports(line) {
                assert!(
                    import == layer || allowed.contains(&import.as_str()),
                    "{}:{number}: {layer} may not import {import}",
                    path.display()
                );
            }
        }
    }
}

fn assert_named_only_in(words: &[&str], allowed: &dyn Fn(&Path) -> bool) {
    let mut seen = false;
    for (path, text) in sources() {
        for (number, line) in code(&text) {
            let named = words.iter().any(|word| line.contains(word));
            seen |= named;
            assert!(!named || allowed(&path), "{}:{number}: {line}", path.display());
        }
    }
    assert!(seen, "{words:?} occur where they belong");
}

#[test]
fn polars_is_named_in_one_module() {
    assert_named_only_in(&["polars::", "polars_io::", "use polars"], &|path| {
        path.parent().is_some_and(|directory| directory.ends_with("engine/aggregate"))
    });
}

#[test]
fn rings_and_pinning_are_named_in_the_runtime_only() {
    let words = ["tokio_uring", "core_affinity", "tokio::", "std::net::TcpListener"];
    assert_named_only_in(&words, &|path| layer_of(path) == "runtime");
}

#[test]
fn the_protocol_core_is_pure() {
    let banned = ["unsafe ", "std::io", "std::fs", "std::thread", "::now()", "SystemTime"];
    for (path, text) in sources().into_iter().filter(|(path, _)| layer_of(path) == "wire") {
        for (number, line) in code(&text) {
            for word in banned {
                assert!(!line.contains(word), "{}:{number}: {word}", path.display());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/mod.rs");
    assert!(fs::read_to_string(root).unwrap().contains("#![forbid(unsafe_code)]"));
}

#[test]
fn every_file_says_first_what_it_is_and_stays_small() {
    for (path, text) in sources() {
        let path = path.display();
        assert!(text.starts_with("//! "), "{path} begins with what it does and does not do");
        assert!(text.lines().count() <= FILE_LINES_MAX, "{path} is too long");
        for (number, line) in (1..).zip(text.lines()) {
            assert!(line.chars().count() <= LINE_COLUMNS_MAX, "{path}:{number} is too wide");
        }
    }
}

/// The check itself sees what it must see.
#[test]
fn imports_are_found_in_each_form() {
    assert_eq!(imports("use crate::wire::record::Run;"), ["wire"]);
    assert_eq!(imports("    crate::config::TICK,"), ["config"]);
    assert_eq!(imports("use crate::{engine, runtime::ring};"), ["engine", "runtime"]);
    assert!(imports("use super::ring;").is_empty());
}
