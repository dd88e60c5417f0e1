"""How much of what was sent the other side has not acknowledged yet. It sends nothing."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

from ringest.tls_socket import TlsSocket

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ


def unacknowledged_bytes(sock: socket.socket | TlsSocket) -> int:
    """The bytes in the kernel's send queue: not sent, or not acknowledged. 0 where that is unknown.

    On a slow network this queue holds megabytes, which are still on their way although every send
    has returned. While it shrinks, the other side is alive.
    """
    queued = 0
    if sys.platform == "linux" and sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            (queued,) = struct.unpack("i", ioctl(sock, TIOCOUTQ, bytes(4)))
    return queued
