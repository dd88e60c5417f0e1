//! TLS of the server, in memory: any bytes instead of a handshake, a handshake with a changed byte,
//! and after a handshake a client that sends, is cut into pieces, damaged on the way, or closes.
//! What arrives must be what was sent, up to the damage.

use super::input::FuzzInput;
use crate::config::TLS_INCOMING_BYTES_MAX;
use crate::runtime::tls::test_certs::{HOUR, TestCertificates, TestPair};
use crate::runtime::tls::test_peer::{Talk, client_config};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

/// More than a fuzzer's run takes.
const VALID: u32 = 24 * 365;

struct TlsTestEnds {
    /// Without and with certificates of clients.
    servers: [Arc<ServerConfig>; 2],
    /// TLS 1.2 and 1.3, each without and with a certificate.
    clients: [[Arc<ClientConfig>; 2]; 2],
}

static ENDS: LazyLock<TlsTestEnds> = LazyLock::new(|| {
    let now = SystemTime::now();
    let made = TestCertificates::between(now - HOUR, now + HOUR * VALID);
    let clients = [&TLS12, &TLS13].map(|version| {
        [None, Some(&made.client)]
            .map(|pair: Option<&TestPair>| Arc::new(client_config(&made, version, pair)))
    });
    TlsTestEnds { servers: [false, true].map(|mutual| server(&made, mutual)), clients }
});

/// As `runtime/tls/config.rs` makes it of files.
fn server(made: &TestCertificates, mutual: bool) -> Arc<ServerConfig> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&made.ca.certificate)).expect("an authority");
    let builder = match mutual {
        false => builder.with_no_client_auth(),
        true => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .expect("a verifier"),
        ),
    };
    let key = PrivateKeyDer::from_pem_slice(made.server.key.as_bytes()).expect("PEM");
    let chain = vec![certificate(&made.server.certificate)];
    let mut config = builder.with_single_cert(chain, key).expect("a pair");
    config.ticketer = ring::Ticketer::new().expect("a ticketer");
    Arc::new(config)
}

pub(super) fn run(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let flags = input.byte();
    let flag = |bit: u8| usize::from(flags >> bit & 1);
    let (server, client) = (&ENDS.servers[flag(0)], &ENDS.clients[flag(1)][flag(2)]);
    let mut talk = Talk::with(Arc::clone(server), client);
    talk.piece = match input.byte() {
        0 => usize::MAX,
        bytes => usize::from(bytes),
    };
    let lacks_certificate = flag(0) == 1 && flag(2) == 0;
    match flags >> 3 & 3 {
        0 => {
            // Without the keys, no input completes a handshake.
            let _ = talk.give(input.rest());
            assert!(talk.server.handshaking() && talk.heard.is_empty());
        }
        1 => damaged_handshake(&mut talk, &mut input, lacks_certificate),
        _ => {
            if talk.handshake().is_ok() {
                converse(&mut talk, &mut input);
            } else {
                assert!(lacks_certificate, "nothing else is refused");
            }
        }
    }
    let (incoming, free) = talk.server.take_incoming();
    assert!(incoming.len() <= TLS_INCOMING_BYTES_MAX && !free.is_empty());
    talk.server.give_back(incoming, 0);
}

/// A handshake in which one byte of the client's is changed.
fn damaged_handshake(talk: &mut Talk, input: &mut FuzzInput<'_>, lacks_certificate: bool) {
    let (at, change) = (input.short() % 2048, input.byte());
    let mut sent = 0;
    loop {
        let mut bytes = talk.client_bytes();
        if let Some(byte) = at.checked_sub(sent).and_then(|at| bytes.get_mut(at)) {
            *byte ^= change;
        }
        sent += bytes.len();
        let given = talk.give(&bytes);
        if given.is_err() || talk.out.is_empty() || talk.deliver().is_err() {
            break;
        }
    }
    let damaged = change != 0 && at < sent;
    // Not all damage is: the version in a record's header, for example, has no meaning.
    let refused = damaged || lacks_certificate;
    assert!(talk.heard.is_empty() && (refused || !talk.server.handshaking()));
}

/// After the handshake: both sides say things, bytes are damaged, sides close.
fn converse(talk: &mut Talk, input: &mut FuzzInput<'_>) {
    let (mut said, mut damaged, mut closed) = (Vec::new(), false, false);
    while !input.is_empty() {
        let mut bytes = Vec::new();
        match input.below(8) {
            0..=2 => {
                let length = input.below(200);
                let plain = input.take(length);
                said.extend_from_slice(plain);
                bytes = talk.say(plain);
            }
            3 => {
                let plain = vec![input.byte(); input.short()];
                said.extend_from_slice(&plain);
                bytes = talk.say(&plain);
            }
            4 => {
                // Of a record that carries something.
                let (plain, at, change) = ([input.byte(); 9], input.byte(), input.byte());
                said.extend_from_slice(&plain);
                bytes = talk.say(&plain);
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= change;
                damaged |= change != 0;
            }
            5 => {
                let length = input.below(64);
                bytes = input.take(length).to_vec();
                damaged |= !bytes.is_empty();
            }
            6 => {
                let plain = vec![input.byte(); input.short()];
                talk.server.encrypt(&plain, &mut talk.out).expect("the server's side is open");
                assert_eq!(talk.deliver().expect("what it sends is valid"), plain);
            }
            _ => {
                talk.client.send_close_notify();
                closed = true;
                bytes = talk.client_bytes();
            }
        }
        let given = talk.give(&bytes);
        assert!(said.starts_with(&talk.heard), "nothing is heard that was not said");
        let Ok(progress) = given else {
            assert!(damaged, "{given:?}");
            return;
        };
        if closed {
            assert!(progress.peer_closed || damaged);
            break;
        }
    }
    assert!(damaged || talk.heard == said);
    talk.server.close_notify(&mut talk.out);
    assert!(talk.server.encrypt(b"x", &mut talk.out).is_err(), "this side is closed");
}
