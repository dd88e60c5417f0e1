//! The list of unsafe code in docs/internals/architecture.md against the code itself.

use crate::tokens::tokens;
use crate::{files_below, root};
use std::collections::BTreeSet;
use std::fs;

/// Files with an unsafe block, function, trait or attribute.
fn with_unsafe_code() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for directory in ["src", "tests", "benches"] {
        for (path, text) in files_below(directory) {
            if tokens(&text).iter().any(|token| token.text == "unsafe") {
                found.insert(format!("{directory}/{}", path.display()));
            }
        }
    }
    found
}

/// The files in the table's first column.
fn listed() -> BTreeSet<String> {
    let document = fs::read_to_string(root().join("docs/internals/architecture.md")).unwrap();
    let (_, section) = document.split_once("\n## Unsafe code\n").expect("a section of that name");
    let section = section.split("\n## ").next().unwrap_or_default();
    let files = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    files.map(str::to_owned).collect()
}

#[test]
fn the_list_of_unsafe_code_is_complete_and_current() {
    let (code, listed) = (with_unsafe_code(), listed());
    assert!(code.contains("src/runtime/ring/operations.rs"), "unsafe code is found: {code:?}");
    let unlisted: Vec<_> = code.difference(&listed).collect();
    assert!(unlisted.is_empty(), "not in docs/internals/architecture.md: {unlisted:?}");
    let safe: Vec<_> = listed.difference(&code).collect();
    assert!(safe.is_empty(), "listed, but without unsafe code: {safe:?}");
}

/// The entries of an array in .ci/miri.sh, without their comments.
fn array_of_miri(name: &str) -> Vec<String> {
    let script = fs::read_to_string(root().join(".ci/miri.sh")).unwrap();
    let begin = format!("\nreadonly {name}=(\n");
    let (_, rest) = script.split_once(&begin).unwrap_or_else(|| panic!("no {name}"));
    let (entries, _) = rest.split_once("\n)\n").expect("an end");
    let words = entries.lines().filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

/// Miri runs where a nightly toolchain has it; what it would run is right everywhere.
#[test]
fn miri_runs_all_unsafe_code_that_it_can() {
    let modules = array_of_miri("MODULES");
    let folders: Vec<String> =
        modules.iter().map(|module| format!("src/{}/", module.replace("::", "/"))).collect();
    let code = with_unsafe_code();
    let of_src = || code.iter().filter(|file| file.starts_with("src/"));
    for (module, folder) in modules.iter().zip(&folders) {
        let files = files_below(folder);
        assert!(files.values().any(|text| text.contains("#[test]")), "{module} has no tests");
    }
    let left_out = array_of_miri("LEFT_OUT");
    for file in &left_out {
        assert!(code.contains(file), "{file} in .ci/miri.sh has no unsafe code");
    }
    for file in of_src() {
        let runs = folders.iter().any(|folder| file.starts_with(folder));
        assert!(runs != left_out.contains(file), "{file}: run by Miri, or left out, and not both");
    }
}
