//! Texts in UTF-8 and in Latin-1, from the socket to the result, its file, the merge of partials
//! and the table: printable text is itself, and nothing else reaches a terminal.

use crate::common::{Engine, ringest, run, send};
use serde_json::{Value, json};
use std::fs;

const SCHEMA: &str = r#"
[packet]
length = "none"
end = "close"
[[field]]
name = "u"
type = "text"
bytes = 8
[[field]]
name = "l"
type = "text"
bytes = 4
encoding = "latin1"
[result]
by = ["u", "l"]
"#;

/// A record's two texts and how results show them, sorted by their bytes.
const TEXTS: [([&[u8]; 2], [&str; 2]); 9] = [
    ([b"", b"\xa3"], ["", "£"]),
    ([b"\x1b[2J", b""], [r"\x1b[2J", ""]),
    ([b"Z\xc3", b"\x9b2J"], [r"Z\xc3", r"\xc2\x9b2J"]),
    (["Zürich".as_bytes(), b"\xad"], ["Zürich", r"\xc2\xad"]),
    (["Zürich".as_bytes(), b"\xb0C"], ["Zürich", "°C"]),
    ([b"\\xc3", b"\\"], [r"\\xc3", r"\\"]),
    ([b"\x80", b"x"], [r"\x80", "x"]),
    (["\u{202e}ab".as_bytes(), b"x"], [r"\xe2\x80\xaeab", "x"]),
    (["東京".as_bytes(), b"\xff"], ["東京", "ÿ"]),
];

#[test]
fn printable_text_is_itself_and_nothing_else_reaches_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let schema = directory.path().join("schema.toml");
    fs::write(&schema, SCHEMA).unwrap();
    let output = directory.path().join("results");
    let partials = directory.path().join("partials");
    fs::create_dir(&output).unwrap();
    fs::create_dir(&partials).unwrap();
    let options = [
        ["--schema", schema.to_str().unwrap()],
        ["--output", output.to_str().unwrap()],
        ["--output-format", "csv"],
        ["--partials", partials.to_str().unwrap()],
        ["--exit-after", "1"],
    ];
    let engine = Engine::start(&options.concat());
    let mut stream = Vec::new();
    for ([u, l], _) in TEXTS.iter().rev() {
        stream.extend_from_slice(u);
        stream.resize(stream.len() + 8 - u.len(), 0);
        stream.extend_from_slice(l);
        stream.resize(stream.len() + 4 - l.len(), b' ');
    }
    send(&engine, &stream);
    let (_, results, log) = engine.wait();
    let expected = TEXTS.map(|(_, [u, l])| json!({"u": u, "l": l, "count": 1}));
    assert_eq!(results[0]["groups"], Value::from(expected.to_vec()), "{log}");
    let csv = fs::read_to_string(results[0]["file"].as_str().unwrap()).unwrap();
    let lines: Vec<String> = TEXTS.iter().map(|(_, [u, l])| format!("{u},{l},1")).collect();
    assert_eq!(csv.lines().skip(1).collect::<Vec<_>>(), lines);

    let merge = |format| {
        let output = run(ringest().arg("merge").arg(&partials).args(["--format", format]));
        String::from_utf8(output.stdout).unwrap()
    };
    let merged: Value = serde_json::from_str(&merge("ndjson")).unwrap();
    assert_eq!(merged["groups"], Value::from(expected.to_vec()));
    let table = merge("table");
    // Each Chinese character takes two columns.
    assert!(table.contains("│ 東京           │ ÿ          │     1 │\n"), "{table}");
    assert!(table.contains("│ Zürich         │ °C         │     1 │\n"), "{table}");
    let steers =
        |one: char| one.is_control() && one != '\n' || ('\u{202a}'..='\u{202e}').contains(&one);
    assert!(!table.contains(steers), "{table}");
}
