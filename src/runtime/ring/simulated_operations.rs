//! Operations on the sockets of a simulation: the twin of what a ring does. No ring is involved.

use super::buffers::ReadBuffer;
use crate::runtime::world::{VirtualSleep, dice};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;

pub(crate) use crate::runtime::network::simulated::SimulatedSocket as TcpStream;

/// The memory of a duration, which nothing reads here.
#[derive(Default)]
pub(crate) struct Unused;

/// Starts a task.
pub(crate) fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(task)
}

/// Reads into the buffer's range `free`; 0 bytes mean the end of the stream.
pub async fn read(
    stream: &Rc<TcpStream>,
    mut buffer: ReadBuffer,
    free: Range<usize>,
) -> (io::Result<usize>, ReadBuffer) {
    assert!(!free.is_empty(), "a window may never be full");
    let read = stream.read(free.len()).await.map(|bytes| {
        buffer[free][..bytes.len()].copy_from_slice(&bytes);
        bytes.len()
    });
    (read, buffer)
}

/// Sends as much of `slices` as the network takes at once.
pub(crate) fn send_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    stream.send_now(&slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>())
}

/// Waits until the socket has bytes to read, has reached its end, or is broken.
pub(crate) async fn readable(stream: &Rc<TcpStream>) -> io::Result<()> {
    stream.readable().await
}

/// Waits until the socket accepts bytes again, or is broken.
pub(crate) async fn writable(stream: &Rc<TcpStream>) -> io::Result<()> {
    stream.writable().await
}

/// Ends the operations on a socket that are under way.
pub(crate) fn cancel(stream: &Rc<TcpStream>) {
    stream.cancel();
}

/// Sets how many bytes make the socket readable.
#[expect(clippy::unnecessary_wraps, reason = "as the system's")]
pub(crate) fn set_receive_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    stream.set_low_water(bytes);
    Ok(())
}

/// Whether there are no bytes that could be read.
pub(crate) fn has_nothing_to_read(stream: &TcpStream) -> bool {
    stream.unread() == 0
}

/// Sleeps.
pub(crate) async fn sleep(unused: Box<Unused>, duration: Duration) -> Box<Unused> {
    VirtualSleep::of(duration).await;
    unused
}

/// Lets the other tasks run, and sometimes time pass.
pub(crate) async fn pause() {
    if dice(|dice| dice.u8(..16)) == 0 {
        VirtualSleep::of(Duration::from_micros(dice(|dice| dice.u64(..500)))).await;
    }
    tokio::task::yield_now().await;
}
