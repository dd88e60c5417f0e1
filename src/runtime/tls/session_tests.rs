//! Tests of a TLS connection against a client in memory: both versions, streams split in every way,
//! and peers that misbehave. No sockets.

use super::*;
use crate::runtime::tls::test_certs::{HOUR, TestCertificates};
use crate::runtime::tls::test_peer::{CertificateFiles, Talk, client_config};
use proptest::prelude::*;
use rustls::crypto::cipher::{Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CipherSuite, ConnectionTrafficSecrets, ContentType, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use std::time::SystemTime;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
const ALERT: u8 = 21;

/// Bytes that differ from their neighbours.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn a_handshake_and_an_exchange_work_byte_by_byte() {
    for version in VERSIONS {
        let made = TestCertificates::valid();
        let config = client_config(&made, version, None);
        let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
        talk.piece = 1;
        assert!(talk.server.handshaking());
        talk.handshake().unwrap();
        assert!(!talk.server.handshaking());

        let bytes = talk.say(b"hello");
        talk.give(&bytes).unwrap();
        assert_eq!(talk.heard, b"hello");
        talk.server.encrypt(b"welcome", &mut talk.out).unwrap();
        assert_eq!(talk.deliver().unwrap(), b"welcome");
    }
}

#[test]
fn the_peer_is_described_once_it_is_known() {
    let made = TestCertificates::valid();
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let config = client_config(&made, version, None);
        let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
        assert_eq!(talk.server.peer().version, None);
        talk.handshake().unwrap();
        let peer = talk.server.peer();
        assert_eq!((peer.version, peer.certificate, peer.resumed), (Some(name), false, false));
        assert!(peer.cipher_suite.is_some_and(|suite| suite.starts_with("TLS")), "{peer:?}");
    }
}

#[test]
fn a_stream_split_at_any_point_gives_the_same_plaintext() {
    for version in VERSIONS {
        let mut talk = Talk::open(version);
        let plain = pattern(70);
        let mut split = 0;
        loop {
            let mut bytes = talk.say(&plain[..1]);
            bytes.extend(talk.say(&plain[1..40]));
            bytes.extend(talk.say(&plain[40..]));
            if split > bytes.len() {
                break;
            }
            talk.heard.clear();
            talk.give(&bytes[..split]).unwrap();
            talk.give(&bytes[split..]).unwrap();
            assert_eq!(talk.heard, plain, "split at {split}");
            split += 1;
        }
        assert!(split > plain.len());
    }
}

#[test]
fn all_complete_records_are_delivered_and_the_tail_is_kept() {
    let mut talk = Talk::open(&TLS13);
    let mut bytes = talk.say(b"one");
    bytes.extend(talk.say(b"two"));
    let cut = bytes.len() + 7;
    bytes.extend(talk.say(b"three"));
    talk.give(&bytes[..cut]).unwrap();
    assert_eq!(talk.heard, b"onetwo");
    assert_eq!(talk.server.filled, 7);
    talk.give(&bytes[cut..]).unwrap();
    assert_eq!(talk.heard, b"onetwothree");
    assert_eq!(talk.server.filled, 0);
}

#[test]
fn a_mebibyte_arrives_each_way_in_pieces_of_any_size() {
    let plain = pattern(1 << 20);
    for version in VERSIONS {
        for piece in [997, TLS_RECORD_BYTES_MAX, usize::MAX] {
            let mut talk = Talk::open(version);
            talk.piece = piece;
            let bytes = talk.say(&plain);
            talk.give(&bytes).unwrap();
            assert!(talk.heard == plain, "to the server in pieces of {piece}");
            talk.server.encrypt(&plain, &mut talk.out).unwrap();
            assert!(talk.deliver().unwrap() == plain, "to the client");
        }
    }
}

#[test]
fn plaintext_of_any_length_is_encrypted_and_appended() {
    for version in VERSIONS {
        let mut talk = Talk::open(version);
        for bytes in [1, 16_383, 16_384, 16_385, 32_768, 40_000] {
            let plain = pattern(bytes);
            talk.server.encrypt(b"before", &mut talk.out).unwrap();
            talk.server.encrypt(&plain, &mut talk.out).unwrap();
            let heard = talk.deliver().unwrap();
            assert!(heard.strip_prefix(b"before") == Some(&plain[..]), "{bytes}");
        }
        talk.server.encrypt(b"", &mut talk.out).unwrap();
        assert!(talk.out.is_empty());
    }
}

#[test]
fn plaintext_is_encrypted_while_a_read_has_the_buffer() {
    for version in VERSIONS {
        let mut talk = Talk::open(version);
        let bytes = talk.say(b"half of this");
        talk.give(&bytes[..10]).unwrap();
        let (mut incoming, free) = talk.server.take_incoming();
        talk.server.encrypt(b"meanwhile", &mut talk.out).unwrap();
        assert_eq!(talk.deliver().unwrap(), b"meanwhile");
        incoming[free][..bytes.len() - 10].copy_from_slice(&bytes[10..]);
        talk.server.give_back(incoming, bytes.len() - 10);
        talk.give(b"").unwrap();
        assert_eq!(talk.heard, b"half of this");
    }
}

#[test]
fn the_buffer_grows_for_a_large_record_and_shrinks_after_it() {
    let mut talk = Talk::open(&TLS13);
    let storage = |talk: &mut Talk| {
        let (incoming, _) = talk.server.take_incoming();
        let bytes = incoming.capacity();
        talk.server.give_back(incoming, 0);
        bytes
    };
    assert_eq!(storage(&mut talk), TLS_INCOMING_BYTES);
    let bytes = talk.say(&pattern(16 << 10));
    talk.give(&bytes[..HEADER_BYTES - 1]).unwrap();
    assert_eq!(storage(&mut talk), TLS_INCOMING_BYTES, "its size is not known yet");
    talk.give(&bytes[HEADER_BYTES - 1..3000]).unwrap();
    assert_eq!(storage(&mut talk), TLS_RECORD_BYTES_MAX);
    talk.give(&bytes[3000..]).unwrap();
    assert_eq!(storage(&mut talk), TLS_INCOMING_BYTES);

    let small = talk.say(&pattern(100));
    talk.give(&small).unwrap();
    assert_eq!(storage(&mut talk), TLS_INCOMING_BYTES);
    assert_eq!(talk.server.held.capacity(), 0);
}

#[test]
fn the_buffer_stays_large_while_reads_fill_it() {
    let mut talk = Talk::open(&TLS13);
    let bytes = talk.say(&pattern(1 << 20));
    let (mut rest, mut reads) = (&bytes[..], 0);
    while !rest.is_empty() {
        let (mut incoming, free) = talk.server.take_incoming();
        let read = rest.len().min(free.len());
        incoming[free][..read].copy_from_slice(&rest[..read]);
        rest = &rest[read..];
        talk.server.give_back(incoming, read);
        talk.server.process(&mut talk.out, &mut |_| {}).unwrap();
        reads += 1;
    }
    assert!(reads < 80, "{reads} reads for 1 MiB");
    assert_eq!(talk.server.take_incoming().0.len(), TLS_INCOMING_BYTES);
}

#[test]
fn a_peer_without_tls_is_recognised_and_gets_an_alert() {
    let made = TestCertificates::valid();
    let config = CertificateFiles::of(&made).load().current();
    let talks =
        ["GET / HTTP/1.1\r\n\r\n", "\0\0\0\x10hello, world", "PUBLISH", "\x16\x09\x09\0\x05"];
    for said in talks {
        let mut talk = Talk::between(Arc::clone(&config), client_config(&made, &TLS13, None));
        let error = talk.give(said.as_bytes()).unwrap_err();
        assert_eq!(error.as_str(), "not_tls", "{error}");
        assert!(error.to_string().contains("enable TLS in the client"), "{error}");
        // Fatal, decode_error: RFC 8446, 6.
        assert_eq!((talk.out[0], &talk.out[5..]), (ALERT, &[2, 50][..]));
        assert_eq!(talk.give(b"more").unwrap_err().as_str(), "tls_not_open");
        assert!(talk.server.encrypt(b"x", &mut talk.out).is_err());
    }
}

#[test]
fn a_client_of_tls_1_1_is_refused_with_an_alert() {
    let made = TestCertificates::valid();
    let config = client_config(&made, &TLS13, None);
    let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
    // Version 3.2, a random, no session, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, no compression.
    let hello = [&[3, 2][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0]].concat();
    let message = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    let record = [&[22, 3, 1, 0, message.len() as u8][..], &message].concat();
    let error = talk.give(&record).unwrap_err();
    assert_eq!(error.as_str(), "handshake_failed", "{error}");
    assert!(error.to_string().contains("needs TLS 1.2 or 1.3"), "{error}");
    assert_eq!(talk.out[0], ALERT);
}

#[test]
fn a_client_certificate_is_required_and_verified() {
    let (made, foreign) = (TestCertificates::valid(), TestCertificates::valid());
    let certificates = CertificateFiles::mutual(&made).load();
    for version in VERSIONS {
        let talk =
            |pair| Talk::between(certificates.current(), client_config(&made, version, pair));

        let mut right = talk(Some(&made.client));
        right.handshake().unwrap();
        assert!(right.server.peer().certificate);

        let wrong = [(None, "no certificates"), (Some(&foreign.client), "invalid peer")];
        // A server's certificate is not for clients.
        let wrong = wrong.into_iter().chain([(Some(&made.server), "invalid peer")]);
        for (pair, cause) in wrong {
            let mut talk = talk(pair);
            let error = talk.handshake().unwrap_err();
            assert_eq!(error.as_str(), "client_certificate_refused", "{error}");
            let text = error.to_string();
            assert!(text.contains("--client-ca") && text.contains(cause), "{text}");
            let told = talk.deliver().unwrap_err();
            assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told}");
        }
    }
}

#[test]
fn a_client_that_does_not_trust_the_server_says_why() {
    let now = SystemTime::now();
    let (made, foreign) = (TestCertificates::valid(), TestCertificates::valid());
    let expired = TestCertificates::between(now - 2 * HOUR, now - HOUR);
    for version in VERSIONS {
        let refused = |server, trusted| {
            let config = client_config(trusted, version, None);
            let mut talk = Talk::between(CertificateFiles::of(server).load().current(), config);
            talk.handshake().unwrap_err()
        };
        let error = refused(&made, &foreign);
        assert!(matches!(error, TlsError::Alert(AlertDescription::UnknownCA)), "{error}");
        assert!(error.to_string().contains("give it the CA"), "{error}");
        let error = refused(&expired, &expired);
        assert!(matches!(error, TlsError::Alert(AlertDescription::CertificateExpired)), "{error}");
        assert_eq!(error.as_str(), "tls_alert");
        assert!(error.to_string().contains("renew it"), "{error}");
    }
}

#[test]
fn the_peer_s_close_is_reported_and_bytes_after_it_are_ignored() {
    for version in VERSIONS {
        let mut talk = Talk::open(version);
        let mut bytes = talk.say(b"last");
        talk.client.send_close_notify();
        bytes.extend(talk.client_bytes());
        bytes.extend(b"\x17\x03\x03 and more");
        let progress = talk.give(&bytes).unwrap();
        assert_eq!(progress, TlsProgress { handshaking: false, peer_closed: true });
        assert_eq!(talk.heard, b"last");
        assert!(talk.give(b"and more").unwrap().peer_closed);

        talk.server.encrypt(b"your results", &mut talk.out).unwrap();
        talk.server.close_notify(&mut talk.out);
        assert_eq!(talk.deliver().unwrap(), b"your results");
    }
}

#[test]
fn close_notify_is_sent_once_and_ends_the_connection() {
    for version in VERSIONS {
        let mut talk = Talk::open(version);
        talk.server.close_notify(&mut talk.out);
        assert!(!talk.out.is_empty());
        assert!(matches!(talk.server.encrypt(b"x", &mut talk.out), Err(TlsError::NotOpen)));
        assert_eq!(talk.deliver().unwrap(), b"");
        assert!(talk.client.process_new_packets().unwrap().peer_has_closed());
        talk.server.close_notify(&mut talk.out);
        assert!(talk.out.is_empty());

        let mut bytes = talk.say(b"too late");
        bytes.extend(b"garbage");
        assert!(!talk.give(&bytes).unwrap().peer_closed);
        assert!(talk.heard.is_empty() && talk.out.is_empty());
    }
}

#[test]
fn nothing_can_be_sent_before_the_handshake_is_complete() {
    let made = TestCertificates::valid();
    let config = client_config(&made, &TLS13, None);
    let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
    assert!(matches!(talk.server.encrypt(b"x", &mut talk.out), Err(TlsError::NotOpen)));
    let hello = talk.client_bytes();
    assert!(talk.give(&hello).unwrap().handshaking);
    talk.out.clear();
    assert!(matches!(talk.server.encrypt(b"x", &mut talk.out), Err(TlsError::NotOpen)));
    assert!(talk.out.is_empty());

    let config = client_config(&made, &TLS12, None);
    let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
    talk.server.close_notify(&mut talk.out);
    assert!(talk.out.is_empty(), "there are no keys yet to encrypt it with");
}

/// The client's certificate comes in many small records, and each record in pieces.
#[test]
fn a_handshake_in_small_fragments_can_be_aborted_at_any_point() {
    let made = TestCertificates::valid();
    let certificates = CertificateFiles::mutual(&made).load();
    for version in VERSIONS {
        let mut config = client_config(&made, version, Some(&made.client));
        config.max_fragment_size = Some(64);
        config.resumption = rustls::client::Resumption::disabled();
        let config = Arc::new(config);
        let mut talk = Talk::with(certificates.current(), &config);
        talk.piece = 1;
        talk.handshake().unwrap();

        let mut ended = 0;
        for cut in (0..).step_by(23) {
            let mut talk = Talk::with(certificates.current(), &config);
            let hello = talk.client_bytes();
            talk.give(&hello).unwrap();
            talk.deliver().unwrap();
            let flight = talk.client_bytes();
            if cut > flight.len() {
                break;
            }
            talk.give(&flight[..cut]).unwrap();
            let _ = talk.server.encrypt(b"x", &mut talk.out);
            talk.server.close_notify(&mut talk.out);
            ended += 1;
        }
        assert!(ended > 20);
    }
}

#[test]
fn sessions_are_resumed() {
    for version in VERSIONS {
        let made = TestCertificates::valid();
        let certificates = CertificateFiles::of(&made).load();
        let config = Arc::new(client_config(&made, version, None));
        for resumed in [false, true, true] {
            let mut talk = Talk::with(certificates.current(), &config);
            talk.handshake().unwrap();
            assert_eq!(talk.server.peer().resumed, resumed);
        }
    }
}

#[test]
fn keys_are_renewed_in_both_directions() {
    let mut talk = Talk::open(&TLS13);
    for round in 0..5 {
        talk.client.refresh_traffic_keys().unwrap();
        let bytes = talk.say(b"fresh");
        talk.give(&bytes).unwrap();
        talk.server.encrypt(&[round], &mut talk.out).unwrap();
        assert_eq!(talk.deliver().unwrap(), [round]);
    }
    assert_eq!(talk.heard, b"fresh".repeat(5));
}

/// Encrypts, with the client's keys, what rustls' own client would never send.
struct Forger {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Forger {
    /// Takes the place of the client.
    fn of(talk: Talk) -> (Forger, Tls) {
        let Some(SupportedCipherSuite::Tls13(suite)) = talk.client.negotiated_cipher_suite() else {
            panic!("TLS 1.3 was asked for")
        };
        assert_eq!(suite.common.suite, CipherSuite::TLS13_AES_256_GCM_SHA384);
        let (sequence, secrets) = talk.client.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("AES-256") };
        let iv = Iv::copy(iv.as_ref());
        (Forger { encrypter: suite.aead_alg.encrypter(key, iv), sequence }, talk.server)
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        self.sequence += 1;
        self.encrypter.encrypt(message, self.sequence - 1).unwrap().encode()
    }
}

fn forged() -> (Forger, Tls) {
    let made = TestCertificates::valid();
    let mut config = client_config(&made, &TLS13, None);
    config.enable_secret_extraction = true;
    let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
    talk.handshake().unwrap();
    Forger::of(talk)
}

fn read_into(server: &mut Tls, bytes: &[u8]) -> Result<TlsProgress, TlsError> {
    let (mut incoming, free) = server.take_incoming();
    incoming[free][..bytes.len()].copy_from_slice(bytes);
    server.give_back(incoming, bytes.len());
    server.process(&mut Vec::new(), &mut |_| {})
}

/// The case for which fragments are kept: rustls would panic without them.
#[test]
fn plaintext_is_encrypted_between_the_fragments_of_a_handshake_message() {
    let (mut forger, mut server) = forged();
    // key_update, one byte long, update_not_requested: RFC 8446, 4.6.3.
    let message = [24, 0, 0, 1, 0];
    let mut out = Vec::new();
    for piece in [&message[..1], &message[1..4]] {
        let record = forger.record(ContentType::Handshake, piece);
        let (begin, end) = record.split_at(record.len() - 3);
        for bytes in [begin, end] {
            read_into(&mut server, bytes).unwrap();
            let (incoming, _) = server.take_incoming();
            server.encrypt(b"meanwhile", &mut out).unwrap();
            server.give_back(incoming, 0);
        }
        assert!(!server.held.is_empty());
    }
    read_into(&mut server, &forger.record(ContentType::Handshake, &message[4..])).unwrap();
    assert_eq!((server.filled, server.held.len()), (0, 0));
    server.encrypt(b"afterwards", &mut out).unwrap();
}

#[test]
fn a_peer_that_floods_with_key_updates_is_cut() {
    let mut talk = Talk::open(&TLS13);
    let cut = (0..1000).find_map(|_| {
        talk.client.refresh_traffic_keys().unwrap();
        let bytes = talk.client_bytes();
        talk.give(&bytes).err()
    });
    assert_eq!(cut.unwrap().as_str(), "tls_record_broken");
    assert!(talk.out.len() < 100, "one alert, not a reply to each");
}

/// Requests for new keys cost the server a key and an answer each, and the peer next to nothing.
/// Between data there may be 32; however many there were, one answer is owed.
#[test]
fn requests_for_new_keys_are_few_between_data_and_answered_together() {
    const BETWEEN_DATA: usize = 32;
    let mut talk = Talk::open(&TLS13);
    let request = |talk: &mut Talk| {
        talk.client.refresh_traffic_keys().unwrap();
        let bytes = talk.client_bytes();
        talk.give(&bytes)
    };
    let mut one_answer = 0;
    for requests in [1, BETWEEN_DATA, BETWEEN_DATA] {
        (0..requests).for_each(|_| assert!(!request(&mut talk).unwrap().peer_closed));
        let data = talk.say(b"data");
        talk.give(&data).unwrap();
        talk.server.encrypt(b"x", &mut talk.out).unwrap();
        one_answer = talk.out.len().max(one_answer);
        assert!(requests == 1 || talk.out.len() == one_answer, "{} bytes", talk.out.len());
        assert_eq!(talk.deliver().unwrap(), b"x");
    }
    assert_eq!(talk.heard, b"data".repeat(3));
    // Data of the server's own between the requests changes nothing.
    for _ in 0..BETWEEN_DATA {
        request(&mut talk).unwrap();
        talk.server.encrypt(b"x", &mut talk.out).unwrap();
        assert!(talk.out.len() <= one_answer);
        assert_eq!(talk.deliver().unwrap(), b"x");
    }
    let error = request(&mut talk).unwrap_err();
    assert_eq!(error.as_str(), "tls_record_broken", "{error}");
}

#[test]
fn an_endless_handshake_message_is_cut() {
    let made = TestCertificates::valid();
    let config = client_config(&made, &TLS13, None);
    let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
    let mut pieces = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
    while pieces.len() <= TLS_INCOMING_BYTES_MAX {
        pieces.extend([22, 3, 1, 0, 20]);
        pieces.extend([0; 20]);
    }
    let error = talk.give(&pieces).unwrap_err();
    assert_eq!(error.as_str(), "tls_message_too_long", "{error}");
    assert!(talk.server.incoming.len() <= TLS_INCOMING_BYTES_MAX);
}

#[test]
fn a_damaged_record_ends_the_connection_with_an_alert() {
    for version in VERSIONS {
        let mut talk = Talk::open(version);
        let mut bytes = talk.say(b"sound");
        let sound = bytes.len();
        bytes.extend(talk.say(b"damaged"));
        bytes[sound + HEADER_BYTES + 3] ^= 1;
        let error = talk.give(&bytes).unwrap_err();
        assert_eq!(error.as_str(), "tls_record_broken", "{error}");
        assert_eq!(talk.heard, b"sound");
        let told = talk.deliver().unwrap_err();
        assert!(matches!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac)));
    }
}

#[test]
fn a_hello_with_any_byte_flipped_does_no_harm() {
    let made = TestCertificates::valid();
    let server = CertificateFiles::of(&made).load().current();
    let mut talk = Talk::between(Arc::clone(&server), client_config(&made, &TLS13, None));
    let hello = talk.client_bytes();
    for at in 0..hello.len() {
        let mut flipped = hello.clone();
        flipped[at] ^= 0x41;
        let mut talk = Talk::between(Arc::clone(&server), client_config(&made, &TLS13, None));
        let _ = talk.give(&flipped);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_do_no_harm(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        like_tls in any::<bool>(),
        piece in 1_usize..100,
    ) {
        let made = TestCertificates::valid();
        let config = client_config(&made, &TLS13, None);
        let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
        talk.piece = piece;
        let header: &[u8] = if like_tls { &[22, 3, 1, 0, 64, 1, 0, 0, 60] } else { &[] };
        let _ = talk.give(&[header, &noise].concat());
        prop_assert!(talk.heard.is_empty());
    }

    #[test]
    fn any_messages_in_any_pieces_arrive(
        messages in prop::collection::vec(0_usize..40_000, 1..6),
        piece in 1_usize..40_000,
    ) {
        let mut talk = Talk::open(&TLS13);
        talk.piece = piece.max(50);
        let plain = pattern(messages.iter().sum());
        let mut begin = 0;
        for bytes in messages {
            let records = talk.say(&plain[begin..begin + bytes]);
            talk.give(&records).unwrap();
            talk.server.encrypt(&plain[begin..begin + bytes], &mut talk.out).unwrap();
            prop_assert!(talk.deliver().unwrap() == plain[begin..begin + bytes]);
            begin += bytes;
        }
        prop_assert!(talk.heard == plain);
    }
}
