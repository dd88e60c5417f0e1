//! The Python of the reference pages runs as it stands there, against an engine, and prints what
//! the page says.

use super::common::{Engine, run, stderr_of};
use super::read;
use std::process::Command;

/// The blocks of Python of a page.
fn python(page: &str) -> Vec<String> {
    let blocks = page.split("```python\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The block that has this text in it.
fn block<'a>(blocks: &'a [String], text: &str) -> &'a str {
    let mut found = blocks.iter().filter(|block| block.contains(text));
    let block = found.next().unwrap_or_else(|| panic!("no block with {text}"));
    assert!(found.next().is_none(), "one block with {text}");
    block
}

fn printed_by(program: &str) -> String {
    let output = run(Command::new("python3").args(["-c", program]));
    assert!(output.status.success(), "{program}\n{}", stderr_of(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_smallest_stream_and_the_smallest_client_work() {
    let page = read("docs/reference/protocol.md");
    let blocks = python(&page);
    let engine = Engine::start_both(&[]);
    let at = |program: &str| {
        let (records, messages) = (engine.address.port(), engine.messages().port());
        let program = program.replace("\"127.0.0.1\", 9000", &format!("\"127.0.0.1\", {records}"));
        program.replace("\"127.0.0.1\", 5000", &format!("\"127.0.0.1\", {messages}"))
    };
    assert_eq!(printed_by(&at(block(&blocks, "9000"))), "");
    let client = block(&blocks, "def receive(");
    let printed = printed_by(&at(client));
    assert_eq!(printed, "True\n(4, b'Hello, Server!')\nb''\n");
    for line in printed.lines() {
        assert!(page.contains(&format!("`{line}`")), "{line}");
    }
    // The functions, and what sends records with them.
    let (functions, _) = client.split_once("\nwith ").unwrap();
    let program = format!("{functions}\n{}", block(&blocks, "frame(0x08"));
    assert_eq!(printed_by(&at(&program)), "(9, b'\\x00\\x00\\x00\\x07')\n");

    // Both were the same stream, and the page shows its groups.
    for result in engine.wait_for_results(2) {
        assert_eq!((&result["status"], &result["bytes"]), (&"complete".into(), &538.into()));
        let shown = page.split("\"groups\":").nth(1).unwrap().split('}').next().unwrap();
        let shown: serde_json::Value = serde_json::from_str(&format!("{shown}}}]")).unwrap();
        assert_eq!(result["groups"], shown);
    }
}

#[test]
fn shown_text_gives_its_bytes_back() {
    let page = read("docs/reference/results-format.md");
    let blocks = python(&page);
    let program = block(&blocks, "def text_bytes(").to_owned()
        + r"print(text_bytes(r'a\x00\\x41 \\\xff') == b'a\0\\x41 \\\xff')";
    assert_eq!(printed_by(&program), "True\n");
}
