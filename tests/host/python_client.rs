//! The Python client's own tests and the example of docs/examples, run against this program.
//! Skipped, aloud, where Python or a package is missing; checks nothing of its own.

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

/// The example needs `serve --schema --output`, and packages that not everybody has.
#[test]
fn the_example_goes_from_a_stream_to_a_plot() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !works(Command::new("python3").args(["-c", "import matplotlib, pyarrow"])) {
        eprintln!("skipped: python3 with matplotlib and pyarrow is not installed here");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let plot = directory.path().join("plot.png");
    let output = Command::new("python3")
        .arg(root.join("docs/examples/accelerometer.py"))
        .current_dir(directory.path())
        .env("RINGEST_BIN", env!("CARGO_BIN_EXE_ringest"))
        .env("PYTHONPATH", root.join("clients/python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MPLBACKEND", "Agg")
        .env("PLOT", &plot)
        .stdin(Stdio::null())
        .output()
        .expect("python3 was there a moment ago");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("complete at ") && out.contains(": 180 groups"), "{out}{err}");
    let image = std::fs::read(plot).expect("the example wrote it");
    assert!(image.starts_with(b"\x89PNG"), "{out}{err}");
}
