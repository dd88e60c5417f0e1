//! The io_uring of a worker and the memory that its reads land in: knows no protocol and keeps no
//! cursor.
//!
//! Who owns what the kernel may write to: a [`ReadBuffer`] is moved into [`read`] and comes back
//! with the completion, so nobody can touch it in between. A registered buffer goes back to its
//! pool when it is dropped; the pool is held by the ring's driver until the ring is gone, so the
//! memory outlives every operation on it.

use crate::config::RING_ENTRIES;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};
use tokio_uring::net::TcpStream;

/// Why a worker has no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `io_uring_setup` failed.
    #[error("cannot create an io_uring: {0}")]
    Create(#[source] io::Error),
    /// The windows could not be registered with the ring.
    #[error("cannot register {bytes} bytes of receive windows with an io_uring: {source}")]
    Register {
        /// Bytes that were to be registered.
        bytes: usize,
        /// The system's error.
        source: io::Error,
    },
}

/// Whether the system's error is ENOMEM.
pub fn out_of_memory(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOMEM)
}

/// A runtime with a ring, to be made on the thread that will use it: the ring serves one issuer.
///
/// # Errors
/// [`RingError::Create`] with the system's error.
pub fn runtime() -> Result<tokio_uring::Runtime, RingError> {
    let mut flags = tokio_uring::uring_builder();
    // One thread submits, so the kernel can skip its locks; completions wait for our next call
    // instead of interrupting us. (Not DEFER_TASKRUN: the driver waits by epoll, and deferred
    // completions would never come.)
    flags.setup_single_issuer().setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&flags);
    tokio_uring::Runtime::new(&builder).map_err(RingError::Create)
}

/// The registered windows of one worker.
pub struct Buffers {
    registered: Option<FixedBufPool<Vec<u8>>>,
    buffer_bytes: usize,
}

impl Buffers {
    /// Registers `count` windows of `buffer_bytes` with the ring of the running runtime, before
    /// any other operation.
    ///
    /// # Errors
    /// [`RingError::Register`] with the system's error.
    pub fn register(count: usize, buffer_bytes: usize) -> Result<Self, RingError> {
        let registered = (count > 0).then(|| {
            // Each made by itself: a clone of a vector with spare capacity would lose it.
            FixedBufPool::new((0..count).map(|_| vec![0; buffer_bytes]))
        });
        if let Some(pool) = &registered {
            let bytes = count * buffer_bytes;
            pool.register().map_err(|source| RingError::Register { bytes, source })?;
        }
        Ok(Buffers { registered, buffer_bytes })
    }

    /// No registered windows: every connection reads into plain memory.
    pub fn plain(buffer_bytes: usize) -> Self {
        Buffers { registered: None, buffer_bytes }
    }

    /// A registered window, or plain memory of the same size where all are taken.
    pub fn take(&self) -> ReadBuffer {
        let free = self.registered.as_ref().and_then(|pool| pool.try_next(self.buffer_bytes));
        match free {
            Some(buffer) => ReadBuffer::Registered(buffer),
            None => ReadBuffer::Plain(vec![0; self.buffer_bytes]),
        }
    }
}

/// Memory that reads land in. All of it is initialised.
pub enum ReadBuffer {
    /// Registered with the ring.
    Registered(FixedBuf),
    /// Plain memory.
    Plain(Vec<u8>),
}

impl Default for ReadBuffer {
    /// No memory: what stands in a connection's place while a read has its buffer.
    fn default() -> Self {
        ReadBuffer::Plain(Vec::new())
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            ReadBuffer::Registered(buffer) => buffer,
            ReadBuffer::Plain(buffer) => buffer,
        }
    }
}

impl DerefMut for ReadBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            ReadBuffer::Registered(buffer) => buffer,
            ReadBuffer::Plain(buffer) => buffer,
        }
    }
}

/// Reads into `free` of the buffer; 0 bytes mean the end of the stream. The future must be run to
/// its end: to stop it, shut the socket's reading side down.
pub async fn read(
    stream: &TcpStream,
    buffer: ReadBuffer,
    free: Range<usize>,
) -> (io::Result<usize>, ReadBuffer) {
    // A read of no bytes would look like the end of the stream.
    assert!(!free.is_empty(), "a window may never be full");
    match buffer {
        ReadBuffer::Registered(buffer) => {
            let (result, slice) = stream.read_fixed(buffer.slice(free)).await;
            (result, ReadBuffer::Registered(slice.into_inner()))
        }
        ReadBuffer::Plain(buffer) => {
            let (result, slice) = stream.read(buffer.slice(free)).await;
            (result, ReadBuffer::Plain(slice.into_inner()))
        }
    }
}
