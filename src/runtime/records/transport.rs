//! Reads a record connection's socket, decrypting where it is encrypted: understands no record
//! and sends nothing but what TLS itself has to say.

use crate::runtime::ring::{self, ReadBuffer};
use crate::runtime::tls::session::{Tls, TlsError};
use rustls::ServerConfig;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tokio_uring::net::TcpStream;

/// Why there is nothing more to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The way that a connection's bytes come.
pub(crate) struct RecordTransport {
    stream: Rc<TcpStream>,
    encrypted: Option<Box<Encrypted>>,
}

struct Encrypted {
    tls: Tls,
    /// Decrypted bytes that did not fit into the reader's buffer, and how many of them have gone.
    plain: Vec<u8>,
    taken: usize,
    peer_closed: bool,
}

impl RecordTransport {
    /// Reads `stream`, with TLS where a configuration is given.
    ///
    /// # Errors
    /// Where TLS cannot be begun.
    pub(crate) fn new(
        stream: Rc<TcpStream>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, TlsError> {
        let encrypted = tls.map(|config| {
            let tls = Tls::accept(config)?;
            Ok(Box::new(Encrypted { tls, plain: Vec::new(), taken: 0, peer_closed: false }))
        });
        Ok(RecordTransport { stream, encrypted: encrypted.transpose()? })
    }

    /// Whether what is read comes by way of TLS.
    pub(crate) fn encrypted(&self) -> bool {
        self.encrypted.is_some()
    }

    /// Whether nothing can come before TLS is agreed on.
    pub(crate) fn handshaking(&self) -> bool {
        self.encrypted.as_ref().is_some_and(|encrypted| encrypted.tls.handshaking())
    }

    /// Reads into `free` of the buffer; 0 bytes mean the end of the stream, `None` that only TLS
    /// had something to say. The future must be run to its end.
    pub(crate) async fn read(
        &mut self,
        buffer: ReadBuffer,
        free: Range<usize>,
    ) -> (Result<Option<usize>, ReadError>, ReadBuffer) {
        match &mut self.encrypted {
            None => {
                let (read, buffer) = ring::read(&self.stream, buffer, free).await;
                (read.map(Some).map_err(ReadError::Io), buffer)
            }
            Some(encrypted) => {
                let mut buffer = buffer;
                let read = encrypted.read(&self.stream, &mut buffer[free]).await;
                (read, buffer)
            }
        }
    }
}

impl Encrypted {
    /// Reads the socket at most once: a peer may send records without content for ever, and whoever
    /// watches over the connection wants to have a say in between.
    async fn read(
        &mut self,
        stream: &Rc<TcpStream>,
        free: &mut [u8],
    ) -> Result<Option<usize>, ReadError> {
        if self.taken == self.plain.len() {
            self.plain.clear();
            self.taken = 0;
            if self.peer_closed || !self.read_records(stream).await? {
                return Ok(Some(0));
            }
            if self.plain.is_empty() {
                return Ok(if self.peer_closed { Some(0) } else { None });
            }
        }
        let bytes = free.len().min(self.plain.len() - self.taken);
        free[..bytes].copy_from_slice(&self.plain[self.taken..self.taken + bytes]);
        self.taken += bytes;
        Ok(Some(bytes))
    }

    /// One read of the socket, decrypted; false at its end.
    async fn read_records(&mut self, stream: &Rc<TcpStream>) -> Result<bool, ReadError> {
        let (incoming, free) = self.tls.take_incoming();
        let (read, incoming) = ring::read(stream, ReadBuffer::Plain(incoming), free).await;
        let ReadBuffer::Plain(incoming) = incoming else { unreachable!("plain memory was given") };
        let bytes = *read.as_ref().unwrap_or(&0);
        self.tls.give_back(incoming, bytes);
        read?;
        let mut out = Vec::new();
        let progress = self.tls.process(&mut out, &mut |bytes| self.plain.extend_from_slice(bytes));
        if !out.is_empty() {
            // Fails where the peer is gone; the next read says so.
            let _ = stream.write_all(out).await;
        }
        self.peer_closed = progress?.peer_closed;
        Ok(bytes > 0)
    }
}
