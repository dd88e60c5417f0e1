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
