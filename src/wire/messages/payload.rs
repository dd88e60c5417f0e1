//! What the payloads of frames mean: who may send which, how they are laid out, what an error
//! code stands for. Keeps no state: `session` says what a message does.

use super::frame::{self, Frame, FrameType};
use std::fmt;

/// Bytes of a PING's payload.
pub const PING_BYTES: usize = 8;
/// Bytes of the sequence that DATA begins with.
pub const SEQUENCE_BYTES: usize = 4;

/// What a server says is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// A payload that does not fit its type, or a message at the wrong time.
    Unknown = 0x00,
    /// No frame begins there.
    InvalidMagic = 0x01,
    /// Another version of the protocol.
    InvalidVersion = 0x02,
    /// No such type, or one that only a server sends.
    InvalidMessageType = 0x03,
    /// More payload than is allowed.
    PayloadTooLarge = 0x04,
    /// The checksum does not fit.
    CrcMismatch = 0x05,
    /// Not authenticated.
    AuthenticationFailed = 0x06,
    /// Too many messages; this one was not processed.
    RateLimitExceeded = 0x07,
    /// No slot is free.
    ConnectionLimitExceeded = 0x08,
    /// Idle, or a frame not finished in time.
    Timeout = 0x09,
    /// A defect of the server.
    InternalError = 0xFF,
}

impl ErrorCode {
    /// Every code, in the order of the numbers.
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

    /// Its name in documents and messages to people.
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

/// A payload that does not fit its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} payload of {payload_bytes} bytes: {rule}", .kind.name())]
pub struct Malformed {
    /// The type.
    pub kind: FrameType,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// What it breaks.
    pub rule: &'static str,
}

/// Who a client says that it is. The token is a secret: it is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Name of the user.
    pub user: &'a str,
    /// What proves it.
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
    /// To be answered with the same eight bytes.
    Ping(&'a [u8; PING_BYTES]),
    /// To be answered with the same bytes.
    Echo(&'a [u8]),
    /// To be passed on to the others.
    Broadcast(&'a [u8]),
    /// To be believed or not.
    Auth(Credentials<'a>),
    /// To be taken in and acknowledged.
    Data {
        /// The client's number for it.
        sequence: u32,
        /// The data.
        body: &'a [u8],
    },
    /// To flush and close.
    Close,
    /// The client says that something is wrong: nothing is to be answered.
    Error,
}

/// Why a frame is no message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Only a server sends this type.
    #[error("invalid message type: only a server sends {}", .0.name())]
    ServerType(FrameType),
    /// The payload does not fit.
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
    /// Reads the payload of a frame from a client.
    ///
    /// # Errors
    /// [`RequestError`].
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
                    .ok_or_else(|| malformed("it begins with a sequence of 4 bytes"))?;
                Request::Data { sequence: u32::from_be_bytes(*sequence), body }
            }
            FrameType::Close if payload.is_empty() => Request::Close,
            FrameType::Close => return Err(malformed("it is empty").into()),
            FrameType::Error => Request::Error,
            kind => return Err(RequestError::ServerType(kind)),
        })
    }
}

fn credentials(payload: &[u8]) -> Result<Credentials<'_>, &'static str> {
    let (&length, rest) = payload.split_first().ok_or("it begins with the user's length")?;
    let (user, token) =
        rest.split_at_checked(usize::from(length)).ok_or("the user's length goes past its end")?;
    let user = std::str::from_utf8(user).map_err(|_| "the user is not UTF-8")?;
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
    /// Session id where the user was believed, else nothing.
    AuthReply(Option<&'a str>),
    /// That DATA has been taken in.
    DataAck(u32),
    /// What is wrong.
    Error {
        /// Number of the error, for codes of later servers.
        code: u8,
        /// In words, for people. Bytes of a server are not trusted to be UTF-8.
        message: &'a [u8],
    },
}

/// Why a frame is no message of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Only a client sends this type.
    #[error("only a client sends {}", .0.name())]
    ClientType(FrameType),
    /// The payload does not fit.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl<'a> Reply<'a> {
    /// Reads the payload of a frame from a server.
    ///
    /// # Errors
    /// [`ReplyError`].
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
                let sequence = payload.try_into().map_err(|_| malformed("it has 4 bytes"))?;
                Reply::DataAck(u32::from_be_bytes(sequence))
            }
            FrameType::Error => {
                let (&code, message) =
                    payload.split_first().ok_or_else(|| malformed("it begins with a code"))?;
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
        _ => Err("it is 0, or 1 and a session id"),
    }
}

/// Appends an ERROR frame.
pub fn encode_error(code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    frame::encode(FrameType::Error, &[&[code as u8], message.as_bytes()], out);
}

/// Appends an AUTH frame.
///
/// # Errors
/// The rule that a name or token breaks.
pub fn encode_auth(credentials: Credentials<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let Credentials { user, token } = credentials;
    let length = u8::try_from(user.len()).map_err(|_| "a user has at most 255 bytes")?;
    if 1 + user.len() + token.len() > frame::PAYLOAD_BYTES_MAX {
        return Err("user and token have at most 65534 bytes together");
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
    fn payloads_that_fit() {
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
    fn payloads_that_do_not_fit() {
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
    fn errors_are_numbered() {
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

        /// Whatever a payload holds, it is read or refused, never more.
        #[test]
        fn arbitrary_payloads(
            kind in proptest::sample::select(&FrameType::ALL[..]),
            payload: Vec<u8>,
        ) {
            let _ = request(kind, &payload);
            let _ = Reply::parse(frame(kind, &payload));
        }
    }
}
