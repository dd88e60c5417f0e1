//! Runs the commands of README.md and docs/getting-started.md as they stand, and compares what they
//! print with what the documents show.
//!
//! A document is run from top to bottom by one bash, in a fresh directory that looks like a clone
//! whose release build is on PATH. Readers see only the usual code blocks:
//!
//! - `sh`: bash runs it, and its exit code must be 0
//! - `python`: python3 runs it, and its exit code must be 0
//! - `text`: must be what the block before it printed
//! - any other: nothing happens, unless a comment says so
//!
//! HTML comments on the lines before a block change that:
//!
//! - `<!-- test: not run: REASON -->`: the block is left alone
//! - `<!-- test: background until WORDS -->`: goes on running; what follows waits for these words
//! - `<!-- test: saved as FILE -->`: the block is written to FILE
//! - `<!-- test: equals PATH -->`: the block is this file of the repository, to the byte
//! - `<!-- test: prints nothing -->`: not even a warning
//! - `<!-- test: figures differ -->`: in a `text` block any number may stand for any other, and
//!   columns may have other widths
//! - `<!-- test: needs packages -->`: the block is run only where Python has the packages for it
//!
//! Two comments need no block:
//!
//! - `<!-- test: wait for WORDS -->`: until what runs in the background has printed them
//! - `<!-- test: stop -->`: Ctrl-C ends what runs in the background, and a `text` block after it is
//!   what that has printed to stdout
//!
//! What runs in the background also ends by Ctrl-C before the next such block and at the end of the
//! document. Its exit code must then be 0.
//!
//! In a `text` block a line that begins with `…` stands for any lines, and `…` within a line for
//! any characters.
//!
//! Every command of the program reads its host and ports from the environment, so free ports take
//! the place of the default ones there. Where the text of a block names 9000, 5000 or 6000, the
//! free port is put in its place, and taken out again from what is printed.

use super::common::root;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const RINGEST: &str = env!("CARGO_BIN_EXE_ringest");
/// Longer than any document takes; one that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a reader's clone has and the commands use.
const CLONE: [&str; 5] = ["clients", "compose.yaml", "deploy", "docs", "test_head.py"];
/// Ports of records, messages and the admin listener.
const DEFAULT_PORTS: [u16; 3] = [9000, 5000, 6000];
const PORT_VARIABLES: [&str; 3] = ["RINGEST_RECORDS_PORT", "RINGEST_PORT", "RINGEST_ADMIN_PORT"];

#[test]
fn the_commands_of_the_readme_work_as_they_stand() {
    run_document("README.md", Packages::No);
}

#[test]
fn the_commands_of_getting_started_work_as_they_stand() {
    run_document("docs/getting-started.md", Packages::No);
}

#[test]
#[ignore = "needs pandas, polars, duckdb and matplotlib"]
fn the_commands_of_getting_started_work_with_packages_of_python() {
    run_document("docs/getting-started.md", Packages::Yes);
}

/// Whether blocks that need packages of Python are run.
#[derive(Clone, Copy, PartialEq)]
enum Packages {
    No,
    Yes,
}

/// A thing that a document asks for, with its line.
struct Step {
    line: usize,
    action: Action,
}

enum Action {
    Run { script: String, background_until: Option<String> },
    Save { name: String, text: String },
    Wait { words: String },
    Stop,
    Compare { output: Output, figures_differ: bool },
}

/// What the step before must have printed.
enum Output {
    Nothing,
    Shown(String),
}

fn run_document(path: &str, packages: Packages) {
    let document = fs::read_to_string(root().join(path)).expect(path);
    let steps = steps_of(path, &document, packages);
    let runs = steps.iter().filter(|step| matches!(step.action, Action::Run { .. })).count();
    assert!(runs >= 4, "{path} has only {runs} blocks that are run");
    let place = Place::new(path, packages);
    let status = place.run(&script_of(&steps, &place));
    let at = fs::read_to_string(place.output("at")).unwrap_or_default();
    assert!(
        status.success(),
        "{path}, line {}: {status}; script and files are in {}; what was printed:\n{}",
        at.trim(),
        place.directory.display(),
        place.all_printed(&steps),
    );
    compare_all(path, &steps, &place);
    fs::remove_dir_all(&place.directory).expect("nothing runs there any more");
}

fn compare_all(path: &str, steps: &[Step], place: &Place) {
    let (mut last, mut background) = (0, 0);
    for step in steps {
        match &step.action {
            Action::Run { background_until: Some(_), .. } => background = step.line,
            Action::Run { .. } => last = step.line,
            Action::Stop => last = background,
            Action::Save { .. } | Action::Wait { .. } => {}
            Action::Compare { output, figures_differ } => {
                let printed = place.printed(last);
                let shown = match output {
                    Output::Nothing => "",
                    Output::Shown(text) => text,
                };
                assert!(
                    matches(shown, &printed, *figures_differ),
                    "{path}, line {}: the block of line {last} printed something else:\n{printed}",
                    step.line,
                );
            }
        }
    }
}

// --- The document

fn steps_of(path: &str, document: &str, packages: Packages) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut notes: Vec<&str> = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let note = line.trim().strip_prefix("<!-- test: ").and_then(|it| it.strip_suffix(" -->"));
        if note == Some("stop") {
            steps.push(Step { line: index + 1, action: Action::Stop });
        } else if let Some(words) = note.and_then(|note| note.strip_prefix("wait for ")) {
            let action = Action::Wait { words: words.to_owned() };
            steps.push(Step { line: index + 1, action });
        } else if let Some(note) = note {
            notes.push(note);
        } else if let Some(language) = line.strip_prefix("```") {
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text: String = body.flat_map(|line| [line, "\n"]).collect();
            let block = Block { path, line: index + 1, language, text, notes: &notes };
            steps.extend(block.steps(packages));
            notes.clear();
        } else {
            assert!(notes.is_empty(), "{path}:{}: {notes:?} belongs to no block", index + 1);
        }
    }
    steps
}

/// A code block with the comments before it.
struct Block<'a> {
    path: &'a str,
    line: usize,
    language: &'a str,
    text: String,
    notes: &'a [&'a str],
}

impl Block<'_> {
    fn steps(self, packages: Packages) -> Vec<Step> {
        let known = |note: &&&str| {
            let words = ["figures differ", "needs packages", "prints nothing"];
            let prefixes = ["background until ", "equals ", "not run: ", "saved as "];
            words.contains(note) || prefixes.iter().any(|prefix| note.starts_with(prefix))
        };
        let at = format!("{}:{}", self.path, self.line);
        assert!(self.notes.iter().all(|note| known(&note)), "{at}: unknown: {:?}", self.notes);
        if self.after("not run: ").is_some() {
            return Vec::new();
        }
        if self.has("needs packages") && packages == Packages::No {
            return Vec::new();
        }
        if let Some(file) = self.after("equals ") {
            let stored = fs::read_to_string(root().join(file)).expect(file);
            assert_eq!(self.text, stored, "{at} is not {file}");
            return Vec::new();
        }
        if let Some(name) = self.after("saved as ") {
            let action = Action::Save { name: name.to_owned(), text: self.text.clone() };
            return vec![self.step(action)];
        }
        let script = match self.language {
            "sh" => self.text.clone(),
            "python" => format!("python3 - <<'END_OF_BLOCK'\n{}END_OF_BLOCK\n", self.text),
            "text" => {
                let output = Output::Shown(self.text.clone());
                let figures_differ = self.has("figures differ");
                return vec![self.step(Action::Compare { output, figures_differ })];
            }
            "c" | "json" | "rust" | "sql" | "toml" => return Vec::new(),
            other => panic!("{at}: no rule for a block of {other:?}"),
        };
        let background_until = self.after("background until ").map(str::to_owned);
        let mut steps = vec![self.step(Action::Run { script, background_until })];
        if self.has("prints nothing") {
            let compare = Action::Compare { output: Output::Nothing, figures_differ: false };
            steps.push(self.step(compare));
        }
        steps
    }

    fn step(&self, action: Action) -> Step {
        Step { line: self.line, action }
    }

    fn has(&self, note: &str) -> bool {
        self.notes.contains(&note)
    }

    fn after(&self, prefix: &str) -> Option<&str> {
        self.notes.iter().find_map(|note| note.strip_prefix(prefix))
    }
}

// --- The run

/// Functions of the script. `printed` is the directory of what each block printed.
const PRELUDE: &str = r#"set -euo pipefail
# A process group for each command in the background, so that Ctrl-C can be sent to it alone.
set -m
end_background() {
    for group in $(jobs -p); do kill -KILL -- "-$group" 2>/dev/null || true; done
}
trap end_background EXIT
background=
stop_background() {
    if [[ -z $background ]]; then return; fi
    kill -INT -- "-$background" 2>/dev/null || true  # it may have ended by itself
    wait "$background"
    background=
}
wait_for() {
    local tenth running=1
    for ((tenth = 0; tenth < 1200 && running; tenth++)); do
        # What has ended may have printed the words just before.
        kill -0 "$background" 2>/dev/null || running=0
        if grep -q --fixed-strings --regexp="$1" "$background_prints"{,.stderr}; then return; fi
        sleep 0.1
    done
    echo "waited in vain for: $1" >>"$background_prints.stderr"
    return 1
}
"#;

/// The document as one script of bash.
fn script_of(steps: &[Step], place: &Place) -> String {
    let mut script = format!("printed='{}'\n{PRELUDE}", place.directory.join("printed").display());
    let stop = "stop_background\n";
    for Step { line, action } in steps {
        writeln!(script, "\necho {line} >\"$printed/at\"").unwrap();
        let group = |text: &str| {
            format!("{{\n{}}} </dev/null >\"$printed/{line}\"", place.with_ports(text))
        };
        match action {
            Action::Run { script: text, background_until: None } => {
                writeln!(script, "{} 2>&1", group(text))
            }
            Action::Run { script: text, background_until: Some(words) } => {
                let group = group(text);
                writeln!(script, "{stop}background_prints=\"$printed/{line}\"").unwrap();
                // They are there before anything waits for words in them.
                writeln!(script, "touch \"$background_prints\"{{,.stderr}}").unwrap();
                writeln!(script, "{group} 2>\"$background_prints.stderr\" &").unwrap();
                writeln!(script, "background=$!\necho $! >>\"$printed/groups\"").unwrap();
                writeln!(script, "wait_for '{words}'")
            }
            Action::Save { name, text } => {
                let text = place.with_ports(text);
                writeln!(script, "cat >'{name}' <<'END_OF_FILE'\n{text}END_OF_FILE")
            }
            Action::Wait { words } => writeln!(script, "wait_for '{words}'"),
            Action::Stop => write!(script, "{stop}"),
            Action::Compare { .. } => Ok(()),
        }
        .unwrap();
    }
    script + "\n" + stop
}

/// Where a document is run.
struct Place {
    directory: PathBuf,
    packages: Packages,
    ports: [u16; 3],
}

impl Place {
    fn new(path: &str, packages: Packages) -> Place {
        let name = path.replace('/', "-").replace(".md", "");
        let suffix = if packages == Packages::Yes { "-packages" } else { "" };
        let name = format!("{name}{suffix}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        for folder in ["clone", "printed"] {
            fs::create_dir_all(directory.join(folder)).expect("a fresh directory");
        }
        for name in CLONE {
            let link = directory.join("clone").join(name);
            symlink(root().join(name), link).expect("a fresh directory");
        }
        Place { directory, packages, ports: free_ports() }
    }

    fn output(&self, name: &str) -> PathBuf {
        self.directory.join("printed").join(name)
    }

    /// What the block of this line printed, as a reader with the default ports would see it.
    fn printed(&self, line: usize) -> String {
        let bytes = fs::read(self.output(&line.to_string())).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        exchange(&text, &self.ports, &DEFAULT_PORTS)
    }

    /// What each block printed, for whoever has to find out why one failed.
    fn all_printed(&self, steps: &[Step]) -> String {
        let runs = steps.iter().filter(|step| matches!(step.action, Action::Run { .. }));
        let names = runs.flat_map(|step| ["", ".stderr"].map(|end| format!("{}{end}", step.line)));
        let texts = names.filter_map(|name| {
            let text = fs::read_to_string(self.output(&name)).ok()?;
            (!text.is_empty()).then(|| format!("--- line {name}\n{text}"))
        });
        texts.collect()
    }

    fn with_ports(&self, text: &str) -> String {
        exchange(text, &DEFAULT_PORTS, &self.ports)
    }

    /// Runs the script to its end, which a failing block brings about.
    fn run(&self, script: &str) -> ExitStatus {
        let file = self.directory.join("script.sh");
        fs::write(&file, script).expect("a fresh directory");
        let mut command = Command::new("bash");
        command.arg(file).current_dir(self.directory.join("clone")).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let own = ["MAX_CONNECTIONS", "RATE_LIMIT", "RUST_LOG"].contains(&&*text);
            if own || text.starts_with("RINGEST_") {
                command.env_remove(&name);
            }
        }
        command.envs(PORT_VARIABLES.iter().zip(self.ports.map(|port| port.to_string())));
        command.envs([("RINGEST_HOST", "127.0.0.1"), ("RINGEST_NODE", "node1")]);
        command.envs([("NO_COLOR", "1"), ("TERM", "dumb"), ("MPLBACKEND", "Agg")]);
        command.env("PATH", self.path());
        command.env("PYTHONPATH", root().join("clients/python/src"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        self.wait(command.spawn().expect("there is a bash"))
    }

    /// The program first, then, where packages are needed, the Python that has them.
    fn path(&self) -> std::ffi::OsString {
        let mut folders = vec![Path::new(RINGEST).parent().unwrap().to_owned()];
        if self.packages == Packages::Yes
            && let Some(python) = std::env::var_os("RINGEST_DOCUMENTS_PYTHON")
        {
            folders.push(Path::new(&python).parent().expect("a path").to_owned());
        }
        folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        std::env::join_paths(folders).expect("no colon in them")
    }

    /// Waits for the end of bash. A run that takes too long loses what is in its background, which
    /// ends what waits for that, too.
    fn wait(&self, mut bash: Child) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = bash.try_wait().expect("a child") {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = bash.kill();
        let groups = fs::read_to_string(self.output("groups")).unwrap_or_default();
        for group in groups.lines() {
            let end = format!("kill -KILL -- -{group}");
            let _ = Command::new("bash").args(["-c", &end]).stderr(Stdio::null()).status();
        }
        bash.wait().expect("a child")
    }
}

/// Three free ports below those that the kernel gives to clients, so that they stay free. Each call
/// gives others, and so do most other processes.
fn free_ports() -> [u16; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + (std::process::id() % 400) as u16 * 30;
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    std::array::from_fn(|_| {
        let ports = std::iter::repeat_with(|| begin + NEXT.fetch_add(1, Ordering::Relaxed));
        ports.take(100).find(|port| is_free(*port)).expect("a free port")
    })
}

/// Puts each port of `to` where that of `from` stands as a number of its own.
fn exchange(text: &str, from: &[u16; 3], to: &[u16; 3]) -> String {
    let mut exchanged = String::with_capacity(text.len());
    for (is_number, part) in parts(text) {
        let place = from.iter().position(|port| is_number && part == port.to_string());
        match place {
            Some(place) => write!(exchanged, "{}", to[place]).unwrap(),
            None => exchanged.push_str(part),
        }
    }
    exchanged
}

/// The text as runs of digits and runs of anything else.
fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_number = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|next: char| next.is_ascii_digit() != is_number);
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some((is_number, part))
    })
}

// --- The comparison

/// Whether a document may show this for what was printed.
fn matches(shown: &str, printed: &str, figures_differ: bool) -> bool {
    let form = |text: &str| -> Vec<String> {
        let lines = text.trim_end().lines().map(str::trim_end);
        match figures_differ {
            true => lines.map(without_figures).collect(),
            false => lines.map(str::to_owned).collect(),
        }
    };
    lines_match(&form(shown), &form(printed))
}

fn lines_match(shown: &[String], printed: &[String]) -> bool {
    match shown {
        [] => printed.is_empty(),
        [gap, rest @ ..] if gap.trim_start().starts_with('…') => {
            (0..=printed.len()).any(|left_out| lines_match(rest, &printed[left_out..]))
        }
        [line, rest @ ..] => printed
            .split_first()
            .is_some_and(|(first, others)| line_matches(line, first) && lines_match(rest, others)),
    }
}

/// `…` in the shown line stands for any characters.
fn line_matches(shown: &str, printed: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == printed };
    let Some(mut left) = printed.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('…').collect();
    let end = pieces.pop().expect("a split has a last piece");
    for piece in pieces {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(end)
}

/// The line with 0 for every number, and one space, or one rule, where there were many.
fn without_figures(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let bytes = if first.is_ascii_digit() {
            plain.push('0');
            number_bytes(rest)
        } else {
            plain.push(first);
            let many = matches!(first, ' ' | '─');
            let end = rest.find(|next| !many || next != first);
            end.filter(|end| *end > 0).unwrap_or(if many { rest.len() } else { first.len_utf8() })
        };
        rest = &rest[bytes..];
    }
    plain
}

/// Bytes of the number at the start: digits, a fraction, an exponent.
fn number_bytes(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut bytes = digits(text);
    for marks in [&["."][..], &["e-", "e"]] {
        let rest = &text[bytes..];
        let mark = marks.iter().find(|mark| rest.starts_with(**mark));
        let after = mark.map_or(0, |mark| digits(&rest[mark.len()..]));
        if let Some(mark) = mark.filter(|_| after > 0) {
            bytes += mark.len() + after;
        }
    }
    bytes
}

#[test]
fn other_output_is_found() {
    assert!(matches("one\ntwo\n", "one\ntwo\n", false));
    assert!(!matches("one\ntwo\n", "one\nthree\n", false));
    assert!(!matches("one\n", "one\ntwo\n", false));
    assert!(!matches("12 records\n", "13 records\n", false));
    assert!(matches("12 records in 3.5e-9 s", "1 records in 70 s", true));
    assert!(!matches("12 records", "12 packets", true));
    assert!(matches("│  1.5 │\n└─────┘", "│ 100.25 │\n└────────┘", true));
}

#[test]
fn what_is_left_out_may_be_anything() {
    assert!(matches("a\n… 2 rows left out\nd\n", "a\nb\nc\nd\n", false));
    assert!(matches("a\n…\n", "a\n", false));
    assert!(!matches("a\n…\nd\n", "a\nb\nc\n", false));
    assert!(matches("from …: complete", "from 127.0.0.1:1: complete", false));
    assert!(!matches("from …: complete", "from 127.0.0.1:1: rejected", false));
}

#[test]
fn ports_are_numbers_of_their_own() {
    let text = "localhost:9000 or 5000, not 15000 and 90001";
    let exchanged = exchange(text, &DEFAULT_PORTS, &[1, 2, 3]);
    assert_eq!(exchanged, "localhost:1 or 2, not 15000 and 90001");
    assert_eq!(exchange(&exchanged, &[1, 2, 3], &DEFAULT_PORTS), text);
}

#[test]
#[should_panic(expected = "unknown")]
fn a_comment_that_is_not_understood_fails() {
    steps_of("a.md", "<!-- test: not ran: slip -->\n```sh\ntrue\n```\n", Packages::No);
}

#[test]
#[should_panic(expected = "belongs to no block")]
fn a_comment_without_a_block_fails() {
    steps_of("a.md", "<!-- test: not run: slip -->\ntext\n", Packages::No);
}
