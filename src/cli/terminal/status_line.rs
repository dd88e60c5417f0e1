//! stderr with a status line at its end that changes in place, on a terminal. The caller supplies
//! its text.
//!
//! All other output to stderr goes through here as well, so that it appears above the line and not
//! in it.

use super::stderr::Stderr;
use rustix::termios::tcgetwinsize;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Returns to the start of the line and erases it.
const CLEAR: &[u8] = b"\r\x1b[K";
/// Assumed width of a terminal that does not report one.
const COLUMNS: usize = 80;

static LINE: Mutex<(StatusLine, Stderr)> = Mutex::new((StatusLine::EMPTY, Stderr::unlimited()));

/// The state of the line at the end of stderr.
struct StatusLine {
    /// Empty if nothing is to be shown.
    text: String,
    /// Whether it is on the terminal now.
    drawn: bool,
    /// How many guards keep it hidden.
    held: usize,
}

impl StatusLine {
    const EMPTY: StatusLine = StatusLine { text: String::new(), drawn: false, held: 0 };

    /// The bytes that write `text`, followed by the line.
    fn around(&mut self, text: &[u8], columns: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if std::mem::take(&mut self.drawn) {
            bytes.extend(CLEAR);
        }
        bytes.extend(text);
        // Never after an unfinished line of other output.
        if self.held == 0 && !self.text.is_empty() && text.last().is_none_or(|&end| end == b'\n') {
            bytes.extend(fitted(&self.text, columns).as_bytes());
            self.drawn = true;
        }
        bytes
    }
}

/// Changes the line and writes `text` above it.
fn update(text: &[u8], change: impl FnOnce(&mut StatusLine)) -> io::Result<()> {
    let mut guard = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let (line, stderr) = &mut *guard;
    let shown = line.drawn || !line.text.is_empty();
    change(line);
    match shown || !line.text.is_empty() {
        true => stderr.write(&line.around(text, columns())),
        false => stderr.write(text),
    }
}

/// From now on, writes to stderr wait only briefly; lines that are not read in time are dropped.
pub(crate) fn limit_waits() {
    LINE.lock().unwrap_or_else(PoisonError::into_inner).1.limit_waits();
}

/// Whether stderr is a terminal on which a line can change in place.
pub(crate) fn possible() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
    !dumb && io::stderr().is_terminal()
}

/// Shows a line in place of the previous one.
pub(crate) fn show(text: String) {
    // A terminal that is gone is not an error.
    let _ = update(b"", |line| line.text = text);
}

/// Removes the line.
pub(crate) fn remove() {
    show(String::new());
}

/// Writes whole lines to stderr, above the status line.
///
/// # Errors
/// Those of stderr.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    update(text, |_| ())
}

/// Hides the line while the guard lives, for output to another stream.
pub(crate) fn hold() -> HeldLine {
    let _ = update(b"", |line| line.held += 1);
    HeldLine(())
}

/// Hides the status line while it lives.
#[must_use]
pub(crate) struct HeldLine(());

impl Drop for HeldLine {
    fn drop(&mut self) {
        let _ = update(b"", |line| line.held -= 1);
    }
}

/// stderr for writers that write whole lines, such as the log.
pub(crate) struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        print(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn columns() -> usize {
    let size = tcgetwinsize(io::stderr());
    size.map_or(COLUMNS, |size| if size.ws_col == 0 { COLUMNS } else { size.ws_col.into() })
}

/// The text cut to the width of the terminal, marked by `…`. The last column stays free, since some
/// terminals wrap once it is filled.
fn fitted(text: &str, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let cut = text.chars().take(room.saturating_sub(1));
    cut.chain((room > 0).then_some('…')).collect()
}

/// Prints one line on stderr. Failures are ignored, since a closed stderr must not stop an engine
/// (`eprintln!` would panic).
pub(crate) fn say(line: impl Display) {
    let _ = print(format!("ringest: {line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_terminal() {
        assert_eq!(fitted("12345", 6), "12345");
        assert_eq!(fitted("12345", 5), "123…");
        assert_eq!(fitted("p99 25.1 µs, 3", 13), "p99 25.1 µs…");
        assert_eq!(
            (fitted("12345", 2), fitted("12345", 1), fitted("12345", 0)),
            ("…".into(), String::new(), String::new())
        );
    }

    /// The lines that a terminal would show.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let last = |line: &str| line.rsplit("\r\x1b[K").next().unwrap().to_owned();
        text.split('\n').map(last).collect()
    }

    #[test]
    fn other_lines_come_before_the_line() {
        let mut line = StatusLine { text: String::new(), drawn: false, held: 0 };
        let mut bytes = line.around(b"begun\n", 80);
        line.text = "one".to_owned();
        bytes.extend(line.around(b"", 80));
        line.text = "two".to_owned();
        bytes.extend(line.around(b"", 80));
        bytes.extend(line.around(b"log\n", 80));
        assert_eq!(shown(&bytes), ["begun", "log", "two"]);
        // An unfinished line is left alone until it ends.
        bytes.extend(line.around(b"half", 80));
        assert_eq!(shown(&bytes), ["begun", "log", "half"]);
        bytes.extend(line.around(b" and half\n", 80));
        assert_eq!(shown(&bytes), ["begun", "log", "half and half", "two"]);
        line.text.clear();
        bytes.extend(line.around(b"", 80));
        assert_eq!(shown(&bytes), ["begun", "log", "half and half", ""]);
        assert_eq!(line.around(b"end\n", 80), b"end\n");
    }

    #[test]
    fn while_it_is_held_nothing_is_shown() {
        let mut line = StatusLine { text: "line".to_owned(), drawn: false, held: 0 };
        let mut bytes = line.around(b"", 80);
        line.held = 2;
        bytes.extend(line.around(b"", 80));
        bytes.extend(b"a result\n");
        line.text = "newer".to_owned();
        bytes.extend(line.around(b"log\n", 80));
        line.held -= 1;
        bytes.extend(line.around(b"", 80));
        assert_eq!(shown(&bytes), ["a result", "log", ""]);
        line.held -= 1;
        bytes.extend(line.around(b"", 80));
        assert_eq!(shown(&bytes), ["a result", "log", "newer"]);
    }
}
