//! TLS through a byte proxy: no cut, damaged or repeated byte makes a stream complete or a record
//! wrong.

use crate::common::oracle::{assert_result, records, stream};
use crate::common::proxy::{CutBy, Mischief, Proxy};
use crate::common::{Engine, result_of};
use crate::proxied::{bit, cut, flip, results_of};
use ringest::internals::{CertSpec, Generated, generate_certificates};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

/// A stream of these ends with its connection, so only TLS can tell an end from a cut.
const SCHEMA: &str = r#"
name = "ticks"
endian = "big"
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
const RECORDS: usize = 4000;
const RECORD: usize = 5;

fn record(number: usize) -> Vec<u8> {
    [&[(number % 3) as u8][..], &(number as u32).to_be_bytes()].concat()
}

/// The groups of the first so many records.
fn groups_of(count: usize) -> Value {
    let group = |k: usize| {
        let members: Vec<usize> = (0..count).filter(|number| number % 3 == k).collect();
        let sum: usize = members.iter().sum();
        json!({"k": k, "v_sum": sum, "count": members.len()})
    };
    (0..3.min(count)).map(group).collect()
}

pub(crate) struct TlsEngine {
    pub engine: Engine,
    config: Arc<ClientConfig>,
    _directory: tempfile::TempDir,
}

impl TlsEngine {
    /// Takes records over TLS; with a schema, those of [`SCHEMA`].
    pub(crate) fn start(own_schema: bool, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let made = generate_certificates(&CertSpec {
            hosts: vec!["localhost".to_owned()],
            client: None,
            not_before: now - day,
            not_after: now + 30 * day,
        })
        .unwrap();
        let (cert, key, schema) = (path("cert"), path("key"), path("schema.toml"));
        fs::write(&cert, &made.server.certificate).unwrap();
        fs::write(&key, &made.server.key).unwrap();
        fs::write(&schema, SCHEMA).unwrap();
        let mut options = vec!["--records-tls", "--cert", &cert, "--key", &key];
        if own_schema {
            options.extend(["--schema", &schema]);
        }
        options.extend(more);
        let engine = Engine::start(&options);
        TlsEngine { engine, config: Arc::new(trusting(&made)), _directory: directory }
    }

    /// Sends bytes over TLS and ends it in order, as far as the line allows.
    pub(crate) fn send(&self, proxy: &Proxy, bytes: &[u8]) -> io::Result<()> {
        self.send_waiting(proxy, bytes, Duration::from_secs(1))
    }

    fn send_waiting(&self, proxy: &Proxy, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let socket = proxy.connect();
        // Who waits for the rest of a message that was damaged gives up.
        socket.set_read_timeout(Some(patience))?;
        let mut stream = StreamOwned::new(connection, socket);
        let sent = send_all(&mut stream, bytes);
        let _ = stream.sock.shutdown(Shutdown::Write);
        sent
    }
}

fn send_all(stream: &mut StreamOwned<ClientConnection, TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    // Until the engine closes: the last bytes must not be lost to a reset.
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}

fn trusting(made: &Generated) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.ca.certificate.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Bytes of a whole stream on the line, and the stream.
fn undisturbed(tls: &TlsEngine) -> (u64, Vec<u8>) {
    let bytes: Vec<u8> = (0..RECORDS).flat_map(record).collect();
    let proxy = Proxy::to(tls.engine.address, Mischief::default());
    tls.send_waiting(&proxy, &bytes, crate::common::PATIENCE).unwrap();
    let results = tls.engine.wait_for_results(1);
    let result = result_of(&results, proxy.upstream);
    assert_eq!(result["status"], "complete", "{result}");
    assert_eq!(result["groups"], groups_of(RECORDS));
    (proxy.passed_up(), bytes)
}

/// Runs each mischief, eight at a time; gives the results by what the engine saw as the peer.
fn results_of_all(
    tls: &TlsEngine,
    bytes: &[u8],
    all: &[Mischief],
) -> Vec<(Option<Value>, Mischief)> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let sent: Vec<(SocketAddr, Mischief)> = thread::scope(|scope| {
        let run = || {
            let mut sent = Vec::new();
            while let Some(mischief) =
                all.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
            {
                let proxy = Proxy::to(tls.engine.address, *mischief);
                let _ = tls.send(&proxy, bytes);
                sent.push((proxy.upstream, *mischief));
            }
            sent
        };
        let running: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let results = results_of(&tls.engine, 1 + sent.len());
    let of = |peer: SocketAddr| {
        let peer = peer.to_string();
        results.iter().find(|result| result["peer"] == peer.as_str()).cloned()
    };
    sent.into_iter().map(|(peer, mischief)| (of(peer), mischief)).collect()
}

/// Fails unless a stream is incomplete for one of these reasons, and has its first records.
fn assert_noticed(result: &Value, mischief: &Mischief, reasons: &[&str]) -> usize {
    assert_ne!(result["status"], "complete", "{mischief:?}: {result}");
    let reason = result["reason"].as_str().unwrap();
    assert!(reasons.contains(&reason), "{mischief:?}: {result}");
    let count = result["records"].as_u64().unwrap() as usize;
    assert_eq!(result["groups"], groups_of(count), "{mischief:?}");
    count
}

#[test]
fn no_cut_of_a_tls_stream_makes_it_complete() {
    let tls = TlsEngine::start(true, &["--handshake-timeout", "1s"]);
    let (total, bytes) = undisturbed(&tls);
    let mut random = fastrand::Rng::with_seed(1);
    // The end of TLS is in the last bytes.
    let mut places: Vec<u64> = (total - 30..total).chain([1, 5, 6]).collect();
    places.extend((0..100).map(|_| random.u64(1..total)));
    let both = |place: &u64| [CutBy::End, CutBy::Reset].map(|by| cut(*place, by));
    let all: Vec<Mischief> = places.iter().flat_map(both).collect();
    let reasons =
        ["closed_without_close_notify", "closed_in_record", "tls_failed", "tls_timeout", "reset"];
    let mut with_records = 0;
    for (result, mischief) in results_of_all(&tls, &bytes, &all) {
        let (place, by) = mischief.up.cut.unwrap();
        let Some(result) = result else {
            assert_eq!(by, CutBy::Reset, "nothing is said of {place} bytes");
            continue;
        };
        let count = assert_noticed(&result, &mischief, &reasons);
        with_records += usize::from(count > 0);
        assert!(count * RECORD <= place as usize, "{mischief:?}: {result}");
    }
    assert!(with_records > 50, "{with_records} of {}", all.len());
}

#[test]
fn no_damaged_byte_of_a_tls_stream_goes_unnoticed() {
    let tls = TlsEngine::start(true, &["--handshake-timeout", "1s", "--idle-timeout", "3s"]);
    let (total, bytes) = undisturbed(&tls);
    let mut random = fastrand::Rng::with_seed(2);
    let mut all: Vec<Mischief> =
        (total - 24..total).map(|place| flip(place, bit(&mut random))).collect();
    all.extend((0..150).map(|_| flip(random.u64(..total), bit(&mut random))));
    // A length that became longer waits for bytes that never come.
    let reasons = ["tls_failed", "tls_timeout", "closed_without_close_notify", "idle_timeout"];
    let (mut failed, mut with_records, mut unharmed) = (0, 0, 0);
    for (result, mischief) in results_of_all(&tls, &bytes, &all) {
        let result = result.unwrap_or_else(|| panic!("nothing is said of {mischief:?}"));
        if result["status"] == "complete" {
            // Two bytes of each record of TLS are there for old firewalls, and nobody reads them.
            assert_eq!(result["groups"], groups_of(RECORDS), "{mischief:?}");
            unharmed += 1;
            continue;
        }
        let count = assert_noticed(&result, &mischief, &reasons);
        failed += usize::from(result["reason"] == "tls_failed");
        with_records += usize::from(count > 0);
    }
    assert!(failed > all.len() / 2 && with_records > 20, "{failed}, {with_records}");
    assert!(unharmed < 8, "{unharmed} of {}", all.len());
}

/// Whoever records the bytes of an encrypted stream cannot make another of them.
#[test]
fn an_encrypted_stream_cannot_be_repeated() {
    let tls = TlsEngine::start(false, &[]);
    let all = records(300, 3);
    let proxy = Proxy::to(tls.engine.address, Mischief { twice: true, ..Mischief::default() });
    tls.send_waiting(&proxy, &stream(&all, 4), crate::common::PATIENCE).unwrap();
    let results = tls.engine.wait_for_results(2);
    let (original, copy) =
        (result_of(&results, proxy.upstream), result_of(&results, proxy.second.unwrap()));
    assert_eq!(original["status"], "complete", "{original}");
    assert_result(original, &all);
    assert_eq!((&copy["reason"], &copy["records"]), (&"tls_failed".into(), &0.into()), "{copy}");
}
