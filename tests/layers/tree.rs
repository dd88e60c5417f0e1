//! The modules of the crate and which file imports which: `mod` and `use` lines followed to the
//! file that declares what they name.

use crate::file::{NamedPath, SourceFile};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names from the crate's root: `["engine", "groups", "table"]`; the root itself has none.
pub type ModulePath = Vec<String>;

pub struct Module {
    /// Its file, within the tree that was read.
    pub file: PathBuf,
    /// Compiled for tests alone.
    pub test: bool,
    pub source: SourceFile,
}

/// One file that imports another, and where it says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub from: ModulePath,
    pub to: ModulePath,
    pub line: usize,
    /// Said by code of tests.
    pub test: bool,
}

pub struct Tree {
    pub modules: BTreeMap<ModulePath, Module>,
}

/// Re-exports lead from one to the next; more than this many is a circle of them.
const HOPS_MAX: usize = 8;

impl Tree {
    /// Reads the modules from `lib.rs` on; `files` has each file's text.
    pub fn read(files: &BTreeMap<PathBuf, String>) -> Tree {
        let mut tree = Tree { modules: BTreeMap::new() };
        tree.add(files, Vec::new(), Path::new("lib.rs"), false);
        tree
    }

    fn add(
        &mut self,
        files: &BTreeMap<PathBuf, String>,
        module: ModulePath,
        file: &Path,
        test: bool,
    ) {
        let text = files.get(file).unwrap_or_else(|| panic!("{} is missing", file.display()));
        let source = SourceFile::parse(text);
        for child in &source.children {
            let own = file.parent().expect("a file is in a directory");
            let of_children = match file.file_name().and_then(|name| name.to_str()) {
                Some("lib.rs" | "mod.rs") => own.to_owned(),
                _ => file.with_extension(""),
            };
            let path = match &child.path {
                Some(path) => own.join(path),
                None => {
                    let flat = of_children.join(format!("{}.rs", child.name));
                    let folder = of_children.join(&child.name).join("mod.rs");
                    if files.contains_key(&flat) { flat } else { folder }
                }
            };
            let name = [&module[..], std::slice::from_ref(&child.name)].concat();
            self.add(files, name, &path, test || child.test);
        }
        self.modules.insert(module, Module { file: file.to_owned(), test, source });
    }

    /// The imports between files. A file that only hands a name on does not import it; whoever
    /// takes the name imports the file that declares it.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (from, module) in &self.modules {
            for path in module.source.paths.iter().filter(|path| self.counts(from, path)) {
                let to = self.resolve(from, path).filter(|to| to != from);
                let test = module.test || path.test;
                edges.extend(to.map(|to| Edge { from: from.clone(), to, line: path.line, test }));
            }
        }
        edges
    }

    /// Whether a path makes its file depend on what it names: a name that is only handed on does
    /// not.
    fn counts(&self, module: &ModulePath, path: &NamedPath) -> bool {
        let Some(import) = path.import.as_ref().filter(|import| import.public) else {
            return true;
        };
        let words = &self.modules[module].source.words;
        if import.name != "*" {
            return words.contains(&import.name);
        }
        let target = self.resolve(module, path).and_then(|target| self.modules.get(&target));
        target.is_some_and(|t| t.source.items.iter().any(|item| words.contains(&item.name)))
    }

    /// The file that declares what a path names; none where it is not of this crate.
    fn resolve(&self, module: &ModulePath, path: &NamedPath) -> Option<ModulePath> {
        let here = [&module[..], &path.inline].concat();
        let full = self.absolute(module, &here, &path.segments)?;
        self.declaring(&full, HOPS_MAX)
    }

    /// A path from the crate's root; `here` counts inline modules in.
    fn absolute(
        &self,
        module: &ModulePath,
        here: &[String],
        segments: &[String],
    ) -> Option<ModulePath> {
        let mut rest = segments;
        let mut base = match segments.first()?.as_str() {
            "crate" => {
                rest = &rest[1..];
                Vec::new()
            }
            "super" | "self" => here.to_vec(),
            // A name without a beginning: a module declared here, or something else's.
            name if self.is_module(here, name) => here.to_vec(),
            name if self.is_module(module, name) => module.clone(),
            _ => return None,
        };
        while let Some(first @ ("super" | "self")) = rest.first().map(String::as_str) {
            if first == "super" {
                base.pop();
            }
            rest = &rest[1..];
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn is_module(&self, parent: &[String], name: &str) -> bool {
        self.modules.contains_key(&[parent, &[name.to_owned()]].concat())
    }

    /// Follows a path down the modules and through re-exports.
    fn declaring(&self, full: &[String], hops: usize) -> Option<ModulePath> {
        let known = (0..=full.len()).rev().find(|&n| self.modules.contains_key(&full[..n]))?;
        let module = full[..known].to_vec();
        let Some(name) = full.get(known) else { return Some(module) };
        let next = hops.checked_sub(1).expect("re-exports end somewhere");
        let source = &self.modules[&module].source;
        if source.declares(name) {
            return Some(module);
        }
        for path in &source.paths {
            let Some(import) = &path.import else { continue };
            let Some(target) = self.absolute(&module, &module, &path.segments) else { continue };
            let target = match import.name.as_str() {
                "*" if self.declares(&target, name) => {
                    [&target[..], std::slice::from_ref(name)].concat()
                }
                own if own == name => target,
                _ => continue,
            };
            return self.declaring(&[&target[..], &full[known + 1..]].concat(), next);
        }
        Some(module)
    }

    fn declares(&self, module: &ModulePath, name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| module.source.declares(name))
    }
}

/// The groups of modules that import each other in a circle.
pub fn circles<'a>(edges: impl IntoIterator<Item = &'a Edge>) -> Vec<Vec<ModulePath>> {
    let mut graph: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = BTreeMap::new();
    for edge in edges {
        graph.entry(&edge.from).or_default().insert(&edge.to);
    }
    let reached: BTreeMap<_, _> =
        graph.keys().map(|&module| (module, reachable(&graph, module))).collect();
    let mut found: Vec<Vec<ModulePath>> = Vec::new();
    for (&module, reach) in reached.iter().filter(|(module, reach)| reach.contains(*module)) {
        let back = |other: &&&ModulePath| reached.get(**other).is_some_and(|r| r.contains(module));
        let circle: Vec<ModulePath> =
            reach.iter().filter(back).map(|&other| other.clone()).collect();
        if !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// What can be reached along at least one edge.
fn reachable<'a>(
    graph: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
    from: &'a ModulePath,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for &next in graph.get(module).into_iter().flatten() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned()));
        Tree::read(&files.collect())
    }

    /// The imports outside of tests, such as `a::b -> c`.
    fn arrows(tree: &Tree) -> Vec<String> {
        let edges = tree.edges().into_iter().filter(|edge| !edge.test);
        edges.map(|edge| format!("{} -> {}", edge.from.join("::"), edge.to.join("::"))).collect()
    }

    #[test]
    fn each_way_to_name_a_file_is_followed() {
        let tree = tree(&[
            ("lib.rs", "mod a; mod c;"),
            ("a/mod.rs", "mod b; mod d; fn f() { d::g() }"),
            ("a/b.rs", "use super::{d::g, f}; fn h() { crate::c::x(); std::fs::read(); }"),
            ("a/d.rs", "pub fn g() {}"),
            ("c.rs", "use crate::a::d; use std::fs; fn x() { d::g() }"),
        ]);
        let expected = ["a -> a::d", "a::b -> a::d", "a::b -> a", "a::b -> c", "c -> a::d"];
        assert_eq!(arrows(&tree), expected);
        assert!(circles(&tree.edges()).is_empty());
    }

    /// Whoever takes a name from a file that hands it on imports the file behind it, and a file
    /// that hands on imports nothing.
    #[test]
    fn names_are_followed_through_those_who_hand_them_on() {
        let tree = tree(&[
            ("lib.rs", "mod a; mod c;"),
            ("a/mod.rs", "mod b; mod d; pub(crate) use b::B; pub use d::*;"),
            ("a/b.rs", "use super::D; pub struct B;"),
            ("a/d.rs", "pub struct D;"),
            ("c.rs", "use crate::a::{B as X, D}; use crate::a;"),
        ]);
        assert_eq!(arrows(&tree), ["a::b -> a::d", "c -> a::b", "c -> a::d", "c -> a"]);
    }

    #[test]
    fn who_hands_a_name_on_and_uses_it_imports_it() {
        let text = "mod b; mod d; pub use b::B; pub use d::*; fn f(_: B, _: D) {}";
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", text),
            ("a/b.rs", "use super::f; pub struct B;"),
            ("a/d.rs", "pub struct D;"),
        ];
        let tree = tree(&files);
        assert_eq!(arrows(&tree), ["a -> a::b", "a -> a::d", "a::b -> a"]);
        let circle = ["a".to_owned(), "b".to_owned()];
        assert_eq!(circles(&tree.edges()), [[circle[..1].to_vec(), circle.to_vec()]]);
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        for (b, d) in [
            ("use super::d::D;", "use super::b::B;"),
            ("use crate::a::{d::{D}};", "fn f(b: crate::a::b::B) {}"),
            ("fn f() -> super::d::D { }", "macro_rules! m { () => { $crate::a::b::B } }"),
            ("mod m { use super::super::d::D; }", "use super::*; use super::b::{self};"),
        ] {
            let (b, d) = (format!("{b} pub struct B;"), format!("{d} pub struct D;"));
            let tree = tree(&[
                ("lib.rs", "mod a;"),
                ("a/mod.rs", "pub mod b; pub mod d;"),
                ("a/b.rs", &b),
                ("a/d.rs", &d),
            ]);
            assert_eq!(circles(&tree.edges()).len(), 1, "{b} {d}");
        }
    }

    #[test]
    fn files_of_tests_are_known_by_their_declaration() {
        let tree = tree(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod c;"),
            ("a.rs", "#[cfg(test)] #[path = \"a_tests.rs\"] mod tests;"),
            ("a_tests.rs", "use super::*; use crate::b::B;"),
            ("b.rs", "use crate::a; pub struct B;"),
            ("c/mod.rs", "mod d;"),
            ("c/d.rs", "use crate::b;"),
        ]);
        assert_eq!(arrows(&tree), ["b -> a"]);
        let of_tests = tree.edges().into_iter().filter(|edge| edge.test).count();
        assert_eq!(of_tests, 3);
    }
}
