"""A server scripted by a test. It shares no code with the client under test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

PING, PONG, ECHO, ECHO_REPLY, BROADCAST, AUTH, AUTH_REPLY, DATA, DATA_ACK, CLOSE = range(1, 11)
ERROR = 0xFF
UNAUTHENTICATED, RATE_LIMITED, CONNECTION_LIMIT, TIMEOUT = 6, 7, 8, 9

# A test that waits this long has failed.
PATIENCE_S = 30.0

T = TypeVar("T")


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Runs a test's coroutine with a time limit."""

    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE_S):
            return await scenario

    return asyncio.run(bounded())


def frame(kind: int, payload: bytes = b"") -> bytes:
    """The frame of a message."""
    body = struct.pack(">IBBH", 0xDEADBEEF, 1, kind, len(payload)) + payload
    return body + struct.pack(">I", zlib.crc32(body))


def error_frame(code: int, message: str) -> bytes:
    """The frame of an ERROR."""
    return frame(ERROR, bytes([code]) + message.encode())


def answer_to(kind: int, payload: bytes) -> bytes:
    """The answer of a server that refuses nothing; empty for a BROADCAST."""
    match kind:
        case 0x01 | 0x03:
            return frame(kind + 1, payload)
        case 0x06:
            return frame(AUTH_REPLY, b"\x01session-of-" + payload[1 : 1 + payload[0]])
        case 0x08:
            return frame(DATA_ACK, payload[:4])
    return b""


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> tuple[int, bytes]:
        """The client's next message; IncompleteReadError after the last one."""
        header = await self._reader.readexactly(8)
        magic, version, kind, payload_bytes = struct.unpack(">IBBH", header)
        assert (magic, version) == (0xDEADBEEF, 1)
        payload = await self._reader.readexactly(payload_bytes)
        crc = await self._reader.readexactly(4)
        assert crc == struct.pack(">I", zlib.crc32(header + payload))
        return kind, payload

    async def expect(self, kind: int) -> bytes:
        """The payload of the next message, which must be of this type."""
        found, payload = await self.read()
        assert found == kind
        return payload

    async def write(self, *frames: bytes) -> None:
        """Sends bytes in one piece."""
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def serve(self) -> None:
        """Answers everything until the client sends CLOSE or disconnects."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while (message := await self.read())[0] != CLOSE:
                await self.write(answer_to(*message))

    async def until_gone(self) -> None:
        """Reads without answering until the client disconnects."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass

    def reset(self) -> None:
        """Resets the connection."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Handler: TypeAlias = Callable[[Peer], Awaitable[None]]


async def serve(peer: Peer) -> None:
    """The handler of a correct server."""
    await peer.serve()


async def drop(peer: Peer) -> None:
    """Reads one message and disconnects."""
    await peer.read()


async def silent(peer: Peer) -> None:
    """The handler of a server that never answers."""
    await peer.until_gone()


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """The TLS settings of a server with this certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@asynccontextmanager
async def scripted(
    *handlers: Handler, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[int]:
    """Yields the port of a server whose connections get the handlers in turn, then the last one.

    A connection is closed when its handler is done. A failed assertion in a handler fails the test.
    """
    left = list(handlers)
    tasks: list[asyncio.Task[None]] = []
    errors: list[BaseException] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        handler = left.pop(0) if len(left) > 1 else left[0]
        try:
            await handler(Peer(reader, writer))
        except asyncio.CancelledError:
            pass
        # The failures of pytest are not an Exception.
        except BaseException as error:
            errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    if errors:
        raise errors[0]
