//! Certificates for unit tests of TLS, in memory. They share no code with `ringest gen-cert`, whose
//! output is tested end to end.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A certificate and its private key, in PEM.
pub(crate) struct TestPair {
    pub certificate: String,
    pub key: String,
}

/// An authority, and what it signed: `localhost` and the client `ann`.
pub(crate) struct TestCertificates {
    pub ca: TestPair,
    pub server: TestPair,
    pub client: TestPair,
}

impl TestCertificates {
    /// Valid from an hour ago until in an hour.
    pub(crate) fn valid() -> Self {
        let now = SystemTime::now();
        Self::between(now - HOUR, now + HOUR)
    }

    /// All of them valid from `not_before` to `not_after`.
    pub(crate) fn between(not_before: SystemTime, not_after: SystemTime) -> Self {
        Self::ending(not_before, [not_after; 3])
    }

    /// Valid from `not_before`; authority, server and client each to a time of its own.
    pub(crate) fn ending(not_before: SystemTime, ends: [SystemTime; 3]) -> Self {
        // If two authorities had the same name, a foreign certificate would look forged rather than
        // unknown.
        static AUTHORITIES: AtomicU32 = AtomicU32::new(0);
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        let [ca_end, server_end, client_end] = ends;
        let params = |name: &str, hosts: &[&str], not_after| {
            let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
            let mut params = CertificateParams::new(hosts).expect("hosts");
            let since_1970 = |moment: SystemTime| moment.duration_since(SystemTime::UNIX_EPOCH);
            let date = |moment| date_time_ymd(1970, 1, 1) + since_1970(moment).expect("a date");
            (params.not_before, params.not_after) = (date(not_before), date(not_after));
            params.distinguished_name.push(DnType::CommonName, name);
            params.use_authority_key_identifier_extension = true;
            params
        };
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = params(&format!("authority {number}"), &[], ca_end);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = ca.self_signed(&ca_key).expect("a certificate").pem();
        let ca_pair = TestPair { certificate, key: ca_key.serialize_pem() };
        let issuer = Issuer::new(ca, ca_key);
        let sign = |mut params: CertificateParams, purpose| {
            params.is_ca = IsCa::ExplicitNoCa;
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
            TestPair { certificate, key: key.serialize_pem() }
        };
        let server = params("localhost", &["localhost"], server_end);
        TestCertificates {
            ca: ca_pair,
            server: sign(server, ExtendedKeyUsagePurpose::ServerAuth),
            client: sign(params("ann", &[], client_end), ExtendedKeyUsagePurpose::ClientAuth),
        }
    }
}
