//! The Python client's own tests, run against this program. Skipped, aloud, where Python or pytest
//! is missing.

use std::path::Path;
use std::process::{Command, Stdio};

fn works(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

#[test]
fn the_python_clients_tests_pass() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    if !works(Command::new("python3").args(["-c", "import pytest"])) {
        eprintln!("skipped: python3 with pytest is not installed here");
        return;
    }
    let output = Command::new("python3")
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(&client)
        .env("RINGEST_BIN", env!("CARGO_BIN_EXE_ringest"))
        .env("PYTHONPATH", client.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Nothing but pytest itself: whatever else is installed here has its own opinions.
        .env("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        .env_remove("PYTEST_ADDOPTS")
        .stdin(Stdio::null())
        .output()
        .expect("python3 was there a moment ago");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    // The last line counts, among others, what was skipped.
    print!("{out}");
    assert!(out.contains(" passed"), "{out}{err}");
}
