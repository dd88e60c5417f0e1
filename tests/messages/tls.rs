//! TLS as clients see it: versions, certificates of both sides, reloading, and those who speak
//! something else.

use crate::common::beside::{Healthy, assert_added, stats, wait_for_clients, wrongs};
use crate::common::oracle::{assert_result, records, stream};
use crate::common::wire::*;
use crate::common::{Engine, PATIENCE, ringest, run, stderr_of, until};
use ringest::internals::{CertSpec, Generated, Pair, generate_certificates};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls::{SupportedProtocolVersion, crypto::ring};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// An authority and what it signed, valid from an hour before now until `until` after.
fn certificates(not_after: SystemTime) -> Generated {
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let not_before = not_after - 3 * HOUR;
    generate_certificates(&CertSpec {
        hosts,
        client: Some("tester".to_owned()),
        not_before,
        not_after,
    })
    .unwrap()
}

pub(crate) fn valid() -> Generated {
    certificates(SystemTime::now() + HOUR)
}

/// Files of the server.
pub(crate) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new(made: &Generated) -> Self {
        let files = Files { directory: tempfile::tempdir().unwrap() };
        files.write(made);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, made: &Generated) {
        fs::write(self.path("cert"), &made.server.certificate).unwrap();
        fs::write(self.path("key"), &made.server.key).unwrap();
        fs::write(self.path("ca"), &made.ca.certificate).unwrap();
    }

    /// Options that name the files, and further ones.
    pub(crate) fn options(&self, more: &[&str]) -> Vec<String> {
        let (cert, key) = (self.path("cert"), self.path("key"));
        ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]
            .iter()
            .chain(more)
            .map(|&option| option.to_owned())
            .collect()
    }

    pub(crate) fn start(&self, more: &[&str]) -> Engine {
        let options = self.options(&[&["--tls"], more].concat());
        Engine::start_messages(&options.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A client that trusts `ca`, with a certificate of its own where it has one.
pub(crate) fn config(
    ca: &Generated,
    own: Option<&Generated>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.ca.certificate.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let pair = own.client.as_ref().unwrap();
            let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    }
}

/// Connects and shakes hands, as far as the client sees it.
pub(crate) fn handshake(
    address: SocketAddr,
    config: ClientConfig,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            // What went wrong is told to the other side.
            let _ = connection.write_tls(&mut stream);
            return Err(error);
        }
    }
    Ok(StreamOwned::new(connection, stream))
}

fn connect(engine: &Engine, ca: &Generated) -> TlsClient {
    let config = config(ca, None, &[&TLS13, &TLS12]);
    Client::over(handshake(engine.messages(), config).expect("a handshake"))
}

#[test]
fn both_versions_carry_everything() {
    let made = valid();
    let files = Files::new(&made);
    let engine = files.start(&["--rate-limit", "0"]);
    let mut other = connect(&engine, &made);
    other.ping(0);
    for (sent, version) in (0u8..).zip([&TLS12, &TLS13]) {
        let stream = handshake(engine.messages(), config(&made, None, &[version])).unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        let mut client = Client::over(stream);
        client.ping(7);
        for bytes in [0, 1, 2036, 16_384, 65_535] {
            client.send(&frame(ECHO, &vec![sent; bytes]));
            client.expect(ECHO_REPLY, &vec![sent; bytes]);
        }
        client.send(&frame(PING, b"12345678").repeat(500));
        (0..500).for_each(|_| client.expect(PONG, b"12345678"));
        for bytes in [2, 65_535] {
            client.send(&frame(BROADCAST, &vec![sent; bytes]));
            other.expect(BROADCAST, &vec![sent; bytes]);
            other.send(&frame(BROADCAST, &vec![9; bytes]));
            client.expect(BROADCAST, &vec![9; bytes]);
        }
        client.send(&frame(CLOSE, b""));
        // Fails unless TLS is closed in order, too.
        client.expect_end();
    }
    other.ping(1);
    drop(other);
    wait_for_clients(&engine, 0);
    assert_eq!(stats(&engine)["faults"], 0);
}

#[test]
fn records_travel_encrypted() {
    let made = valid();
    let files = Files::new(&made);
    let options = files.options(&["--records-tls", "--exit-after", "2"]);
    let engine = Engine::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let all = records(3000, 1);
    let mut peers = Vec::new();
    for version in [&TLS12, &TLS13] {
        let mut stream_ = handshake(engine.address, config(&made, None, &[version])).unwrap();
        peers.push(stream_.sock.local_addr().unwrap());
        stream_.write_all(&stream(&all, 4)).unwrap();
        stream_.conn.send_close_notify();
        stream_.flush().unwrap();
        // Until the engine closes: the last bytes must not be lost to a reset.
        let _ = stream_.read(&mut [0; 1]);
    }
    let (status, results, log) = engine.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    for peer in peers {
        let result = crate::common::result_of(&results, peer);
        assert_eq!(result["status"], "complete");
        assert_result(result, &all);
    }
}

/// Small, fast segments, whose reads would wait for more without TLS.
#[test]
fn reads_of_encrypted_records_do_not_wait_for_more() {
    let made = valid();
    let files = Files::new(&made);
    let options = files.options(&["--records-tls", "--coalesce-delay", "1s"]);
    let engine = Engine::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let all = records(400, 1);
    let mut sender = handshake(engine.address, config(&made, None, &[&TLS13])).unwrap();
    for packet in stream(&all, 4).chunks(1072) {
        sender.write_all(packet).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    sender.conn.send_close_notify();
    sender.flush().unwrap();
    let results = engine.wait_for_results(1);
    assert_result(&results[0], &all);
    assert_eq!(
        (&results[0]["status"], &results[0]["coalesced_reads"]),
        (&"complete".into(), &0.into())
    );
}

/// Runs a case beside a healthy client; all that may be counted is `word`, so often.
fn counted_beside(made: &Generated, engine: &Engine, word: &str, times: u64, case: impl FnOnce()) {
    let healthy = Healthy::over(connect(engine, made));
    let before = wrongs(engine);
    case();
    wait_for_clients(engine, 1);
    assert_added(engine, &before, &[(word.to_owned(), times)].into());
    healthy.assert_well();
}

fn refused_by_client(engine: &Engine, ca: &Generated) -> String {
    let error = handshake(engine.messages(), config(ca, None, &[&TLS13, &TLS12]));
    error.expect_err("the certificate is not trusted").to_string()
}

#[test]
fn clients_see_who_the_server_is() {
    let (made, foreign) = (valid(), valid());
    let engine = Files::new(&made).start(&[]);
    counted_beside(&made, &engine, "tls_failed", 1, || {
        let error = refused_by_client(&engine, &foreign);
        assert!(error.contains("UnknownIssuer"), "{error}");
    });
    let expired = certificates(SystemTime::now() - HOUR);
    let engine = Files::new(&expired).start(&[]);
    let error = refused_by_client(&engine, &expired);
    assert!(error.contains("expired"), "{error}");
    until("the count", || wrongs(&engine)["tls_failed"] == 1);
    assert!(engine.log().contains("expired"), "{}", engine.log());
}

#[test]
fn the_server_sees_who_the_clients_are() {
    let (made, foreign) = (valid(), valid());
    let files = Files::new(&made);
    let engine = files.start(&["--client-ca", files.path("ca").to_str().unwrap()]);
    for version in [&TLS12, &TLS13] {
        let right = config(&made, Some(&made), &[version]);
        let mut client = Client::over(handshake(engine.messages(), right).unwrap());
        client.ping(1);
        for own in [None, Some(&foreign)] {
            // In TLS 1.3 the client learns of it after its own handshake.
            let wrong = config(&made, own, &[version]);
            let error = match handshake(engine.messages(), wrong) {
                Err(error) => error,
                Ok(mut stream) => {
                    let _ = stream.write_all(&frame(PING, b"12345678"));
                    stream.read(&mut [0; 1]).expect_err("refused")
                }
            };
            assert!(error.to_string().contains("alert"), "{error}");
        }
        client.ping(2);
    }
    until("four refusals", || wrongs(&engine)["tls_failed"] == 4);
    assert_eq!(stats(&engine)["faults"], 4);
}

#[test]
fn certificates_are_read_again_at_sighup() {
    let (old, new) = (valid(), valid());
    let files = Files::new(&old);
    let engine = files.start(&[]);
    let mut early = connect(&engine, &old);
    early.ping(1);
    files.write(&new);
    let reload = |said: &str| {
        engine.signal(Signal::HUP);
        until(said, || engine.log().contains(said));
    };
    reload("certificates reloaded");
    connect(&engine, &new).ping(2);
    refused_by_client(&engine, &old);
    // A connection keeps what it began with.
    early.ping(3);
    fs::write(files.path("key"), &old.server.key).unwrap();
    reload("keeping the old certificates");
    connect(&engine, &new).ping(4);
    early.ping(5);
}

/// Reads until the other side closes; gives how many bytes came. A reset fails.
fn drain(stream: &mut TcpStream) -> usize {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("an orderly end");
    received.len()
}

#[test]
fn plaintext_on_a_tls_port_is_closed_cleanly() {
    let made = valid();
    let engine = Files::new(&made).start(&[]);
    let texts = [frame(PING, b"12345678"), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0x16; 300]];
    let count = texts.len() as u64;
    counted_beside(&made, &engine, "tls_failed", count, || {
        for text in texts {
            let mut stream = TcpStream::connect(engine.messages()).unwrap();
            stream.write_all(&text).unwrap();
            // An alert of TLS at most: no frame in the clear.
            assert!(drain(&mut stream) <= 7);
        }
    });
    // Nor is it an error of TLS to close before the first byte, or in the first one.
    counted_beside(&made, &engine, "tls_failed", 1, || {
        let mut stream = TcpStream::connect(engine.messages()).unwrap();
        stream.write_all(&[0x16]).unwrap();
    });
}

#[test]
fn tls_on_a_plaintext_port_is_closed_cleanly() {
    let made = valid();
    let engine = Engine::start_messages(&[]);
    let healthy = Healthy::start(engine.messages());
    let before = wrongs(&engine);
    let error = handshake(engine.messages(), config(&made, None, &[&TLS13, &TLS12]));
    let error = error.expect_err("no TLS there");
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    wait_for_clients(&engine, 1);
    assert_added(&engine, &before, &[("invalid_magic".to_owned(), 1)].into());
    healthy.assert_well();
    // The bytes of a hello, to see the answer in the clear.
    let name = ServerName::try_from("localhost").unwrap();
    let config = Arc::new(config(&made, None, &[&TLS13]));
    let mut hello = Vec::new();
    ClientConnection::new(config, name).unwrap().write_tls(&mut hello).unwrap();
    let mut client = Client::connect(engine.messages());
    client.send(&hello);
    assert_eq!(error_codes(&client.rest()), [INVALID_MAGIC]);
}

#[test]
fn handshakes_that_stall_are_cut() {
    let made = valid();
    let engine = Files::new(&made).start(&["--handshake-timeout", "2s"]);
    counted_beside(&made, &engine, "tls_timeout", 2, || {
        let mut silent = TcpStream::connect(engine.messages()).unwrap();
        let mut begun = TcpStream::connect(engine.messages()).unwrap();
        // The first bytes of a hello that promises more.
        begun.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xFC]).unwrap();
        assert!(drain(&mut silent) <= 7);
        assert!(drain(&mut begun) <= 7);
    });
}

/// Whoever speaks TLS could not read an ERROR in the clear.
#[test]
fn a_refused_tls_client_gets_no_plain_bytes() {
    let made = valid();
    let engine = Files::new(&made).start(&["--max-connections", "1", "--admit-timeout", "0s"]);
    let mut client = connect(&engine, &made);
    client.ping(1);
    let mut refused = TcpStream::connect(engine.messages()).unwrap();
    assert_eq!(drain(&mut refused), 0);
    assert_eq!(wrongs(&engine)["connections_limit"], 1);
    client.ping(2);
}

/// The last words of a client and its goodbye may come in one read: the words are answered, and so
/// is the goodbye, at once. The engine waits for nobody longer than this test is patient.
#[test]
fn last_words_and_goodbye_in_one_read() {
    let made = valid();
    let engine = Files::new(&made).start(&["--idle-timeout", "1h"]);
    let before = wrongs(&engine);
    let cases = [(frame(PING, b"12345678"), None), (vec![0xDE, 0xAD], Some("closed_in_frame"))];
    for (words, fault) in cases {
        let StreamOwned { conn: mut connection, sock: mut socket } = connect(&engine, &made).stream;
        connection.writer().write_all(&words).unwrap();
        connection.send_close_notify();
        let mut together = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut together).unwrap();
        }
        socket.write_all(&together).unwrap();
        let mut received = Vec::new();
        while connection.read_tls(&mut socket).unwrap() > 0 {
            connection.process_new_packets().unwrap();
            let _ = connection.reader().read_to_end(&mut received);
        }
        let answer = if fault.is_none() { frame(PONG, b"12345678") } else { Vec::new() };
        assert_eq!(received, answer);
        wait_for_clients(&engine, 0);
        let expected = fault.map(|word| (word.to_owned(), 1));
        assert_added(&engine, &before, &expected.into_iter().collect());
    }
}

/// Records of TLS that carry nothing keep a sender alive no longer than silence would.
#[test]
fn a_sender_of_empty_tls_records_is_silent() {
    let made = valid();
    let files = Files::new(&made);
    let options = files.options(&["--records-tls", "--idle-timeout", "1s"]);
    let engine = Engine::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let mut sender = handshake(engine.address, config(&made, None, &[&TLS13])).unwrap();
    // New keys are announced in records without content; two in a row are never quiet for long.
    until("the cut", || {
        sender.conn.refresh_traffic_keys().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        sender.conn.complete_io(&mut sender.sock).is_err() || !engine.results().is_empty()
    });
    let results = engine.wait_for_results(1);
    assert_eq!(results[0]["reason"], "idle_timeout", "{}", results[0]);
}

#[test]
fn an_idle_tls_client_is_told_in_tls() {
    let made = valid();
    let engine = Files::new(&made).start(&["--idle-timeout", "1s"]);
    let mut client = connect(&engine, &made);
    client.expect_error(TIMEOUT);
    client.expect_end();
}

/// What `ringest gen-cert` makes fits together, and the server says what is wrong with the rest.
#[test]
fn certificates_for_trials_fit_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let made = run(ringest().args(["gen-cert", "--dir", &path("."), "--client", "tester"]));
    assert!(made.status.success(), "{}", stderr_of(&made));
    let (cert, key, ca) = (path("server.crt"), path("server.key"), path("ca.crt"));
    let engine = Engine::start_messages(
        &[&["--tls", "--cert", &cert, "--key", &key][..], &["--client-ca", &ca]].concat(),
    );
    let pem = |name: &str| fs::read_to_string(path(name)).unwrap();
    let pair = |name: &str| Pair {
        certificate: pem(&format!("{name}.crt")),
        key: pem(&format!("{name}.key")),
    };
    let made = Generated { ca: pair("ca"), server: pair("server"), client: Some(pair("tester")) };
    let own = config(&made, Some(&made), &[&TLS13]);
    Client::over(handshake(engine.messages(), own).unwrap()).ping(1);
    let wrong_key = ["--tls", "--cert", &cert, "--key", &path("tester.key")];
    let output = run(ringest().args(["serve", "--port", "0", "--no-records"]).args(wrong_key));
    assert_eq!(output.status.code(), Some(2), "{}", stderr_of(&output));
}

/// A bare probe of a TLS port is neither a failed handshake nor a stream; one that begins a
/// handshake and gives up is.
#[test]
fn a_probe_of_a_tls_port_is_counted_as_empty() {
    let made = valid();
    let files = Files::new(&made);
    let options = files.options(&["--tls", "--records-tls"]);
    let engine = Engine::start_both(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let empty = |listener: &str| stats(&engine)["connections_empty"][listener].as_u64().unwrap();
    for (listener, address) in [("records", engine.address), ("messages", engine.messages())] {
        drop(TcpStream::connect(address).unwrap());
        let reset = TcpStream::connect(address).unwrap();
        socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        until("the probes are counted", || empty(listener) == 2);
    }
    assert_eq!(stats(&engine)["faults"], 0);
    // With a whole handshake, but no records, it is the same.
    let mut shaken = handshake(engine.address, config(&made, None, &[&TLS13])).unwrap();
    shaken.conn.send_close_notify();
    shaken.flush().unwrap();
    until("this one is counted", || empty("records") == 3);
    assert!(engine.results().is_empty());
    TcpStream::connect(engine.address).unwrap().write_all(&[0x16, 3, 1]).unwrap();
    let results = engine.wait_for_results(1);
    assert_eq!(results[0]["reason"], "tls_failed");
}

/// What `load` says to an engine with these options about its only connection.
fn load_says(engine: &Engine, options: &[&str]) -> String {
    let port = engine.address.port().to_string();
    let one = ["--connections", "1", "--duration", "1s"];
    let output = run(ringest().args(["load", "--port", &port]).args(one).args(options));
    assert_eq!(output.status.code(), Some(1), "{}", stderr_of(&output));
    stderr_of(&output)
}

#[test]
fn a_client_without_tls_is_told_that_the_server_speaks_it() {
    let engine = Files::new(&valid()).start(&[]);
    let said = load_says(&engine, &[]);
    assert!(said.contains("the server speaks TLS and this client does not; use --tls"), "{said}");
    assert!(!said.contains("listening there"), "{said}");
}

#[test]
fn a_client_with_tls_is_told_that_the_server_has_none() {
    let engine = Engine::start_both(&[]);
    for port in [engine.messages(), engine.admin()] {
        let (port, tls) = (port.port().to_string(), ["--tls", "--insecure"]);
        let mut load = ringest();
        load.args(["load", "--port", &port, "--connections", "1", "--duration", "1s"]);
        let output = run(load.args(tls));
        let said = stderr_of(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the server does not use TLS") && said.contains("--tls"), "{said}");
    }
}

#[test]
fn a_client_without_a_free_connection_is_told_within_the_handshake() {
    let engine = Files::new(&valid()).start(&[
        "--max-connections",
        "1",
        "--handshake-timeout",
        "1h",
        "--admit-timeout",
        "0s",
    ]);
    let _only = TcpStream::connect(engine.address).unwrap();
    wait_for_clients(&engine, 1);
    let said = load_says(&engine, &["--tls", "--insecure"]);
    assert!(said.contains("it may have no free connection (serve --max-connections)"), "{said}");
}
