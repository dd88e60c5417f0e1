//! Auth files: the table must have exactly the users of a file whose lines are all valid, and no
//! message may repeat a line of the file.

use crate::engine::messages::users::{AuthTable, SCHEME, check_user};
use std::collections::BTreeSet;

/// Longer than any message.
const MESSAGE_BYTES_MAX: usize = 200;

pub(super) fn run(data: &[u8]) {
    match AuthTable::parse_bytes(data) {
        Ok(table) => {
            let text = std::str::from_utf8(data).expect("only text is accepted");
            let users = users(text);
            assert_eq!(table.len(), users.len());
            for user in users {
                assert!(table.contains(user) && check_user(user).is_ok());
                assert!(!table.verify(user, b"a token that hashes to nothing in the file"));
            }
            let shown = format!("{table:?} {:?}", table.doubtful().map(|names| names.to_string()));
            assert!(shown.len() < 2 * MESSAGE_BYTES_MAX, "{shown}");
        }
        Err(error) => {
            let message = error.to_string();
            assert!((1..=1 + lines(data)).contains(&error.line), "{message}");
            assert!(message.len() < MESSAGE_BYTES_MAX && message.is_ascii(), "{message}");
        }
    }
}

fn lines(data: &[u8]) -> usize {
    data.split(|&byte| byte == b'\n').count()
}

/// The names at the begin of the lines that have one.
fn users(text: &str) -> BTreeSet<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let user = |line: &'_ str| {
        let parts: Vec<&str> = line.split(':').collect();
        assert!(parts.len() == 3 && parts[1] == SCHEME && parts[2].len() == 64, "{line}");
        line.find(':').expect("three parts")
    };
    lines.map(|line| &line[..user(line)]).collect()
}
