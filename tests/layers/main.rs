//! The order of src/, held by tests: imports point down between the layers and between the rooms
//! of a layer, no files import each other in a circle, and a few names stay where they belong.

mod file;
mod tokens;
mod tree;
mod unsafe_code;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tokens::tokens;
use tree::{Edge, ModulePath, Tree, circles};

/// Each layer and those that it may import. `client` is a sibling of `runtime`, and `sync` of
/// `config`.
const LAYERS: [(&str, &[&str]); 7] = [
    ("config", &[]),
    ("sync", &[]),
    ("wire", &["sync", "config"]),
    ("engine", &["wire", "sync", "config"]),
    ("runtime", &["engine", "wire", "sync", "config"]),
    ("client", &["engine", "wire", "config"]),
    ("cli", &["client", "runtime", "engine", "wire", "config"]),
];

/// The rooms of each layer, which are its folders and single files, from the lowest floor up. A
/// room may import rooms on lower floors; those on one floor do not know each other.
const FLOORS: [(&str, &[&[&str]]); 5] = [
    ("wire", &[&["text", "messages"], &["schema"], &["records"]]),
    (
        "engine",
        &[
            &["memory"],
            &["blocks", "messages"],
            &["groups"],
            &["decode"],
            &["stream"],
            &["aggregate", "observe"],
        ],
    ),
    (
        "runtime",
        &[
            // Only in simulations.
            &["world"],
            &["clock", "disk", "failpoint"],
            &["network"],
            &["ring", "tls"],
            &["connection"],
            &["host", "results"],
            &["worker", "admin"],
            &["records"],
            &["messages"],
            &["server"],
        ],
    ),
    ("client", &[&["verify", "messages"], &["load"], &["records"]]),
    ("cli", &[&["exit", "terminal"], &["output"], &["args"], &["commands"]]),
];

const FILE_LINES_MAX: usize = 600;
const LINE_COLUMNS_MAX: usize = 100;

/// The clone that is tested, which need not be the one in which this was compiled.
fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo test sets it"))
}

/// The Rust files below a directory of the project, by their path within it.
fn files_below(directory: &str) -> BTreeMap<PathBuf, String> {
    fn collect(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.insert(path.strip_prefix(root).expect("below").to_owned(), text);
            }
        }
    }
    let (root, mut found) = (root().join(directory), BTreeMap::new());
    collect(&root, &root, &mut found);
    assert!(!found.is_empty(), "{directory} has Rust files");
    found
}

fn sources() -> BTreeMap<PathBuf, String> {
    files_below("src")
}

static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::read(&sources()));
static EDGES: LazyLock<Vec<Edge>> = LazyLock::new(|| TREE.edges());

/// Imports by code that is not for tests alone.
fn shipped_edges() -> impl Iterator<Item = &'static Edge> {
    EDGES.iter().filter(|edge| !edge.test)
}

/// First part of the path within src/, without `.rs`.
fn layer_of(path: &Path) -> String {
    let first = path.components().next().expect("a file has a name");
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

fn shown(edge: &Edge) -> String {
    let file = TREE.modules[&edge.from].file.display();
    let target = [&["crate".to_owned()], &edge.to[..]].concat().join("::");
    format!("src/{file}:{} imports {target}", edge.line)
}

#[test]
fn every_file_belongs_to_the_crate() {
    let files = sources();
    let known: BTreeSet<&Path> =
        TREE.modules.values().map(|module| module.file.as_path()).collect();
    for file in files.keys().filter(|file| file.as_path() != Path::new("main.rs")) {
        assert!(known.contains(file.as_path()), "no `mod` leads to {}", file.display());
    }
    assert!(known.len() > 100 && EDGES.len() > 500, "the sources were understood");
}

/// Tests included.
#[test]
fn imports_between_layers_only_go_down() {
    for edge in EDGES.iter() {
        // The root only hands names on, and the list of internals is for tests and benchmarks.
        let Some(layer) = edge.from.first().filter(|first| *first != "internals") else {
            continue;
        };
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| name == layer)
            .unwrap_or_else(|| panic!("{layer} is not a layer"));
        let target = edge.to.first().map_or("the root", String::as_str);
        assert!(layer == target || allowed.contains(&target), "{}", shown(edge));
    }
}

/// The floor of a room; a layer's own mod.rs is above all its rooms.
fn floor_of(floors: &[&[&str]], module: &ModulePath) -> usize {
    let Some(room) = module.get(1) else { return floors.len() };
    let found = floors.iter().position(|rooms| rooms.contains(&room.as_str()));
    found.unwrap_or_else(|| panic!("{} has no floor in tests/layers/main.rs", module.join("::")))
}

#[test]
fn imports_between_the_rooms_of_a_layer_only_go_down() {
    for (layer, floors) in FLOORS {
        for room in floors.concat() {
            let module = [layer.to_owned(), room.to_owned()];
            assert!(TREE.modules.contains_key(&module[..]), "{layer} has no room {room}");
        }
        let within = |edge: &&Edge| edge.from[0] == layer && edge.to.first() == edge.from.first();
        for edge in shipped_edges().filter(|edge| !edge.from.is_empty()).filter(within) {
            let (from, to) = (floor_of(floors, &edge.from), floor_of(floors, &edge.to));
            assert!(edge.from.get(1) == edge.to.get(1) || from > to, "{}", shown(edge));
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles: Vec<String> = circles(shipped_edges())
        .iter()
        .map(|circle| circle.iter().map(|m| m.join("::")).collect::<Vec<_>>().join(", "))
        .collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// A path that climbs says nothing about where it ends: it is written from `crate` on.
#[test]
fn no_path_climbs_two_levels() {
    for directory in ["src", "tests", "benches"] {
        for (path, text) in files_below(directory) {
            for three in tokens(&text).windows(3) {
                let climbs = three[0].text == "super" && three[1].text == "::";
                let line = three[0].line;
                let path = path.display();
                assert!(!climbs || three[2].text != "super", "{directory}/{path}:{line} climbs");
            }
        }
    }
}

/// To look for the declaration of a type gives one answer.
#[test]
fn names_of_types_are_unique() {
    let mut declared: BTreeMap<&str, String> = BTreeMap::new();
    for module in TREE.modules.values() {
        let is_type =
            |keyword: &str| ["struct", "enum", "trait", "type", "union"].contains(&keyword);
        for item in module.source.items.iter().filter(|item| is_type(&item.keyword)) {
            let place = format!("{}:{}", module.file.display(), item.line);
            if let Some(other) = declared.insert(&item.name, place.clone()) {
                panic!("{} is declared in {other} and in {place}", item.name);
            }
        }
    }
    assert!(declared.len() > 200, "{} types were found", declared.len());
}

/// Code without comments; strings may stay, they name no modules.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    (1..).zip(lines)
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
fn polars_is_named_in_one_room() {
    assert_named_only_in(&["polars::", "polars_io::", "use polars"], &|path| {
        path.parent().is_some_and(|directory| directory.ends_with("engine/aggregate"))
    });
}

#[test]
fn rings_and_pinning_are_named_in_the_runtime_only() {
    let words = ["tokio_uring", "core_affinity", "tokio::", "std::net::TcpListener"];
    assert_named_only_in(&words, &|path| layer_of(path) == "runtime");
}

/// What connections do is decided by the clocks that a simulation replaces. Tests may use others,
/// and so may what waits for a real thread.
#[test]
fn connections_read_the_clocks_of_the_seam() {
    let rooms = ["connection", "records", "messages", "server", "ring", "network", "worker.rs"];
    let banned = ["Instant::now()", "SystemTime::now()", ".elapsed()", "tokio::time::"];
    let allowed = ["records/unreported.rs", "ring/setup.rs"];
    let mut read = 0;
    for (path, text) in sources() {
        let Ok(path) = path.strip_prefix("runtime") else { continue };
        let named = path.to_str().expect("a name");
        let tests = named.ends_with("_tests.rs") || allowed.contains(&named);
        if tests || !rooms.iter().any(|room| path.starts_with(room)) {
            continue;
        }
        read += 1;
        let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (number, line) in code(shipped) {
            for word in banned {
                assert!(!line.contains(word), "runtime/{named}:{number}: {word}");
            }
        }
    }
    assert!(read > 30, "{read} files were read");
}

/// Neither clock, file, thread nor socket: whatever `wire` does can be tested with bytes alone.
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
    let root = root().join("src/wire/mod.rs");
    assert!(fs::read_to_string(root).unwrap().contains("#![forbid(unsafe_code)]"));
}

#[test]
fn every_file_says_first_what_it_does_and_stays_small() {
    for directory in ["src", "tests"] {
        for (path, text) in files_below(directory) {
            let path = path.display();
            assert!(text.starts_with("//! "), "{directory}/{path} has no first sentence");
            assert!(text.lines().count() <= FILE_LINES_MAX, "{directory}/{path} is too long");
            for (number, line) in (1..).zip(text.lines()) {
                let columns = line.chars().count();
                assert!(columns <= LINE_COLUMNS_MAX, "{directory}/{path}:{number} is too wide");
            }
        }
    }
}
