//! TLS sessions that end with the client's certificate. rustls restores the certificate from a
//! ticket without looking at its dates again, so an expired one would live on until the ticket's
//! key is gone. Knows no sockets.
//!
//! Each connection gets a configuration of its own, in which three parts share the end of the
//! client's certificates: the verifier notes it, and whoever stores sessions writes it in front of
//! them and refuses what has ended. The client then shakes hands in full, with its new certificate.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ProducesTickets, StoresServerSessions};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells when a certificate ends, in seconds since 1970; `None` if it cannot be read.
pub(super) type EndOf = fn(&CertificateDer<'_>) -> Option<u64>;

/// Bytes of the end in front of a session.
const END_BYTES: usize = 8;

/// The configuration of one connection whose client presents a certificate that `verifier` checks.
///
/// # Errors
/// If the provider of `shared` has no cipher suites.
pub(super) fn for_connection(
    shared: &ServerConfig,
    verifier: &Arc<dyn ClientCertVerifier>,
    end_of: EndOf,
) -> Result<ServerConfig, Error> {
    let clock = Arc::clone(&shared.time_provider);
    let end = Arc::new(ClientEnd { seconds: AtomicU64::new(u64::MAX), clock: Arc::clone(&clock) });
    let verifier =
        Arc::new(EndNotingVerifier { inner: Arc::clone(verifier), end_of, end: Arc::clone(&end) });
    let mut config =
        ServerConfig::builder_with_details(Arc::clone(shared.crypto_provider()), clock)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&shared.cert_resolver));
    config.send_tls13_tickets = shared.send_tls13_tickets;
    config.ticketer =
        Arc::new(EndingSessions { inner: Arc::clone(&shared.ticketer), end: Arc::clone(&end) });
    config.session_storage =
        Arc::new(EndingSessions { inner: Arc::clone(&shared.session_storage), end });
    Ok(config)
}

/// When the session of a connection ends, in seconds since 1970.
#[derive(Debug)]
struct ClientEnd {
    seconds: AtomicU64,
    clock: Arc<dyn TimeProvider>,
}

impl ClientEnd {
    fn seconds(&self) -> u64 {
        self.seconds.load(Ordering::Relaxed)
    }

    fn set(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::Relaxed);
    }

    /// Now, in the same unit. Without a clock, everything has ended.
    fn now(&self) -> u64 {
        self.clock.current_time().map_or(u64::MAX, |time| time.as_secs())
    }

    /// The session with its end, unless that has passed.
    fn sealed(&self, session: &[u8]) -> Option<Vec<u8>> {
        let end = self.seconds();
        (end > self.now()).then(|| [&end.to_be_bytes()[..], session].concat())
    }

    /// The session without its end, unless that has passed. It is then the end of this connection's
    /// sessions, too.
    fn opened(&self, sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (end, session) = sealed.split_first_chunk::<END_BYTES>()?;
        let end = u64::from_be_bytes(*end);
        if end <= self.now() {
            return None;
        }
        self.set(end);
        Some(session.to_vec())
    }
}

/// Tickets and stored sessions that end.
#[derive(Debug)]
struct EndingSessions<T: ?Sized> {
    end: Arc<ClientEnd>,
    inner: Arc<T>,
}

impl ProducesTickets for EndingSessions<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        let left = self.end.seconds().saturating_sub(self.end.now());
        self.inner.lifetime().min(left.try_into().unwrap_or(u32::MAX))
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&self.end.sealed(plain)?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.end.opened(self.inner.decrypt(cipher)?)
    }
}

impl StoresServerSessions for EndingSessions<dyn StoresServerSessions> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.end.sealed(&value).is_some_and(|value| self.inner.put(key, value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.end.opened(self.inner.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.end.opened(self.inner.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}

/// A verifier that notes the earliest end of the certificates that it has accepted.
struct EndNotingVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    end_of: EndOf,
    end: Arc<ClientEnd>,
}

impl fmt::Debug for EndNotingVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndNotingVerifier").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for EndNotingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        // A certificate whose end is unknown gets no session.
        let own = (self.end_of)(end_entity).unwrap_or(0);
        // Further certificates need not be part of the chain, so only ends that are known count.
        let others = intermediates.iter().filter_map(self.end_of);
        self.end.set(others.fold(own, u64::min));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }
}
