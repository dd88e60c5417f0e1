//! Frames of the message protocol, built and read in the plainest way, and a client that speaks
//! them over any stream.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

pub const PING: u8 = 0x01;
pub const PONG: u8 = 0x02;
pub const ECHO: u8 = 0x03;
pub const ECHO_REPLY: u8 = 0x04;
pub const BROADCAST: u8 = 0x05;
pub const AUTH: u8 = 0x06;
pub const AUTH_REPLY: u8 = 0x07;
pub const DATA: u8 = 0x08;
pub const DATA_ACK: u8 = 0x09;
pub const CLOSE: u8 = 0x0A;
pub const ERROR: u8 = 0xFF;

pub const UNKNOWN: u8 = 0x00;
pub const INVALID_MAGIC: u8 = 0x01;
pub const INVALID_VERSION: u8 = 0x02;
pub const INVALID_MESSAGE_TYPE: u8 = 0x03;
pub const PAYLOAD_TOO_LARGE: u8 = 0x04;
pub const CRC_MISMATCH: u8 = 0x05;
pub const AUTHENTICATION_FAILED: u8 = 0x06;
pub const RATE_LIMIT_EXCEEDED: u8 = 0x07;
pub const CONNECTION_LIMIT_EXCEEDED: u8 = 0x08;
pub const TIMEOUT: u8 = 0x09;
pub const INTERNAL_ERROR: u8 = 0xFF;

/// The polynomial of the protocol, as reflected CRCs write it.
pub const IEEE: u32 = 0xEDB8_8320;

/// A reflected CRC-32 with any polynomial, bit by bit.
pub fn crc_with(polynomial: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ IEEE } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The CRC-32 of the protocol.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize])
}

/// Header and payload, without a checksum.
pub fn unchecked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a payload that fits");
    let mut bytes = vec![0xDE, 0xAD, 0xBE, 0xEF, 1, kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The same with the checksum that belongs to it.
pub fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32(&bytes);
    bytes.extend(crc.to_be_bytes());
    bytes
}

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    seal(unchecked(kind, payload))
}

pub fn auth(user: &str, token: &str) -> Vec<u8> {
    frame(AUTH, &[&[user.len() as u8], user.as_bytes(), token.as_bytes()].concat())
}

pub fn data(sequence: u32, body: &[u8]) -> Vec<u8> {
    frame(DATA, &[&sequence.to_be_bytes(), body].concat())
}

pub fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of an ERROR, which says something in words, too.
    pub fn error_code(&self) -> u8 {
        assert_eq!(self.kind, ERROR, "{self:?}");
        let words = std::str::from_utf8(&self.payload[1..]).expect("text");
        assert!(!words.is_empty() && !words.contains(char::is_control), "{words:?}");
        self.payload[0]
    }
}

/// A client that knows what frames look like and nothing else.
pub struct Client<S> {
    pub stream: S,
    received: Vec<u8>,
    read: usize,
}

impl Client<TcpStream> {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the engine accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        Client::over(stream)
    }

    /// Sends bytes and says that no more will come; the engine may have closed before it has them
    /// all.
    pub fn send_last(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Client { stream, received: Vec::new(), read: 0 }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the engine reads");
        self.stream.flush().expect("the engine reads");
    }

    /// The next frame; `None` at an orderly end.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            self.received.drain(..self.read);
            self.read = 0;
            let filled = self.received.len();
            self.received.resize(filled + (64 << 10), 0);
            let bytes = loop {
                match self.stream.read(&mut self.received[filled..]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read.expect("an answer, or an orderly end"),
                }
            };
            self.received.truncate(filled + bytes);
            if bytes == 0 {
                assert_eq!(filled, 0, "the end comes between two frames");
                return None;
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let bytes = &self.received[self.read..];
        let header = bytes.get(..8)?;
        assert_eq!(header[..5], [0xDE, 0xAD, 0xBE, 0xEF, 1], "{header:x?}");
        let end = 8 + usize::from(u16::from_be_bytes([header[6], header[7]]));
        let crc = bytes.get(end..end + 4)?;
        assert_eq!(crc, crc32(&bytes[..end]).to_be_bytes());
        let frame = Frame { kind: header[5], payload: bytes[8..end].to_vec() };
        self.read += end + 4;
        Some(frame)
    }

    pub fn expect(&mut self, kind: u8, payload: &[u8]) {
        let frame = self.next().expect("a frame");
        assert_eq!((frame.kind, frame.payload.len()), (kind, payload.len()), "{frame:?}");
        assert_eq!(frame.payload, payload);
    }

    pub fn expect_error(&mut self, code: u8) {
        let frame = self.next().expect("an ERROR");
        assert_eq!(frame.error_code(), code, "{frame:?}");
    }

    pub fn expect_end(&mut self) {
        assert_eq!(self.next(), None);
    }

    /// PINGs and gets its PONG.
    pub fn ping(&mut self, number: u64) {
        self.send(&frame(PING, &number.to_be_bytes()));
        self.expect(PONG, &number.to_be_bytes());
    }

    /// The same where broadcasts of others may come in between.
    pub fn ping_amid_broadcasts(&mut self, number: u64) {
        self.send(&frame(PING, &number.to_be_bytes()));
        let reply = std::iter::from_fn(|| self.next()).find(|frame| frame.kind != BROADCAST);
        assert_eq!(reply, Some(Frame { kind: PONG, payload: number.to_be_bytes().to_vec() }));
    }

    /// Authenticates; gives the session's id.
    pub fn log_in(&mut self, user: &str, token: &str) -> String {
        self.send(&auth(user, token));
        let reply = self.next().expect("an answer");
        assert_eq!((reply.kind, reply.payload.first()), (AUTH_REPLY, Some(&1)), "{reply:?}");
        String::from_utf8(reply.payload[1..].to_vec()).expect("ASCII")
    }

    /// Everything until the orderly end.
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// The codes of frames that are all ERRORs.
pub fn error_codes(frames: &[Frame]) -> Vec<u8> {
    frames.iter().map(Frame::error_code).collect()
}

#[test]
fn the_check_value_of_the_checksum() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    assert_eq!(crc_with(IEEE, b"123456789"), 0xCBF4_3926);
}

/// Whether the engine has sent something.
pub fn is_told(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let told = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).unwrap();
    told
}
