//! Reads a record connection's socket, with or without TLS. Does not parse records, and sends only
//! what TLS itself needs to send.

use crate::runtime::clock;
use crate::runtime::connection::deadlines::Control;
use crate::runtime::ring::{self, ReadBuffer, TcpStream};
use crate::runtime::tls::session::{Tls, TlsError};
use rustls::ServerConfig;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The source of a connection's bytes: plain TCP or TLS.
pub(crate) struct RecordTransport {
    stream: Rc<TcpStream>,
    encrypted: Option<Box<Encrypted>>,
}

struct Encrypted {
    tls: Tls,
    /// Decrypted bytes that did not fit into the reader's buffer, and how many it has taken since.
    plain: Vec<u8>,
    taken: usize,
    peer_closed: bool,
    /// An error whose read also brought plaintext, until that has been taken.
    failed: Option<TlsError>,
    /// Ends a write that makes no progress, after this time.
    control: Rc<Control>,
    write_timeout: Duration,
    /// Whether the peer has sent anything.
    touched: bool,
}

impl RecordTransport {
    /// Reads `stream`, with TLS if a configuration is given. A peer that does not read what TLS
    /// sends is cut after `write_timeout`.
    ///
    /// # Errors
    /// If TLS cannot be started.
    pub(crate) fn new(
        stream: Rc<TcpStream>,
        tls: Option<Arc<ServerConfig>>,
        control: &Rc<Control>,
        write_timeout: Duration,
    ) -> Result<Self, TlsError> {
        let encrypted = tls.map(|config| {
            Ok(Box::new(Encrypted {
                tls: Tls::accept(config)?,
                plain: Vec::new(),
                taken: 0,
                peer_closed: false,
                touched: false,
                failed: None,
                control: Rc::clone(control),
                write_timeout,
            }))
        });
        Ok(RecordTransport { stream, encrypted: encrypted.transpose()? })
    }

    /// Whether the connection uses TLS.
    pub(crate) fn encrypted(&self) -> bool {
        self.encrypted.is_some()
    }

    /// Whether the TLS handshake is still in progress.
    pub(crate) fn handshaking(&self) -> bool {
        self.encrypted.as_ref().is_some_and(|encrypted| encrypted.tls.handshaking())
    }

    /// Whether the connection uses TLS and its peer has not sent close_notify: the stream's end may
    /// then be forged.
    pub(crate) fn may_be_cut(&self) -> bool {
        self.encrypted.as_ref().is_some_and(|encrypted| !encrypted.peer_closed)
    }

    /// Whether the TLS handshake is still in progress, and the peer has sent something of it.
    pub(crate) fn in_handshake(&self) -> bool {
        self.handshaking() && self.encrypted.as_ref().is_some_and(|encrypted| encrypted.touched)
    }

    /// Whether a part of a TLS record has arrived and waits for its rest.
    pub(crate) fn in_record(&self) -> bool {
        self.encrypted.as_ref().is_some_and(|encrypted| encrypted.tls.in_record())
    }

    /// Reads into the buffer's range `free`; 0 bytes mean the end of the stream, `None` that only
    /// TLS's own messages arrived. The future must run to completion.
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
    /// Reads the socket at most once: a peer could send empty TLS records forever, and the caller
    /// must be able to check deadlines in between.
    async fn read(
        &mut self,
        stream: &Rc<TcpStream>,
        free: &mut [u8],
    ) -> Result<Option<usize>, ReadError> {
        if self.taken == self.plain.len() {
            self.plain.clear();
            self.taken = 0;
            if self.failed.is_none() && (self.peer_closed || !self.read_records(stream).await?) {
                return Ok(Some(0));
            }
            if self.plain.is_empty() {
                return match self.failed.take() {
                    Some(error) => Err(error.into()),
                    None => Ok(if self.peer_closed { Some(0) } else { None }),
                };
            }
        }
        let bytes = free.len().min(self.plain.len() - self.taken);
        free[..bytes].copy_from_slice(&self.plain[self.taken..self.taken + bytes]);
        self.taken += bytes;
        Ok(Some(bytes))
    }

    /// Reads the socket once and decrypts; false at its end.
    async fn read_records(&mut self, stream: &Rc<TcpStream>) -> Result<bool, ReadError> {
        let (incoming, free) = self.tls.take_incoming();
        let (read, incoming) = ring::read(stream, ReadBuffer::Plain(incoming), free).await;
        let ReadBuffer::Plain(incoming) = incoming else { unreachable!("plain memory was given") };
        let bytes = *read.as_ref().unwrap_or(&0);
        self.tls.give_back(incoming, bytes);
        self.touched |= bytes > 0;
        read?;
        let mut out = Vec::new();
        let progress = self.tls.process(&mut out, &mut |bytes| self.plain.extend_from_slice(bytes));
        if progress.as_ref().is_ok_and(|progress| progress.peer_closed) {
            // Senders that close properly wait for the answer, and take its absence for an error.
            self.tls.close_notify(&mut out);
        }
        if !out.is_empty() {
            self.control.arm_write(Some(clock::now() + self.write_timeout));
            // Fails only if the peer is gone or was cut; the next read reports that.
            let _ = stream.write_all(out).await;
            self.control.arm_write(None);
        }
        match progress {
            Ok(progress) => self.peer_closed = progress.peer_closed,
            // What was decrypted before it counts, as it would if it had come in an earlier read.
            Err(error) => self.failed = Some(error),
        }
        Ok(bytes > 0)
    }
}
