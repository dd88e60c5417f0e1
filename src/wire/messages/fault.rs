//! Why a message connection ends badly: one stable word for metrics and logs, and the code that the
//! client is told. Formats no sentence and closes nothing.

use super::frame::FrameError;
use super::payload::{ErrorCode, RequestError};

/// What went wrong with a message connection. Refused messages (rate limit), refused credentials
/// and receivers that do not read are counted by themselves and are not among these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No frame began where one should.
    InvalidMagic,
    /// Another version of the protocol.
    InvalidVersion,
    /// No such type, or one that only a server sends.
    InvalidMessageType,
    /// More payload than is allowed before authentication.
    PayloadTooLarge,
    /// The checksum did not fit.
    CrcMismatch,
    /// A payload that does not fit its type.
    MalformedPayload,
    /// AUTH after authentication.
    RepeatedAuth,
    /// The client sent an ERROR.
    ClientError,
    /// No whole frame came for `--idle-timeout`.
    IdleTimeout,
    /// A frame was not finished in time.
    FrameTimeout,
    /// The client did not authenticate in time.
    AuthTimeout,
    /// The TLS handshake was not finished in time.
    TlsTimeout,
    /// The peer does not speak TLS, or not as it must.
    TlsFailed,
    /// The client closed within a frame.
    ClosedInFrame,
    /// The client reset the connection.
    Reset,
    /// Reading or writing failed in another way.
    IoFailed,
    /// No slot was free (`--max-connections`).
    ConnectionsLimit,
    /// DATA began a record stream and none was free (`--max-streams`).
    StreamsLimit,
    /// A defect of the server.
    InternalError,
}

impl Fault {
    /// Every fault, in the order of the documents.
    pub const ALL: [Fault; 19] = [
        Fault::InvalidMagic,
        Fault::InvalidVersion,
        Fault::InvalidMessageType,
        Fault::PayloadTooLarge,
        Fault::CrcMismatch,
        Fault::MalformedPayload,
        Fault::RepeatedAuth,
        Fault::ClientError,
        Fault::IdleTimeout,
        Fault::FrameTimeout,
        Fault::AuthTimeout,
        Fault::TlsTimeout,
        Fault::TlsFailed,
        Fault::ClosedInFrame,
        Fault::Reset,
        Fault::IoFailed,
        Fault::ConnectionsLimit,
        Fault::StreamsLimit,
        Fault::InternalError,
    ];

    /// The stable word that stands in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::InvalidMagic => "invalid_magic",
            Fault::InvalidVersion => "invalid_version",
            Fault::InvalidMessageType => "invalid_message_type",
            Fault::PayloadTooLarge => "payload_too_large",
            Fault::CrcMismatch => "crc_mismatch",
            Fault::MalformedPayload => "malformed_payload",
            Fault::RepeatedAuth => "repeated_auth",
            Fault::ClientError => "client_error",
            Fault::IdleTimeout => "idle_timeout",
            Fault::FrameTimeout => "frame_timeout",
            Fault::AuthTimeout => "auth_timeout",
            Fault::TlsTimeout => "tls_timeout",
            Fault::TlsFailed => "tls_failed",
            Fault::ClosedInFrame => "closed_in_frame",
            Fault::Reset => "reset",
            Fault::IoFailed => "io_failed",
            Fault::ConnectionsLimit => "connections_limit",
            Fault::StreamsLimit => "streams_limit",
            Fault::InternalError => "internal_error",
        }
    }

    /// What the client reads in the ERROR: constant, so that nothing of a peer is sent back.
    pub fn message(self) -> &'static str {
        match self {
            Fault::InvalidMagic => "invalid magic, a frame begins with DEADBEEF",
            Fault::InvalidVersion => "invalid version, this server speaks 1",
            Fault::InvalidMessageType => "invalid message type",
            Fault::PayloadTooLarge => "payload too large before authentication",
            Fault::CrcMismatch => "CRC checksum mismatch",
            Fault::MalformedPayload => "payload does not fit its type",
            Fault::RepeatedAuth => "already authenticated",
            Fault::ClientError => "the client sent an ERROR",
            Fault::IdleTimeout => "idle for too long, send a PING now and then",
            Fault::FrameTimeout => "frame not finished in time",
            Fault::AuthTimeout => "not authenticated in time",
            Fault::TlsTimeout => "TLS handshake not finished in time",
            Fault::TlsFailed => "TLS failed",
            Fault::ClosedInFrame => "closed within a frame",
            Fault::Reset => "reset by the client",
            Fault::IoFailed => "reading or writing failed",
            Fault::ConnectionsLimit => "connection limit reached, try again later",
            Fault::StreamsLimit => "limit of record streams reached, try again later",
            Fault::InternalError => "internal error",
        }
    }

    /// The code of the ERROR that the client is sent; `None` where nothing is sent.
    pub fn code(self) -> Option<ErrorCode> {
        Some(match self {
            Fault::InvalidMagic => ErrorCode::InvalidMagic,
            Fault::InvalidVersion => ErrorCode::InvalidVersion,
            Fault::InvalidMessageType => ErrorCode::InvalidMessageType,
            Fault::PayloadTooLarge => ErrorCode::PayloadTooLarge,
            Fault::CrcMismatch => ErrorCode::CrcMismatch,
            Fault::MalformedPayload | Fault::RepeatedAuth => ErrorCode::Unknown,
            Fault::IdleTimeout | Fault::FrameTimeout | Fault::AuthTimeout => ErrorCode::Timeout,
            Fault::ConnectionsLimit | Fault::StreamsLimit => ErrorCode::ConnectionLimitExceeded,
            Fault::InternalError => ErrorCode::InternalError,
            Fault::ClientError
            | Fault::TlsTimeout
            | Fault::TlsFailed
            | Fault::ClosedInFrame
            | Fault::Reset
            | Fault::IoFailed => return None,
        })
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Magic { .. } => Fault::InvalidMagic,
            FrameError::Version { .. } => Fault::InvalidVersion,
            FrameError::Type { .. } => Fault::InvalidMessageType,
            FrameError::Crc { .. } => Fault::CrcMismatch,
        }
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::ServerType(_) => Fault::InvalidMessageType,
            RequestError::Malformed(_) => Fault::MalformedPayload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_distinct_snake_case_words() {
        let words: std::collections::HashSet<_> = Fault::ALL.iter().map(|f| f.as_str()).collect();
        assert_eq!(words.len(), Fault::ALL.len());
        for word in words {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
        }
        assert!((0..).zip(Fault::ALL).all(|(i, fault)| fault as usize == i));
    }
}
