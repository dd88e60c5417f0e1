"""The client's end of a TLS connection over a blocking socket; its SSLContext says whom to trust.

It has those methods of a socket that a sender needs. An `ssl.SSLSocket` would not do: to end a
stream, its `unwrap` has to be called, which takes the alert of a server that refuses the client for
an ordinary end. With TLS 1.3, a refused client certificate is reported in no other way.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from typing import Any, Final

_RECEIVE_BYTES: Final = 65_536
# What one record of TLS carries.
_RECORD_BYTES: Final = 16_384


class TlsSocket:
    """Encrypts what is sent. After a TimeoutError, each method can be called again."""

    def __init__(
        self, plain: socket.socket, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._plain: Final = plain
        self._incoming: Final = ssl.MemoryBIO()
        self._outgoing: Final = ssl.MemoryBIO()
        self._tls: Final = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        # Encrypted bytes that the kernel has not taken yet.
        self._unsent = memoryview(b"")
        # How much of the data of an unfinished `send` they are.
        self._encrypted_bytes = 0
        self._ending = False

    def handshake(self, deadline_s: float) -> None:
        """Verifies the server; OSError if that fails, TimeoutError at `deadline_s`.

        With TLS 1.3, the server verifies the client later.
        """
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0:
                raise TimeoutError("timed out")
            self._plain.settimeout(None if math.isinf(left_s) else left_s)
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError:
                # The alert that says why.
                with contextlib.suppress(OSError):
                    self._flush()
                raise

    def send(self, data: bytes | memoryview) -> int:
        """Encrypts and sends up to one record of TLS; returns how many bytes of `data` that is.

        After a TimeoutError, it has to be called with the same data.
        """
        if self._encrypted_bytes == 0:
            self._encrypted_bytes = self._tls.write(memoryview(data)[:_RECORD_BYTES])
        self._flush()
        count, self._encrypted_bytes = self._encrypted_bytes, 0
        return count

    def shutdown(self, _how: int) -> None:
        """Says that no more is sent. What the server has sent can still be received."""
        if not self._ending:
            self._ending = True
            # It wants to read the same of the server, which `recv` does.
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        self._flush()

    def recv(self, bytes_max: int) -> bytes:
        """Receives; empty after the end, with or without a close_notify of the server."""
        while True:
            try:
                return self._tls.read(bytes_max)
            except ssl.SSLWantReadError:
                self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def settimeout(self, timeout_s: float | None) -> None:
        """As of a socket."""
        self._plain.settimeout(timeout_s)

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """As of a socket."""
        self._plain.setsockopt(level, option, value)

    def getsockname(self) -> Any:
        """As of a socket."""
        return self._plain.getsockname()

    def fileno(self) -> int:
        """As of a socket."""
        return self._plain.fileno()

    def close(self) -> None:
        """Closes the socket; without `shutdown`, the server sees a stream that was cut."""
        self._plain.close()

    def _flush(self) -> None:
        if self._outgoing.pending > 0:
            self._unsent = memoryview(bytes(self._unsent) + self._outgoing.read())
        while self._unsent:
            self._unsent = self._unsent[self._plain.send(self._unsent) :]

    def _receive(self) -> None:
        if received := self._plain.recv(_RECEIVE_BYTES):
            self._incoming.write(received)
        else:
            self._incoming.write_eof()
