//! A blocking connection to an engine's record port, with or without TLS. Interprets no records.

use super::answer::OtherServer;
use crate::client::messages::transport::{ClientTls, explain_handshake};
use crate::wire::text::counted;
use rustix::net::sockopt::set_tcp_congestion;
use rustls::ClientConnection;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long connecting may take, and each step of a TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the engine may take to close after the end of a stream, before it is left alone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that tell what kind of server sent it.
const ANSWER_BYTES: usize = 16;

/// Why a stream could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection could not be made.
    #[error("cannot connect to {address}: {source}; is an engine listening there?")]
    Connect {
        /// The engine's address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The kernel does not have this congestion control.
    #[error(
        "cannot use --congestion {name}: {source}; \
         this kernel's algorithms are in /proc/sys/net/ipv4/tcp_available_congestion_control"
    )]
    Congestion {
        /// The requested name.
        name: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// There is no TLS with the engine.
    #[error(
        "TLS with {address} failed: {source}; is that the record port of an engine with \
         --records-tls, and does it trust this certificate?"
    )]
    Tls {
        /// The engine's address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Another kind of server listens there, or the engine uses TLS.
    #[error("the server at {address} {server}")]
    Answered {
        /// The server's address.
        address: SocketAddr,
        /// What it is.
        server: OtherServer,
    },
    /// A write failed, as it does once the engine has closed the connection.
    #[error(
        "the connection to {address} broke after {}: {source}; the engine's result and log give \
         the reason",
        counted(.records, "record")
    )]
    Write {
        /// The engine's address.
        address: SocketAddr,
        /// Records in the writes that succeeded.
        records: u64,
        /// The operating system's error.
        source: io::Error,
    },
}

impl SendError {
    /// The error of a stream that was being written or closed when `source` came.
    pub(super) fn of_stream(address: SocketAddr, records: u64, source: io::Error) -> Self {
        match OtherServer::in_error(&source) {
            Some(server) => SendError::Answered { address, server },
            None => SendError::Write { address, records, source },
        }
    }
}

/// A connection that streams are written to.
pub(crate) struct RecordSocket {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl RecordSocket {
    /// Connects with `TCP_NODELAY` and makes the TLS handshake. Returns the connection and its
    /// local address.
    ///
    /// # Errors
    /// [`SendError`], apart from `Answered` and `Write`.
    pub(crate) fn connect(
        address: SocketAddr,
        congestion: Option<&str>,
        tls: Option<&ClientTls>,
    ) -> Result<(Self, SocketAddr), SendError> {
        let refused = |source| SendError::Connect { address, source };
        let (stream, local) = connect_plain(address).map_err(refused)?;
        if let Some(name) = congestion {
            set_tcp_congestion(&stream, name).map_err(|error| SendError::Congestion {
                name: name.escape_default().to_string(),
                source: error.into(),
            })?;
        }
        let mut socket = RecordSocket { stream, tls: None };
        if let Some(tls) = tls {
            socket.shake_hands(tls).map_err(|source| SendError::Tls { address, source })?;
        }
        Ok((socket, local))
    }

    fn shake_hands(&mut self, tls: &ClientTls) -> io::Result<()> {
        let connection = ClientConnection::new(Arc::clone(&tls.config), tls.server_name.clone());
        let mut connection = Box::new(connection.map_err(io::Error::other)?);
        self.stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut self.stream).map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
                _ => explain_handshake(error),
            })?;
        }
        self.tls = Some(connection);
        Ok(())
    }

    /// Ends the stream, and waits until the engine has closed: only then is it known whether
    /// something else listens there, or the engine gave the stream up or refuses the client's
    /// certificate. Besides, a TLS socket that is closed with unread bytes would reset the
    /// connection and destroy what the engine has not read. Returns when the stream had been sent.
    ///
    /// # Errors
    /// Those of the socket, the engine's alert, or an [`OtherServer`].
    pub(crate) fn close(mut self) -> io::Result<Instant> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.write_out()?;
        }
        self.stream.shutdown(Shutdown::Write).map_err(|error| self.cause(error))?;
        let sent = Instant::now();
        self.stream.set_read_timeout(Some(CLOSE_TIMEOUT))?;
        match &mut self.tls {
            Some(tls) => read_to_end(tls, &mut self.stream)?,
            None => expect_end(&mut self.stream)?,
        }
        Ok(sent)
    }

    /// Writes what TLS has buffered.
    fn write_out(&mut self) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cause(error)),
            }
        }
        Ok(())
    }

    /// What the server sent, if that explains why a write failed, and otherwise the error itself.
    #[cold]
    fn cause(&mut self, error: io::Error) -> io::Error {
        if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) {
            return error;
        }
        // What has arrived is all that will.
        let _ = self.stream.set_nonblocking(true);
        let explained = match &mut self.tls {
            Some(tls) => read_to_end(tls, &mut self.stream),
            None => expect_end(&mut self.stream),
        };
        match explained {
            Err(answer) if answer.kind() == ErrorKind::InvalidData => answer,
            // To shut down a connection that was reset fails without a word about that.
            Err(reset) if error.kind() == ErrorKind::NotConnected => reset,
            _ => error,
        }
    }
}

/// Waits until the engine closes, which it does without a word.
fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; ANSWER_BYTES];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => return Err(OtherServer::of(&answer[..bytes]).into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It takes long: what was written is with the kernel.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Takes in what the engine sends, which is nothing but TLS itself: tickets and alerts.
fn read_to_end(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        match tls.read_tls(stream) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // It takes long: what was written is with the kernel.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let state = tls.process_new_packets();
        let state = state.map_err(|alert| io::Error::new(ErrorKind::InvalidData, alert))?;
        if state.plaintext_bytes_to_read() > 0 {
            tls.reader().read_exact(&mut vec![0; state.plaintext_bytes_to_read()])?;
        }
    }
}

fn connect_plain(address: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok((stream, local))
}

impl RecordSocket {
    /// Hands bytes to TLS by `give`, which returns how many it took, and writes what comes of them.
    fn write_encrypted(
        &mut self,
        give: impl FnOnce(&mut ClientConnection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let tls = self.tls.as_mut().expect("called with TLS");
        let written = give(tls)?;
        self.write_out()?;
        Ok(written)
    }
}

impl Write for RecordSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.stream.write(bytes).map_err(|error| self.cause(error));
        }
        self.write_encrypted(|tls| tls.writer().write(bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.stream.write_vectored(pieces).map_err(|error| self.cause(error));
        }
        self.write_encrypted(|tls| tls.writer().write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
