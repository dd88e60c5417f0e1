//! Tests what a file may contain, whom a table accepts, and what messages leave out. Measures no
//! time: constant-time comparison is left to `subtle`.

use super::*;

/// SHA-256 of `abc`, from FIPS 180-2, appendix B.1.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn line(user: &str) -> String {
    format!("{user}:sha256:{ABC}")
}

fn broken(text: &str) -> (usize, AuthRule) {
    let AuthError { line, rule } = AuthTable::parse(text).unwrap_err();
    (line, rule)
}

#[test]
fn a_user_is_accepted_with_the_right_token_only() {
    let table = AuthTable::parse(&line("ann")).unwrap();
    assert!(table.verify("ann", b"abc"));
    for token in [&b"abd"[..], b"ab", b"abcd", b"", b"ABC", ABC.as_bytes()] {
        assert!(!table.verify("ann", token), "{token:?}");
    }
}

#[test]
fn an_unknown_user_is_never_accepted() {
    let table = AuthTable::parse(&line("ann")).unwrap();
    for user in ["bob", "", "Ann", "ann ", "#", ":"] {
        assert!(!table.verify(user, b"abc"), "{user:?}");
    }
    assert!(!AuthTable::default().verify("ann", b"abc"));
}

#[test]
fn the_placeholder_hash_accepts_nobody() {
    let zeros = "0".repeat(HASH_DIGITS);
    let table = AuthTable::parse(&format!("nobody:sha256:{zeros}")).unwrap();
    assert!(!table.verify("nobody", &[0; 32]));
    assert!(!table.verify("else", &[0; 32]));
}

#[test]
fn comments_and_blank_lines_are_ignored() {
    let text = format!("# users\n\n   \n{}\r\n\t\n#{}\n{}", line("ann"), line("no"), line("Zoë 1"));
    let table = AuthTable::parse(&text).unwrap();
    assert_eq!(table.len(), 2);
    assert!(table.contains("ann") && table.contains("Zoë 1") && !table.contains("no"));
    assert!(AuthTable::parse("").unwrap().is_empty());
}

#[test]
fn a_byte_order_mark_is_not_part_of_a_name() {
    let table = AuthTable::parse_bytes(format!("\u{feff}{}", line("ann")).as_bytes()).unwrap();
    assert!(table.verify("ann", b"abc") && table.doubtful().is_none());
    assert_eq!(broken(&format!("\u{feff}{}\n{}", line("ann"), line("ann"))).0, 2);
}

#[test]
fn names_that_nobody_would_send_are_doubtful() {
    let text =
        ["# users", "ann", "bob ", "Z o\u{eb}", "\u{feff}eve", " dan", "\u{a0}cy", "e\u{200b}d"];
    let text: String = text.map(|user| line(user) + "\n").concat();
    let table = AuthTable::parse(&text).unwrap();
    // They are users nevertheless.
    assert!(table.verify("bob ", b"abc") && !table.contains("bob"));
    assert_eq!(table.doubtful(), Some(DoubtfulNames { line: 3, count: 5 }));
    let said = table.doubtful().unwrap().to_string();
    assert!(said.contains("line 3") && said.contains("5 such lines"), "{said}");
    assert!(!said.contains("bob"), "{said}");
    assert_eq!(AuthTable::parse(&line("a b")).unwrap().doubtful(), None);
}

#[test]
fn an_invalid_line_is_reported_with_its_rule() {
    assert_eq!(broken(&format!("{}\n\nann", line("bob"))), (3, AuthRule::Parts));
    assert_eq!(broken("ann:sha256"), (1, AuthRule::Parts));
    assert_eq!(broken(&line("")), (1, AuthRule::NameLength { bytes: 0 }));
    assert_eq!(broken(&line("a\tb")), (1, AuthRule::NameCharacters));
    assert_eq!(broken(&line("a\u{85}b")), (1, AuthRule::NameCharacters));
    assert_eq!(broken(&format!("ann:md5:{ABC}")), (1, AuthRule::Scheme));
    assert_eq!(broken(&format!("{}\n{0}", line("ann"))), (2, AuthRule::Duplicate { first: 1 }));
}

#[test]
fn a_hash_has_64_lowercase_digits() {
    let upper = ABC.to_uppercase();
    let (long, spaced, no_digits) = (format!("{ABC}0"), format!("{ABC} "), "g".repeat(64));
    for hash in ["", "ab", &ABC[1..], &upper, &long, &spaced, &no_digits] {
        assert_eq!(broken(&format!("ann:sha256:{hash}")), (1, AuthRule::Hash), "{hash}");
    }
    assert_eq!(broken(&format!("ann:sha256:{ABC}:")), (1, AuthRule::Hash));
}

#[test]
fn names_have_1_to_255_bytes() {
    assert!(AuthTable::parse(&line(&"é".repeat(127))).is_ok());
    assert!(AuthTable::parse(&line(&"a".repeat(255))).is_ok());
    let long = line(&"é".repeat(128));
    assert_eq!(broken(&long), (1, AuthRule::NameLength { bytes: 256 }));
    assert_eq!(check_user("#ann"), Err(AuthRule::NameCharacters));
}

#[test]
fn one_user_too_many_is_rejected() {
    let full: String = (0..AUTH_USERS_MAX).map(|n| line(&n.to_string()) + "\n").collect();
    assert_eq!(AuthTable::parse(&full).unwrap().len(), AUTH_USERS_MAX);
    assert_eq!(broken(&(full + &line("more"))), (AUTH_USERS_MAX + 1, AuthRule::Users));
}

#[test]
fn messages_name_file_line_rule_and_next_step_but_not_the_text() {
    let error = AuthTable::parse_bytes(b"# \n# \xff").unwrap_err();
    assert_eq!((error.line, error.rule), (2, AuthRule::Utf8));
    assert_eq!(AuthTable::parse_bytes(line("ann").as_bytes()).unwrap().len(), 1);
}

#[test]
fn hashes_and_names_stay_out_of_debug_output() {
    let table = AuthTable::parse(&line("ann")).unwrap();
    assert_eq!(format!("{table:?}"), "AuthTable { users: 1, .. }");
}
