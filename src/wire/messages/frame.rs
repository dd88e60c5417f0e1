//! Encodes and decodes frames of the message protocol: header, payload, CRC-32. Frames are decoded
//! in place, in the caller's buffer; payloads are interpreted elsewhere.
//!
//! ```text
//!   0        4        5      6              8            8 + length    12 + length
//!   | magic  | version | type | length (u16) | payload …  | CRC-32 (u32) |
//! ```
//!
//! All integers are big-endian. The CRC covers everything before it.

/// First four bytes of a frame.
pub const MAGIC: [u8; 4] = 0xDEAD_BEEF_u32.to_be_bytes();
/// The only protocol version.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 8;
/// Bytes after the payload.
pub const CRC_BYTES: usize = 4;
/// Bytes of a frame besides its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + CRC_BYTES;
/// The longest payload that a u16 can announce.
pub const PAYLOAD_BYTES_MAX: usize = u16::MAX as usize;
/// The longest frame.
pub const FRAME_BYTES_MAX: usize = OVERHEAD_BYTES + PAYLOAD_BYTES_MAX;

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// From the client: requests a PONG.
    Ping = 0x01,
    /// From the server: answers a PING.
    Pong = 0x02,
    /// From the client: requests its payload back.
    Echo = 0x03,
    /// From the server: answers an ECHO.
    EchoReply = 0x04,
    /// From either side: a message for all other clients.
    Broadcast = 0x05,
    /// From the client: its user name and token.
    Auth = 0x06,
    /// From the server: whether authentication succeeded.
    AuthReply = 0x07,
    /// From the client: a numbered piece of data.
    Data = 0x08,
    /// From the server: acknowledges a DATA.
    DataAck = 0x09,
    /// From the client: requests to flush and close.
    Close = 0x0A,
    /// From either side: an error.
    Error = 0xFF,
}

impl FrameType {
    /// Every type, in numerical order.
    pub const ALL: [FrameType; 11] = [
        FrameType::Ping,
        FrameType::Pong,
        FrameType::Echo,
        FrameType::EchoReply,
        FrameType::Broadcast,
        FrameType::Auth,
        FrameType::AuthReply,
        FrameType::Data,
        FrameType::DataAck,
        FrameType::Close,
        FrameType::Error,
    ];

    /// The type with this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01..=0x0A => Some(Self::ALL[usize::from(byte) - 1]),
            0xFF => Some(FrameType::Error),
            _ => None,
        }
    }

    /// Its index in [`ALL`](Self::ALL).
    #[inline]
    pub fn index(self) -> usize {
        match self {
            FrameType::Error => 10,
            kind => kind as usize - 1,
        }
    }

    /// Its name in documentation and messages to people.
    pub fn name(self) -> &'static str {
        match self {
            FrameType::Ping => "PING",
            FrameType::Pong => "PONG",
            FrameType::Echo => "ECHO",
            FrameType::EchoReply => "ECHO_REPLY",
            FrameType::Broadcast => "BROADCAST",
            FrameType::Auth => "AUTH",
            FrameType::AuthReply => "AUTH_REPLY",
            FrameType::Data => "DATA",
            FrameType::DataAck => "DATA_ACK",
            FrameType::Close => "CLOSE",
            FrameType::Error => "ERROR",
        }
    }
}

/// Why bytes are not a valid frame. All but the last are detected from the header alone, as soon as
/// the offending byte arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A byte of the magic is wrong.
    #[error("invalid magic: byte {at} of a frame is {got:#04x}, expected {:#04x}", MAGIC[*at])]
    Magic {
        /// Index of the byte.
        at: usize,
        /// The byte received.
        got: u8,
    },
    /// The protocol version is wrong.
    #[error("invalid version {got}, this server speaks {VERSION}")]
    Version {
        /// The version received.
        got: u8,
    },
    /// The type is unknown.
    #[error("invalid message type {got:#04x}")]
    Type {
        /// The type received.
        got: u8,
    },
    /// The checksum does not match the bytes.
    #[error("CRC checksum mismatch: the frame says {got:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// The checksum received.
        got: u32,
        /// The checksum of the bytes received.
        computed: u32,
    },
}

/// A valid header, the first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the frame.
    pub kind: FrameType,
    /// Bytes of its payload.
    pub payload_bytes: usize,
}

impl Header {
    /// Parses the header that `received` begins with, as far as it has arrived. Returns `None` if
    /// it needs more bytes.
    ///
    /// # Errors
    /// [`FrameError`] at the first invalid byte, even if the header is incomplete.
    #[inline]
    pub fn parse(received: &[u8]) -> Result<Option<Header>, FrameError> {
        let Some(&[m0, m1, m2, m3, version, kind, high, low]) = received.first_chunk() else {
            return Self::judge_prefix(received).map(|()| None);
        };
        if [m0, m1, m2, m3] != MAGIC || version != VERSION {
            return Self::judge_prefix(received).map(|()| None);
        }
        let kind = FrameType::from_byte(kind).ok_or(FrameError::Type { got: kind })?;
        Ok(Some(Header { kind, payload_bytes: usize::from(u16::from_be_bytes([high, low])) }))
    }

    #[cold]
    fn judge_prefix(received: &[u8]) -> Result<(), FrameError> {
        for (at, (&got, expected)) in received.iter().zip(MAGIC).enumerate() {
            if got != expected {
                return Err(FrameError::Magic { at, got });
            }
        }
        match received.get(4) {
            Some(&got) if got != VERSION => return Err(FrameError::Version { got }),
            _ => {}
        }
        match received.get(5) {
            Some(&got) if FrameType::from_byte(got).is_none() => Err(FrameError::Type { got }),
            _ => Ok(()),
        }
    }

    /// Size of the whole frame.
    #[inline]
    pub fn frame_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.payload_bytes
    }

    /// The frame that `received` begins with; `None` until all of it has arrived.
    ///
    /// # Errors
    /// [`FrameError::Crc`] if the checksum is wrong.
    #[inline]
    pub fn frame<'a>(&self, received: &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        let Some(bytes) = received.get(..self.frame_bytes()) else { return Ok(None) };
        let (covered, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
        let got = u32::from_be_bytes(crc.try_into().expect("four bytes"));
        let computed = crc32fast::hash(covered);
        if got != computed {
            return Err(FrameError::Crc { got, computed });
        }
        Ok(Some(Frame { kind: self.kind, payload: &covered[HEADER_BYTES..], bytes }))
    }
}

/// A whole frame within received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: FrameType,
    /// Its payload.
    pub payload: &'a [u8],
    /// The whole frame as received; a BROADCAST is forwarded unchanged.
    pub bytes: &'a [u8],
}

/// Decodes the frame that `received` begins with. Returns `None` if more bytes are needed.
///
/// # Errors
/// [`FrameError`] if the bytes are not a valid frame.
pub fn decode(received: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    match Header::parse(received)? {
        Some(header) => header.frame(received),
        None => Ok(None),
    }
}

/// Appends a frame whose payload is the concatenation of `parts`.
///
/// # Panics
/// Panics if the payload is longer than [`PAYLOAD_BYTES_MAX`]. Callers check payloads that they
/// take from outside.
#[inline]
pub fn encode(kind: FrameType, parts: &[&[u8]], out: &mut Vec<u8>) {
    let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u16::try_from(payload_bytes).expect("a payload of at most 65535 bytes");
    let begin = out.len();
    out.reserve(OVERHEAD_BYTES + payload_bytes);
    let [m0, m1, m2, m3] = MAGIC;
    let [high, low] = length.to_be_bytes();
    out.extend_from_slice(&[m0, m1, m2, m3, VERSION, kind as u8, high, low]);
    for part in parts {
        out.extend_from_slice(part);
    }
    let crc = crc32fast::hash(&out[begin..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
