//! Loads a client's TLS configuration from files. Opens no connection.

use crate::wire::text::has_encrypted_key;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which servers to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Servers with a certificate issued by an authority in this PEM file.
    Authorities(PathBuf),
    /// Any server. For testing only: anyone on the network path can read and change everything.
    Anybody,
}

/// The client's own certificate, for servers that ask for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM file with the certificate and any intermediate certificates.
    pub certificates: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
}

/// Why the TLS configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// A file cannot be read or is not PEM.
    #[error("cannot read {what} from {path}: {source}; it must be a PEM file")]
    File {
        /// What it should contain.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// A file contains no certificate.
    #[error("{path} contains no certificate; it must be a PEM file with BEGIN CERTIFICATE")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error(
        "the key in {path} is encrypted with a password, for which nobody is asked; write one \
         without: `openssl pkey -in FILE -out NEW`"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// rustls rejects the certificate or key.
    #[error("the certificate or key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Loads a configuration for TLS 1.2 and 1.3. It can be shared by any number of connections.
///
/// # Errors
/// [`ClientTlsError`].
pub fn client_config(
    trust: &Trust,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, ClientTlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Authorities(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAnybody { provider })),
    };
    Ok(Arc::new(match identity {
        Some(Identity { certificates: path, key }) => {
            let text =
                fs::read(key).map_err(|error| file_error("a key", key, pem::Error::Io(error)))?;
            if has_encrypted_key(&text) {
                return Err(ClientTlsError::EncryptedKey { path: key.clone() });
            }
            let key_read = PrivateKeyDer::from_pem_slice(&text);
            let key = key_read.map_err(|source| file_error("a key", key, source))?;
            builder.with_client_auth_cert(certificates(path)?, key)?
        }
        None => builder.with_no_client_auth(),
    }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|source| file_error("certificates", path, source))?;
    if found.is_empty() {
        return Err(ClientTlsError::Empty { path: path.to_owned() });
    }
    Ok(found)
}

fn file_error(what: &'static str, path: &Path, source: pem::Error) -> ClientTlsError {
    ClientTlsError::File { what, path: path.to_owned(), source }
}

/// Accepts any certificate, but still verifies the handshake's signatures: a server without the key
/// to its own certificate is broken.
#[derive(Debug)]
struct BelieveAnybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
