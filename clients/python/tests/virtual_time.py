"""An event loop whose clock jumps to the next timer, and whose connections stay in memory.

A test that waits an hour takes no time, and how busy the machine is cannot change its outcome.
Servers and connections that are made on this loop send nothing over the network.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

# Virtual seconds after which a test has failed.
PATIENCE_S = 1e6

T = TypeVar("T")


def run_in_virtual_time(scenario: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine on such a loop; connections of the client use its clock."""

    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE_S):
            return await scenario

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        clock = SimpleNamespace(monotonic=runner.get_loop().time, time_ns=time.time_ns)
        with mock.patch("ringest.connection.time", clock):
            return runner.run(bounded())


def virtual_loop() -> VirtualLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; ports are only keys of `_factories`, and names those of `addresses`.

    An address in `silent` never answers. `dialled` has all addresses that were tried, and when.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._factories: dict[int, Callable[[], asyncio.Protocol]] = {}
        self._ports: dict[socket.socket, int] = {}
        self.addresses: dict[str, list[str]] = {}
        self.silent: set[str] = set()
        self.dialled: list[tuple[float, str]] = []
        # The bytes per second that connections made from now on transport; None: no limit.
        self.bytes_per_s: float | None = None
        selector: Any = self._selector  # type: ignore[attr-defined]
        poll = selector.select

        def select(timeout: float | None = None) -> Any:
            # Only threads can make something happen by itself, and these tests have none.
            assert timeout is not None, "everything waits, and no timer is set"
            self._now_s += timeout
            return poll(0)

        selector.select = select

    def time(self) -> float:
        return self._now_s

    async def create_server(self, protocol_factory: Any, *_address: Any, **_options: Any) -> Any:
        port = len(self._factories) + 1
        self._factories[port] = protocol_factory
        return MemoryServer(port, lambda: self._factories.pop(port, None))

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        found = (socket.getaddrinfo(one, port, **options) for one in self.addresses[host])
        return [info for infos in found for info in infos]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        host, port = address[:2]
        self.dialled.append((self._now_s, host))
        if host in self.silent:
            await asyncio.Event().wait()
        if port not in self._factories:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {host}:{port}")
        self._ports[sock] = port

    async def create_connection(
        self, protocol_factory: Any, *_address: Any, sock: Any = None, **_options: Any
    ) -> Any:
        client = MemoryTransport(self, protocol_factory(), sock)
        server = MemoryTransport(self, self._factories[self._ports.pop(sock)]())
        client.connect(server)
        server.connect(client)
        return client, client.get_protocol()


class MemoryServer:
    """As much of an asyncio.Server as the tests use."""

    def __init__(self, port: int, close: Callable[[], object]) -> None:
        self.sockets = [SimpleNamespace(getsockname=lambda: ("127.0.0.1", port))]
        self.close = close


class MemoryTransport(asyncio.Transport):
    """One end of a connection; bytes reach the other end in the next turn of the loop."""

    def __init__(
        self, loop: VirtualLoop, protocol: asyncio.Protocol, sock: socket.socket | None = None
    ) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: Any = protocol
        self._socket = sock
        self._bytes_per_s = loop.bytes_per_s
        self._buffered = 0
        self._idle_s = 0.0
        self._closing = False
        self._other: MemoryTransport

    def connect(self, other: MemoryTransport) -> None:
        """Connects both ends; each needs this call."""
        self._other = other
        self._protocol.connection_made(self)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if self._closing:
            return
        if self._bytes_per_s is None:
            self._loop.call_soon(self._other._receive, bytes(data))
            return
        # One after another: each takes its time from the end of the one before.
        self._buffered += len(data)
        self._idle_s = max(self._idle_s, self._loop.time()) + len(data) / self._bytes_per_s
        self._loop.call_at(self._idle_s, self._deliver, bytes(data))

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)
            self._loop.call_soon(self._other._receive_end)
            if self._socket is not None:
                self._socket.close()

    def abort(self) -> None:
        self.close()

    def _deliver(self, data: bytes) -> None:
        self._buffered -= len(data)
        self._other._receive(data)

    def _receive(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def _receive_end(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()
