//! Loads certificate, key and client authorities from files into a rustls configuration, at start
//! and on request. Does not watch the files; TLS itself is in [`session`](super::session).

use super::{resumption, subject};
use crate::config::{CERTIFICATE_ENDS_SOON, Config, PEM_FILE_BYTES_MAX, TLS_SESSIONS_MAX};
use crate::wire::private_key::{USABLE_KEYS, unusable_kind};
use crate::wire::text::{ShownText, TextEncoding, has_encrypted_key, time_text};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoClientAuth, ParsedCertificate, ServerSessionMemoryCache, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

/// The option of the authorities of clients.
const CLIENT_CA: &str = "--client-ca";
/// A moment after the end of every certificate, in seconds since 1970: the year 10000, where the
/// dates of X.509 end.
const AFTER_ALL_ENDS: u64 = 253_402_300_800;

/// The files that TLS needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSource {
    /// The server's certificate and any intermediate ones, in PEM.
    pub cert: PathBuf,
    /// The server's private key, in PEM.
    pub key: PathBuf,
    /// Authorities for client certificates, in PEM; if `None`, clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Why the configuration could not be loaded. Each message names the file and the next step.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read {option} {}: {source}; {}", path.display(), read_remedy(.source))]
    Read {
        /// The option that named the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is larger than [`PEM_FILE_BYTES_MAX`].
    #[error(
        "{option} {} has more than {PEM_FILE_BYTES_MAX} bytes; is it the right file?",
        path.display()
    )]
    TooLarge {
        /// The option that named the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file has a truncated or garbled section.
    #[error(
        "{option} {} is not valid PEM: {source}; copy the file again, from BEGIN to END",
        path.display()
    )]
    Pem {
        /// The option that named the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file contains no certificate.
    #[error(
        "{option} {} contains no certificate; it must be PEM with BEGIN CERTIFICATE (to convert \
         DER: `openssl x509 -inform der`)",
        path.display()
    )]
    NoCertificate {
        /// The option that named the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file contains no private key.
    #[error(
        "--key {} contains no private key; it must be PEM with BEGIN PRIVATE KEY, without a \
         password (`openssl pkey` removes one)",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error(
        "the private key in --key {} is encrypted with a password, for which the engine cannot \
         ask; write one without: `openssl pkey -in FILE -out NEW`",
        path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key cannot be used.
    #[error(
        "the private key in --key {} cannot be used: {cause}; {USABLE_KEYS}", path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What kind of key it is, or what rustls says.
        cause: String,
    },
    /// A certificate cannot be used.
    #[error(
        "a certificate in {option} {} cannot be used: {source}; it must be X.509 version 3",
        path.display()
    )]
    Certificate {
        /// The option that named the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The key belongs to another certificate.
    #[error(
        "the private key in --key {} does not match the first certificate in --cert {}; use the \
         pair that was issued together, with the server's own certificate first",
        key.display(), cert.display()
    )]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
    /// The client authorities cannot be used.
    #[error("--client-ca {} cannot be used: {source}; use CA certificates", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        source: VerifierBuilderError,
    },
    /// The cryptography provider failed.
    #[error("TLS cannot be set up: {0}; this is a bug in ringest, please report it")]
    Provider(#[source] rustls::Error),
}

fn read_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "`ringest gen-cert --dir DIR` makes certificates for trials",
        io::ErrorKind::PermissionDenied => "make it readable for the user that runs ringest",
        _ => "it must be a PEM file",
    }
}

/// Whether a certificate is valid at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    /// It is valid for at least [`CERTIFICATE_ENDS_SOON`].
    Valid,
    /// It is valid, but for less than [`CERTIFICATE_ENDS_SOON`].
    EndsSoon,
    /// It has expired.
    Expired {
        /// How long ago it expired.
        since: Duration,
    },
    /// It is not valid yet.
    NotYet {
        /// How long until it becomes valid.
        starts_in: Duration,
    },
    /// It ends before it begins.
    Never,
}

/// Which certificate of the files it is; numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificatePlace {
    /// The first in `--cert`.
    Server,
    /// A later one in `--cert`.
    Chain(usize),
    /// One in `--client-ca`.
    Authority(usize),
}

/// A certificate whose dates are, or will soon be, a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatedCertificate {
    /// Which one.
    pub place: CertificatePlace,
    /// The file that it is in.
    pub path: PathBuf,
    /// Whose it is, if it says that.
    pub name: Option<String>,
    /// What its dates say.
    pub validity: Validity,
}

impl fmt::Display for DatedCertificate {
    /// The finding and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |time: Duration| time_text(Duration::from_secs(time.as_secs()));
        let path = self.path.display();
        match self.place {
            CertificatePlace::Server => write!(f, "the server's certificate in --cert {path}")?,
            CertificatePlace::Chain(number) => write!(f, "certificate {number} in --cert {path}")?,
            CertificatePlace::Authority(number) => {
                write!(f, "certificate {number} in {CLIENT_CA} {path}")?;
            }
        }
        match &self.name {
            Some(name) => write!(f, " ({}) ", ShownText(name.as_bytes(), TextEncoding::Utf8))?,
            None => write!(f, " ")?,
        }
        // An authority is trusted because it is in the file: TLS does not look at its dates.
        let expired = match self.place {
            CertificatePlace::Server => ", so clients refuse it",
            CertificatePlace::Chain(_) => ", so clients refuse the server's certificate",
            CertificatePlace::Authority(_) => ", but what it signed is still accepted",
        };
        match self.validity {
            Validity::Valid => write!(f, "is valid"),
            Validity::EndsSoon => {
                write!(f, "expires within {}; ", whole(CERTIFICATE_ENDS_SOON))?;
                write!(f, "renew it and send SIGHUP")
            }
            Validity::Expired { since } => {
                write!(f, "expired {} ago{expired}; renew it and send SIGHUP", whole(since))
            }
            Validity::Never => write!(f, "ends before it begins{expired}; have it issued again"),
            Validity::NotYet { starts_in } => {
                write!(f, "becomes valid in {}; check this host's clock, or wait", whole(starts_in))
            }
        }
    }
}

/// The result of one load.
struct Loaded {
    config: Arc<ServerConfig>,
    /// The same without session tickets.
    for_senders: Arc<ServerConfig>,
    /// Checks certificates of clients; `None` if they need none.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
}

impl Loaded {
    /// The configuration of one connection: `shared`, or one whose sessions end with the client's
    /// certificate.
    fn for_connection(&self, shared: &Arc<ServerConfig>) -> Arc<ServerConfig> {
        match &self.clients {
            None => Arc::clone(shared),
            Some(verifier) => {
                let config = resumption::for_connection(shared, verifier, not_after);
                Arc::new(config.expect("the shared configuration has cipher suites"))
            }
        }
    }
}

/// The configuration for new connections. It can be replaced while existing connections continue.
///
/// Each load has its own ticket keys and session storage, so no client can resume a session across
/// a reload: every client has to present its certificate to the new `--client-ca`.
pub(crate) struct Certificates {
    source: TlsSource,
    loaded: RwLock<Loaded>,
}

impl Certificates {
    /// Reads the files and checks that they belong together.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub(crate) fn load(source: TlsSource) -> Result<Self, TlsConfigError> {
        let loaded = RwLock::new(read(&source)?);
        Ok(Certificates { source, loaded })
    }

    /// Reads the files again for connections accepted from then on. On an error, the previous
    /// configuration stays in use.
    ///
    /// # Errors
    /// [`TlsConfigError`].
    pub(crate) fn reload(&self) -> Result<(), TlsConfigError> {
        let loaded = read(&self.source)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// The configuration for a newly accepted connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let loaded = self.loaded();
        loaded.for_connection(&loaded.config)
    }

    /// The same for a connection whose client only sends. It gets no session tickets: a client that
    /// closes with unread bytes resets the connection, and the last data it sent may be lost.
    pub(crate) fn current_for_senders(&self) -> Arc<ServerConfig> {
        let loaded = self.loaded();
        loaded.for_connection(&loaded.for_senders)
    }

    /// The certificates whose dates are a problem at `now`, or will soon be: the server's own, its
    /// chain, and the authorities of clients.
    pub(crate) fn doubtful(&self, now: SystemTime) -> Vec<DatedCertificate> {
        let loaded = self.loaded();
        let places = (1..).map(|number| match number {
            1 => CertificatePlace::Server,
            number => CertificatePlace::Chain(number),
        });
        let authorities = (1..).map(CertificatePlace::Authority).zip(&loaded.authorities);
        let all = places.zip(&loaded.chain).chain(authorities);
        let dated = all.filter_map(|(place, certificate)| {
            let validity = validity(certificate, now);
            (validity != Validity::Valid).then(|| DatedCertificate {
                place,
                path: self.file_of(place),
                name: subject::name(certificate),
                validity,
            })
        });
        dated.collect()
    }

    fn file_of(&self, place: CertificatePlace) -> PathBuf {
        let TlsSource { cert, client_ca, .. } = &self.source;
        match place {
            CertificatePlace::Server | CertificatePlace::Chain(_) => cert.clone(),
            CertificatePlace::Authority(_) => client_ca.clone().unwrap_or_default(),
        }
    }

    fn loaded(&self) -> RwLockReadGuard<'_, Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates that `config` names; `None` if TLS is off.
///
/// # Errors
/// [`TlsConfigError`].
pub(crate) fn load_certificates(config: &Config) -> Result<Option<Certificates>, TlsConfigError> {
    let tls = &config.tls;
    let (true, Some(cert), Some(key)) = (tls.messages || tls.records, &tls.cert, &tls.key) else {
        return Ok(None);
    };
    let client_ca = tls.client_ca.clone();
    Certificates::load(TlsSource { cert: cert.clone(), key: key.clone(), client_ca }).map(Some)
}

fn read(source: &TlsSource) -> Result<Loaded, TlsConfigError> {
    let provider = Arc::new(ring::default_provider());
    let chain = read_certificates("--cert", &source.cert)?;
    let key = read_key(&source.key)?;
    let other_key = unusable_kind(key.secret_der());
    let authorities = match &source.client_ca {
        Some(path) => read_certificates(CLIENT_CA, path)?,
        None => Vec::new(),
    };
    let clients = match &source.client_ca {
        Some(path) => Some(client_verifier(path, &authorities, &provider)?),
        None => None,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsConfigError::Provider)?
        .with_client_cert_verifier(clients.clone().unwrap_or_else(|| Arc::new(NoClientAuth)))
        .with_single_cert(chain.clone(), key)
        .map_err(|error| pair_error(source, other_key, error))?;
    config.session_storage = ServerSessionMemoryCache::new(TLS_SESSIONS_MAX);
    config.ticketer = ring::Ticketer::new().map_err(TlsConfigError::Provider)?;
    let mut for_senders = config.clone();
    for_senders.send_tls13_tickets = 0;
    let (config, for_senders) = (Arc::new(config), Arc::new(for_senders));
    Ok(Loaded { config, for_senders, clients, chain, authorities })
}

/// What is wrong with a key, in words.
fn key_error(other_key: Option<String>, error: rustls::Error) -> String {
    match (other_key, error) {
        (Some(kind), _) => format!("it is {kind}"),
        (None, rustls::Error::General(text)) => text,
        (None, error) => error.to_string(),
    }
}

/// Why certificate and key cannot be used; `other_key` is the kind of a key that no TLS here uses.
fn pair_error(
    source: &TlsSource,
    other_key: Option<String>,
    error: rustls::Error,
) -> TlsConfigError {
    let TlsSource { cert, key, .. } = source.clone();
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsConfigError::Mismatch { key, cert }
        }
        source @ rustls::Error::InvalidCertificate(_) => {
            TlsConfigError::Certificate { option: "--cert", path: cert, source }
        }
        error => TlsConfigError::Key { path: key, cause: key_error(other_key, error) },
    }
}

fn client_verifier(
    path: &Path,
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(|source| TlsConfigError::Certificate {
            option: CLIENT_CA,
            path: path.to_owned(),
            source,
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| TlsConfigError::ClientCa { path: path.to_owned(), source })
}

/// At least one certificate.
fn read_certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let text = read_bounded(option, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Err(source) => Err(TlsConfigError::Pem { option, path: path.to_owned(), source }),
        Ok(none) if none.is_empty() => {
            Err(TlsConfigError::NoCertificate { option, path: path.to_owned() })
        }
        Ok(certificates) => Ok(certificates),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    const OPTION: &str = "--key";
    let text = read_bounded(OPTION, path)?;
    if has_encrypted_key(&text) {
        return Err(TlsConfigError::EncryptedKey { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsConfigError::NoKey { path: path.to_owned() },
        source => TlsConfigError::Pem { option: OPTION, path: path.to_owned(), source },
    })
}

fn read_bounded(option: &'static str, path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    let mut text = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    let read = File::open(path)
        .and_then(|file| file.take(PEM_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text));
    match read {
        Err(source) => Err(TlsConfigError::Read { option, path: path.to_owned(), source }),
        Ok(_) if text.len() > PEM_FILE_BYTES_MAX => {
            Err(TlsConfigError::TooLarge { option, path: path.to_owned() })
        }
        Ok(_) => Ok(text),
    }
}

/// What is wrong with a certificate at a time since 1970. No certificate is trusted here, but dates
/// are checked first.
fn judge(certificate: &CertificateDer<'_>, at: Duration) -> Result<(), rustls::Error> {
    let at = UnixTime::since_unix_epoch(at);
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let certificate = ParsedCertificate::try_from(certificate)?;
    let nobody = RootCertStore::empty();
    verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], at, algorithms)
}

/// When a certificate ends, in seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    match judge(certificate, Duration::from_secs(AFTER_ALL_ENDS)) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Some(not_after.as_secs()),
        _ => None,
    }
}

fn validity(certificate: &CertificateDer<'_>, now: SystemTime) -> Validity {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = |time: UnixTime| Duration::from_secs(time.as_secs());
    match judge(certificate, now) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => Validity::Expired { since: now.saturating_sub(seconds(not_after)) },
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => Validity::NotYet { starts_in: seconds(not_before).saturating_sub(now) },
        // Without dates, because they contradict each other.
        Err(rustls::Error::InvalidCertificate(CertificateError::Expired)) => Validity::Never,
        _ => match judge(certificate, now + CERTIFICATE_ENDS_SOON) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => {
                Validity::EndsSoon
            }
            _ => Validity::Valid,
        },
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
