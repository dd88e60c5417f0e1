//! The ways in which a message connection can fail, each with a stable name for metrics and logs
//! and the error code and text for the client. The caller closes the connection.

use super::frame::FrameError;
use super::payload::{ErrorCode, RequestError};

/// What went wrong with a message connection. Rate-limited messages, failed authentication and slow
/// receivers are counted separately and are not faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The bytes do not begin with the magic of a frame.
    InvalidMagic,
    /// The frame has another protocol version.
    InvalidVersion,
    /// The type is unknown, or one that only a server sends.
    InvalidMessageType,
    /// The payload is larger than allowed before authentication.
    PayloadTooLarge,
    /// The checksum is wrong.
    CrcMismatch,
    /// The payload is invalid for its type.
    MalformedPayload,
    /// The client sent AUTH after it had authenticated.
    RepeatedAuth,
    /// The client sent an ERROR.
    ClientError,
    /// No complete frame arrived for `--idle-timeout`.
    IdleTimeout,
    /// A frame was not finished in time.
    FrameTimeout,
    /// The client did not authenticate in time.
    AuthTimeout,
    /// The TLS handshake was not finished in time.
    TlsTimeout,
    /// The TLS handshake or connection failed.
    TlsFailed,
    /// The client closed within a frame.
    ClosedInFrame,
    /// The client reset the connection.
    Reset,
    /// Reading or writing failed in another way.
    IoFailed,
    /// No slot was free (`--max-connections`).
    ConnectionsLimit,
    /// DATA began a record stream, but no slot was free (`--max-streams`).
    StreamsLimit,
    /// The server reached `--memory-limit`, and this client held the most.
    MemoryLimit,
    /// A bug in the server.
    InternalError,
}

impl Fault {
    /// Every fault, in the order of the documentation.
    pub const ALL: [Fault; 20] = [
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
        Fault::MemoryLimit,
        Fault::InternalError,
    ];

    /// The stable name used in metrics and logs.
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
            Fault::MemoryLimit => "memory_limit",
            Fault::InternalError => "internal_error",
        }
    }

    /// The text of the ERROR frame. It is constant, so that no bytes from a peer are echoed.
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
            Fault::MemoryLimit => "memory limit reached, try again later",
            Fault::InternalError => "internal error",
        }
    }

    /// The code of the ERROR frame; `None` if the client is sent none.
    pub fn code(self) -> Option<ErrorCode> {
        Some(match self {
            Fault::InvalidMagic => ErrorCode::InvalidMagic,
            Fault::InvalidVersion => ErrorCode::InvalidVersion,
            Fault::InvalidMessageType => ErrorCode::InvalidMessageType,
            Fault::PayloadTooLarge => ErrorCode::PayloadTooLarge,
            Fault::CrcMismatch => ErrorCode::CrcMismatch,
            Fault::MalformedPayload | Fault::RepeatedAuth => ErrorCode::Unknown,
            Fault::IdleTimeout | Fault::FrameTimeout | Fault::AuthTimeout => ErrorCode::Timeout,
            Fault::ConnectionsLimit | Fault::StreamsLimit | Fault::MemoryLimit => {
                ErrorCode::ConnectionLimitExceeded
            }
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
