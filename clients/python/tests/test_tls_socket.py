"""TlsSocket on a socket that takes a few bytes at a time, and often none in time."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from scripted import server_context

from ringest.tls_socket import TlsSocket

T = TypeVar("T")


class ServerInMemory:
    """The socket of a client, and the server behind it, which keeps what it decrypts."""

    def __init__(self, context: ssl.SSLContext, rng: random.Random) -> None:
        self.received = b""
        self.ended = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._accepted = False
        self._rng = rng

    def send(self, data: memoryview) -> int:
        if self._rng.random() < 0.3:
            raise TimeoutError("timed out")
        count = self._rng.randint(1, min(len(data), 3000))
        self._incoming.write(data[:count])
        with contextlib.suppress(ssl.SSLWantReadError):
            self._take()
        return count

    def _take(self) -> None:
        if not self._accepted:
            self._tls.do_handshake()
            self._accepted = True
        try:
            while data := self._tls.read(1 << 16):
                self.received += data
        except ssl.SSLZeroReturnError:
            pass
        self.ended = True
        self._tls.unwrap()

    def recv(self, bytes_max: int) -> bytes:
        if self._rng.random() < 0.3 or self._outgoing.pending == 0:
            raise TimeoutError("timed out")
        return self._outgoing.read(self._rng.randint(1, bytes_max))

    def settimeout(self, timeout_s: float | None) -> None:
        assert timeout_s is None or timeout_s > 0.0


def again_and_again(call: Callable[[], T]) -> T:
    """Calls it until it is done in time."""
    while True:
        with contextlib.suppress(TimeoutError):
            return call()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_sent_arrives_once(
    seed: int, version: ssl.TLSVersion, certificate: tuple[Path, Path]
) -> None:
    rng = random.Random(seed)
    context = server_context(certificate)
    context.maximum_version = version
    server = ServerInMemory(context, rng)
    trusting = ssl.create_default_context(cafile=certificate[0])
    own = TlsSocket(cast(socket.socket, server), trusting, "localhost")
    again_and_again(lambda: own.handshake(math.inf))
    sent = rng.randbytes(rng.choice([0, 1, 16_384, 16_385, 100_000]))
    rest = memoryview(sent)
    while rest:
        rest = rest[again_and_again(lambda: own.send(rest)) :]  # noqa: B023
        # What it says to be sent is.
        assert len(server.received) == len(sent) - len(rest)
    again_and_again(lambda: own.shutdown(socket.SHUT_WR))
    assert again_and_again(lambda: own.recv(64)) == b""
    assert server.received == sent
    assert server.ended


def test_a_handshake_ends_at_its_deadline(certificate: tuple[Path, Path]) -> None:
    server: Any = ServerInMemory(server_context(certificate), random.Random(1))
    own = TlsSocket(server, ssl.create_default_context(), "localhost")
    with pytest.raises(TimeoutError):
        own.handshake(0.0)
