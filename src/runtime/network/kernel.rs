//! Listeners and new connections of the kernel. Has a twin for simulations.

use super::age::age_unsent;
use socket2::SockRef;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::AsyncReadExt;

pub(crate) use std::net::{TcpListener as BoundListener, TcpStream as NewSocket};
pub(crate) use tokio::net::TcpListener as Listener;

/// A listener for the acceptor.
pub(crate) fn bound(listener: std::net::TcpListener) -> BoundListener {
    listener
}

/// Waits for a connection, and returns it as a plain socket: a worker registers it with its own
/// runtime.
///
/// # Errors
/// Those of accept(2).
pub(crate) async fn accept(listener: &Listener) -> io::Result<(NewSocket, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    Ok((stream.into_std()?, peer))
}

/// A connection that waits in the queue of a listener.
///
/// # Errors
/// Those of accept(2); `WouldBlock` if there is none.
pub(crate) fn accept_waiting(listener: &BoundListener) -> io::Result<(NewSocket, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}

/// How long ago a connection was established on which nothing has been sent.
pub(crate) fn age(stream: &NewSocket) -> Duration {
    age_unsent(stream.as_fd())
}

/// Whether the peer has closed or reset the connection, and had sent nothing.
pub(crate) fn closed_empty(stream: &NewSocket) -> bool {
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Makes the connection end in such a way that its peer sees an error, whatever it does next: a
/// sender that gets only the end of the stream may believe that its records have arrived.
pub(crate) fn reset_at_close(stream: &NewSocket) {
    // Fails only if the peer is gone.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sends a few bytes and the end of the stream.
pub(crate) fn say_last(stream: &NewSocket, bytes: &[u8]) {
    // Fails only if the client is gone: the bytes fit into an empty socket buffer.
    let _ = stream.set_nonblocking(true);
    let _ = (&*stream).write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
}

/// Reads and discards until the peer closes.
///
/// # Errors
/// Those of reading.
pub(crate) async fn drop_all(stream: NewSocket) -> io::Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let mut dropped = [0; 512];
    while stream.read(&mut dropped).await? > 0 {}
    Ok(())
}

/// Starts a task of the acceptor.
pub(crate) fn spawn_accepting(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
