//! TLS 1.2 and 1.3 for one accepted connection, over owned buffers: performs no I/O and reads no
//! clock of its own. It stands here and not in `wire` because rustls asks the system for randomness
//! and, to judge certificates and tickets, for the time.
//!
//! The storage of received bytes goes to a read by value and comes back with it, so plaintext must
//! be encrypted while nobody here can see what has come. rustls allows that, but for one case: in
//! the middle of a handshake message that has come in pieces it wants to see the pieces with every
//! call. For that case, which only a strange peer brings about after the handshake, a copy of them
//! is held.

use crate::config::{TLS_INCOMING_BYTES, TLS_INCOMING_BYTES_MAX};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{AlertDescription, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the largest record: header, plaintext, and what encryption may add (RFC 5246, 6.2.3).
pub(crate) const TLS_RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAINTEXT_BYTES_MAX + 2048;

const HEADER_BYTES: usize = 5;
/// Plaintext of one record.
const PLAINTEXT_BYTES_MAX: usize = 16 << 10;
/// What any cipher suite adds to a record: header 5, explicit nonce 8, type 1, tag 16, rounded up.
const OVERHEAD_BYTES_MAX: usize = 32;

const _: () = assert!(TLS_INCOMING_BYTES > HEADER_BYTES);
const _: () = assert!(TLS_RECORD_BYTES_MAX + TLS_INCOMING_BYTES <= TLS_INCOMING_BYTES_MAX);

/// Why a connection cannot go on. Each names the cause and, where there is one, the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The first bytes are no TLS record.
    #[error(
        "the peer does not speak TLS: {0}; switch TLS on in the client, or serve without --tls"
    )]
    NotTls(#[source] rustls::Error),
    /// Both sides found no common ground.
    #[error("the TLS handshake failed: {0}; {remedy}", remedy = handshake_remedy(.0))]
    Handshake(#[source] rustls::Error),
    /// The client's certificate is missing, or not one of `--client-ca`.
    #[error(
        "the client's certificate was refused: {0}; it needs a valid one, signed for clients by \
         an authority in --client-ca"
    )]
    ClientCertificate(#[source] rustls::Error),
    /// The peer gave up.
    #[error("the peer ended TLS with the alert {0:?}; {remedy}", remedy = alert_remedy(*.0))]
    Alert(AlertDescription),
    /// After the handshake something came that is no sound record.
    #[error(
        "the TLS connection broke: {0}; its data was damaged or forged on the way, or the peer's \
         TLS is defective"
    )]
    Record(#[source] rustls::Error),
    /// More than [`TLS_INCOMING_BYTES_MAX`] have come without a message being complete.
    #[error(
        "a TLS handshake message takes more than {TLS_INCOMING_BYTES_MAX} bytes; a client must \
         send a shorter certificate chain"
    )]
    TooLong,
    /// TLS 1.2 has no way to renew keys that have been used for too many records.
    #[error("the keys of the TLS 1.2 connection are used up; reconnect, better with TLS 1.3")]
    KeysUsedUp,
    /// The configuration cannot be used.
    #[error("TLS cannot be started: {0}; this is a defect of ringest, please report it")]
    Config(#[source] rustls::Error),
    /// The caller wants to send before the handshake is done or after the end.
    #[error("nothing can be sent over TLS now; this is a defect of ringest, please report it")]
    NotOpen,
}

fn handshake_remedy(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::PeerIncompatible(_) => {
            "the client needs TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20"
        }
        _ => "`openssl s_client` shows whether another client does better",
    }
}

fn alert_remedy(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::BadCertificate => {
            "it does not trust the server's certificate: give it the CA that signed that"
        }
        AlertDescription::CertificateExpired => {
            "the server's certificate has expired, or the peer's clock is wrong: renew it"
        }
        AlertDescription::CertificateUnknown | AlertDescription::UnsupportedCertificate => {
            "it does not accept the server's certificate: is it issued for the name that the \
             client uses?"
        }
        AlertDescription::ProtocolVersion => "it needs TLS 1.2 or 1.3",
        _ => "its own log may say why",
    }
}

#[cfg(test)]
impl TlsError {
    /// The reason in one word for tests.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            TlsError::NotTls(_) => "not_tls",
            TlsError::Handshake(_) => "handshake_failed",
            TlsError::ClientCertificate(_) => "client_certificate_refused",
            TlsError::Alert(_) => "tls_alert",
            TlsError::Record(_) => "tls_record_broken",
            TlsError::TooLong => "tls_message_too_long",
            TlsError::KeysUsedUp => "tls_keys_used_up",
            TlsError::Config(_) => "tls_config",
            TlsError::NotOpen => "tls_not_open",
        }
    }
}

/// Where a connection stands after what has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsProgress {
    /// Nothing can be sent yet.
    pub handshaking: bool,
    /// The peer has said that it will send nothing more. An end of the stream without that may be
    /// an attacker's.
    pub peer_closed: bool,
}

/// What is known of the peer, for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsPeer {
    /// `1.2` or `1.3`, once it is agreed on.
    pub version: Option<&'static str>,
    /// The cipher suite, once it is agreed on.
    pub cipher_suite: Option<&'static str>,
    /// Whether it has shown a certificate that was accepted.
    pub certificate: bool,
    /// Whether it took up an earlier session.
    pub resumed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsPhase {
    /// Both sides may speak.
    Open,
    /// The peer has closed its side.
    PeerClosed,
    /// This side is closed; what comes is thrown away.
    Closed,
    /// An error was returned.
    Failed,
}

/// The server's side of one TLS connection.
///
/// The caller reads into [`Tls::take_incoming`], hands it back with [`Tls::give_back`], calls
/// [`Tls::process`], and sends what was appended to `out`, after an error too: it may be the alert
/// that tells the peer what is wrong.
///
/// Memory: [`TLS_INCOMING_BYTES`] while idle, up to one record while one is incomplete, and at the
/// worst twice [`TLS_INCOMING_BYTES_MAX`]; beside what rustls keeps for the connection, which
/// includes one record's plaintext.
pub(crate) struct Tls {
    connection: UnbufferedServerConnection,
    phase: TlsPhase,
    /// Storage for received bytes, all of it initialised; none while a read has it.
    incoming: Vec<u8>,
    /// How much of `incoming` is received and not done with. filled <= incoming.len() at rest.
    filled: usize,
    /// Whether the last read took all the room there was, so that more is waiting.
    busy: bool,
    /// A copy of `incoming[..filled]` while a handshake message in pieces begins it.
    held: Vec<u8>,
}

impl Tls {
    /// The beginning of a connection that was accepted with `config`.
    ///
    /// # Errors
    /// [`TlsError::Config`].
    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Tls {
            connection: UnbufferedServerConnection::new(config).map_err(TlsError::Config)?,
            phase: TlsPhase::Open,
            incoming: vec![0; TLS_INCOMING_BYTES],
            filled: 0,
            busy: false,
            held: Vec::new(),
        })
    }

    /// Storage for the next read, and the range of it that is free, which is never empty.
    pub(crate) fn take_incoming(&mut self) -> (Vec<u8>, Range<usize>) {
        let bytes = self.incoming_bytes();
        let mut incoming = std::mem::take(&mut self.incoming);
        if incoming.len() > bytes {
            incoming.truncate(bytes);
            incoming.shrink_to_fit();
        } else {
            incoming.reserve_exact(bytes - incoming.len());
            incoming.resize(bytes, 0);
        }
        assert!(self.filled < bytes, "process leaves room");
        (incoming, self.filled..bytes)
    }

    /// Takes the storage back, with `read` more bytes in it.
    pub(crate) fn give_back(&mut self, incoming: Vec<u8>, read: usize) {
        assert!(self.incoming.is_empty(), "there is one storage");
        assert!(read <= incoming.len() - self.filled, "it was read into the free range");
        self.incoming = incoming;
        self.filled += read;
        self.busy = self.filled == self.incoming.len();
    }

    /// Takes in all complete records that have come. Appends to `out` what has to be sent for it,
    /// and hands each piece of plaintext to `plain`, in order.
    ///
    /// # Errors
    /// [`TlsError`], after which there is only `out` to be sent. All plaintext that came before
    /// the error has been handed over.
    pub(crate) fn process(
        &mut self,
        out: &mut Vec<u8>,
        plain: &mut dyn FnMut(&[u8]),
    ) -> Result<TlsProgress, TlsError> {
        match self.phase {
            TlsPhase::Failed => return Err(TlsError::NotOpen),
            TlsPhase::Closed => self.filled = 0,
            TlsPhase::Open | TlsPhase::PeerClosed => {
                if let Err(error) = self.process_records(out, plain) {
                    self.phase = TlsPhase::Failed;
                    self.flush_alert(out);
                    return Err(self.name(error));
                }
                self.hold_pieces()?;
            }
        }
        Ok(TlsProgress {
            handshaking: self.handshaking(),
            peer_closed: self.phase == TlsPhase::PeerClosed,
        })
    }

    /// Encrypts `plaintext`, of any length, and appends the records to `out`.
    ///
    /// # Errors
    /// [`TlsError::NotOpen`] during the handshake and after the end; [`TlsError::KeysUsedUp`]
    /// after some ten million records of TLS 1.2.
    pub(crate) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        // One record more, for the answer to a key update that may be due.
        let records = plaintext.len().div_ceil(PLAINTEXT_BYTES_MAX) + 1;
        let room = plaintext.len() + records * OVERHEAD_BYTES_MAX;
        self.write(Some(plaintext), room, out)
    }

    /// Says to the peer that nothing more will be sent, appending that to `out`. During the
    /// handshake, and after an error, there is nothing to say. What comes after this is thrown
    /// away, since nobody could be told that it was broken.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        // Where it cannot be said, closing the socket has to do.
        let _ = self.write(None, OVERHEAD_BYTES_MAX, out);
        if self.phase != TlsPhase::Failed {
            self.phase = TlsPhase::Closed;
        }
    }

    /// Whether the handshake goes on, so that nothing can be encrypted yet.
    pub(crate) fn handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What is known of the peer.
    pub(crate) fn peer(&self) -> TlsPeer {
        TlsPeer {
            version: match self.connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => Some("1.3"),
                Some(ProtocolVersion::TLSv1_2) => Some("1.2"),
                _ => None,
            },
            cipher_suite: self.connection.negotiated_cipher_suite().and_then(|suite| {
                let suite = suite.suite();
                suite.as_str()
            }),
            certificate: self.connection.peer_certificates().is_some(),
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// How large the storage should be for the next read. A record that does not fit gets the room
    /// of the largest: one record alone then does not fill it, and a stream of them does, which
    /// tells a peer that has paused from one that goes on.
    fn incoming_bytes(&self) -> usize {
        let bytes = self.incoming.len();
        if self.filled == 0 {
            return if self.busy { bytes } else { TLS_INCOMING_BYTES };
        }
        match record_bytes(&self.incoming[..self.filled]) {
            Some(record) if record <= self.filled => {
                // A handshake message in pieces: how much is missing is not known here.
                let more = self.filled + TLS_INCOMING_BYTES;
                if more <= bytes { bytes } else { (more + bytes).min(TLS_INCOMING_BYTES_MAX) }
            }
            Some(record) if record > bytes => TLS_RECORD_BYTES_MAX,
            _ => bytes,
        }
    }

    fn process_records(
        &mut self,
        out: &mut Vec<u8>,
        plain: &mut dyn FnMut(&[u8]),
    ) -> Result<(), rustls::Error> {
        let mut done = 0;
        loop {
            let waiting = &mut self.incoming[done..self.filled];
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(waiting);
            done += discard;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        done += record.discard;
                        plain(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(chunk) => encode(chunk, out)?,
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => self.phase = TlsPhase::PeerClosed,
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed => break,
                state => return Err(unexpected(&state)),
            }
        }
        if self.phase == TlsPhase::PeerClosed {
            done = self.filled;
        }
        self.incoming.copy_within(done..self.filled, 0);
        self.filled -= done;
        Ok(())
    }

    /// Keeps what [`Tls::write`] needs while `incoming` is away.
    fn hold_pieces(&mut self) -> Result<(), TlsError> {
        let waiting = &self.incoming[..self.filled];
        // Whole records that are still there are pieces of a handshake message.
        let pieces = record_bytes(waiting).is_some_and(|record| record <= self.filled);
        if pieces && self.filled >= TLS_INCOMING_BYTES_MAX {
            self.phase = TlsPhase::Failed;
            return Err(TlsError::TooLong);
        }
        self.held.clear();
        if pieces && !self.handshaking() {
            self.held.extend_from_slice(waiting);
        } else {
            self.held.shrink_to_fit();
        }
        Ok(())
    }

    /// Appends `plaintext` encrypted, or else the end, for which `room` bytes are likely enough.
    fn write(
        &mut self,
        plaintext: Option<&[u8]>,
        mut room: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let open = matches!(self.phase, TlsPhase::Open | TlsPhase::PeerClosed);
        if !open || self.handshaking() {
            return Err(TlsError::NotOpen);
        }
        loop {
            // No complete record is in there, so nothing comes of it and nothing is discarded.
            let status = self.connection.process_tls_records(&mut self.held);
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let begin = out.len();
                    out.resize(begin + room, 0);
                    let written = match plaintext {
                        Some(plaintext) => traffic.encrypt(plaintext, &mut out[begin..]),
                        None => traffic.queue_close_notify(&mut out[begin..]),
                    };
                    out.truncate(begin + *written.as_ref().unwrap_or(&0));
                    match written {
                        Ok(_) => return Ok(()),
                        Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
                        Err(EncryptError::EncryptExhausted) => {
                            self.phase = TlsPhase::Failed;
                            self.flush_alert(out);
                            return Err(TlsError::KeysUsedUp);
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(chunk)) => {
                    encode(chunk, out).map_err(TlsError::Record)?;
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(_) => return Err(TlsError::NotOpen),
                Err(error) => {
                    self.phase = TlsPhase::Failed;
                    return Err(self.name(error));
                }
            }
        }
    }

    /// Appends the alert that an error has left to be sent.
    fn flush_alert(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(chunk)) = status.state else { return };
            if encode(chunk, out).is_err() {
                return;
            }
        }
    }

    fn name(&self, error: rustls::Error) -> TlsError {
        use rustls::Error;
        match error {
            Error::AlertReceived(alert) => TlsError::Alert(alert),
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => {
                TlsError::ClientCertificate(error)
            }
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) if self.connection.protocol_version().is_none() => TlsError::NotTls(error),
            _ if self.handshaking() => TlsError::Handshake(error),
            _ => TlsError::Record(error),
        }
    }
}

type ServerData = rustls::server::ServerConnectionData;

/// Bytes of the record that begins here, once its header has come.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

fn encode(
    mut chunk: EncodeTlsData<'_, ServerData>,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let begin = out.len();
    // How much room it needs is only told by refusing too little.
    let room = match chunk.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(error) => return Err(rustls::Error::General(error.to_string())),
        Ok(_) => return Ok(()),
    };
    out.resize(begin + room, 0);
    match chunk.encode(&mut out[begin..]) {
        Ok(written) => {
            out.truncate(begin + written);
            Ok(())
        }
        Err(error) => Err(rustls::Error::General(error.to_string())),
    }
}

/// Early data is off, and there is no other state today.
fn unexpected(state: &ConnectionState<'_, '_, ServerData>) -> rustls::Error {
    rustls::Error::General(format!("{state:?} is not expected"))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
