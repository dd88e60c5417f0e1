//! Tests of loading and reloading certificates, and of the error messages. No sockets and no
//! signals.

use super::*;
use crate::runtime::tls::test_certs::{HOUR, TestCertificates};
use crate::runtime::tls::test_peer::{CertificateFiles, Talk, client_config};
use rustls::version::{TLS12, TLS13};
use std::fs;

fn refused(source: &TlsSource) -> String {
    match Certificates::load(source.clone()) {
        Ok(_) => panic!("{source:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn valid_files_are_accepted() {
    let made = TestCertificates::valid();
    CertificateFiles::of(&made).load();
    CertificateFiles::mutual(&made).load();
}

#[test]
fn a_missing_file_is_named_with_the_next_step() {
    let files = CertificateFiles::mutual(&TestCertificates::valid());
    let path = files.directory.path().join("none");
    let shown = path.to_str().unwrap();
    let sources = [
        ("--cert", TlsSource { cert: path.clone(), ..files.source.clone() }),
        ("--key", TlsSource { key: path.clone(), ..files.source.clone() }),
        ("--client-ca", TlsSource { client_ca: Some(path.clone()), ..files.source.clone() }),
    ];
    for (option, source) in sources {
        assert_says(&refused(&source), &[option, shown, "No such file", "ringest gen-cert"]);
    }
}

#[test]
fn files_without_a_certificate_or_key_are_refused() {
    let files = CertificateFiles::mutual(&TestCertificates::valid());
    let source = &files.source;
    let swapped = TlsSource { cert: source.key.clone(), ..source.clone() };
    assert_says(
        &refused(&swapped),
        &["--cert", "server.key contains no certificate", "BEGIN CERT"],
    );
    let swapped = TlsSource { key: source.cert.clone(), ..source.clone() };
    assert_says(
        &refused(&swapped),
        &["--key", "server.crt contains no private key", "openssl pkey"],
    );
    let swapped = TlsSource { client_ca: Some(source.key.clone()), ..source.clone() };
    assert_says(&refused(&swapped), &["--client-ca", "server.key contains no certificate"]);
    let empty = files.directory.path().join("empty");
    fs::write(&empty, "").unwrap();
    let swapped = TlsSource { cert: empty, ..source.clone() };
    assert_says(&refused(&swapped), &["empty contains no certificate"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let made = TestCertificates::valid();
    let files = CertificateFiles::of(&made);
    fs::write(&files.source.key, &TestCertificates::valid().server.key).unwrap();
    let (key, cert) = (&files.source.key, &files.source.cert);
    let parts =
        [key.to_str().unwrap(), cert.to_str().unwrap(), "does not match", "issued together"];
    assert_says(&refused(&files.source), &parts);
}

#[test]
fn damaged_files_are_refused() {
    let made = TestCertificates::valid();
    let files = CertificateFiles::of(&made);
    let certificate = &made.server.certificate;
    let cut = &certificate[..certificate.len() - 30];
    fs::write(&files.source.cert, cut).unwrap();
    assert_says(&refused(&files.source), &["--cert", "not valid PEM", "copy the file again"]);

    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(&files.source.cert, nonsense).unwrap();
    assert_says(&refused(&files.source), &["--cert", "cannot be used", "X.509"]);

    files.write(&made);
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    fs::write(&files.source.key, nonsense).unwrap();
    assert_says(&refused(&files.source), &["--key", "cannot be used", "ECDSA"]);

    let endless = TlsSource { cert: "/dev/zero".into(), ..files.source.clone() };
    assert_says(&refused(&endless), &["/dev/zero has more than", "right file"]);
}

/// Whether a new connection of a client that trusts `made` succeeds.
fn connects(certificates: &Certificates, made: &TestCertificates) -> bool {
    let config = client_config(made, &TLS13, None);
    Talk::between(certificates.current(), config).handshake().is_ok()
}

#[test]
fn after_a_reload_new_connections_get_the_new_certificate_and_old_ones_continue() {
    let (old, new) = (TestCertificates::valid(), TestCertificates::valid());
    let files = CertificateFiles::of(&old);
    let certificates = files.load();
    let mut talk = Talk::between(certificates.current(), client_config(&old, &TLS13, None));
    talk.handshake().unwrap();

    files.write(&new);
    assert!(connects(&certificates, &old), "files are read on request only");
    certificates.reload().unwrap();
    assert!(connects(&certificates, &new) && !connects(&certificates, &old));
    let bytes = talk.say(b"still here");
    talk.give(&bytes).unwrap();
    assert_eq!(talk.heard, b"still here");
}

#[test]
fn a_failed_reload_keeps_the_previous_configuration() {
    let made = TestCertificates::valid();
    let files = CertificateFiles::of(&made);
    let certificates = files.load();
    fs::write(&files.source.key, &TestCertificates::valid().server.key).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsConfigError::Mismatch { .. })));
    fs::remove_file(&files.source.cert).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsConfigError::Read { .. })));
    assert!(connects(&certificates, &made));
    files.write(&made);
    certificates.reload().unwrap();
}

#[test]
fn connections_are_accepted_while_certificates_are_reloaded() {
    let made = TestCertificates::valid();
    let files = CertificateFiles::of(&made);
    let certificates = files.load();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| certificates.reload().unwrap()));
        assert!((0..20).all(|_| connects(&certificates, &made)));
    });
}

#[test]
fn no_session_outlives_a_reload() {
    for version in [&TLS12, &TLS13] {
        let made = TestCertificates::valid();
        let files = CertificateFiles::of(&made);
        let certificates = files.load();
        let config = Arc::new(client_config(&made, version, None));
        let resumed = |certificates: &Certificates| {
            let mut talk = Talk::with(certificates.current(), &config);
            talk.handshake().unwrap();
            talk.server.peer().resumed
        };
        assert!(!resumed(&certificates));
        assert!(resumed(&certificates));
        certificates.reload().unwrap();
        assert!(!resumed(&certificates));
    }
}

#[test]
fn the_dates_of_the_certificate_are_checked() {
    let now = SystemTime::now();
    let day = 24 * HOUR;
    let judged = |not_before, not_after| {
        CertificateFiles::of(&TestCertificates::between(not_before, not_after)).load().validity(now)
    };
    assert_eq!(judged(now - HOUR, now + 8 * day), Validity::Valid);
    assert_eq!(judged(now - HOUR, now + 6 * day), Validity::EndsSoon);
    let Validity::Expired { since } = judged(now - 2 * HOUR, now - HOUR) else { panic!("expired") };
    assert!(since.abs_diff(HOUR) < Duration::from_secs(2), "{since:?}");
    let starts_in = match judged(now + HOUR, now + 2 * HOUR) {
        Validity::NotYet { starts_in } => starts_in,
        other => panic!("{other:?}"),
    };
    assert!(starts_in.abs_diff(HOUR) < Duration::from_secs(2), "{starts_in:?}");
    assert_says(&Validity::Expired { since: HOUR }.to_string(), &["expired 1h ago", "SIGHUP"]);
    assert_says(&Validity::NotYet { starts_in }.to_string(), &["clock"]);
    assert_says(&Validity::EndsSoon.to_string(), &["7days", "renew"]);
}
