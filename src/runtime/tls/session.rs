//! TLS 1.2 and 1.3 for one accepted connection, over owned buffers. Performs no I/O. It is not part
//! of `wire` because rustls asks the system for randomness and, to check certificates and tickets,
//! for the time.
//!
//! The buffer for received bytes is passed to each read by value and comes back when the read
//! completes, so plaintext must be encrypted while the received bytes are out of reach. rustls
//! allows that with one exception: in the middle of a fragmented handshake message, it must be
//! given the fragments on every call. For that case, which after the handshake only an unusual peer
//! causes, a copy of them is kept.

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
/// The most that a cipher suite adds to a record: header 5, explicit nonce 8, type 1, tag 16,
/// rounded up.
const OVERHEAD_BYTES_MAX: usize = 32;

const _: () = assert!(TLS_INCOMING_BYTES > HEADER_BYTES);
const _: () = assert!(TLS_RECORD_BYTES_MAX + TLS_INCOMING_BYTES <= TLS_INCOMING_BYTES_MAX);

/// Why a connection failed. Each message names the cause and, if there is one, the next step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The first bytes are not a TLS record.
    #[error(
        "the peer does not speak TLS: {0}; enable TLS in the client, or serve without \
         --records-tls (records) or --tls (messages)"
    )]
    NotTls(#[source] rustls::Error),
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}; {remedy}", remedy = handshake_remedy(.0))]
    Handshake(#[source] rustls::Error),
    /// The client's certificate is missing, invalid, or not signed by an authority in
    /// `--client-ca`.
    #[error(
        "the client's certificate was refused: {0}; it must be valid, issued for clients and \
         signed by an authority in --client-ca"
    )]
    ClientCertificate(#[source] rustls::Error),
    /// The peer sent a fatal alert.
    #[error("the peer ended TLS with the alert {0:?}; {remedy}", remedy = alert_remedy(*.0))]
    Alert(AlertDescription),
    /// An invalid record arrived after the handshake.
    #[error(
        "the TLS connection failed: {0}; the data was corrupted or forged in transit, or the \
         peer's TLS has a bug"
    )]
    Record(#[source] rustls::Error),
    /// [`TLS_INCOMING_BYTES_MAX`] bytes arrived without completing a handshake message.
    #[error(
        "a TLS handshake message is longer than {TLS_INCOMING_BYTES_MAX} bytes; the client must \
         send a shorter certificate chain"
    )]
    TooLong,
    /// The keys have encrypted as many records as they safely can, and TLS 1.2 cannot renew them.
    #[error("the keys of the TLS 1.2 connection are used up; reconnect, preferably with TLS 1.3")]
    KeysUsedUp,
    /// The configuration cannot be used.
    #[error("TLS cannot be started: {0}; this is a bug in ringest, please report it")]
    Config(#[source] rustls::Error),
    /// The caller tried to send before the end of the handshake or after closing.
    #[error("nothing can be sent over TLS now; this is a bug in ringest, please report it")]
    NotOpen,
}

fn handshake_remedy(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::PeerIncompatible(_) => {
            "the client needs TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20"
        }
        _ => "try `openssl s_client` to see whether another client can connect",
    }
}

fn alert_remedy(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::BadCertificate => {
            "it does not trust the server's certificate: give it the CA that signed it"
        }
        AlertDescription::CertificateExpired => {
            "the server's certificate has expired, or the peer's clock is wrong: renew it"
        }
        AlertDescription::CertificateUnknown | AlertDescription::UnsupportedCertificate => {
            "it does not accept the server's certificate: was it issued for the name that the \
             client uses?"
        }
        AlertDescription::ProtocolVersion => "it needs TLS 1.2 or 1.3",
        _ => "the peer's log may say why",
    }
}

#[cfg(test)]
impl TlsError {
    /// The kind of error in one word, for tests.
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

/// The state of a connection after processing received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsProgress {
    /// The handshake is not complete, so nothing can be sent yet.
    pub handshaking: bool,
    /// The peer has sent close_notify. Without it, the end of the stream may be forged by an
    /// attacker.
    pub peer_closed: bool,
}

/// What is known about the peer, for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsPeer {
    /// `1.2` or `1.3`, once negotiated.
    pub version: Option<&'static str>,
    /// The cipher suite, once negotiated.
    pub cipher_suite: Option<&'static str>,
    /// Whether it has presented a certificate that was accepted.
    pub certificate: bool,
    /// Whether it resumed an earlier session.
    pub resumed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsPhase {
    /// Both sides may send.
    Open,
    /// The peer has closed its side.
    PeerClosed,
    /// This side is closed; received bytes are discarded.
    Closed,
    /// An error was returned.
    Failed,
}

/// The server's side of one TLS connection.
///
/// The caller takes the buffer with [`Tls::take_incoming`], reads into it, returns it with
/// [`Tls::give_back`], calls [`Tls::process`], and sends what was appended to `out`. It must send
/// that after an error too: it may be the alert that tells the peer what is wrong.
///
/// Memory: [`TLS_INCOMING_BYTES`] while idle, up to one record while one is incomplete, and at
/// worst twice [`TLS_INCOMING_BYTES_MAX`]; plus what rustls keeps for the connection, including one
/// record's plaintext.
pub(crate) struct Tls {
    connection: UnbufferedServerConnection,
    phase: TlsPhase,
    /// Buffer for received bytes, fully initialised; empty while a read has it.
    incoming: Vec<u8>,
    /// Received but unprocessed bytes in `incoming`. filled <= incoming.len() unless a read has it.
    filled: usize,
    /// Whether the last read filled the buffer, so more bytes are probably waiting.
    busy: bool,
    /// A copy of `incoming[..filled]` while it begins with a fragmented handshake message.
    held: Vec<u8>,
}

impl Tls {
    /// Starts TLS on a newly accepted connection.
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

    /// Whether bytes were received that are no whole record yet.
    pub(crate) fn in_record(&self) -> bool {
        self.filled > 0
    }

    /// The buffer for the next read, and its free range, which is never empty.
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

    /// Returns the buffer after a read that put `read` bytes into its free range.
    pub(crate) fn give_back(&mut self, incoming: Vec<u8>, read: usize) {
        assert!(self.incoming.is_empty(), "there is only one buffer");
        assert!(read <= incoming.len() - self.filled, "a read stays within the free range");
        self.incoming = incoming;
        self.filled += read;
        self.busy = self.filled == self.incoming.len();
    }

    /// Processes all complete records received. Appends to `out` what must be sent in return, and
    /// passes each piece of plaintext to `plain`, in order.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is then over, except that `out` must be sent. All plaintext
    /// received before the error has been passed on.
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
    /// [`TlsError::NotOpen`] during the handshake and after closing; [`TlsError::KeysUsedUp`]
    /// after some ten million records of TLS 1.2.
    pub(crate) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        // One more record, for the reply to a key update that may be due.
        let records = plaintext.len().div_ceil(PLAINTEXT_BYTES_MAX) + 1;
        let room = plaintext.len() + records * OVERHEAD_BYTES_MAX;
        self.write(Some(plaintext), room, out)
    }

    /// Appends close_notify to `out`: nothing more will be sent. Appends nothing during the
    /// handshake and after an error. Bytes received after this are discarded, since the peer could
    /// no longer be told about an error in them.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        // If it cannot be sent, closing the socket must do.
        let _ = self.write(None, OVERHEAD_BYTES_MAX, out);
        if self.phase != TlsPhase::Failed {
            self.phase = TlsPhase::Closed;
        }
    }

    /// Whether the handshake is still in progress, so nothing can be encrypted yet.
    pub(crate) fn handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What is known about the peer.
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

    /// The buffer size for the next read. If a record does not fit, the buffer grows to hold the
    /// largest possible record: a single one does not fill it, but a stream of them does. That
    /// distinguishes a peer that has paused from one that keeps sending.
    fn incoming_bytes(&self) -> usize {
        let bytes = self.incoming.len();
        if self.filled == 0 {
            return if self.busy { bytes } else { TLS_INCOMING_BYTES };
        }
        match record_bytes(&self.incoming[..self.filled]) {
            Some(record) if record <= self.filled => {
                // A fragmented handshake message: how much is missing is not known here.
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

    /// Copies what [`Tls::write`] needs while a read has `incoming`.
    fn hold_pieces(&mut self) -> Result<(), TlsError> {
        let waiting = &self.incoming[..self.filled];
        // Whole records that remain are fragments of a handshake message.
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

    /// Encrypts `plaintext`, or close_notify if `None`, and appends it to `out`. `room` is a guess
    /// of its encrypted size.
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
            // This holds no complete handshake message, so rustls neither processes nor discards
            // any of it.
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

    /// Appends the alert that rustls queued for an error.
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

/// Size of the record that begins here; `None` until its header is complete.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]])))
}

fn encode(
    mut chunk: EncodeTlsData<'_, ServerData>,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let begin = out.len();
    // rustls reports the size it needs only by rejecting a buffer that is too small.
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

/// The error for an unknown state: early data is off, and rustls has no other states so far.
fn unexpected(state: &ConnectionState<'_, '_, ServerData>) -> rustls::Error {
    rustls::Error::General(format!("unexpected state {state:?}"))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
