//! The documents hang together: links and anchors lead somewhere, every page can be found, and the
//! pages that must be short are.

use super::common::root;
use super::{files_below, read};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// Every page that a person reads, by its path from the root.
fn pages() -> Vec<String> {
    let others = ["README.md", "CHANGELOG.md", "clients/python/README.md"].map(str::to_owned);
    others.into_iter().chain(files_below("docs", ".md")).collect()
}

/// The lines of a page outside of its blocks of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// A line without what is between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of all links and images of a page.
fn targets(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(page) {
        let line = without_code(line);
        for (begin, end) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
            let after = line.split(begin).skip(1);
            found
                .extend(after.filter_map(|rest| rest.split_once(end)).map(|(to, _)| to.to_owned()));
        }
    }
    found
}

/// The anchors of a page, made of its headings as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut found = BTreeSet::new();
    for line in prose(page) {
        let text = line.trim_start_matches('#');
        if text.len() == line.len() || !text.starts_with(' ') {
            continue;
        }
        let kept = text.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = seen.entry(slug.clone()).or_default();
        found.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    found
}

/// The path from the root that a link on `page` leads to.
fn resolve(page: &str, target: &str) -> String {
    let mut path = PathBuf::from(page);
    path.pop();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{page}: {target} leaves the repository"),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    // A directory is shown with its README.md.
    let inside = path.join("README.md");
    let path = if root().join(&inside).exists() { inside } else { path };
    path.to_str().unwrap().to_owned()
}

fn is_relative(target: &str) -> bool {
    !target.contains("://") && !target.starts_with("mailto:")
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    let page = "# One `two`: three\n## C++ & _x_\n```\n# no heading\n```\n## C++ & _x_\n#none\n";
    let expected = ["one-two-three", "c--_x_", "c--_x_-1"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(expected));
}

#[test]
fn links_are_found_and_code_is_not() {
    let page = "[a](b.md) [`c`](d.md#e) `[f](g)` ![h](i.svg)\n```\n[j](k)\n```\n<img src=\"l\">\n";
    assert_eq!(targets(page), ["b.md", "d.md#e", "i.svg", "l"]);
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut dead = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for target in targets(&text).into_iter().filter(|target| is_relative(target)) {
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = if path.is_empty() { page.clone() } else { resolve(&page, path) };
            let exists = root().join(&to).exists();
            if !exists || !anchor.is_empty() && !anchors(&read(&to)).contains(anchor) {
                dead.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{} dead links:\n{}", dead.len(), dead.join("\n"));
    assert!(count >= 100, "only {count} links were found");
}

/// Two hops: a page of docs/ is linked from README.md, or from a page that is.
#[test]
fn every_page_is_found_from_the_readme_in_two_hops() {
    let linked: BTreeMap<String, BTreeSet<String>> = pages()
        .into_iter()
        .map(|page| {
            let all = targets(&read(&page));
            let relative = all.iter().filter(|target| is_relative(target));
            let paths = relative.map(|target| target.split('#').next().unwrap());
            let to = paths.filter(|path| !path.is_empty()).map(|path| resolve(&page, path));
            (page.clone(), to.collect())
        })
        .collect();
    let first = &linked["README.md"];
    let second = first.iter().filter_map(|page| linked.get(page)).flatten();
    let found: BTreeSet<&String> = first.iter().chain(second).collect();
    let lost: Vec<String> =
        files_below("docs", ".md").into_iter().filter(|page| !found.contains(page)).collect();
    assert!(lost.is_empty(), "not found from README.md in two hops: {lost:?}");
}

#[test]
fn every_page_has_one_heading_of_the_first_level() {
    for page in pages() {
        let count = prose(&read(&page)).filter(|line| line.starts_with("# ")).count();
        assert_eq!(count, 1, "{page}");
    }
}

#[test]
fn pages_that_must_be_short_are() {
    for (page, limit) in [("README.md", 220), ("docs/internals/architecture.md", 350)] {
        let lines = read(page).lines().count();
        assert!(lines <= limit, "{page} has {lines} lines, at most {limit} are allowed");
    }
}

/// Comments, messages and scripts name documents by their path from the root.
#[test]
fn every_document_that_the_sources_name_exists() {
    let directories =
        ["src", "tests", "benches", "deploy", ".ci", "clients/python/src", "clients/python/tests"];
    let files = directories.into_iter().flat_map(|directory| {
        let endings = [".rs", ".py", ".sh", ".toml", ".sql", ".cfg", "/run"];
        endings.into_iter().flat_map(|ending| files_below(directory, ending))
    });
    let others = ["Cargo.toml", "compose.yaml", "Dockerfile", "test_head.py"].map(str::to_owned);
    let mut gone = Vec::new();
    let mut count = 0;
    for file in files.chain(others) {
        for named in documents_named(&read(&file)) {
            count += 1;
            if !root().join(&named).exists() {
                gone.push(format!("{file}: {named}"));
            }
        }
    }
    assert!(gone.is_empty(), "documents that do not exist:\n{}", gone.join("\n"));
    assert!(count >= 10, "only {count} names were found");
}

/// Paths such as `docs/getting-started.md` in a text.
fn documents_named(text: &str) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || ['/', '-', '_', '.'].contains(&c);
    let after = text.split("docs/").skip(1);
    let paths = after.map(|rest| rest.split(|c| !is_path(c)).next().unwrap());
    let paths = paths.map(|path| path.trim_end_matches('.'));
    let endings = [".md", ".json", ".toml", ".py", ".c", ".svg"];
    let named = paths.filter(|path| endings.iter().any(|ending| path.ends_with(ending)));
    named.map(|path| format!("docs/{path}")).collect()
}

#[test]
fn the_clients_have_their_own_documents() {
    assert!(read("clients/python/README.md").contains("BinaryProtocolClient"));
    assert!(read("README.md").contains("clients/python/README.md"));
}
