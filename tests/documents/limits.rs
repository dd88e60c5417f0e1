//! The page of limits has the values of the program: defaults of options, and fixed ones.

use super::options::options;
use super::{output_of, read};
use ringest::internals::limits::*;
use std::time::Duration;

const LIMITS: &str = "docs/reference/limits.md";

/// The cells of all rows of the page.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::trim).collect()).collect()
}

#[test]
fn options_exist_and_have_their_default() {
    let (page, options) = (read(LIMITS), options());
    let mut count = 0;
    for row in rows(&page) {
        let Some(name) = row.get(2).and_then(|cell| cell.strip_prefix("`--")) else { continue };
        let name = name.trim_end_matches('`');
        let option = options.iter().find(|option| option.name == name);
        let option = option.unwrap_or_else(|| panic!("{LIMITS} has --{name}, `serve` has not"));
        let shown = row[1].replace([' ', ','], "");
        if let Some(default) = option.default.as_ref().filter(|_| !shown.starts_with("as")) {
            assert_eq!(shown, *default, "{name}");
            count += 1;
        }
    }
    assert!(count >= 15, "{count} defaults");
}

#[test]
fn senders_have_their_defaults() {
    let page = read(LIMITS);
    for row in rows(&page) {
        let option = row.get(2).and_then(|cell| cell.trim_matches('`').split_once(" --"));
        let Some((command @ ("send" | "replay"), option)) = option else { continue };
        let help = output_of(&[command, "--help"]);
        let begin = format!("--{option} ");
        let own = help.split("\n      --").find(|one| format!("--{one}").starts_with(&begin));
        let own = own.unwrap_or_else(|| panic!("{command} has no {begin}"));
        let shown = row[1].replace([' ', ','], "").replace("nolimit", "0");
        assert!(own.contains(&format!("[default: {shown}]")), "{command} {begin}: {own}");
    }
}

/// Groups of digits as the page has them.
fn digits(number: usize) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => digits(bytes),
    }
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{} s", ms as f64 / 1000.0),
    }
}

#[test]
fn fixed_limits_have_their_value() {
    let page = read(LIMITS);
    let rows = rows(&page);
    let fixed = [
        ("bytes of a payload before authentication", digits(PAYLOAD_BYTES_BEFORE_AUTH)),
        ("failures to authenticate", AUTH_FAILURES_MAX.to_string()),
        ("answers that wait for a client", size(REPLIES_WAITING_BYTES)),
        ("reads whose answers wait", OWED_READS.to_string()),
        ("bytes that wait for a client", size(RECEIVER_QUEUE_BYTES)),
        ("pieces that wait for a client", digits(RECEIVER_QUEUE_PIECES)),
        ("bytes that wait for all clients", size(QUEUED_BYTES)),
        ("bytes of a handshake message", size(TLS_INCOMING_BYTES_MAX)),
        ("bytes of `--cert`", size(PEM_FILE_BYTES_MAX)),
        ("TLS 1.2 sessions", TLS_SESSIONS_MAX.to_string()),
        ("days before a certificate", (CERTIFICATE_ENDS_SOON.as_secs() / 86_400).to_string()),
        ("bytes of a record", format!("1 to {}", digits(RECORD_BYTES_MAX))),
        ("fields, including", digits(SCHEMA_FIELDS_MAX)),
        ("keys", format!("1 to {SCHEMA_KEYS_MAX}")),
        ("bytes of a `text` or `bytes` field", digits(TEXT_KEY_BYTES_MAX)),
        ("aggregates", digits(SCHEMA_AGGREGATES_MAX)),
        ("bytes of a name", digits(NAME_BYTES_MAX)),
        ("bytes of the file", size(SCHEMA_FILE_BYTES_MAX)),
        ("bytes of the node's name", digits(NODE_NAME_BYTES_MAX)),
        ("result files that are written", FILE_WRITERS.to_string()),
        ("captures that are synced", FILE_WRITERS.to_string()),
        ("rows of a row group", digits(FILE_ROWS)),
        ("users in the auth file", digits(AUTH_USERS_MAX)),
        ("bytes of the auth file", size(AUTH_FILE_BYTES_MAX)),
        ("bytes of a user name", digits(USER_BYTES_MAX)),
        ("connections", ADMIN_CONNECTIONS.to_string()),
        ("bytes of a request's head", size(ADMIN_HEAD_BYTES)),
        ("time to send the head", time(ADMIN_HEAD_TIMEOUT)),
        ("time to take the reply", time(ADMIN_REPLY_TIMEOUT)),
        ("silence between requests", time(ADMIN_IDLE_TIMEOUT)),
        ("warnings about single connections", format!("{LOG_LINES_PER_SECOND} a second")),
        ("time that a new ring takes", time(RING_PATIENCE)),
        ("time that a log line waits", time(STDERR_PATIENCE)),
    ];
    for (begin, value) in fixed {
        let has = |row: &Vec<&str>| row[0].starts_with(begin) && row[1] == value;
        assert!(rows.iter().any(has), "{LIMITS}: {begin} … is {value}");
    }
}
