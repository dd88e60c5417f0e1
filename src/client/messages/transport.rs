//! Carries bytes over a non-blocking socket, with or without TLS. Never waits, and does not
//! interpret the bytes.

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, InvalidMessage};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// TLS for a client's connections.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The TLS configuration; see [`client_config`](super::tls::client_config).
    pub config: Arc<ClientConfig>,
    /// Host name or IP address that the server's certificate must be valid for.
    pub server_name: ServerName<'static>,
}

/// Resolves a host name to its addresses; there is at least one.
///
/// # Errors
/// A sentence for the user if the host cannot be resolved or has no address.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let name = host.escape_default();
    let resolved = (host, port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = resolved
        .map_err(|error| format!("cannot resolve {name}: {error}; is the name spelled right?"))?
        .collect();
    if addresses.is_empty() { Err(format!("{name} has no address")) } else { Ok(addresses) }
}

/// One connection to a server.
#[derive(Debug)]
pub struct ClientTransport {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl ClientTransport {
    /// Wraps a socket that is connected or connecting.
    ///
    /// # Errors
    /// If TLS rejects the server name or the configuration.
    pub fn new(stream: TcpStream, tls: Option<&ClientTls>) -> Result<Self, rustls::Error> {
        let tls = match tls {
            Some(ClientTls { config, server_name }) => {
                let connection = ClientConnection::new(Arc::clone(config), server_name.clone())?;
                Some(Box::new(connection))
            }
            None => None,
        };
        Ok(ClientTransport { stream, tls })
    }

    /// Whether the socket is connected yet. Sets `TCP_NODELAY` once it is.
    ///
    /// # Errors
    /// The reason why connecting failed.
    pub fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => self.stream.set_nodelay(true).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Advances the TLS handshake, if there is one. Returns whether it is complete; if not, call it
    /// again when the socket becomes readable or writable.
    ///
    /// # Errors
    /// Errors of the socket; `InvalidData` if the peer violates TLS or is not trusted.
    pub fn handshake(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        loop {
            let flushed = flush(tls, &mut self.stream)?;
            if !tls.is_handshaking() {
                return Ok(flushed);
            }
            match take_in(tls, &mut self.stream) {
                Ok(0) => return Err(explain_handshake(ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(explain_handshake(error)),
            }
        }
    }

    /// Reads available bytes into `buffer` and returns their number; 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is available; errors of the socket; `InvalidData` if the peer
    /// violates TLS.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return retry(|| self.stream.read(buffer)) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The peer closed without close_notify; truncation shows in its frames.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            take_in(tls, &mut self.stream)?;
            // TLS may have to reply itself, for example to a key update.
            flush(tls, &mut self.stream)?;
        }
    }

    /// Whether a read that returned `read` bytes for `buffer` has surely emptied the socket. If
    /// not, only the next read can tell.
    #[inline]
    pub fn drained(&self, read: usize, buffer: &[u8]) -> bool {
        self.tls.is_none() && read < buffer.len()
    }

    /// Writes as many of `bytes` as fit and returns their number. With TLS, some of them may stay
    /// buffered until [`flush`](Self::flush).
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; errors of the socket.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return retry(|| self.stream.write(bytes)) };
        let flushed = flush(tls, &mut self.stream)?;
        let written = tls.writer().write(bytes)?;
        if written == 0 && !flushed && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        flush(tls, &mut self.stream)?;
        Ok(written)
    }

    /// Writes the bytes that TLS has buffered. Returns whether none are left.
    ///
    /// # Errors
    /// Errors of the socket.
    pub fn flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => flush(tls, &mut self.stream),
            None => Ok(true),
        }
    }
}

impl Source for ClientTransport {
    fn register(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.stream.register(to, token, interest)
    }

    fn reregister(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.stream.reregister(to, token, interest)
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        self.stream.deregister(from)
    }
}

/// The error of a TLS handshake, with what it means where it does not say so itself: the server
/// ends the connection, or answers with something else than TLS.
pub(crate) fn explain_handshake(error: io::Error) -> io::Error {
    let meaning = match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the server closed the connection during the TLS handshake; it may have no free \
             connection (serve --max-connections), or not use TLS"
        }
        ErrorKind::InvalidData if is_no_tls(&error) => {
            "the server does not use TLS: its answer to the handshake is something else; drop \
             --tls, or check the port"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), meaning)
}

/// Whether bytes were received that are no record of TLS.
fn is_no_tls(error: &io::Error) -> bool {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(
        of_tls,
        Some(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
        ))
    )
}

/// Retries a call interrupted by a signal, so that it does not look like a broken connection.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Reads from the socket into TLS. Returns the number of bytes.
fn take_in(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<usize> {
    let read = retry(|| tls.read_tls(stream))?;
    if let Err(error) = tls.process_new_packets() {
        // Sends the alert to the peer; it makes no difference whether that succeeds.
        let _ = flush(tls, stream);
        return Err(io::Error::new(ErrorKind::InvalidData, error));
    }
    Ok(read)
}

/// Writes the bytes that TLS has buffered. Returns whether none are left.
fn flush(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        match retry(|| tls.write_tls(stream)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
