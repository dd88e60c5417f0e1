//! The receiving side of one message connection: reads, decrypts, and keeps bytes until they have
//! been parsed. It does not parse them.
//!
//! A quiet client has a small window. One that fills it gets a large window, a registered one if
//! any is free, but only while it has bytes in it: between reads it holds none, and waits until the
//! socket is readable before it takes another.

use super::peer::Peer;
use crate::config::{MESSAGE_WINDOW_BYTES, SMALL_WINDOW_BYTES};
use crate::engine::memory::account::MemoryShare;
use crate::engine::memory::held::HeldBytes;
use crate::runtime::records::transport::ReadError;
use crate::runtime::ring::{self, Buffers, ReadBuffer, TcpStream};
use crate::runtime::tls::session::TlsError;
use crate::wire::messages::frame::FRAME_BYTES_MAX;
use crate::wire::records::window::Window;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

// The longest frame fits.
const _: () = assert!(FRAME_BYTES_MAX <= MESSAGE_WINDOW_BYTES);

/// A large window is given up after this many reads in a row that a small one could have held.
const QUIET_READS: u8 = 8;

/// Received bytes that have not been parsed.
pub(crate) struct Input {
    stream: Rc<TcpStream>,
    buffer: ReadBuffer,
    window: Window,
    large: bool,
    quiet_reads: u8,
    /// Decrypted bytes, if the connection is encrypted; the window is not used then.
    plain: Vec<u8>,
    plain_done: usize,
    /// Whether the peer has sent TLS close_notify.
    peer_closed: bool,
    /// Why TLS has failed, in a read that also brought [`bytes`](Self::bytes).
    failed: Option<TlsError>,
    /// Whether the peer has sent anything.
    touched: bool,
    /// What a large window takes, or decrypted bytes.
    memory: HeldBytes,
}

impl Input {
    /// With nothing received yet.
    pub(crate) fn new(stream: Rc<TcpStream>, encrypted: bool) -> Self {
        let window_bytes = if encrypted { 0 } else { SMALL_WINDOW_BYTES };
        Input {
            stream,
            buffer: ReadBuffer::Plain(vec![0; window_bytes]),
            window: Window::new(window_bytes),
            large: false,
            quiet_reads: 0,
            plain: Vec::new(),
            plain_done: 0,
            peer_closed: false,
            failed: None,
            touched: false,
            memory: HeldBytes::default(),
        }
    }

    /// Counts what it takes beyond a small window as part of `share`.
    pub(crate) fn count_in(mut self, share: &Arc<MemoryShare>) -> Self {
        self.memory = HeldBytes::of(share);
        self
    }

    /// Whether the peer has sent anything yet.
    pub(crate) fn touched(&self) -> bool {
        self.touched
    }

    /// The bytes received but not [consumed](Self::consume) yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.plain.is_empty() {
            true => &self.buffer[self.window.unparsed()],
            false => &self.plain[self.plain_done..],
        }
    }

    /// Removes the first `bytes` of [`bytes`](Self::bytes).
    pub(crate) fn consume(&mut self, bytes: usize) {
        if !self.plain.is_empty() {
            self.plain_done += bytes;
        } else {
            self.window.parse(bytes);
            self.window.consume_parsed();
        }
    }

    /// Whether TLS has failed, so that nothing can be sent any more. What was received before is in
    /// [`bytes`](Self::bytes), and the next [`read`](Self::read) returns the error.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Waits for more bytes; returns how many were read from the socket, 0 at its end.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(crate) async fn read(
        &mut self,
        buffers: &Buffers,
        peer: &Rc<Peer>,
    ) -> Result<usize, ReadError> {
        if peer.tls.is_some() {
            return self.read_encrypted(peer).await;
        }
        self.make_room(buffers).await?;
        let buffer = std::mem::take(&mut self.buffer);
        let free = self.window.free();
        let room = free.len();
        let (read, buffer) = ring::read(&self.stream, buffer, free).await;
        self.buffer = buffer;
        let bytes = read?;
        self.touched |= bytes > 0;
        self.window.fill(bytes);
        self.choose_size(bytes, room);
        Ok(bytes)
    }

    /// Decides whether the next window is large.
    fn choose_size(&mut self, bytes: usize, room: usize) {
        if !self.large {
            self.large = bytes == room;
        } else if bytes <= SMALL_WINDOW_BYTES / 2 {
            self.quiet_reads = self.quiet_reads.saturating_add(1);
            self.large = self.quiet_reads < QUIET_READS;
        } else {
            self.quiet_reads = 0;
        }
        self.memory.set(if self.large { MESSAGE_WINDOW_BYTES } else { 0 });
    }

    /// Ensures that there is a window with room, sized by the client's recent reads.
    async fn make_room(&mut self, buffers: &Buffers) -> io::Result<()> {
        self.window.compact(&mut self.buffer);
        let waiting = self.window.unparsed().len();
        if waiting == 0 && self.large {
            // A client that sent a lot and is quiet now holds no window.
            self.replace(ReadBuffer::default());
            ring::readable(&self.stream).await?;
            self.replace(buffers.take_at_least(MESSAGE_WINDOW_BYTES));
        } else if self.large && self.buffer.len() <= SMALL_WINDOW_BYTES {
            self.replace(buffers.take_at_least(MESSAGE_WINDOW_BYTES));
        } else if waiting == 0 && self.buffer.len() != SMALL_WINDOW_BYTES {
            self.quiet_reads = 0;
            self.replace(ReadBuffer::Plain(vec![0; SMALL_WINDOW_BYTES]));
        }
        Ok(())
    }

    /// Switches to another window and copies the unparsed bytes. Of a larger buffer it uses as much
    /// as [`MESSAGE_WINDOW_BYTES`]: the messages of one read are answered without a pause.
    fn replace(&mut self, mut buffer: ReadBuffer) {
        let waiting = self.bytes().len();
        buffer[..waiting].copy_from_slice(self.bytes());
        self.window = Window::new(buffer.len().min(MESSAGE_WINDOW_BYTES));
        self.window.fill(waiting);
        self.buffer = buffer;
    }

    /// Reads and decrypts, and sends what TLS itself needs to send.
    async fn read_encrypted(&mut self, peer: &Rc<Peer>) -> Result<usize, ReadError> {
        let tls = peer.tls.as_ref().expect("an encrypted connection");
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        if self.peer_closed {
            // Whatever else may arrive on the socket does not matter.
            return Ok(0);
        }
        self.plain.drain(..self.plain_done);
        self.plain_done = 0;
        if self.plain.is_empty() {
            self.plain = Vec::new();
        }
        let (incoming, free) = tls.borrow_mut().take_incoming();
        let (read, incoming) = ring::read(&self.stream, ReadBuffer::Plain(incoming), free).await;
        let ReadBuffer::Plain(incoming) = incoming else { unreachable!("plain memory was given") };
        let bytes = *read.as_ref().unwrap_or(&0);
        tls.borrow_mut().give_back(incoming, bytes);
        self.touched |= bytes > 0;
        read?;
        let mut out = peer.peers().take_scratch();
        let processed =
            tls.borrow_mut().process(&mut out, &mut |plain| self.plain.extend_from_slice(plain));
        peer.send_sealed(&out);
        peer.peers().put_scratch(out);
        self.memory.set(self.plain.capacity().next_multiple_of(SMALL_WINDOW_BYTES));
        match processed {
            Ok(progress) => self.peer_closed = progress.peer_closed,
            Err(error) if self.bytes().is_empty() => return Err(error.into()),
            // Messages before the error are processed, as they would be if they had come in an
            // earlier read.
            Err(error) => self.failed = Some(error),
        }
        // Bytes received before close_notify must still be answered.
        Ok(if self.peer_closed && self.plain.is_empty() { 0 } else { bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// However large the windows of record streams are: the messages of one read are answered
    /// without a pause, and memory for them is counted as [`MESSAGE_WINDOW_BYTES`].
    #[test]
    fn a_large_window_is_not_larger_than_messages_need() {
        ring::runtime().unwrap().block_on(async {
            let buffers = [Buffers::plain(4 << 10), Buffers::register(1, 16 << 20).unwrap()];
            for buffers in buffers {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let mut peer =
                    std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                peer.write_all(b"more").unwrap();
                let stream = Rc::new(TcpStream::from_std(listener.accept().unwrap().0));
                let mut input = Input::new(stream, false);
                input.large = true;
                input.make_room(&buffers).await.unwrap();
                assert_eq!(input.window.free(), 0..MESSAGE_WINDOW_BYTES);
                assert!(input.buffer.len() >= MESSAGE_WINDOW_BYTES);
            }
        });
    }
}
