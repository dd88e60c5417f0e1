//! Formats an error in a text that a person wrote: position, problem, and the line with carets
//! below it. Finding the error is up to the caller.

use std::fmt;
use std::ops::Range;

/// Most columns of a line to show. Of a longer line, those around the error are shown.
const SHOWN_COLUMNS: usize = 96;

/// An error in a text and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The line, from 1.
    pub line: usize,
    /// The first character within the line, from 1.
    pub column: usize,
    /// What is wrong and how to fix it.
    pub problem: String,
    excerpt: Excerpt,
}

/// A line for display: printable ASCII, so that each character takes one column.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    carets: Range<usize>,
}

impl Complaint {
    /// A complaint about these bytes of the text. If they span several lines, the first is shown.
    pub fn new(text: &str, span: Range<usize>, problem: impl Into<String>) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or_default();
        let before = &text[line_start..start];
        Complaint {
            line: 1 + text[..line_start].matches('\n').count(),
            column: 1 + before.chars().count(),
            problem: problem.into(),
            excerpt: Excerpt::new(line, start - line_start, end - line_start),
        }
    }

    /// The message for a text from a file: file name and position, problem, excerpt.
    pub fn in_file(&self, name: impl fmt::Display) -> String {
        let Complaint { line, column, problem, excerpt } = self;
        let (number, blank) = (line.to_string(), " ".repeat(line.to_string().len()));
        format!(
            "{name}:{line}:{column}: {problem}\n{blank} |\n{number} | {}\n{blank} | {}",
            excerpt.line,
            excerpt.marks()
        )
    }

    /// The message for a text that is the value of an option, such as `--struct`.
    pub fn in_option(&self, option: &str) -> String {
        let Complaint { column, problem, excerpt, .. } = self;
        format!(
            "{option}, character {column}: {problem}\n  {}\n  {}",
            excerpt.line,
            excerpt.marks()
        )
    }
}

impl Excerpt {
    /// The line with carets below its bytes `start..end`.
    fn new(line: &str, start: usize, end: usize) -> Self {
        let (mut shown, mut from, mut to) = (String::new(), None, None);
        for (at, character) in line.char_indices() {
            if at >= start && from.is_none() {
                from = Some(shown.len());
            }
            if at >= end && to.is_none() {
                to = Some(shown.len());
            }
            match character {
                '\t' => shown.push(' '),
                ' '..='~' => shown.push(character),
                _ => shown.extend(character.escape_unicode()),
            }
        }
        let from = from.unwrap_or(shown.len());
        let to = to.unwrap_or(shown.len()).max(from + 1);
        Excerpt { line: shown, carets: from..to }.shortened()
    }

    /// Cuts a long line to the part around the carets.
    fn shortened(self) -> Self {
        let Excerpt { line, carets } = self;
        if line.len() <= SHOWN_COLUMNS {
            return Excerpt { line, carets };
        }
        let first = carets.start.saturating_sub(SHOWN_COLUMNS / 2);
        let first = first.min(line.len() - SHOWN_COLUMNS);
        let shown = &line[first..first + SHOWN_COLUMNS];
        let (before, after) = (["", "..."][usize::from(first > 0)], "...");
        let after = if first + SHOWN_COLUMNS < line.len() { after } else { "" };
        let from = before.len() + carets.start - first;
        let to = before.len() + carets.end.min(first + SHOWN_COLUMNS + 1) - first;
        Excerpt { line: format!("{before}{shown}{after}"), carets: from..to }
    }

    fn marks(&self) -> String {
        " ".repeat(self.carets.start) + &"^".repeat(self.carets.len())
    }
}

/// This byte offset, moved down to a character boundary.
fn floor(text: &str, byte: usize) -> usize {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_mark_the_error_below_its_line() {
        let text = "one = 1\ntwo = \"x\"\nthree = 3";
        let complaint = Complaint::new(text, 14..17, "two is a number");
        assert_eq!((complaint.line, complaint.column), (2, 7));
        assert_eq!(
            complaint.in_file("a.toml"),
            "a.toml:2:7: two is a number\n  |\n2 | two = \"x\"\n  |       ^^^"
        );
        assert_eq!(
            Complaint::new("a,b,c", 2..3, "no b").in_option("--by"),
            "--by, character 3: no b\n  a,b,c\n    ^"
        );
    }

    #[test]
    fn errors_at_the_end_or_across_lines_have_a_caret() {
        let at_end = Complaint::new("a = [\n", 6..6, "not closed");
        assert_eq!((at_end.line, at_end.column), (2, 1));
        assert!(at_end.in_file("a").ends_with("\n2 | \n  | ^"), "{}", at_end.in_file("a"));
        let behind = Complaint::new("ab", 90..99, "gone");
        assert_eq!((behind.line, behind.column), (1, 3));
        let lines = Complaint::new("x = [\n1,\n2]", 4..11, "too many").in_file("a");
        assert!(lines.ends_with("1 | x = [\n  |     ^"), "{lines}");
        assert!(Complaint::new("", 0..0, "empty").in_file("a").ends_with("\n1 | \n  | ^"));
    }

    #[test]
    fn only_printable_ascii_is_shown() {
        let text = "a = \"\u{1b}[31m\u{202e}é\"\t# \u{7f}";
        let shown = Complaint::new(text, 4..14, "no").in_file("a");
        assert!(shown.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{shown}");
        assert!(shown.contains("\\u{1b}[31m\\u{202e}\\u{e9}"), "{shown}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_error() {
        for (start, end) in [(0, 3), (500, 503), (997, 1000), (0, 1000), (1000, 1000)] {
            let mut text = "x".repeat(1000);
            text.replace_range(start..(start + 1).min(1000), if start < 1000 { "!" } else { "" });
            let complaint = Complaint::new(&text, start..end, "long");
            assert_eq!(complaint.column, start + 1);
            let shown = complaint.in_option("--x");
            let lines: Vec<&str> = shown.lines().collect();
            assert!(lines[1..].iter().all(|line| line.len() <= SHOWN_COLUMNS + 9), "{shown}");
            let caret = lines[2].find('^').unwrap();
            assert_eq!(lines[1].as_bytes().get(caret).copied(), (start < 1000).then_some(b'!'));
        }
    }
}
