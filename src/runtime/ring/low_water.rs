//! The low-water mark of a socket (SO_RCVLOWAT): sets it and keeps nothing.
//!
//! Neither std nor rustix nor socket2 knows this option, so the C library is called directly.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Values of `asm/socket.h`; architectures where they differ are refused below.
const SOL_SOCKET: c_int = 1;
const SO_RCVLOWAT: c_int = 18;
const _: () = assert!(
    !cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "sparc",
        target_arch = "sparc64",
    )),
    "asm/socket.h of this architecture has other values: write them here first"
);

unsafe extern "C" {
    /// setsockopt(2), of the C library that std is linked with; `length` is a `socklen_t`.
    fn setsockopt(
        socket: c_int,
        level: c_int,
        name: c_int,
        value: *const c_void,
        length: u32,
    ) -> c_int;
}

/// From now on the socket is readable once `bytes` bytes are there, at its end, or when the kernel
/// has no room for more. Who waits for a socket that is readable by the new mark is woken.
///
/// # Errors
/// That of setsockopt(2). It depends on the kind of socket and on no state of it, so a socket whose
/// mark was raised can be lowered.
pub(crate) fn set_receive_low_water(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // SAFETY: the descriptor is open while it is borrowed. The pointer is to a c_int that lives
    // until the call returns, the length is that of a c_int, and the kernel only reads it and keeps
    // no pointer.
    let result = unsafe {
        let length = size_of::<c_int>() as u32;
        setsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_RCVLOWAT, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
