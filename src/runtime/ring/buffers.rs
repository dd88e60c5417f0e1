//! The buffers for a worker's reads, registered with its ring or plain memory. Knows no protocol
//! and keeps no cursors.

use super::setup::RingError;
use std::ops::{Deref, DerefMut};
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};

/// The registered windows of one worker.
pub struct Buffers {
    registered: Option<FixedBufPool<Vec<u8>>>,
    buffer_bytes: usize,
}

impl Buffers {
    /// Registers `count` windows of `buffer_bytes` with the ring of the current runtime. This must
    /// be the ring's first operation.
    ///
    /// # Errors
    /// `RingError::Register` with the system's error.
    pub fn register(count: usize, buffer_bytes: usize) -> Result<Self, RingError> {
        let registered = (count > 0).then(|| {
            // Each is allocated separately: cloning a vector loses its spare capacity.
            FixedBufPool::new((0..count).map(|_| vec![0; buffer_bytes]))
        });
        if let Some(pool) = &registered {
            let bytes = count * buffer_bytes;
            pool.register().map_err(|source| RingError::Register { bytes, source })?;
        }
        Ok(Buffers { registered, buffer_bytes })
    }

    /// Registers no windows: every connection reads into plain memory.
    pub fn plain(buffer_bytes: usize) -> Self {
        Buffers { registered: None, buffer_bytes }
    }

    /// A registered window, or plain memory of the same size if all are taken.
    pub fn take(&self) -> ReadBuffer {
        let free = self.registered.as_ref().and_then(|pool| pool.try_next(self.buffer_bytes));
        match free {
            Some(buffer) => ReadBuffer::Registered(buffer),
            None => ReadBuffer::Plain(vec![0; self.buffer_bytes]),
        }
    }

    /// A registered window of at least `bytes`, or plain memory of exactly that size.
    pub fn take_at_least(&self, bytes: usize) -> ReadBuffer {
        match &self.registered {
            Some(pool) if self.buffer_bytes >= bytes => pool
                .try_next(self.buffer_bytes)
                .map_or_else(|| ReadBuffer::Plain(vec![0; bytes]), ReadBuffer::Registered),
            _ => ReadBuffer::Plain(vec![0; bytes]),
        }
    }
}

/// A buffer for reads, fully initialised.
pub enum ReadBuffer {
    /// Registered with the ring.
    Registered(FixedBuf),
    /// Plain memory.
    Plain(Vec<u8>),
}

impl Default for ReadBuffer {
    /// No memory: the placeholder while a read has a connection's buffer.
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
