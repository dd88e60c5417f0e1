//! The io_uring of a worker and the memory that its reads land in: knows no protocol and keeps no
//! cursor.
//!
//! Who owns what the kernel may write to: a [`ReadBuffer`] is moved into [`read`] and comes back
//! with the completion, so nobody can touch it in between. A registered buffer goes back to its
//! pool when it is dropped; the pool is held by the ring's driver until the ring is gone, so the
//! memory outlives every operation on it.

use crate::config::RING_ENTRIES;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};
use tokio_uring::net::TcpStream;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

pub(crate) use io_uring::types::Timespec;

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
pub(crate) fn out_of_memory(error: &io::Error) -> bool {
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

    /// The same, of at least `bytes`.
    pub fn take_at_least(&self, bytes: usize) -> ReadBuffer {
        match self.buffer_bytes >= bytes {
            true => self.take(),
            false => ReadBuffer::Plain(vec![0; bytes]),
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
    stream: &Rc<TcpStream>,
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
            let (result, buffer) = receive(stream, buffer, free).await;
            (result, ReadBuffer::Plain(buffer))
        }
    }
}

/// Reads by recv(2), which asks less of the kernel than a read of any file does.
async fn receive(
    stream: &Rc<TcpStream>,
    mut buffer: Vec<u8>,
    free: Range<usize>,
) -> (io::Result<usize>, Vec<u8>) {
    let fd = io_uring::types::Fd(stream.as_raw_fd());
    let free = &mut buffer[free];
    // A longer window is merely not filled at once.
    let length = u32::try_from(free.len()).unwrap_or(u32::MAX);
    let entry = io_uring::opcode::Recv::new(fd, free.as_mut_ptr(), length).build();
    // SAFETY: the kernel writes to `length` initialised bytes of the vector's heap memory, which
    // moves along with the vector into what is kept; nobody else has the vector. The descriptor is
    // that of the stream, and a share of the stream is kept.
    unsafe { submit((Rc::clone(stream), buffer), RecvOutcome, entry) }.await
}

/// Hands an operation to the ring of this thread, the only way in for those that tokio-uring has
/// no method for. The future gives `kept` to `outcome` once the kernel is done. If it is dropped
/// before, the driver keeps `kept` until then.
///
/// # Safety
/// The kernel uses what `entry` names until the operation is done, however long that takes and
/// whatever becomes of the future. The caller vouches that
///
/// * each pointer in `entry` leads into memory that `kept` owns and that stays where it is when
///   `kept` is moved, and the length that goes with it is within that memory;
/// * nothing but the kernel writes to that memory while `kept` lives, and where the kernel writes,
///   nothing else reads;
/// * memory that the kernel writes to may hold any bytes;
/// * `kept` keeps the descriptor in `entry` open, so that it names no other file.
///
/// # Panics
/// Where this thread runs no ring.
unsafe fn submit<K: 'static, T: OneshotOutputTransform<StoredData = K>>(
    kept: K,
    outcome: T,
    entry: io_uring::squeue::Entry,
) -> InFlightOneshot<K, T> {
    UnsubmittedOneshot::new(kept, outcome, entry).submit()
}

/// The descriptor of a stream, for system calls that go past the ring.
pub(crate) fn socket(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the stream that is borrowed here.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// Gives the buffer back that an operation read into.
struct RecvOutcome;

impl OneshotOutputTransform for RecvOutcome {
    type Output = (io::Result<usize>, Vec<u8>);
    type StoredData = (Rc<TcpStream>, Vec<u8>);

    fn transform_oneshot_output(
        self,
        (_stream, buffer): Self::StoredData,
        entry: io_uring::cqueue::Entry,
    ) -> Self::Output {
        let result = entry.result();
        (usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)), buffer)
    }
}

/// Hands the kernel what it takes at once of `slices`, and gives how many bytes that was: a reply
/// that fits into the socket's buffer is on its way before the next connection is looked at.
///
/// # Errors
/// Those of sendmsg(2) and send(2). A full buffer is none: it takes 0 bytes.
pub(crate) fn send_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = socket(stream);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let sent = match slices {
            // Cheaper for the kernel: there is no list of slices to be copied and checked.
            [one] => send(fd, one, flags),
            _ => sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), flags),
        };
        match sent {
            Ok(bytes) => return Ok(bytes),
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives the result of an operation and lets go of the stream that it was made on.
struct Done;

impl OneshotOutputTransform for Done {
    type Output = io::Result<i32>;
    type StoredData = Rc<TcpStream>;

    fn transform_oneshot_output(
        self,
        _stream: Rc<TcpStream>,
        entry: io_uring::cqueue::Entry,
    ) -> io::Result<i32> {
        match entry.result() {
            result @ 0.. => Ok(result),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }
}

/// Events of poll(2); POLLERR and POLLHUP are always reported.
const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;

/// Waits until the socket has bytes or its end to read, or is broken. Needs no buffer.
///
/// # Errors
/// Those of the ring.
pub(crate) async fn readable(stream: &Rc<TcpStream>) -> io::Result<()> {
    poll(stream, POLLIN).await
}

/// Waits until the socket takes bytes again, or is broken.
///
/// # Errors
/// Those of the ring.
pub(crate) async fn writable(stream: &Rc<TcpStream>) -> io::Result<()> {
    poll(stream, POLLOUT).await
}

async fn poll(stream: &Rc<TcpStream>, events: u32) -> io::Result<()> {
    let fd = io_uring::types::Fd(stream.as_raw_fd());
    let entry = io_uring::opcode::PollAdd::new(fd, events).build();
    // SAFETY: there is no pointer. The descriptor is that of the stream, a share of which is kept.
    unsafe { submit(Rc::clone(stream), Done, entry) }.await.map(drop)
}

/// Waits for a time, to the precision of the kernel's timers where tokio's have that of a
/// millisecond. Takes the memory that the kernel reads the time from and gives it back, so that who
/// sleeps often allocates once. The future must be run to its end.
pub(crate) async fn sleep(mut time: Box<Timespec>, duration: Duration) -> Box<Timespec> {
    *time = Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos());
    let entry = io_uring::opcode::Timeout::new(&raw const *time).build();
    // SAFETY: the kernel reads one time, in the box's memory, which stays where it is and which
    // nobody else has. There is no descriptor.
    unsafe { submit(time, Slept, entry) }.await
}

/// Gives the memory back that a time stands in; that it is over is the only thing to be said.
struct Slept;

impl OneshotOutputTransform for Slept {
    type Output = Box<Timespec>;
    type StoredData = Box<Timespec>;

    fn transform_oneshot_output(
        self,
        time: Box<Timespec>,
        _entry: io_uring::cqueue::Entry,
    ) -> Box<Timespec> {
        time
    }
}

/// Lets the ring and the other tasks go on. Not a mere yield: the ring submits only when the
/// thread has nothing else to do, so a task that yields in a loop would keep every other waiting.
pub(crate) async fn pause() {
    // The operation does nothing and cannot fail in a way that matters.
    let _ = tokio_uring::no_op().await;
}
