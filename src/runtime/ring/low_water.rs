//! Sets the low-water mark of a socket (SO_RCVLOWAT). Keeps no state.
//!
//! None of std, rustix and socket2 supports this option, so this calls the C library through
//! `libc`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes the socket readable only once it has `bytes` bytes, has reached its end, or the kernel has
/// no room for more. If the socket is readable under the new mark, anyone waiting for it is woken.
///
/// # Errors
/// That of setsockopt(2). It depends only on the kind of socket, not on its state, so a mark that
/// was raised can also be lowered.
pub(crate) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open while it is borrowed. The pointer is to a c_int that lives
    // until the call returns, and the length is that of a c_int. The kernel only reads it and does
    // not keep the pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
