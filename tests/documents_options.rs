//! docs/reference/options.md is what the program prints of itself.

use std::fs;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/reference/options.md";

fn printed(variables: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringest"))
        .args(["reference", "options"])
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_page_of_options_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == printed(&[]),
        "{PAGE} is out of date; run: cargo run -- reference options > {PAGE}"
    );
}

/// Neither the terminal nor variables that set options change the page.
#[test]
fn the_page_does_not_depend_on_the_environment() {
    let variables = [("COLUMNS", "40"), ("RATE_LIMIT", "5"), ("RINGEST_PORT", "1"), ("TERM", "x")];
    assert_eq!(printed(&variables), printed(&[]));
}
