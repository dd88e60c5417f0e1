//! Record streams over TLS, from the program's own senders: right ones, and each way to be refused.

use crate::common::oracle::{assert_result, records, stream};
use crate::common::{Engine, ringest, run, stderr_of, until};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Certificates as a user makes them.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        Certificates::of(&[])
    }

    /// With further options of `gen-cert`.
    fn of(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = ringest();
        command.args(["gen-cert", "--client", "tester"]).args(options).arg("--dir");
        let made = run(command.arg(directory.path()));
        assert!(made.status.success(), "{}", stderr_of(&made));
        Certificates { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// An engine with these, and further options.
    fn engine(&self, more: &[&str]) -> Engine {
        let (cert, key) = (self.path("server.crt"), self.path("server.key"));
        let tls = ["--records-tls", "--cert", &cert, "--key", &key];
        Engine::start(&[&tls[..], more].concat())
    }
}

/// A command of the program towards an engine.
fn towards(engine: &Engine, command: &str) -> Command {
    let port = engine.address.port().to_string();
    let mut sender = ringest();
    sender.args([command, "--records-port", &port]);
    sender
}

fn assert_ok(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr_of(output));
}

#[test]
fn send_speaks_tls_and_verifies() {
    let certificates = Certificates::new();
    for schema in ["built-in", "close"] {
        // One that ends with the connection: what ends without a word of TLS is not whole.
        let path = certificates.directory.path().join("close.toml");
        fs::write(&path, CLOSE).unwrap();
        let schema = match schema {
            "close" => vec!["--schema", path.to_str().unwrap()],
            _ => Vec::new(),
        };
        let engine = certificates.engine(&[&["--exit-after", "3"], &schema[..]].concat());
        let sent = run(towards(&engine, "send")
            .args(["--tls", "--ca", &certificates.path("ca.crt"), "--connections", "3"])
            .args(["--records", "20000", "--groups", "50"])
            .args(&schema)
            .arg("--verify")
            .arg(engine.results_path()));
        assert_ok(&sent);
        assert!(stderr_of(&sent).contains("3 of 3 results match"), "{}", stderr_of(&sent));
        let (status, results, log) = engine.wait();
        assert_eq!((status.code(), results.len()), (Some(0), 3), "{log}");
    }
}

const CLOSE: &str = r#"
name = "close"
endian = "little"
[packet]
length = "none"
end = "close"
[[field]]
name = "k"
type = "u8"
[[field]]
name = "v"
type = "u32"
[result]
by = ["k"]
aggregates = ["v:sum"]
"#;

#[test]
fn replay_speaks_tls_and_brings_its_certificate() {
    let certificates = Certificates::new();
    let engine = certificates.engine(&["--client-ca", &certificates.path("ca.crt")]);
    let sent = records(500, 3);
    let capture: PathBuf = certificates.directory.path().join("a.capture");
    fs::write(&capture, stream(&sent, 4)).unwrap();
    let replayed = run(towards(&engine, "replay")
        .args(["--tls", "--ca", &certificates.path("ca.crt")])
        .args(["--client-cert", &certificates.path("tester.crt")])
        .args(["--client-key", &certificates.path("tester.key")])
        .arg(&capture)
        .arg(&capture));
    assert_ok(&replayed);
    for result in engine.wait_for_results(2) {
        assert_eq!(result["status"], "complete");
        assert_result(&result, &sent);
    }
}

/// A sender that is refused says so, however little it had to send.
#[test]
fn each_refusal_is_an_error_that_says_why() {
    let certificates = Certificates::new();
    let others = Certificates::new();
    let ca = certificates.path("ca.crt");
    let engine = certificates.engine(&["--client-ca", &ca]);
    let send = |options: &[&str], said: &str| {
        let mut command = towards(&engine, "send");
        let output = run(command.args(["--connections", "1", "--records", "5"]).args(options));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{options:?}: {stderr}");
        assert!(stderr.contains(said) && !stderr.contains("panicked"), "{options:?}: {stderr}");
    };
    send(&["--tls", "--ca", &ca], "CertificateRequired");
    let (cert, key) = (others.path("tester.crt"), others.path("tester.key"));
    let stranger = ["--tls", "--ca", &ca, "--client-cert", &cert, "--client-key", &key];
    send(&stranger, "received fatal alert");
    send(&["--tls", "--ca", &others.path("ca.crt")], "UnknownIssuer");
    // An engine without TLS does not answer a handshake; it sees no packet and closes.
    let plain = Engine::start(&[]);
    let output = run(towards(&plain, "send").args(["--tls", "--insecure", "--connections", "1"]));
    let stderr = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("TLS with 127.0.0.1:") && stderr.contains("--records-tls"), "{stderr}");
}

#[test]
fn the_name_of_the_engine_must_be_that_of_its_certificate() {
    let certificates = Certificates::of(&["--host", "other.example"]);
    let engine = certificates.engine(&[]);
    let output = run(towards(&engine, "send").args([
        "--tls",
        "--ca",
        &certificates.path("ca.crt"),
        "--connections",
        "1",
    ]));
    let stderr = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("not valid for name"), "{stderr}");
}

/// However little a plain sender had to send, it is told that the engine uses TLS; and the engine's
/// advice names the option of the listener that it came to.
#[test]
fn a_plain_sender_is_told_that_the_engine_uses_tls() {
    let certificates = Certificates::new();
    let engine = certificates.engine(&[]);
    // Few fit into the kernel's buffers, many do not.
    for (count, records) in [(1, "5"), (2, "400000")] {
        let output =
            run(towards(&engine, "send").args(["--connections", "1", "--records", records]));
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let said = format!("ringest: the server at {} uses TLS; add --tls with", engine.address);
        assert!(stderr.contains(&said), "{stderr}");
        let results = engine.wait_for_results(count);
        let result = &results[count - 1];
        assert_eq!(
            (&result["status"], &result["reason"]),
            (&"rejected".into(), &"tls_failed".into())
        );
        // The log is read a moment after the result.
        until("the advice in the log", || {
            engine.log().matches("serve without --records-tls (records)").count() >= count
        });
    }
    let capture = certificates.directory.path().join("a.capture");
    fs::write(&capture, stream(&records(5, 3), 4)).unwrap();
    let output = run(towards(&engine, "replay").arg(&capture).arg(&capture));
    let stderr = stderr_of(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("sent 0 files, 0 bytes"), "{stderr}");
    assert_eq!(stderr.matches("uses TLS; add --tls with").count(), 1, "{stderr}");
}

/// The other way round: each port that has no TLS is called that.
#[test]
fn a_sender_with_tls_is_told_that_the_server_has_none() {
    let engine = Engine::start_both(&[]);
    for (port, said) in [
        (engine.address, "the server closed the connection during the TLS handshake"),
        (engine.messages(), "the server does not use TLS"),
        (engine.admin(), "the server does not use TLS"),
    ] {
        let port = port.port().to_string();
        let mut send = ringest();
        send.args(["send", "--tls", "--insecure", "--records-port", &port, "--connections", "2"]);
        let output = run(&mut send);
        let stderr = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("2 connections failed: TLS with 127.0.0.1:"), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
}
