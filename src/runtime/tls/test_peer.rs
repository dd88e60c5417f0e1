//! A TLS peer for unit tests: certificates in files, and a client that talks to a [`Tls`] in
//! memory, in pieces of any size. No sockets and no threads.

#[cfg(test)]
use super::config::{Certificates, TlsSource};
use super::session::{Tls, TlsError, TlsProgress};
use super::test_certs::{TestCertificates, TestPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use std::io::{Read, Write};
use std::sync::Arc;
#[cfg(test)]
use tempfile::TempDir;

/// The files of a server, in a temporary directory.
#[cfg(test)]
pub(crate) struct CertificateFiles {
    pub directory: TempDir,
    pub source: TlsSource,
}

#[cfg(test)]
impl CertificateFiles {
    pub(crate) fn of(made: &TestCertificates) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let source = TlsSource {
            cert: directory.path().join("server.crt"),
            key: directory.path().join("server.key"),
            client_ca: None,
        };
        let files = CertificateFiles { directory, source };
        files.write(made);
        files
    }

    /// Accepts only clients with a certificate of the same authority.
    pub(crate) fn mutual(made: &TestCertificates) -> Self {
        let mut files = CertificateFiles::of(made);
        files.source.client_ca = Some(files.directory.path().join("ca.crt"));
        files
    }

    pub(crate) fn write(&self, made: &TestCertificates) {
        let path = |name: &str| self.directory.path().join(name);
        std::fs::write(path("ca.crt"), &made.ca.certificate).expect("written");
        std::fs::write(path("server.crt"), &made.server.certificate).expect("written");
        std::fs::write(path("server.key"), &made.server.key).expect("written");
    }

    pub(crate) fn load(&self) -> Certificates {
        Certificates::load(self.source.clone()).expect("valid files")
    }
}

/// A client that trusts the authority of `made`, with the certificate of `pair` if any.
pub(crate) fn client_config(
    made: &TestCertificates,
    version: &'static SupportedProtocolVersion,
    pair: Option<&TestPair>,
) -> ClientConfig {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&made.ca.certificate)).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
            let chain = vec![certificate(&pair.certificate)];
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

/// A server and a client, and the bytes between them.
pub(crate) struct Talk {
    pub server: Tls,
    pub client: ClientConnection,
    /// What the server has to send.
    pub out: Vec<u8>,
    /// Plaintext that the server has received.
    pub heard: Vec<u8>,
    /// The most bytes that one read of the server gets.
    pub piece: usize,
}

impl Talk {
    pub(crate) fn between(server: Arc<ServerConfig>, client: ClientConfig) -> Self {
        Talk::with(server, &Arc::new(client))
    }

    pub(crate) fn with(server: Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Self {
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
        client.set_buffer_limit(None);
        let server = Tls::accept(server).expect("a server");
        Talk { server, client, out: Vec::new(), heard: Vec::new(), piece: usize::MAX }
    }

    /// Both with valid certificates, after the handshake.
    #[cfg(test)]
    pub(crate) fn open(version: &'static SupportedProtocolVersion) -> Self {
        let made = TestCertificates::valid();
        let config = client_config(&made, version, None);
        let mut talk = Talk::between(CertificateFiles::of(&made).load().current(), config);
        talk.handshake().expect("a handshake");
        talk
    }

    /// Gives bytes to the server, as reads would.
    pub(crate) fn give(&mut self, mut bytes: &[u8]) -> Result<TlsProgress, TlsError> {
        loop {
            let (mut incoming, free) = self.server.take_incoming();
            assert!(!free.is_empty() && free.end == incoming.len());
            let read = bytes.len().min(free.len()).min(self.piece);
            let (now, later) = bytes.split_at(read);
            incoming[free][..read].copy_from_slice(now);
            self.server.give_back(incoming, read);
            bytes = later;
            let heard = &mut self.heard;
            let progress =
                self.server.process(&mut self.out, &mut |plain| heard.extend_from_slice(plain))?;
            if bytes.is_empty() {
                return Ok(progress);
            }
        }
    }

    /// Takes what the client has to send.
    pub(crate) fn client_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("a vector accepts every byte");
        }
        bytes
    }

    /// Delivers what the server has to send to the client; returns the plaintext in it.
    pub(crate) fn deliver(&mut self) -> Result<Vec<u8>, rustls::Error> {
        let out = std::mem::take(&mut self.out);
        let (mut rest, mut plain) = (&out[..], Vec::new());
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("reading a slice cannot fail");
            self.client.process_new_packets()?;
            // Without close_notify this ends in an error, which is expected: more may follow.
            let _ = self.client.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    /// Passes bytes back and forth until neither side has more to send. If the client refuses, the
    /// error is what the server reports about the client's alert.
    pub(crate) fn handshake(&mut self) -> Result<(), TlsError> {
        loop {
            let bytes = self.client_bytes();
            self.give(&bytes)?;
            if bytes.is_empty() && self.out.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.deliver() {
                let alert = self.client_bytes();
                let told = self.give(&alert).expect_err("the client sent an alert");
                return Err(match told {
                    TlsError::Alert(_) => told,
                    _ => panic!("the client: {error}; the server: {told}"),
                });
            }
        }
    }

    /// The records that the client sends for `plain`.
    pub(crate) fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plain).expect("the client's buffer has no limit");
        self.client_bytes()
    }
}
