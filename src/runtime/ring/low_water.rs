//! The low-water mark of a socket (SO_RCVLOWAT): sets it and keeps nothing.
//!
//! Neither std nor rustix nor socket2 knows this option, so the C library is called through `libc`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From now on the socket is readable once `bytes` bytes are there, at its end, or when the kernel
/// has no room for more. Who waits for a socket that is readable by the new mark is woken.
///
/// # Errors
/// That of setsockopt(2). It depends on the kind of socket and on no state of it, so a socket whose
/// mark was raised can be lowered.
pub(crate) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open while it is borrowed. The pointer is to a c_int that lives
    // until the call returns, the length is that of a c_int, and the kernel only reads it and keeps
    // no pointer.
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
