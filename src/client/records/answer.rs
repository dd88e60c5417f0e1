//! What a server must be that answers on a port for records: an engine never does. Reads no socket.

use crate::wire::messages::frame;
use std::io;

/// A server that is no engine's record port, or one that uses TLS. Its text says which, and what to
/// do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherServer {
    /// It sent a TLS alert: it expected a handshake and got records.
    #[error("uses TLS; add --tls with --ca FILE or, for a trial, with --insecure")]
    Tls,
    /// It sent a frame of the message protocol.
    #[error("is a message port; give the engine's record port with --records-port")]
    Messages,
    /// It sent a reply of HTTP.
    #[error(
        "speaks HTTP, as an engine's admin port does; give its record port with --records-port"
    )]
    Http,
    /// It sent something else.
    #[error("answered, which an engine never does on its record port; check --records-port")]
    Unknown,
}

impl OtherServer {
    /// The server whose answer begins with these bytes, of which there is at least one.
    pub(crate) fn of(answer: &[u8]) -> Self {
        // An alert in a record of TLS 1.0 to 1.3 (RFC 8446, 5.1).
        const TLS_ALERT: [u8; 2] = [0x15, 0x03];
        let begins = |with: &[u8]| answer.starts_with(&with[..with.len().min(answer.len())]);
        if begins(&TLS_ALERT) {
            OtherServer::Tls
        } else if begins(&frame::MAGIC) {
            OtherServer::Messages
        } else if begins(b"HTTP/") {
            OtherServer::Http
        } else {
            OtherServer::Unknown
        }
    }

    /// The server that this error is about, if it is about one.
    pub(crate) fn in_error(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<OtherServer> for io::Error {
    fn from(server: OtherServer) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_recognised_by_their_first_bytes() {
        for (answer, server) in [
            (&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x32][..], OtherServer::Tls),
            (&[0x15], OtherServer::Tls),
            (&[0x15, 0x04], OtherServer::Unknown),
            (&[0xde, 0xad, 0xbe, 0xef, 1, 0xff], OtherServer::Messages),
            (b"HTTP/1.1 400 Bad Request\r\n", OtherServer::Http),
            (b"HT", OtherServer::Http),
            (b"HTML", OtherServer::Unknown),
            (b"SSH-2.0-OpenSSH_9.6\r\n", OtherServer::Unknown),
        ] {
            assert_eq!(OtherServer::of(answer), server, "{answer:?}");
            let error = io::Error::from(server);
            assert_eq!(OtherServer::in_error(&error), Some(server));
        }
        assert_eq!(OtherServer::in_error(&io::ErrorKind::ConnectionReset.into()), None);
    }
}
