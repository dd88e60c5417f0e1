"""An event loop whose clock jumps to the next timer, and whose connections stay in memory.

A test that waits an hour takes no time, and how busy the machine is cannot change its outcome.
Servers and connections that are made on this loop need no sockets.
"""

from __future__ import annotations

import asyncio
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


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; ports are only keys of `_factories`."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._factories: dict[int, Callable[[], asyncio.Protocol]] = {}
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

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **_options: Any
    ) -> Any:
        if port not in self._factories:
            raise ConnectionRefusedError(f"nobody listens on {host}:{port}")
        client = MemoryTransport(self, protocol_factory())
        server = MemoryTransport(self, self._factories[port]())
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

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: Any = protocol
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
        if not self._closing:
            self._loop.call_soon(self._other._receive, bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)
            self._loop.call_soon(self._other._receive_end)

    def abort(self) -> None:
        self.close()

    def _receive(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def _receive_end(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()
