"""Connects to whichever address of a host answers first, as RFC 8305 ("Happy Eyeballs") describes.

It resolves the name and opens the TCP connection; TLS and the protocol are up to the caller.
Without this, a first address that does not answer would cost a whole timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

# How long an address may stay silent before the next one is tried as well. RFC 8305, section 5.
ATTEMPT_DELAY_S: Final = 0.25

# SO_LINGER with a timeout of 0: close() resets the connection.
LINGER_RESET: Final = struct.pack("ii", 1, 0)

# Errors of this machine rather than of the server: there is no IPv6 here, for example.
_NOT_AVAILABLE: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH})
_IN_PROGRESS: Final = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK})

# A result of getaddrinfo: family, type, protocol, canonical name, address of the socket.
AddressInfo: TypeAlias = tuple[Any, Any, int, str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a host."""

    family: int
    protocol: int
    sockaddr: tuple[Any, ...]


class AddressRace:
    """Decides which address to try when. No I/O; the caller supplies the time.

    An attempt starts when the one before it has failed, or has been under way for ATTEMPT_DELAY_S.
    Attempts under way go on until one of them succeeds.
    """

    def __init__(self, found: Sequence[AddressInfo], now_s: float) -> None:
        self._left: Final = alternate_families(found)
        self._due_s = now_s
        self._errors: Final[list[tuple[Address, OSError]]] = []

    def next_due(self, now_s: float) -> Address | None:
        """The address whose attempt is to start now; None if none is due."""
        if not self._left or now_s < self._due_s:
            return None
        self._due_s = now_s + ATTEMPT_DELAY_S
        return self._left.pop(0)

    def wait_s(self, now_s: float) -> float:
        """The time until the next attempt is due; infinite if there is none left."""
        return max(self._due_s - now_s, 0.0) if self._left else math.inf

    def note_failure(self, address: Address, error: OSError, now_s: float) -> None:
        """Records a failed attempt; the next one is due at once."""
        self._errors.append((address, error))
        self._due_s = now_s

    def error(self) -> OSError:
        """Why all attempts failed."""
        telling = [one for one in self._errors if one[1].errno not in _NOT_AVAILABLE]
        failed = [(address, error.errno) for address, error in telling or self._errors]
        numbers = {number for _, number in failed}
        if len(numbers) == 1 and (number := numbers.pop()) is not None:
            # Of the class that belongs to the number, such as ConnectionRefusedError.
            return OSError(number, os.strerror(number))
        texts = [f"{address.sockaddr[0]}: {os.strerror(number or 0)}" for address, number in failed]
        return OSError("; ".join(texts) or "the host has no address")


def alternate_families(found: Sequence[AddressInfo]) -> list[Address]:
    """The addresses in the resolver's order, but with IPv6 and IPv4 in turn."""
    addresses = [Address(one[0], one[2], one[4]) for one in found]
    if not addresses:
        return []
    first = [one for one in addresses if one.family == addresses[0].family]
    others = [one for one in addresses if one.family != addresses[0].family]
    paired = min(len(first), len(others))
    mixed = [one for pair in zip(first, others, strict=False) for one in pair]
    return mixed + first[paired:] + others[paired:]


async def connect_async(host: str, port: int) -> socket.socket:
    """Connects on the running event loop; OSError or UnicodeError if that fails.

    It has no timeout. If it is cancelled, it closes all of its sockets.
    """
    loop = asyncio.get_running_loop()
    race = AddressRace(await _resolve(host, port), loop.time())
    under_way: dict[asyncio.Task[socket.socket], Address] = {}
    try:
        while True:
            while (address := race.next_due(loop.time())) is not None:
                under_way[loop.create_task(_attempt(address))] = address
            if not under_way:
                raise race.error()
            wait_s = race.wait_s(loop.time())
            ended, _ = await asyncio.wait(
                under_way,
                timeout=None if math.isinf(wait_s) else wait_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in ended:
                error = task.exception()
                if error is None:
                    del under_way[task]
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                race.note_failure(under_way.pop(task), error, loop.time())
    finally:
        for task in under_way:
            task.add_done_callback(_discard)
            task.cancel()


def connect_blocking(host: str, port: int, timeout_s: float | None) -> socket.socket:
    """Connects, and returns a non-blocking socket; TimeoutError after `timeout_s` in all.

    OSError or UnicodeError if it fails. Resolving the name does not count: it cannot be stopped.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    begun_s = time.monotonic()
    deadline_s = math.inf if timeout_s is None else begun_s + timeout_s
    race = AddressRace(found, begun_s)
    with selectors.DefaultSelector() as under_way:
        try:
            while True:
                _begin_due_attempts(race, under_way)
                if not under_way.get_map():
                    raise race.error()
                now_s = time.monotonic()
                if now_s >= deadline_s:
                    raise TimeoutError("timed out")
                wait_s = min(deadline_s - now_s, race.wait_s(now_s))
                for key, _ in under_way.select(None if math.isinf(wait_s) else wait_s):
                    under_way.unregister(key.fileobj)
                    if _succeeded(key, race):
                        return cast(socket.socket, key.fileobj)
        finally:
            for key in list(under_way.get_map().values()):
                cast(socket.socket, key.fileobj).close()


def _begin_due_attempts(race: AddressRace, under_way: selectors.BaseSelector) -> None:
    """Starts the attempts that are due; the selector tells when each is decided."""
    while (address := race.next_due(time.monotonic())) is not None:
        try:
            sock = _new_socket(address)
            number = sock.connect_ex(address.sockaddr)
            if number not in _IN_PROGRESS:
                sock.close()
                raise OSError(number, os.strerror(number))
        except OSError as error:
            race.note_failure(address, error, time.monotonic())
        else:
            under_way.register(sock, selectors.EVENT_WRITE, address)


def _succeeded(key: selectors.SelectorKey, race: AddressRace) -> bool:
    """Whether an attempt that is decided has succeeded; if not, notes why."""
    sock = cast(socket.socket, key.fileobj)
    try:
        _check_connected(sock)
    except OSError as error:
        sock.close()
        race.note_failure(key.data, error, time.monotonic())
        return False
    return True


async def _resolve(host: str, port: int) -> Sequence[AddressInfo]:
    """The addresses of a host. An address needs neither a resolver nor a thread."""
    with contextlib.suppress(socket.gaierror):
        flags = socket.AI_NUMERICHOST
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _attempt(address: Address) -> socket.socket:
    sock = _new_socket(address)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
        _check_connected(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """Closes what an attempt opened although another one had won."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _new_socket(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
    sock.setblocking(False)
    return sock


def _check_connected(sock: socket.socket) -> None:
    """OSError if the attempt failed, or met itself.

    If nobody listens on a local port of the ephemeral range, the kernel may assign that same port
    to the client, which is then connected to itself.
    """
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number != 0:
        raise OSError(number, os.strerror(number))
    met_itself = False
    with contextlib.suppress(OSError):
        met_itself = sock.getsockname() == sock.getpeername()
    if met_itself:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the socket connected to itself")
