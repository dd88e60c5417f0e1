//! The operations on a worker's io_uring, and the buffers for its reads. Knows no protocol and
//! keeps no cursors.
//!
//! Ownership of memory that the kernel may write to: a [`ReadBuffer`] is moved into [`read`] and
//! comes back with the completion, so no one else can access it meanwhile. A registered buffer
//! returns to its pool when dropped; the ring's driver holds the pool until the ring is gone, so
//! the memory outlives every operation on it.

use crate::config::{RING_ENTRIES, RING_PATIENCE};
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
        /// How many bytes.
        bytes: usize,
        /// The system's error.
        source: io::Error,
    },
    /// The system lets a ring be created, but not used.
    #[error("cannot use an io_uring: {call} fails: {source}")]
    Refused {
        /// The system call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// An operation does not come back.
    #[error("cannot use an io_uring: an operation did not complete within {RING_PATIENCE:?}")]
    Silent,
}

/// Whether the system's error is ENOMEM.
pub(crate) fn out_of_memory(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOMEM)
}

/// Creates a runtime with a ring. Call this on the thread that will use it, because the ring
/// accepts submissions from one thread only.
///
/// # Errors
/// `RingError::Create` with the system's error; `RingError::Refused` if the ring could be created
/// but not used.
pub fn runtime() -> Result<tokio_uring::Runtime, RingError> {
    let mut flags = tokio_uring::uring_builder();
    // Only one thread submits, so the kernel can skip locking. Completions wait for our next
    // system call instead of interrupting us. (Not DEFER_TASKRUN: the driver waits with epoll, and
    // deferred completions would never arrive.)
    flags.setup_single_issuer().setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&flags);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(RingError::Create)?;
    check_enter().map_err(|source| RingError::Refused { call: "io_uring_enter", source })?;
    Ok(runtime)
}

/// Whether this process may submit operations: a filter can allow `io_uring_setup` and forbid the
/// call after it. tokio-uring ignores that error, so operations would never complete, and a driver
/// that has begun one cannot even be dropped.
fn check_enter() -> io::Result<()> {
    let nothing: libc::c_long = 0;
    // SAFETY: the call gets no pointer, and -1 is not a descriptor: the kernel returns an error
    // before it looks at anything else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            -1 as libc::c_long,
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
        )
    };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // What the kernel itself says to such a descriptor.
        Some(libc::EBADF) => Ok(()),
        _ if result >= 0 => Ok(()),
        _ => Err(error),
    }
}

/// Lets the ring of the current runtime do an operation, to see whether it works.
///
/// # Errors
/// `RingError::Refused` or, if nothing happens, `RingError::Silent`.
pub(crate) async fn prove() -> Result<(), RingError> {
    match tokio::time::timeout(RING_PATIENCE, tokio_uring::no_op()).await {
        Ok(done) => done.map_err(|source| RingError::Refused { call: "a ring's NOP", source }),
        Err(_) => Err(RingError::Silent),
    }
}

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

/// Reads into the buffer's range `free`; 0 bytes mean the end of the stream. The future must run to
/// completion: to end it early, `cancel` it or shut down the socket's reading side.
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

/// Reads with recv(2), which costs the kernel less than a generic file read.
async fn receive(
    stream: &Rc<TcpStream>,
    mut buffer: Vec<u8>,
    free: Range<usize>,
) -> (io::Result<usize>, Vec<u8>) {
    let fd = io_uring::types::Fd(stream.as_raw_fd());
    let free = &mut buffer[free];
    // A longer window is just not filled by one read.
    let length = u32::try_from(free.len()).unwrap_or(u32::MAX);
    let entry = io_uring::opcode::Recv::new(fd, free.as_mut_ptr(), length).build();
    // SAFETY: the kernel writes to `length` initialised bytes of the vector's heap memory, which
    // does not move when the vector is moved into `kept`; no one else has the vector. The
    // descriptor belongs to the stream, and `kept` holds a reference to the stream.
    unsafe { submit((Rc::clone(stream), buffer), RecvOutcome, entry) }.await
}

/// Submits an operation to this thread's ring. All operations that tokio-uring has no method for go
/// through here. Once the kernel is done, the future passes `kept` to `outcome`. If the future is
/// dropped before that, the driver keeps `kept` until the kernel is done.
///
/// # Safety
/// The kernel uses what `entry` refers to until the operation completes, however long that takes
/// and even if the future is dropped. The caller must ensure that
///
/// * each pointer in `entry` points into memory that `kept` owns and that does not move when
///   `kept` is moved, and the length that goes with it stays within that memory;
/// * only the kernel writes to that memory while `kept` lives, and nothing else reads what the
///   kernel writes;
/// * memory that the kernel writes to may hold any bytes;
/// * `kept` keeps the descriptor in `entry` open, so that it cannot refer to another file.
///
/// # Panics
/// If this thread runs no ring.
unsafe fn submit<K: 'static, T: OneshotOutputTransform<StoredData = K>>(
    kept: K,
    outcome: T,
    entry: io_uring::squeue::Entry,
) -> InFlightOneshot<K, T> {
    UnsubmittedOneshot::new(kept, outcome, entry).submit()
}

/// The descriptor of a stream, for system calls that bypass the ring.
pub(crate) fn socket(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the descriptor stays open while the stream is borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// Returns the buffer that an operation read into.
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

/// Sends as much of `slices` as the kernel accepts without blocking, and returns how many bytes
/// that was. A reply that fits into the socket's buffer is sent before the worker turns to another
/// connection.
///
/// # Errors
/// Those of sendmsg(2) and send(2). A full buffer is not an error; it returns 0.
pub(crate) fn send_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = socket(stream);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let sent = match slices {
            // Cheaper: the kernel has no list of slices to copy and check.
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

/// Returns the result of an operation and releases its stream.
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

/// Events of poll(2). POLLERR and POLLHUP are always reported.
const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;

/// Waits until the socket has bytes to read, has reached its end, or is broken. Needs no buffer.
///
/// # Errors
/// Those of the ring.
pub(crate) async fn readable(stream: &Rc<TcpStream>) -> io::Result<()> {
    poll(stream, POLLIN).await
}

/// Waits until the socket accepts bytes again, or is broken.
///
/// # Errors
/// Those of the ring.
pub(crate) async fn writable(stream: &Rc<TcpStream>) -> io::Result<()> {
    poll(stream, POLLOUT).await
}

async fn poll(stream: &Rc<TcpStream>, events: u32) -> io::Result<()> {
    let fd = io_uring::types::Fd(stream.as_raw_fd());
    let entry = io_uring::opcode::PollAdd::new(fd, events).build();
    // SAFETY: there is no pointer. The descriptor belongs to the stream, which is kept.
    unsafe { submit(Rc::clone(stream), Done, entry) }.await.map(drop)
}

/// Ends the operations on a socket that are under way, as if each had failed with ECANCELED, and
/// leaves the socket as it is. An operation that begins later is not affected.
pub(crate) fn cancel(stream: &Rc<TcpStream>) {
    let fd = io_uring::types::Fd(stream.as_raw_fd());
    let all = io_uring::types::CancelBuilder::fd(fd).all();
    let entry = io_uring::opcode::AsyncCancel2::new(all).build();
    // SAFETY: there is no pointer. The descriptor belongs to the stream, which is kept.
    let cancelled = unsafe { submit(Rc::clone(stream), Done, entry) };
    // Fails if nothing was under way. Dropping the future does not withdraw the operation.
    drop(cancelled);
}

/// Whether an operation ended because of [`cancel`].
pub(crate) fn is_cancelled(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::CANCELED)
}

/// Sleeps with the precision of the kernel's timers; tokio's timers are only precise to a
/// millisecond. Takes the memory from which the kernel reads the duration and returns it, so that a
/// loop that sleeps allocates only once. The future must run to completion.
pub(crate) async fn sleep(mut time: Box<Timespec>, duration: Duration) -> Box<Timespec> {
    *time = Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos());
    let entry = io_uring::opcode::Timeout::new(&raw const *time).build();
    // SAFETY: the kernel reads one Timespec from the box's memory, which does not move and which no
    // one else has. There is no descriptor.
    unsafe { submit(time, Slept, entry) }.await
}

/// Returns the memory of the duration; the operation has no other result.
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

/// Lets the ring and the other tasks run. A plain yield is not enough: the ring submits only when
/// the thread has nothing else to do, so a task that yields in a loop would block all others.
pub(crate) async fn pause() {
    // The operation does nothing and cannot fail in a way that matters.
    let _ = tokio_uring::no_op().await;
}
