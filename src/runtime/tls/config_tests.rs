//! Tests of loading and reloading certificates, and of the error messages. No sockets and no
//! signals.

use super::*;
use crate::runtime::tls::test_certs::{HOUR, TestCertificates, TestPair};
use crate::runtime::tls::test_peer::{CertificateFiles, Talk, client_config};
use rustls::ClientConfig;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Keys that OpenSSL makes and TLS here cannot use: which they are, and what to make instead.
#[test]
fn keys_of_other_kinds_are_named() {
    let files = CertificateFiles::of(&TestCertificates::valid());
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    for (name, kind) in [
        ("rsa1024.key", "it is an RSA key of 1024 bits"),
        ("rsa1024-pkcs1.key", "it is an RSA key of 1024 bits"),
        ("p521.key", "it is an ECDSA key of the curve P-521"),
        ("ed448.key", "it is an Ed448 key"),
    ] {
        let source = TlsSource { key: keys.join(name), ..files.source.clone() };
        let said = refused(&source);
        assert_says(&said, &[&format!("{name} cannot be used: {kind}; use RSA"), "gen-cert"]);
    }
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
    let said = refused(&files.source);
    assert_says(&said, &["--key", "cannot be used: failed to parse private key as", "gen-cert"]);
    assert!(!said.contains("unexpected"), "{said}");

    // Both forms of a key with a password.
    for encrypted in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n\
         AAAA\n-----END RSA PRIVATE KEY-----\n",
    ] {
        fs::write(&files.source.key, encrypted).unwrap();
        let said = refused(&files.source);
        assert_says(&said, &["--key", "encrypted with a password", "openssl pkey -in"]);
        assert!(!said.contains("copy the file"), "{said}");
    }

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
        let made = TestCertificates::between(not_before, not_after);
        let doubtful = CertificateFiles::of(&made).load().doubtful(now);
        assert!(doubtful.iter().all(|dated| dated.place == CertificatePlace::Server));
        doubtful.first().map_or(Validity::Valid, |dated| dated.validity)
    };
    assert_eq!(judged(now - HOUR, now + 8 * day), Validity::Valid);
    assert_eq!(judged(now - HOUR, now + 6 * day), Validity::EndsSoon);
    assert_eq!(judged(now - HOUR, now - 2 * HOUR), Validity::Never);
    let Validity::Expired { since } = judged(now - 2 * HOUR, now - HOUR) else { panic!("expired") };
    assert!(since.abs_diff(HOUR) < Duration::from_secs(2), "{since:?}");
    let starts_in = match judged(now + HOUR, now + 2 * HOUR) {
        Validity::NotYet { starts_in } => starts_in,
        other => panic!("{other:?}"),
    };
    assert!(starts_in.abs_diff(HOUR) < Duration::from_secs(2), "{starts_in:?}");
    let server = |validity| DatedCertificate {
        place: CertificatePlace::Server,
        path: PathBuf::from("/c/server.crt"),
        name: Some("a\x1b[31m".to_owned()),
        validity,
    };
    let expired = server(Validity::Expired { since: HOUR }).to_string();
    let said = "the server's certificate in --cert /c/server.crt (a\\x1b[31m) expired 1h ago";
    assert_says(&expired, &[said, "SIGHUP"]);
    assert_says(&server(Validity::NotYet { starts_in }).to_string(), &["clock"]);
    assert_says(&server(Validity::Never).to_string(), &["before it begins, so clients refuse it"]);
    assert_says(&server(Validity::EndsSoon).to_string(), &["7 days", "renew"]);
}

/// Clients refuse a server whose intermediate has expired, and nobody else would notice that an
/// authority of clients has.
#[test]
fn the_dates_of_the_chain_and_of_authorities_are_checked() {
    let now = SystemTime::now();
    let later = now + 30 * 24 * HOUR;
    let made = TestCertificates::ending(now - 3 * HOUR, [now - HOUR, later, later]);
    let other = TestCertificates::between(now - HOUR, later);
    let files = CertificateFiles::mutual(&made);
    let both = |first: &TestPair, second: &TestPair| {
        [first.certificate.as_str(), second.certificate.as_str()].concat()
    };
    // The expired authority stands in for an intermediate, behind the server's own certificate.
    fs::write(&files.source.cert, both(&made.server, &made.ca)).unwrap();
    fs::write(files.source.client_ca.as_ref().unwrap(), both(&other.ca, &made.ca)).unwrap();
    let doubtful = files.load().doubtful(now);
    let places: Vec<_> = doubtful.iter().map(|dated| dated.place).collect();
    assert_eq!(places, [CertificatePlace::Chain(2), CertificatePlace::Authority(2)]);
    let TlsSource { cert, client_ca, .. } = &files.source;
    let name = doubtful[0].name.as_ref().expect("the name of the authority");
    assert!(name.starts_with("authority "), "{name}");
    let second = |option, path: &Path| {
        format!("certificate 2 in {option} {} ({name}) expired 1h", path.display())
    };
    assert_says(&doubtful[0].to_string(), &[&second("--cert", cert), "refuse the"]);
    let authority = second("--client-ca", client_ca.as_ref().unwrap());
    assert_says(&doubtful[1].to_string(), &[&authority, "still accepted"]);
}

/// Seconds since 1970, in the test's hands.
#[derive(Debug)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// A session that is resumed brings the certificate of its first handshake along, and TLS does not
/// look at its dates again.
#[test]
fn no_session_outlives_the_client_s_certificate() {
    let now = SystemTime::now();
    let (later, end) = (now + 10 * HOUR, now + HOUR);
    let made = TestCertificates::ending(now - HOUR, [later, later, end]);
    let files = CertificateFiles::mutual(&made);
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for (version, tls12) in [
        (&TLS13, Tls12Resumption::Disabled),
        (&TLS12, Tls12Resumption::SessionIdOrTickets),
        (&TLS12, Tls12Resumption::SessionIdOnly),
    ] {
        let certificates = files.load();
        let loaded = certificates.loaded();
        let clock = Arc::new(Clock(AtomicU64::new(seconds(now))));
        let mut shared = (*loaded.config).clone();
        shared.time_provider = Arc::<Clock>::clone(&clock);
        let shared = Arc::new(shared);
        let client = || {
            let mut client = client_config(&made, version, Some(&made.client));
            client.resumption = Resumption::default().tls12_resumption(tls12);
            Arc::new(client)
        };
        let resumed = |server: Arc<ServerConfig>, client: &Arc<ClientConfig>| {
            let mut talk = Talk::with(server, client);
            talk.handshake().map(|()| talk.server.peer().resumed)
        };
        let (ending, without_end) = (client(), client());
        for again in [false, true, true] {
            assert_eq!(resumed(loaded.for_connection(&shared), &ending).unwrap(), again);
            assert_eq!(resumed(Arc::clone(&shared), &without_end).unwrap(), again);
        }
        clock.0.store(seconds(end) - 1, Ordering::Relaxed);
        assert!(resumed(loaded.for_connection(&shared), &ending).unwrap(), "until the last second");
        clock.0.store(seconds(end) + 1, Ordering::Relaxed);
        let error = resumed(loaded.for_connection(&shared), &ending).unwrap_err();
        assert_eq!(error.as_str(), "client_certificate_refused", "{version:?}");
        // Without this project's part, the expired certificate would still let its client in.
        assert!(resumed(Arc::clone(&shared), &without_end).unwrap());
    }
}
