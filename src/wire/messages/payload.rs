//! The payloads of frames: their layout, the side that may send them, and the error codes. Keeps no
//! state; `session` decides what a message does.

use super::frame::{self, Frame, FrameType};
use crate::wire::text::counted;
use std::fmt;

/// Bytes of a PING's payload.
pub const PING_BYTES: usize = 8;
/// Bytes of the sequence number that DATA begins with.
pub const SEQUENCE_BYTES: usize = 4;

/// The code in an ERROR frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// The payload is invalid for its type, or the message came at the wrong time.
    Unknown = 0x00,
    /// The bytes do not begin with the magic of a frame.
    InvalidMagic = 0x01,
    /// The frame has another protocol version.
    InvalidVersion = 0x02,
    /// The type is unknown, or one that only a server sends.
    InvalidMessageType = 0x03,
    /// The payload is larger than allowed.
    PayloadTooLarge = 0x04,
    /// The checksum is wrong.
    CrcMismatch = 0x05,
    /// The client is not authenticated.
    AuthenticationFailed = 0x06,
    /// A rate limit was exceeded; this message was not processed.
    RateLimitExceeded = 0x07,
    /// No slot is free.
    ConnectionLimitExceeded = 0x08,
    /// The client was idle, or did not finish a frame in time.
    Timeout = 0x09,
    /// A bug in the server.
    InternalError = 0xFF,
}

impl ErrorCode {
    /// Every code, in numerical order.
    pub const ALL: [ErrorCode; 11] = [
        ErrorCode::Unknown,
        ErrorCode::InvalidMagic,
        ErrorCode::InvalidVersion,
        ErrorCode::InvalidMessageType,
        ErrorCode::PayloadTooLarge,
        ErrorCode::CrcMismatch,
        ErrorCode::AuthenticationFailed,
        ErrorCode::RateLimitExceeded,
        ErrorCode::ConnectionLimitExceeded,
        ErrorCode::Timeout,
        ErrorCode::InternalError,
    ];

    /// The code with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&code| code as u8 == byte)
    }

    /// Its name in documentation and messages to people.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::Unknown => "UNKNOWN",
            ErrorCode::InvalidMagic => "INVALID_MAGIC",
            ErrorCode::InvalidVersion => "INVALID_VERSION",
            ErrorCode::InvalidMessageType => "INVALID_MESSAGE_TYPE",
            ErrorCode::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            ErrorCode::CrcMismatch => "CRC_MISMATCH",
            ErrorCode::AuthenticationFailed => "AUTHENTICATION_FAILED",
            ErrorCode::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            ErrorCode::ConnectionLimitExceeded => "CONNECTION_LIMIT_EXCEEDED",
            ErrorCode::Timeout => "TIMEOUT",
            ErrorCode::InternalError => "INTERNAL_ERROR",
        }
    }
}

/// A payload that is invalid for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} payload of {}: {rule}", .kind.name(), counted(.payload_bytes, "byte"))]
pub struct Malformed {
    /// Type of the frame.
    pub kind: FrameType,
    /// Size of the payload.
    pub payload_bytes: usize,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// The identity that a client claims. `Debug` leaves out the token, which is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Name of the user.
    pub user: &'a str,
    /// The token that proves it.
    pub token: &'a str,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A message from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Expects the same eight bytes back.
    Ping(&'a [u8; PING_BYTES]),
    /// Expects the same bytes back.
    Echo(&'a [u8]),
    /// Goes to all other clients.
    Broadcast(&'a [u8]),
    /// Asks to authenticate.
    Auth(Credentials<'a>),
    /// Data to process and acknowledge.
    Data {
        /// The client's sequence number.
        sequence: u32,
        /// The data.
        body: &'a [u8],
    },
    /// Asks to flush and close.
    Close,
    /// Reports an error; it gets no answer.
    Error,
}

/// Why a frame is not a valid message from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Only a server sends this type.
    #[error("invalid message type: only a server sends {}", .0.name())]
    ServerType(FrameType),
    /// The payload is invalid.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Whether a client may send this type.
#[inline]
pub fn from_client(kind: FrameType) -> bool {
    use FrameType::{AuthReply, DataAck, EchoReply, Pong};
    !matches!(kind, Pong | EchoReply | AuthReply | DataAck)
}

impl<'a> Request<'a> {
    /// Parses a frame from a client.
    ///
    /// # Errors
    /// [`RequestError`] if no client may send it or its payload is invalid.
    #[inline]
    pub fn parse(frame: Frame<'a>) -> Result<Self, RequestError> {
        let payload = frame.payload;
        let malformed = |rule| Malformed { kind: frame.kind, payload_bytes: payload.len(), rule };
        Ok(match frame.kind {
            FrameType::Ping => {
                Request::Ping(payload.try_into().map_err(|_| malformed("a timestamp has 8 bytes"))?)
            }
            FrameType::Echo => Request::Echo(payload),
            FrameType::Broadcast => Request::Broadcast(payload),
            FrameType::Auth => Request::Auth(credentials(payload).map_err(malformed)?),
            FrameType::Data => {
                let (sequence, body) = payload
                    .split_first_chunk()
                    .ok_or_else(|| malformed("it must begin with a 4-byte sequence number"))?;
                Request::Data { sequence: u32::from_be_bytes(*sequence), body }
            }
            FrameType::Close if payload.is_empty() => Request::Close,
            FrameType::Close => return Err(malformed("it must be empty").into()),
            FrameType::Error => Request::Error,
            kind => return Err(RequestError::ServerType(kind)),
        })
    }
}

fn credentials(payload: &[u8]) -> Result<Credentials<'_>, &'static str> {
    let (&length, rest) =
        payload.split_first().ok_or("it must begin with the length of the user name")?;
    let (user, token) =
        rest.split_at_checked(usize::from(length)).ok_or("the user name goes past its end")?;
    let user = std::str::from_utf8(user).map_err(|_| "the user name is not UTF-8")?;
    let token = std::str::from_utf8(token).map_err(|_| "the token is not UTF-8")?;
    Ok(Credentials { user, token })
}

/// A message from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The bytes of the PING.
    Pong(&'a [u8; PING_BYTES]),
    /// The bytes of the ECHO.
    EchoReply(&'a [u8]),
    /// From another client.
    Broadcast(&'a [u8]),
    /// The session id if authentication succeeded, else `None`.
    AuthReply(Option<&'a str>),
    /// Acknowledges the DATA with this sequence number.
    DataAck(u32),
    /// Reports an error.
    Error {
        /// The error code, as a number so that codes of later servers fit.
        code: u8,
        /// A message for people, not guaranteed to be UTF-8.
        message: &'a [u8],
    },
}

/// Why a frame is not a valid message from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Only a client sends this type.
    #[error("only a client sends {}", .0.name())]
    ClientType(FrameType),
    /// The payload is invalid.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl<'a> Reply<'a> {
    /// Parses a frame from a server.
    ///
    /// # Errors
    /// [`ReplyError`] if no server sends it or its payload is invalid.
    pub fn parse(frame: Frame<'a>) -> Result<Self, ReplyError> {
        let payload = frame.payload;
        let malformed = |rule| Malformed { kind: frame.kind, payload_bytes: payload.len(), rule };
        Ok(match frame.kind {
            FrameType::Pong => {
                Reply::Pong(payload.try_into().map_err(|_| malformed("a timestamp has 8 bytes"))?)
            }
            FrameType::EchoReply => Reply::EchoReply(payload),
            FrameType::Broadcast => Reply::Broadcast(payload),
            FrameType::AuthReply => Reply::AuthReply(auth_reply(payload).map_err(malformed)?),
            FrameType::DataAck => {
                let sequence = payload.try_into().map_err(|_| malformed("it must have 4 bytes"))?;
                Reply::DataAck(u32::from_be_bytes(sequence))
            }
            FrameType::Error => {
                let (&code, message) = payload
                    .split_first()
                    .ok_or_else(|| malformed("it must begin with an error code"))?;
                Reply::Error { code, message }
            }
            kind => return Err(ReplyError::ClientType(kind)),
        })
    }
}

fn auth_reply(payload: &[u8]) -> Result<Option<&str>, &'static str> {
    match payload {
        [0] => Ok(None),
        [1, session @ ..] if session.is_ascii() => {
            Ok(Some(std::str::from_utf8(session).expect("ASCII is UTF-8")))
        }
        _ => Err("it must be 0, or 1 and a session id"),
    }
}

/// Appends an ERROR frame.
pub fn encode_error(code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    frame::encode(FrameType::Error, &[&[code as u8], message.as_bytes()], out);
}

/// Appends an AUTH frame.
///
/// # Errors
/// Returns the rule that the name or the token breaks.
pub fn encode_auth(credentials: Credentials<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let Credentials { user, token } = credentials;
    let length = u8::try_from(user.len()).map_err(|_| "a user name has at most 255 bytes")?;
    if 1 + user.len() + token.len() > frame::PAYLOAD_BYTES_MAX {
        return Err("user name and token have at most 65534 bytes together");
    }
    frame::encode(FrameType::Auth, &[&[length], user.as_bytes(), token.as_bytes()], out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: FrameType, payload: &[u8]) -> Frame<'_> {
        Frame { kind, payload, bytes: payload }
    }

    fn request(kind: FrameType, payload: &[u8]) -> Result<Request<'_>, RequestError> {
        Request::parse(frame(kind, payload))
    }

    #[test]
    fn valid_payloads_are_parsed() {
        assert_eq!(request(FrameType::Ping, b"12345678"), Ok(Request::Ping(b"12345678")));
        assert_eq!(request(FrameType::Echo, b""), Ok(Request::Echo(b"")));
        assert_eq!(request(FrameType::Close, b""), Ok(Request::Close));
        assert_eq!(request(FrameType::Error, b"any"), Ok(Request::Error));
        let data = Request::Data { sequence: 7, body: b"payload" };
        assert_eq!(request(FrameType::Data, b"\0\0\0\x07payload"), Ok(data));
        let alice = Credentials { user: "alice", token: "s3cret" };
        assert_eq!(request(FrameType::Auth, b"\x05alices3cret"), Ok(Request::Auth(alice)));
        let nobody = Credentials { user: "", token: "" };
        assert_eq!(request(FrameType::Auth, b"\0"), Ok(Request::Auth(nobody)));
        assert!(!format!("{alice:?}").contains("s3cret"));
    }

    #[test]
    fn invalid_payloads_are_rejected() {
        let cases: [(FrameType, &[u8]); 10] = [
            (FrameType::Ping, b""),
            (FrameType::Ping, b"1234567"),
            (FrameType::Ping, b"123456789"),
            (FrameType::Data, b""),
            (FrameType::Data, b"\0\0\0"),
            (FrameType::Auth, b""),
            (FrameType::Auth, b"\x06alice"),
            (FrameType::Auth, b"\x02\xff\xfetoken"),
            (FrameType::Auth, b"\x05alice\xc3\x28"),
            (FrameType::Close, b"x"),
        ];
        for (kind, payload) in cases {
            let error = request(kind, payload).unwrap_err();
            assert!(matches!(error, RequestError::Malformed(_)), "{error}");
        }
        for kind in FrameType::ALL {
            let refused = matches!(request(kind, b""), Err(RequestError::ServerType(_)));
            assert_eq!(refused, !from_client(kind), "{}", kind.name());
        }
    }

    #[test]
    fn error_codes_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_byte(code as u8), Some(code));
        }
        assert_eq!(ErrorCode::from_byte(0x0A), None);
    }

    proptest! {
        #[test]
        fn credentials_round_trip(user in "\\PC{0,60}", token in "\\PC{0,60}") {
            let mut out = Vec::new();
            let sent = Credentials { user: &user, token: &token };
            prop_assert_eq!(encode_auth(sent, &mut out), Ok(()));
            let frame = frame::decode(&out).unwrap().unwrap();
            prop_assert_eq!(Request::parse(frame), Ok(Request::Auth(sent)));
        }

        #[test]
        fn replies_round_trip(ping: [u8; 8], echo: Vec<u8>, sequence: u32, code: u8) {
            let reply = |kind, parts: &[&[u8]], expected: Reply<'_>| {
                let mut out = Vec::new();
                frame::encode(kind, parts, &mut out);
                assert_eq!(Reply::parse(frame::decode(&out).unwrap().unwrap()), Ok(expected));
            };
            reply(FrameType::Pong, &[&ping], Reply::Pong(&ping));
            reply(FrameType::EchoReply, &[&echo], Reply::EchoReply(&echo));
            reply(FrameType::Broadcast, &[&echo], Reply::Broadcast(&echo));
            reply(FrameType::DataAck, &[&sequence.to_be_bytes()], Reply::DataAck(sequence));
            reply(FrameType::AuthReply, &[&[1], b"0af3"], Reply::AuthReply(Some("0af3")));
            reply(FrameType::AuthReply, &[&[0]], Reply::AuthReply(None));
            let error = Reply::Error { code, message: &echo };
            reply(FrameType::Error, &[&[code], &echo], error);
        }

        /// Whatever a payload holds, it is parsed or rejected without a panic.
        #[test]
        fn arbitrary_payloads_never_panic(
            kind in proptest::sample::select(&FrameType::ALL[..]),
            payload: Vec<u8>,
        ) {
            let _ = request(kind, &payload);
            let _ = Reply::parse(frame(kind, &payload));
        }
    }
}
