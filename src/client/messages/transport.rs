//! Bytes to and from a server over a non-blocking socket, with TLS or without: knows no message
//! and waits for nothing.

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// TLS of a client's connections.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Whom to believe; see [`client_config`](super::tls::client_config).
    pub config: Arc<ClientConfig>,
    /// Name or address that the server's certificate must be for.
    pub server_name: ServerName<'static>,
}

/// The addresses of a host.
///
/// # Errors
/// A sentence, where it has none.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let name = host.escape_default();
    let resolved = (host, port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = resolved
        .map_err(|error| format!("cannot resolve {name}: {error}; is the name spelled right?"))?
        .collect();
    if addresses.is_empty() { Err(format!("{name} has no address")) } else { Ok(addresses) }
}

/// One connection.
#[derive(Debug)]
pub struct ClientTransport {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl ClientTransport {
    /// Over a socket that is connected or being connected.
    ///
    /// # Errors
    /// What TLS does not like about the server's name.
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

    /// Whether the socket has been connected by now.
    ///
    /// # Errors
    /// Why it never will be.
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

    /// Goes on with the handshake, if there is one. Returns whether it is done; if not, it goes on
    /// when the socket becomes readable or writable.
    ///
    /// # Errors
    /// Those of the socket, `InvalidData` for a peer that does not speak TLS as it must.
    pub fn handshake(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        loop {
            let flushed = flush(tls, &mut self.stream)?;
            if !tls.is_handshaking() {
                return Ok(flushed);
            }
            match take_in(tls, &mut self.stream) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what has come. 0 means that no more will.
    ///
    /// # Errors
    /// `WouldBlock` where nothing has come; those of the socket and of TLS.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return retry(|| self.stream.read(buffer)) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A peer that closed without TLS's own farewell: its frames tell what is whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            take_in(tls, &mut self.stream)?;
            // Answers of TLS itself, such as to a key update.
            flush(tls, &mut self.stream)?;
        }
    }

    /// Whether there is nothing more to be read for now, since `read` filled so little of the
    /// buffer. Else the next read finds out.
    #[inline]
    pub fn drained(&self, read: usize, buffer: &[u8]) -> bool {
        self.tls.is_none() && read < buffer.len()
    }

    /// Writes what fits and returns how much that was. TLS may keep some of it: see
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// `WouldBlock` where nothing fits; those of the socket.
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

    /// Writes what TLS has kept. Returns whether nothing is left.
    ///
    /// # Errors
    /// Those of the socket.
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

/// A signal must not look like a broken connection.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Reads from the socket into TLS. Returns how many bytes.
fn take_in(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<usize> {
    let read = retry(|| tls.read_tls(stream))?;
    if let Err(error) = tls.process_new_packets() {
        // The alert that tells the peer; whether it arrives changes nothing.
        let _ = flush(tls, stream);
        return Err(io::Error::new(ErrorKind::InvalidData, error));
    }
    Ok(read)
}

/// Writes what TLS has to say. Returns whether nothing is left.
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
