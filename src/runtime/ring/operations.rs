//! The operations on the sockets of a worker's io_uring. Knows no protocol and keeps no cursors.
//! Has a twin for simulations.
//!
//! Ownership of memory that the kernel may write to: a [`ReadBuffer`] is moved into [`read`] and
//! comes back with the completion, so no one else can access it meanwhile. A registered buffer
//! returns to its pool when dropped; the ring's driver holds the pool until the ring is gone, so
//! the memory outlives every operation on it.

use super::buffers::ReadBuffer;
use super::low_water;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

pub(crate) use io_uring::types::Timespec;
pub(crate) use tokio_uring::net::TcpStream;
pub(crate) use tokio_uring::spawn;

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
fn socket(stream: &TcpStream) -> BorrowedFd<'_> {
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

/// Sets how many bytes make the socket readable; see [`low_water`].
///
/// # Errors
/// That of setsockopt(2).
pub(crate) fn set_receive_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    low_water::set_receive_low_water(socket(stream), bytes)
}

/// Whether the kernel surely has no bytes of the socket that could be read.
pub(crate) fn has_nothing_to_read(stream: &TcpStream) -> bool {
    rustix::io::ioctl_fionread(socket(stream)).is_ok_and(|bytes| bytes == 0)
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
