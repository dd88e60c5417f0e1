//! Variables of the environment: those that Kubernetes sets, and those with wrong values.

use crate::common::{nobody, ringest, run, stderr_of};

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
        let named = format!("the value comes from the environment variable {variable}\n");
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
