//! Generates a certificate authority and certificates signed by it, for trials and tests. Writes no
//! files and reads no clock. Not for production: use an authority that renews and revokes.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// What to generate.
#[derive(Clone, Debug)]
pub struct CertSpec {
    /// Names and addresses of the server, at least one; a name may begin with `*.`.
    pub hosts: Vec<String>,
    /// Name of a client to issue a certificate to, if any.
    pub client: Option<String>,
    /// When the certificates become valid.
    pub not_before: SystemTime,
    /// When the certificates expire.
    pub not_after: SystemTime,
}

/// A certificate and its private key, in PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, in PKCS #8.
    pub key: String,
}

/// What was generated.
pub struct Generated {
    /// The authority.
    pub ca: Pair,
    /// The server.
    pub server: Pair,
    /// The client, if one was requested.
    pub client: Option<Pair>,
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// No host was given.
    #[error("the server's certificate needs a name or an address; give one with --host")]
    NoHost,
    /// A host is neither a DNS name nor an address.
    #[error("--host {host} is neither a DNS name nor an address; give the one that clients use")]
    Host {
        /// What was given, with anything unprintable escaped.
        host: String,
    },
    /// The end is not after the start, or either is out of bounds.
    #[error(
        "certificates must become valid in 1970 or later, and expire after that but before the \
         year 10000"
    )]
    Validity,
    /// The generator failed.
    #[error("cannot generate a certificate: {0}")]
    Generator(#[from] rcgen::Error),
}

/// Generates an authority with a new key, and the certificates that it signs.
///
/// # Errors
/// `CertError`.
pub fn generate(spec: &CertSpec) -> Result<Generated, CertError> {
    check(spec)?;
    let ca_key = KeyPair::generate()?;
    let ca_params = authority(spec, &ca_key)?;
    let certificate = ca_params.self_signed(&ca_key)?.pem();
    let ca = Pair { certificate, key: ca_key.serialize_pem() };
    let issuer = Issuer::new(ca_params, ca_key);

    let server_name = spec.hosts[0].clone();
    let mut server = leaf(spec, server_name, ExtendedKeyUsagePurpose::ServerAuth)?;
    server.subject_alt_names = CertificateParams::new(spec.hosts.clone())?.subject_alt_names;
    let server = sign(&server, &issuer)?;
    let client = match &spec.client {
        Some(name) => {
            let client = leaf(spec, name.clone(), ExtendedKeyUsagePurpose::ClientAuth)?;
            Some(sign(&client, &issuer)?)
        }
        None => None,
    };
    Ok(Generated { ca, server, client })
}

fn check(spec: &CertSpec) -> Result<(), CertError> {
    /// Seconds from 1970 to the year 10000, where X.509 dates end.
    const SECONDS_MAX: u64 = 253_402_300_800;
    if spec.hosts.is_empty() {
        return Err(CertError::NoHost);
    }
    for host in &spec.hosts {
        if ServerName::try_from(host.strip_prefix("*.").unwrap_or(host)).is_err() {
            return Err(CertError::Host { host: host.escape_default().to_string() });
        }
    }
    let in_bounds = |moment: SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        since.is_ok_and(|since| since.as_secs() < SECONDS_MAX)
    };
    let sound = spec.not_before < spec.not_after;
    if !(sound && in_bounds(spec.not_before) && in_bounds(spec.not_after)) {
        return Err(CertError::Validity);
    }
    Ok(())
}

fn params(spec: &CertSpec, name: String) -> Result<CertificateParams, CertError> {
    let date = |moment: SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).expect("checked before");
        date_time_ymd(1970, 1, 1) + since
    };
    let mut params = CertificateParams::new(Vec::new())?;
    params.not_before = date(spec.not_before);
    params.not_after = date(spec.not_after);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// An authority that may sign certificates of servers and clients, but no further authorities. Its
/// name is unique: if all had the same name, a certificate from another such authority would look
/// forged rather than merely unknown.
fn authority(spec: &CertSpec, key: &KeyPair) -> Result<CertificateParams, CertError> {
    let digest = Sha256::digest(key.public_key_raw());
    let name = format!("ringest trial CA {:02x}{:02x}{:02x}", digest[0], digest[1], digest[2]);
    let mut params = params(spec, name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(
    spec: &CertSpec,
    name: String,
    purpose: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, CertError> {
    let mut params = params(spec, name)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    Ok(params)
}

fn sign(params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Pair, CertError> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn spec(hosts: &[&str]) -> CertSpec {
        let now = SystemTime::now();
        CertSpec {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            client: None,
            not_before: now,
            not_after: now + Duration::from_secs(3600),
        }
    }

    #[test]
    fn names_and_addresses_are_hosts() {
        let made = generate(&spec(&["localhost", "*.example.org", "127.0.0.1", "::1"])).unwrap();
        assert!(made.server.certificate.contains("BEGIN CERTIFICATE"));
        assert!(made.server.key.contains("BEGIN PRIVATE KEY"));
        assert!(made.client.is_none());
    }

    #[test]
    fn anything_else_is_not_a_host() {
        for host in ["", "a b", "ä", "-", "https://example.org", "example.org:9001", "\x1b[31m"] {
            let Err(CertError::Host { host: shown }) = generate(&spec(&[host])) else {
                panic!("{host:?} was accepted")
            };
            assert!(shown.is_ascii() && !shown.contains('\x1b'), "{shown}");
        }
        assert!(matches!(generate(&spec(&[])), Err(CertError::NoHost)));
    }

    #[test]
    fn the_validity_must_end_after_it_starts_and_lie_within_bounds() {
        let hour = Duration::from_secs(3600);
        let sound = spec(&["localhost"]);
        let backwards = CertSpec { not_after: sound.not_before - hour, ..sound.clone() };
        let early = CertSpec { not_before: SystemTime::UNIX_EPOCH - hour, ..sound.clone() };
        let late = CertSpec { not_after: sound.not_after + 80_000_000 * hour, ..sound };
        for unsound in [backwards, early, late] {
            assert!(matches!(generate(&unsound), Err(CertError::Validity)), "{unsound:?}");
        }
    }
}
