//! How long ago a connection was established, as the kernel remembers it.
//!
//! None of std, rustix and socket2 supports TCP_INFO, so this calls the C library through `libc`.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Time since the handshake of a connection on which nothing has been sent yet: the kernel counts
/// the time since data was last sent, and starts with the handshake (`lsndtime` in
/// `tcp_create_openreq_child`). Zero if the kernel does not say.
pub(crate) fn age_unsent(socket: BorrowedFd<'_>) -> Duration {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed. Both pointers are to local variables
    // that live until the call returns; the kernel writes at most `length` bytes, which is the size
    // of the first, and keeps neither pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Duration::ZERO;
    }
    // SAFETY: it consists of integers, all of them zeroed or written by the kernel.
    let info = unsafe { info.assume_init() };
    Duration::from_millis(info.tcpi_last_data_sent.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::network::AGE_TICK;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn the_kernel_knows_how_long_a_connection_waited_to_be_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let begun = Instant::now();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connected = Instant::now();
        // What the peer sends, and when, does not matter.
        peer.write_all(b"x").unwrap();
        while connected.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        let at_least = connected.elapsed();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let age = age_unsent(stream.as_fd());
        assert!(at_least <= age + AGE_TICK && age <= begun.elapsed() + AGE_TICK, "{age:?}");
    }

    #[test]
    fn a_socket_that_is_no_connection_has_no_age() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(age_unsent(socket.as_fd()), Duration::ZERO);
    }
}
