//! What one source file declares and names: its modules, items and paths. Looks at no other file.

use crate::tokens::{Token, tokens};
use std::collections::HashSet;

/// A module that a file declares with `mod name;`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildModule {
    pub name: String,
    /// Of `#[path = "…"]`.
    pub path: Option<String>,
    /// Compiled for tests alone.
    pub test: bool,
}

/// A path that stands in a file, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedPath {
    pub segments: Vec<String>,
    pub line: usize,
    pub test: bool,
    /// The inline modules around it.
    pub inline: Vec<String>,
    pub import: Option<Import>,
}

/// What a `use` makes of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// The name by which it is known in the file; `*` for all names.
    pub name: String,
    /// Whether the name is handed on.
    pub public: bool,
}

/// A name that a file declares at module level.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub keyword: String,
    pub name: String,
    pub line: usize,
}

#[derive(Debug, Default)]
pub struct SourceFile {
    pub children: Vec<ChildModule>,
    pub items: Vec<Item>,
    pub paths: Vec<NamedPath>,
    /// Every word outside of `use` declarations.
    pub words: HashSet<String>,
}

const ITEM_KEYWORDS: [&str; 9] =
    ["struct", "enum", "trait", "type", "union", "fn", "const", "static", "macro_rules"];
const BEGIN_OF_ITEM: [&str; 15] = [
    "struct",
    "enum",
    "trait",
    "type",
    "union",
    "fn",
    "const",
    "static",
    "macro_rules",
    "use",
    "mod",
    "impl",
    "unsafe",
    "async",
    "extern",
];

impl SourceFile {
    pub fn parse(source: &str) -> SourceFile {
        let tokens = tokens(source);
        let test = test_tokens(&tokens);
        let mut parser = Parser { tokens: &tokens, test: &test, ..Parser::default() };
        parser.run();
        parser.file
    }

    pub fn declares(&self, name: &str) -> bool {
        self.items.iter().any(|item| item.name == name)
    }
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

/// The token behind a bracket's partner, or the end.
fn behind_brackets(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// What stands before code that no release has.
const TEST_ATTRIBUTES: [&[&str]; 3] = [
    &["#", "[", "cfg", "(", "test", ")", "]"],
    &["#", "[", "cfg", "(", "all", "(", "test", ","],
    &["#", "[", "cfg", "(", "any", "(", "test", ",", "fuzzing", ")", ")", "]"],
];

/// Whether each token belongs to something that is compiled for tests alone.
fn test_tokens(tokens: &[Token]) -> Vec<bool> {
    let mut test = vec![false; tokens.len()];
    for at in 0..tokens.len() {
        let stands_here = |words: &&[&str]| {
            words.iter().enumerate().all(|(i, word)| text(tokens, at + i) == *word)
        };
        if TEST_ATTRIBUTES.iter().any(stands_here) {
            let end = end_of_attributed(tokens, at);
            test[at..end].fill(true);
        }
    }
    test
}

/// The end of the item, field or statement whose first attribute begins at `at`.
fn end_of_attributed(tokens: &[Token], mut at: usize) -> usize {
    while text(tokens, at) == "#" {
        at = behind_brackets(tokens, at + 1);
    }
    if text(tokens, at) == "pub" {
        at += 1;
        if text(tokens, at) == "(" {
            at = behind_brackets(tokens, at);
        }
    }
    let is_item = BEGIN_OF_ITEM.contains(&text(tokens, at));
    let is_use = text(tokens, at) == "use";
    while at < tokens.len() {
        match text(tokens, at) {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            ")" | "]" | "}" => return at,
            "{" if is_item && !is_use => return behind_brackets(tokens, at),
            "(" | "[" | "{" => at = behind_brackets(tokens, at),
            _ => at += 1,
        }
    }
    at
}

#[derive(Default)]
struct Parser<'a> {
    tokens: &'a [Token],
    test: &'a [bool],
    at: usize,
    depth: usize,
    /// The inline modules that are open, with the depth of their code.
    inline: Vec<(String, usize)>,
    path_attribute: Option<String>,
    file: SourceFile,
}

impl Parser<'_> {
    fn text(&self, ahead: usize) -> &str {
        text(self.tokens, self.at + ahead)
    }

    fn previous(&self) -> &str {
        self.at.checked_sub(1).map_or("", |before| text(self.tokens, before))
    }

    fn at_module_level(&self) -> bool {
        self.depth == self.inline.last().map_or(0, |(_, depth)| *depth)
    }

    fn run(&mut self) {
        while self.at < self.tokens.len() {
            let token = self.text(0).to_owned();
            match token.as_str() {
                "#" => self.attribute(),
                "{" => self.open(),
                "}" => self.close(),
                "use" if self.text(1) != "<" => self.import(),
                "mod" if self.at_module_level() => self.module(),
                word if ITEM_KEYWORDS.contains(&word) && self.at_module_level() => self.item(),
                _ if self.tokens[self.at].is_word() && self.begins_path() => self.inline_path(),
                _ => {
                    self.file.words.insert(token);
                    self.at += 1;
                }
            }
        }
    }

    fn attribute(&mut self) {
        let bang = usize::from(self.text(1) == "!");
        if self.text(2) == "path" && self.text(3) == "=" {
            self.path_attribute = Some(self.text(4).trim_matches('"').to_owned());
        }
        self.at = behind_brackets(self.tokens, self.at + 1 + bang);
    }

    fn open(&mut self) {
        self.depth += 1;
        self.at += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inline.pop_if(|(_, depth)| *depth > self.depth);
        self.at += 1;
    }

    fn module(&mut self) {
        let name = self.text(1).to_owned();
        let path = self.path_attribute.take();
        match self.text(2) {
            ";" => {
                let test = self.test[self.at];
                self.file.children.push(ChildModule { name, path, test });
            }
            _ => {
                self.depth += 1;
                self.inline.push((name, self.depth));
            }
        }
        self.at += 3;
    }

    fn item(&mut self) {
        let keyword = self.text(0).to_owned();
        let name_at = if keyword == "macro_rules" { 2 } else { 1 };
        let name = self.text(name_at).to_owned();
        // `const fn f` is no constant, `const _` has no name, and `fn(u8)` may be a type.
        let is_name = self.tokens.get(self.at + name_at).is_some_and(Token::is_word)
            && !ITEM_KEYWORDS.contains(&name.as_str())
            && !["_", "unsafe", "async", "extern"].contains(&name.as_str());
        if is_name && self.inline.is_empty() {
            let line = self.tokens[self.at].line;
            self.file.items.push(Item { keyword, name, line });
        }
        self.at += 1;
    }

    /// Whether a path begins here whose first name means a module: others are found by what was
    /// imported to name them.
    fn begins_path(&self) -> bool {
        self.text(1) == "::" && !matches!(self.previous(), "::" | ".") && !self.in_visibility()
    }

    /// `pub(in a::b)` imports nothing.
    fn in_visibility(&self) -> bool {
        let before = |count| self.at.checked_sub(count).map_or("", |at| text(self.tokens, at));
        [before(3), before(2), before(1)] == ["pub", "(", "in"]
    }

    fn push(&mut self, segments: Vec<String>, line: usize, import: Option<Import>) {
        let inline = self.inline.iter().map(|(name, _)| name.clone()).collect();
        let test = self.test[self.at];
        self.file.paths.push(NamedPath { segments, line, test, inline, import });
    }

    fn inline_path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut segments = vec![self.text(0).to_owned()];
        self.file.words.insert(segments[0].clone());
        let mut end = 1;
        while self.text(end) == "::"
            && self.tokens.get(self.at + end + 1).is_some_and(Token::is_word)
        {
            segments.push(self.text(end + 1).to_owned());
            end += 2;
        }
        self.push(segments, line, None);
        self.at += end;
    }

    fn import(&mut self) {
        let public = matches!(self.previous(), "pub" | ")");
        let begin = self.at;
        let end = (begin..self.tokens.len())
            .find(|&at| text(self.tokens, at) == ";")
            .unwrap_or(self.tokens.len());
        let mut tree = UseTree { tokens: &self.tokens[begin + 1..end], at: 0, found: Vec::new() };
        tree.branch(&[]);
        for (segments, name, line) in tree.found {
            self.push(segments, line, Some(Import { name, public }));
        }
        self.at = end;
    }
}

/// The paths of `a::{b, c::{self, d as e}, f::*}`.
struct UseTree<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Vec<(Vec<String>, String, usize)>,
}

impl UseTree<'_> {
    fn next(&mut self) -> &str {
        self.at += 1;
        text(self.tokens, self.at - 1)
    }

    fn branch(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            match self.next().to_owned().as_str() {
                "::" => {}
                "{" => return self.group(&segments),
                "as" => {
                    let name = self.next().to_owned();
                    return self.found.push((segments, name, line));
                }
                "," | "}" | "" => {
                    self.at -= 1;
                    let name = segments.last().cloned().unwrap_or_default();
                    return self.found.push((segments, name, line));
                }
                "*" => return self.found.push((segments, "*".to_owned(), line)),
                // `self` in a group is what the group belongs to.
                "self" if !segments.is_empty() => {}
                word => segments.push(word.to_owned()),
            }
        }
    }

    fn group(&mut self, segments: &[String]) {
        loop {
            match text(self.tokens, self.at) {
                "}" | "" => {
                    self.at += 1;
                    return;
                }
                "," => self.at += 1,
                _ => self.branch(segments),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(source: &str) -> Vec<(String, String, bool)> {
        let paths = SourceFile::parse(source).paths.into_iter();
        let imports = paths.filter_map(|path| Some((path.segments.join("::"), path.import?)));
        imports.map(|(path, import)| (path, import.name, import.public)).collect()
    }

    fn import(path: &str, name: &str, public: bool) -> (String, String, bool) {
        (path.to_owned(), name.to_owned(), public)
    }

    #[test]
    fn imports_are_found_in_each_form() {
        let source = "use crate::a::{self, b::C, d::{E as F, g::*}}; pub(crate) use super::h;";
        let expected = [
            import("crate::a", "a", false),
            import("crate::a::b::C", "C", false),
            import("crate::a::d::E", "F", false),
            import("crate::a::d::g", "*", false),
            import("super::h", "h", true),
        ];
        assert_eq!(imports(source), expected);
        let in_a_function = "fn f() { use self::a::{b,}; } fn g() -> impl Fn() + use<> {}";
        assert_eq!(imports(in_a_function), [import("self::a::b", "b", false)]);
    }

    #[test]
    fn inline_paths_are_found_with_their_line_and_module() {
        let source = "pub(in crate::z) fn f(x: crate::a::B) {
            super::g::<u8>(x.y::<T>()) }
            mod m { c::D!() }";
        let paths = SourceFile::parse(source).paths;
        let found: Vec<_> =
            paths.iter().map(|p| (p.segments.join("::"), p.line, p.inline.join("::"))).collect();
        let path = |path: &str, line, inline: &str| (path.to_owned(), line, inline.to_owned());
        let expected = [path("crate::a::B", 1, ""), path("super::g", 2, ""), path("c::D", 3, "m")];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_for_tests_is_marked_and_nothing_else() {
        let source = "
            struct S { #[cfg(test)] a: crate::test::A<u8, u8>, b: crate::real::B }
            #[cfg(test)] #[allow(unused)] pub(crate) use crate::test::{c, d};
            #[cfg(test)] fn f(x: [u8; 2]) -> u8 { crate::test::e() } use crate::real::f;
            #[cfg(test)] #[path = \"f_tests.rs\"] mod tests; mod real;
            fn g() { h(#[cfg(test)] crate::test::i); crate::real::j() }
            #[cfg(test)] mod more { use crate::test::k; } fn l() { crate::real::m() }
        ";
        let file = SourceFile::parse(source);
        assert!(file.paths.len() >= 10);
        for path in file.paths {
            assert_eq!(path.test, path.segments[1] == "test", "{path:?}");
        }
        let child = |name: &str, path: Option<&str>, test| ChildModule {
            name: name.to_owned(),
            path: path.map(str::to_owned),
            test,
        };
        let expected = [child("tests", Some("f_tests.rs"), true), child("real", None, false)];
        assert_eq!(file.children, expected);
    }

    #[test]
    fn items_are_those_of_the_file_itself() {
        let source = "
            pub struct A<T>(T); impl B for A<u8> { type C = u8; fn d() { struct E; } }
            const fn f() {} const _: () = (); type G = fn(u8);
            macro_rules! h { () => { enum I {} } }
            mod j { struct K; } pub(crate) unsafe trait L {} static M: fn() = f;
        ";
        let items = SourceFile::parse(source).items;
        let names: Vec<_> = items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["A", "f", "G", "h", "L", "M"]);
    }
}
