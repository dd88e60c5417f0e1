//! A peer's end of its connection, with or without TLS. Knows where in the bytes that it sends each
//! TLS record ends, and so what the engine can have decrypted of those that it has read.

use crate::scenario::{PeerKind, PeerPlan};
use fastrand::Rng;
use ringest::internals::simulation::{LineWitness, PeerEnd};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The engine's certificate, which its clients trust. Its signatures all have the same length.
pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/simulation.crt");
/// Its key.
pub const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/simulation.key");

/// Bytes of a TLS record's header.
const HEADER_BYTES: usize = 5;

/// How a peer speaks TLS, or does not.
#[derive(Clone, Copy, Debug)]
pub struct TlsManner {
    version: usize,
    /// Plaintext of a record.
    record_bytes: usize,
    /// Whether it speaks TLS at all, although the engine does.
    speaks: bool,
    /// Bytes after which it sends nothing more.
    cut: Option<usize>,
    /// The number of a record with a wrong bit.
    damaged: Option<usize>,
    /// Whether it closes without close_notify.
    rude: bool,
}

impl TlsManner {
    /// How this peer does it; `None` where the engine does not speak TLS.
    pub fn of(plan: &PeerPlan) -> Option<Self> {
        use PeerKind::{
            DataBroken, DataIdle, EarlyClose, Empty, Liar, ResetInStream, RightSender, Silent,
            SilentClient,
        };
        if !plan.tls {
            return None;
        }
        let mut rng = Rng::with_seed(plan.seed ^ 0x715);
        let mut manner = TlsManner {
            version: rng.usize(..2),
            record_bytes: *rng.choice(&[100, 1400, 16 << 10]).unwrap(),
            speaks: true,
            cut: None,
            damaged: None,
            rude: false,
        };
        match plan.kind {
            Empty | SilentClient => manner.speaks = rng.bool(),
            Liar => match rng.u8(..3) {
                0 => manner.speaks = false,
                1 => manner.damaged = Some(rng.usize(..4)),
                _ => {}
            },
            EarlyClose | ResetInStream | Silent | DataBroken => {
                let most = *rng.choice(&[700, 8000]).unwrap();
                manner.cut = rng.bool().then(|| rng.usize(1..=most));
            }
            RightSender | DataIdle => manner.rude = rng.u8(..4) == 0,
            _ => {}
        }
        Some(manner)
    }
}

/// What a peer has sealed in TLS, and where.
#[derive(Clone, Debug, Default)]
pub struct SealedBytes {
    /// All bytes so far.
    sent: usize,
    /// Bytes of the handshake, once it is over.
    handshake: Option<usize>,
    /// Where each record ends, and how much plaintext there is up to its end.
    records: Vec<(usize, usize)>,
    plain: Vec<u8>,
    /// Where close_notify ends.
    close_notify: Option<usize>,
    /// The number of the record with a wrong bit.
    damaged: Option<usize>,
    /// Whether the engine has sent close_notify.
    pub closed_by_engine: bool,
}

/// What the engine can know after it has read some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing has come.
    Untouched,
    Handshake,
    /// At the end of a record.
    Between,
    InRecord,
    /// A record was no TLS, or damaged.
    Broken,
    /// After close_notify.
    Closed,
}

impl SealedBytes {
    /// The records that can be decrypted after `read` bytes.
    fn records_within(&self, read: usize) -> usize {
        let whole = self.records.iter().take_while(|&&(end, _)| end <= read).count();
        whole.min(self.damaged.unwrap_or(usize::MAX))
    }

    /// The plaintext of these.
    pub fn plain_within(&self, read: usize) -> &[u8] {
        let last = self.records_within(read).checked_sub(1);
        &self.plain[..last.map_or(0, |last| self.records[last].1)]
    }

    /// Whether this side has not closed.
    pub fn is_open(&self) -> bool {
        self.close_notify.is_none()
    }

    /// What the engine knows after it has read so many bytes.
    pub fn standing_at(&self, read: usize) -> Standing {
        let Some(handshake) = self.handshake.filter(|&bytes| bytes <= read) else {
            return if read == 0 { Standing::Untouched } else { Standing::Handshake };
        };
        let is_damaged = |number: usize| self.records.get(number).is_some_and(|r| r.0 <= read);
        if self.damaged.is_some_and(is_damaged) {
            return Standing::Broken;
        }
        if self.close_notify.is_some_and(|end| end <= read) {
            return Standing::Closed;
        }
        let last = self.records_within(read).checked_sub(1);
        match last.map_or(handshake, |last| self.records[last].0) == read {
            true => Standing::Between,
            false => Standing::InRecord,
        }
    }
}

/// A peer's end of a connection.
pub struct PeerLine {
    end: PeerEnd,
    tls: Option<RefCell<ClientTls>>,
}

struct ClientTls {
    connection: ClientConnection,
    manner: TlsManner,
    sealed: SealedBytes,
}

/// Certificates are valid whatever the system's clock says.
#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000)))
    }
}

fn client_configs() -> &'static [Arc<ClientConfig>; 2] {
    static CONFIGS: OnceLock<[Arc<ClientConfig>; 2]> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(CERTIFICATE).expect("a certificate");
        roots.add(certificate).expect("it can be trusted");
        [&TLS12, &TLS13].map(|version| {
            let provider = Arc::new(ring::default_provider());
            let builder = ClientConfig::builder_with_details(provider, Arc::new(FixedTime));
            let builder = builder.with_protocol_versions(&[version]).expect("a version");
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            // Each world starts a new engine, which knows no earlier sessions.
            config.resumption = Resumption::disabled();
            Arc::new(config)
        })
    })
}

impl ClientTls {
    /// Whether it has sent all that it will ever send.
    fn has_broken_off(&self) -> bool {
        self.manner.cut.is_some_and(|cut| cut <= self.sealed.sent)
    }

    /// Takes what is to be sent.
    fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).expect("a vector takes every byte");
        }
        self.sealed.sent += bytes.len();
        bytes
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(plain).expect("it has no limit");
        let mut bytes = self.take();
        let sealed = &mut self.sealed;
        if self.manner.damaged == Some(sealed.records.len()) {
            sealed.damaged = self.manner.damaged;
            // The header must not say anything else, such as another length.
            let at = HEADER_BYTES + (bytes.len() - HEADER_BYTES) / 2;
            bytes[at] ^= 1;
        }
        sealed.plain.extend_from_slice(plain);
        sealed.records.push((sealed.sent, sealed.plain.len()));
        bytes
    }

    fn give(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes)?;
            self.connection.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Plaintext that has arrived; `None` if none has.
    fn plain(&mut self, most: usize) -> Option<Vec<u8>> {
        let mut plain = vec![0; most];
        let read = self.connection.reader().read(&mut plain).ok()?;
        self.sealed.closed_by_engine |= read == 0;
        plain.truncate(read);
        Some(plain)
    }
}

impl PeerLine {
    /// Where a manner is given, with TLS.
    pub fn new(end: PeerEnd, manner: Option<TlsManner>) -> Self {
        let tls = manner.filter(|manner| manner.speaks).map(|manner| {
            let config = Arc::clone(&client_configs()[manner.version]);
            let name = "localhost".try_into().expect("a name");
            let mut connection = ClientConnection::new(config, name).expect("a client");
            connection.set_buffer_limit(None);
            RefCell::new(ClientTls { connection, manner, sealed: SealedBytes::default() })
        });
        PeerLine { end, tls }
    }

    /// What is seen of the connection from outside.
    pub fn witness(&self) -> LineWitness {
        self.end.witness()
    }

    /// What was sealed; `None` without TLS.
    pub fn sealed(&self) -> Option<SealedBytes> {
        self.tls.as_ref().map(|tls| tls.borrow().sealed.clone())
    }

    /// Whether it closes without close_notify.
    pub fn is_rude(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().manner.rude)
    }

    /// Shakes hands, where that is needed, unless the peer breaks off before; false if the
    /// connection is over.
    pub async fn shake_hands(&self) -> bool {
        let Some(tls) = &self.tls else { return true };
        loop {
            let bytes = tls.borrow_mut().take();
            if self.pass_on(&bytes).await.is_err() {
                return false;
            }
            if tls.borrow().has_broken_off() {
                return true;
            }
            if !tls.borrow().connection.is_handshaking() {
                let mut tls = tls.borrow_mut();
                tls.sealed.handshake = Some(tls.sealed.sent);
                return true;
            }
            match self.end.receive(4096).await {
                Ok(bytes) if !bytes.is_empty() && tls.borrow_mut().give(&bytes).is_ok() => {}
                _ => return false,
            }
        }
    }

    /// Sends all bytes; waits while the engine's window is full.
    ///
    /// # Errors
    /// If the connection is over.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &self.tls else { return self.end.send(bytes).await };
        let most = tls.borrow().manner.record_bytes;
        for plain in bytes.chunks(most) {
            if tls.borrow().has_broken_off() {
                break;
            }
            let sealed = tls.borrow_mut().seal(plain);
            self.pass_on(&sealed).await?;
        }
        Ok(())
    }

    /// Sends what TLS has made, up to where the peer breaks off.
    async fn pass_on(&self, bytes: &[u8]) -> io::Result<()> {
        let left = self.tls.as_ref().and_then(|tls| {
            let tls = tls.borrow();
            tls.manner.cut.map(|cut| cut.saturating_sub(tls.sealed.sent - bytes.len()))
        });
        let bytes = &bytes[..left.unwrap_or(usize::MAX).min(bytes.len())];
        self.end.send(bytes).await
    }

    /// Receives; an empty vector is the end of the stream.
    ///
    /// # Errors
    /// If the connection is reset, or TLS fails.
    pub async fn receive(&self, most: usize) -> io::Result<Vec<u8>> {
        let Some(tls) = &self.tls else { return self.end.receive(most).await };
        loop {
            if let Some(plain) = tls.borrow_mut().plain(most) {
                return Ok(plain);
            }
            let bytes = self.end.receive(4096).await?;
            if bytes.is_empty() {
                return Ok(bytes);
            }
            tls.borrow_mut().give(&bytes)?;
        }
    }

    /// Ends its own direction.
    pub async fn finish(&self) {
        if let Some(tls) = self.tls.as_ref().filter(|tls| !tls.borrow().manner.rude) {
            let bytes = {
                let mut tls = tls.borrow_mut();
                tls.connection.send_close_notify();
                let bytes = tls.take();
                tls.sealed.close_notify = Some(tls.sealed.sent);
                bytes
            };
            // Fails only if the connection is over.
            let _ = self.pass_on(&bytes).await;
        }
        self.end.finish();
    }

    /// Resets the connection.
    pub fn reset(&self) {
        self.end.reset();
    }
}
