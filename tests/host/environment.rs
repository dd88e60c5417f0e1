//! Variables of the environment: those that Kubernetes sets, and those with wrong values.

use crate::common::{nobody, ringest, run, stderr_of, until};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

/// Exit code and stderr of a command with variables.
fn outcome(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = run(ringest().args(arguments).envs(variables.iter().copied()));
    (output.status.code(), stderr_of(&output))
}

/// Kubernetes sets RINGEST_PORT for a Service named `ringest`, RINGEST_RECORDS_PORT for one named
/// `ringest-records`, and so on. Each command says so and goes on: here to its next error.
#[test]
fn ports_that_kubernetes_sets_are_ignored() {
    let links = [
        ("RINGEST_PORT", "tcp://10.0.0.1:5000"),
        ("RINGEST_RECORDS_PORT", "udp://10.0.0.2:9000"),
        ("RINGEST_ADMIN_PORT", "sctp://[fd00::1]:6000"),
    ];
    let (nobody, _kept) = nobody();
    let nobody = nobody.port().to_string();
    for (arguments, ignored, code, said) in [
        (&["serve", "--no-messages", "--no-records"][..], &[0, 1, 2][..], 2, "nothing to serve"),
        (&["--debug", "doctor", "--no-messages", "--no-records"], &[0, 1, 2], 2, "nothing to"),
        (&["health", "--records-port", &nobody], &[0, 2], 1, "nothing listens on port"),
        (&["load", "--host", "no such host"], &[0], 2, "cannot resolve"),
        (&["send", "--host", "no such host"], &[1], 2, "cannot resolve --host"),
    ] {
        let (status, stderr) = outcome(arguments, &links);
        assert_eq!(status, Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        for (index, (name, value)) in links.iter().enumerate() {
            let line = format!("ringest: {name}={value} is ignored, since Kubernetes sets it");
            assert_eq!(stderr.contains(&line), ignored.contains(&index), "{name}: {stderr}");
        }
    }
    // A port that is given needs no remark.
    let options = ["serve", "--no-messages", "--no-records", "--port=1", "--records-port", "2"];
    let (_, stderr) = outcome(&options, &links[..2]);
    assert!(!stderr.contains("Kubernetes"), "{stderr}");
    // What stands on the command line is nobody's but the user's.
    let (status, stderr) = outcome(&["serve", "--port", "tcp://10.0.0.1:5000"], &[]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("invalid value 'tcp://10.0.0.1:5000' for '--port"), "{stderr}");
}

#[test]
fn an_error_names_the_variable_that_the_value_came_from() {
    for (command, variable, value) in [
        ("serve", "RINGEST_PORT", "tcp:5000"),
        ("health", "RINGEST_PORT", "http://10.0.0.1:5000"),
        ("doctor", "RINGEST_ADMIN_PORT", "65536"),
        ("load", "RINGEST_PORT", ""),
        ("send", "RINGEST_RECORDS_PORT", "9000 "),
        ("serve", "RINGEST_AGGREGATE", "nonsense"),
        ("serve", "RINGEST_BUFFER_BYTES", "many"),
        ("serve", "RATE_LIMIT", "fast"),
        // Ranges are checked later.
        ("serve", "RINGEST_BATCH_ROWS", "0"),
        ("doctor", "RINGEST_IDLE_TIMEOUT", "1ms"),
        ("serve", "MAX_CONNECTIONS", "0"),
    ] {
        let (status, stderr) = outcome(&[command], &[(variable, value)]);
        assert_eq!(status, Some(2), "{variable}={value}: {stderr}");
        let named = format!(" comes from the environment variable {variable}\n");
        assert!(stderr.contains(&named), "{variable}={value}: {stderr}");
    }
    // The command line wins, so its value is the wrong one.
    for arguments in [&["serve", "--port", "x"][..], &["serve", "--port=x"]] {
        let (status, stderr) = outcome(arguments, &[("RINGEST_PORT", "y")]);
        assert_eq!(status, Some(2));
        assert!(stderr.contains("invalid value 'x'") && !stderr.contains("variable"), "{stderr}");
    }
    let (_, stderr) = outcome(&["serve", "--batch-rows", "0"], &[("RINGEST_BATCH_ROWS", "1")]);
    assert!(stderr.contains("--batch-rows is 0") && !stderr.contains("variable"), "{stderr}");
}

/// What stands in docs/reference/options.md about options with variables: command and variable.
fn all_variables() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/options.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (mut command, mut found) = (None, Vec::new());
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            command = title.strip_prefix("`ringest ").map(|name| name.trim_end_matches('`'));
        }
        let mut cells = line.split(" | ");
        if let (Some(command), Some(option), Some(variable)) = (command, cells.next(), cells.next())
            && option.starts_with("| `--")
            && variable.starts_with('`')
        {
            found.push((command.to_owned(), variable.trim_matches('`').to_owned()));
        }
    }
    found
}

/// Exit code and all output of a command; it is ended if it goes on.
fn outcome_of_all(arguments: &[&str], variable: &str, value: &str) -> (Option<i32>, String) {
    let mut command = ringest();
    command.args(arguments).env(variable, value);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    until("the end of a command with a wrong value", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr_of(&output);
    (output.status.code(), said)
}

/// A value that no option takes: not a number, time, size, word, host, address or file.
#[test]
fn each_wrong_value_of_each_command_is_traced_to_its_variable() {
    const WRONG: &str = "/no/such/directory/no:such:file";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let capture = format!("{path}/a.capture");
    std::fs::write(&capture, "bytes").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let variables = all_variables();
    assert!(variables.len() > 150, "{}", variables.len());
    for (command, variable) in &variables {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        match command.as_str() {
            "replay" => arguments.push(&capture),
            "merge" => arguments.push(path),
            "token" => arguments.push("ann"),
            _ => {}
        }
        // It is set once there is a connection.
        if variable == "RINGEST_CONGESTION" {
            arguments.extend(["--records-port", &port]);
        }
        let (status, said) = outcome_of_all(&arguments, variable, WRONG);
        assert!(matches!(status, Some(1..=3)), "{command} {variable}: {status:?} {said}");
        let named = format!("comes from the environment variable {variable}\n");
        assert!(said.contains(&named), "{command}, {variable}: {said}");
    }
}

/// Options that contradict each other, or need each other, wherever each comes from.
#[test]
fn contradictions_are_traced_to_their_variables() {
    for (arguments, variables, said) in [
        (
            &["send"][..],
            &[("RINGEST_CA", "a")][..],
            "--ca comes from the environment variable RINGEST_CA\n",
        ),
        (
            &["load", "--tls", "--insecure"],
            &[("RINGEST_CA", "a")],
            "--ca comes from the environment variable RINGEST_CA\n",
        ),
        (
            &["serve"],
            &[("RINGEST_NODE", "a/b")],
            "--node comes from the environment variable RINGEST_NODE\n",
        ),
        (
            &["serve", "--cert", "a"],
            &[("RINGEST_CLIENT_CA", "b")],
            "--client-ca comes from the environment variable RINGEST_CLIENT_CA\n",
        ),
        (
            &["doctor", "--port", "9000"],
            &[("RINGEST_RECORDS_PORT", "9000")],
            "--records-port comes from the environment variable RINGEST_RECORDS_PORT\n",
        ),
        (
            &["serve"],
            &[("RINGEST_TLS", "true"), ("RINGEST_KEY", "k")],
            "--key comes from the environment variable RINGEST_KEY\n",
        ),
    ] {
        let (status, stderr) = outcome(arguments, variables);
        assert_eq!(status, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    use std::os::unix::ffi::OsStrExt;
    let wrong = std::ffi::OsStr::from_bytes(b"a\xff");
    let output = run(ringest().arg("serve").env("RINGEST_HOST", wrong));
    let stderr = stderr_of(&output);
    assert!(stderr.contains("--host comes from the environment variable RINGEST_HOST"), "{stderr}");
}
