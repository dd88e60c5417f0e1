//! Loads a client's TLS configuration from files. Opens no connection.

use crate::wire::private_key::{USABLE_KEYS, unusable_kind};
use crate::wire::text::has_encrypted_key;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, InconsistentKeys, RootCertStore, SignatureScheme,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The options that name the files.
const CA: &str = "--ca";
const CLIENT_CERT: &str = "--client-cert";
const CLIENT_KEY: &str = "--client-key";

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
    #[error("cannot read {option} {}: {source}; it must be a PEM file", path.display())]
    File {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// A file contains no certificate.
    #[error(
        "{option} {} contains no certificate; it must be a PEM file with BEGIN CERTIFICATE",
        path.display()
    )]
    Empty {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error(
        "the key in --client-key {} is encrypted with a password, for which nobody is asked; write \
         one without: `openssl pkey -in FILE -out NEW`",
        path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key cannot be used.
    #[error("the key in --client-key {} cannot be used: {cause}; {USABLE_KEYS}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What kind of key it is, or what rustls says.
        cause: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the key in --client-key {} is not that of the first certificate in --client-cert {}; use \
         the pair that was issued together",
        key.display(), certificates.display()
    )]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificates.
        certificates: PathBuf,
    },
    /// A certificate cannot be used.
    #[error(
        "a certificate in {option} {} cannot be used: {source}; it must be X.509 version 3",
        path.display()
    )]
    Certificate {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}; this is a bug in ringest, please report it")]
    Provider(#[from] rustls::Error),
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
            for certificate in certificates(CA, path)? {
                roots.add(certificate).map_err(|source| unusable(CA, path, source))?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelieveAnybody { provider })),
    };
    let Some(identity) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let key = read_key(&identity.key)?;
    let other_key = unusable_kind(key.secret_der());
    let chain = certificates(CLIENT_CERT, &identity.certificates)?;
    let config = builder.with_client_auth_cert(chain, key);
    Ok(Arc::new(config.map_err(|error| identity_error(identity, other_key, error))?))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientTlsError> {
    let failed =
        |source| ClientTlsError::File { option: CLIENT_KEY, path: path.to_owned(), source };
    let text = fs::read(path).map_err(|error| failed(pem::Error::Io(error)))?;
    if has_encrypted_key(&text) {
        return Err(ClientTlsError::EncryptedKey { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(failed)
}

/// Why certificate and key cannot be used; `other_key` is the kind of a key that no TLS here uses.
fn identity_error(
    Identity { certificates, key }: &Identity,
    other_key: Option<String>,
    error: rustls::Error,
) -> ClientTlsError {
    match (error, other_key) {
        (rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch), _) => {
            ClientTlsError::Mismatch { key: key.clone(), certificates: certificates.clone() }
        }
        (source @ rustls::Error::InvalidCertificate(_), _) => {
            unusable(CLIENT_CERT, certificates, source)
        }
        (_, Some(kind)) => {
            ClientTlsError::Key { path: key.clone(), cause: format!("it is {kind}") }
        }
        (rustls::Error::General(cause), None) => ClientTlsError::Key { path: key.clone(), cause },
        (error, None) => ClientTlsError::Key { path: key.clone(), cause: error.to_string() },
    }
}

fn unusable(option: &'static str, path: &Path, source: rustls::Error) -> ClientTlsError {
    ClientTlsError::Certificate { option, path: path.to_owned(), source }
}

fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> =
        read.map_err(|source| ClientTlsError::File { option, path: path.to_owned(), source })?;
    if found.is_empty() {
        return Err(ClientTlsError::Empty { option, path: path.to_owned() });
    }
    Ok(found)
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
