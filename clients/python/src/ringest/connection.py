"""One TCP or TLS connection, from opening to end. It never reconnects; the client does that.

Requests take turns. Each waits until there is room in flight and in the transport. It is then
written and recorded in one step, so requests are recorded in the order in which they were sent.
A heartbeat PING does not wait for its turn. Callbacks report broadcasts and, once, the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from ringest.errors import (
    AlreadyAuthenticated,
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    NotConnected,
    ProtocolError,
    RateLimitExceeded,
    RingestError,
    ServerError,
)
from ringest.happy_eyeballs import connect_async
from ringest.in_flight import Answer, Ending, InFlight, Received, Refused
from ringest.protocol import TIMESTAMP, Credentials, Frame, FrameParser, MessageType, encode
from ringest.target import Target, explain_alert, explain_connect
from ringest.unacknowledged import unacknowledged_bytes

log: Final = logging.getLogger("ringest")

RECEIVE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a connection."""

    in_flight_max: int
    # None: no heartbeat.
    heartbeat_interval_s: float | None
    heartbeat_timeout_s: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The functions that a connection reports to, all called from the event loop."""

    # Another client's broadcast arrived.
    broadcast_received: Callable[[bytes], None]
    # The server refused to forward a BROADCAST of this client.
    broadcast_refused: Callable[[ServerError], None]
    # The connection has ended, whether by itself or by `close` or `abort`.
    ended: Callable[[Connection, RingestError], None]


class QueueAhead:
    """The bytes that were written before a request, and not acknowledged by then."""

    def __init__(self, bytes_written: int, bytes_delivered: int) -> None:
        self._end: Final = bytes_written
        self._left = max(bytes_written - bytes_delivered, 0)

    def has_moved(self, bytes_delivered: int) -> bool:
        """Whether fewer of them are left than at the last call."""
        before, self._left = self._left, max(self._end - bytes_delivered, 0)
        return self._left < before


class NotSent(Exception):
    """The connection ended before the request was sent; it can be sent over another one."""


async def open_connection(
    target: Target, limits: Limits, callbacks: Callbacks, timeout_s: float | None
) -> Connection:
    """Connects, including the TLS handshake; ConnectError or ConnectTimeout if that fails."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s) as limit:
            sock = await connect_async(target.host, target.port)
            _transport, connection = await loop.create_connection(
                lambda: Connection(target, limits, callbacks, sock),
                sock=sock,
                ssl=target.ssl,
                server_hostname=target.certificate_name,
            )
    except (OSError, UnicodeError) as error:
        # The operating system's own timeout is a TimeoutError, too.
        if isinstance(error, TimeoutError):
            waited = f" within {timeout_s} s" if limit.expired() else ""
            advice = "check the address, firewalls, and that both sides use TLS or neither does"
            raise ConnectTimeout(f"no connection to {target}{waited}: {advice}") from error
        raise ConnectError(explain_connect(error, target)) from error
    return connection


class Connection(asyncio.Protocol):
    """An open connection; see the module."""

    def __init__(
        self, target: Target, limits: Limits, callbacks: Callbacks, sock: socket.socket
    ) -> None:
        self._target: Final = target
        self._socket: Final = sock
        self._limits: Final = limits
        self._callbacks: Final = callbacks
        self._transport: asyncio.Transport
        self._parser: Final = FrameParser()
        self._in_flight: Final = InFlight()
        self._turn: Final = asyncio.Lock()
        # Set while the next frame may be written, and once no frame ever will be.
        self._may_send: Final = asyncio.Event()
        self._may_send.set()
        self._transport_full = False
        self._closing = False
        self._ended: RingestError | None = None
        self._transport_gone: Final = asyncio.Event()
        # The latest ERROR after which the server may or may not close.
        self._last_error: ServerError | None = None
        self._last_request_s = self._last_received_s = time.monotonic()
        self._bytes_written = 0
        self._heartbeat: asyncio.Task[None] | None = None
        self._auth_turn: Final = asyncio.Lock()
        self._auth: asyncio.Future[Answer] | None = None
        self._credentials: Credentials | None = None

    @property
    def target(self) -> Target:
        """The server."""
        return self._target

    @property
    def ended(self) -> RingestError | None:
        """Why the connection ended; None while it is open."""
        return self._ended

    @property
    def session_id(self) -> str | None:
        """The session id that the server assigned; None until AUTH was accepted."""
        if self._auth is None or not self._auth.done() or self._auth.exception() is not None:
            return None
        return self._auth.result().payload.decode("ascii")

    @property
    def credentials(self) -> Credentials | None:
        """The credentials of an authenticated connection; None if it is not authenticated."""
        return None if self.session_id is None else self._credentials

    async def request(
        self, kind: MessageType, payload: bytes, repeated: bytes
    ) -> asyncio.Future[Answer]:
        """Waits for its turn and sends a request, whose answer has to repeat `repeated`.

        Once this returns, the request has been sent. A task that awaits the future may be
        cancelled; the answer is then discarded. NotSent if the connection ends before the send.
        """
        async with self._turn:
            await self._wait_until_sendable()
            return self._write_request(kind, payload, repeated)

    async def broadcast(self, payload: bytes) -> None:
        """Waits for its turn and sends a BROADCAST. NotSent if the connection ends before that."""
        async with self._turn:
            await self._wait_until_sendable()
            self._write(encode(MessageType.BROADCAST, payload))
            self._in_flight.push_broadcast()

    async def ping(self, timestamp_ms: int) -> Answer:
        """Sends a PING and waits for its PONG."""
        payload = TIMESTAMP.pack(timestamp_ms)
        return await (await self.request(MessageType.PING, payload, payload))

    async def authenticate(self, credentials: Credentials) -> str:
        """Sends AUTH and returns the session id; once accepted, returns it without sending.

        The server closes the connection on a second AUTH after success. So the answer to the first
        counts even if its caller was cancelled.
        """
        async with self._auth_turn:
            if self._auth is not None:
                await asyncio.wait([self._auth])
                if self._ended is not None:
                    raise NotSent
                if self.session_id is not None and self._credentials != credentials:
                    raise AlreadyAuthenticated(
                        "the connection is already authenticated with other credentials: use a"
                        " separate client for each user"
                    )
            if self.session_id is None:
                self._auth = await self.request(MessageType.AUTH, credentials.payload(), b"")
                self._credentials = credentials
                # If the caller is cancelled, this wait is, but the future must not be.
                await asyncio.wait([self._auth])
            assert self._auth is not None
            return self._auth.result().payload.decode("ascii")

    async def close(self, timeout_s: float, *, complete: bool) -> None:
        """Sends CLOSE and takes outstanding answers until the server closes or time runs out.

        Unless it is `complete`: then it only sends what has been written. A server takes records in
        DATA for a whole stream if CLOSE follows them.
        """
        self._closing = True
        self._stop_heartbeat()
        self._update_may_send()
        try:
            if self._ended is None and complete:
                self._write(encode(MessageType.CLOSE))
            elif self._ended is None:
                self._end(self._closed_here(), flush=True)
            async with asyncio.timeout(timeout_s):
                await self._transport_gone.wait()
        except TimeoutError:
            log.warning("%s did not close within %s s: aborted", self._target, timeout_s)
        finally:
            self.abort()
            # It may still be flushing.
            self._transport.abort()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._end(self._closed_here())

    def abandon(self) -> None:
        """Closes the socket of a connection whose event loop is closed, so no callback will run."""
        self._ended = self._ended or NotConnected("the event loop of the connection was closed")
        # Deregisters the transport, and then fails to schedule its end.
        with contextlib.suppress(RuntimeError):
            self._transport.abort()
        self._socket.close()

    async def wait_while_alive(
        self, answer: asyncio.Future[Any], timeout_s: float | None, ahead: QueueAhead | None = None
    ) -> bool:
        """Waits for an answer; False if the server gives no sign of life for `timeout_s`.

        Any received byte is one: on a slow connection, an answer may queue behind large messages
        for longer than that. So is progress of what was sent ahead of the request: the kernel of a
        server that no longer reads acknowledges only as much as it can buffer.
        """
        if timeout_s is None:
            await asyncio.wait([answer])
            return True
        alive_s = time.monotonic()
        while not answer.done():
            alive_s = max(alive_s, self._last_received_s)
            now_s, deadline_s = time.monotonic(), alive_s + timeout_s
            if now_s < deadline_s:
                await asyncio.wait([answer], timeout=deadline_s - now_s)
            elif ahead is not None and ahead.has_moved(self._bytes_delivered()):
                alive_s = now_s
            else:
                return False
        return True

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._limits.heartbeat_interval_s is not None:
            beat = self._beat(self._limits.heartbeat_interval_s, self._limits.heartbeat_timeout_s)
            self._heartbeat = asyncio.get_running_loop().create_task(beat)

    def data_received(self, data: bytes) -> None:
        self._last_received_s = time.monotonic()
        self._parser.feed(data)
        try:
            while self._ended is None:
                frame = self._parser.next_frame()
                if frame is None:
                    break
                self._handle(frame)
        except ProtocolError as error:
            self._end(error)
        self._update_may_send()

    def eof_received(self) -> None:
        where = " in the middle of a frame" if self._parser.in_frame else ""
        self._end(
            self._last_error or _connection_lost(self._target, f"the server closed it{where}")
        )

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._ended is None:
            self._read_rest()
        if alert := explain_alert(exc):
            lost = ConnectionLostError(f"connection to {self._target} lost: {alert}")
        else:
            lost = _connection_lost(self._target, "it was closed" if exc is None else str(exc))
        self._end(self._last_error or lost)
        self._transport_gone.set()

    def pause_writing(self) -> None:
        self._transport_full = True
        self._update_may_send()

    def resume_writing(self) -> None:
        self._transport_full = False
        self._update_may_send()

    # Internal.

    def _handle(self, frame: Frame) -> None:
        self._last_error = None
        match self._in_flight.handle(frame, time.monotonic()):
            case Received(payload):
                self._callbacks.broadcast_received(payload)
            case Refused(error):
                self._callbacks.broadcast_refused(error)
                self._keep_auth_error(error)
            case Ending(error) if isinstance(error, AuthenticationError):
                # The server closes the connection, and may send more answers until then.
                self._keep_auth_error(error)
            case Ending(error):
                self._end(error)

    def _keep_auth_error(self, error: ServerError) -> None:
        if isinstance(error, AuthenticationError):
            self._last_error = error

    def _write(self, data: bytes) -> None:
        self._transport.write(data)
        self._bytes_written += len(data)

    def _bytes_delivered(self) -> int:
        """Written bytes that the server's kernel has acknowledged, as far as that is known."""
        buffered = self._transport.get_write_buffer_size()
        return self._bytes_written - buffered - unacknowledged_bytes(self._socket)

    def _write_request(
        self, kind: MessageType, payload: bytes, repeated: bytes, *, internal: bool = False
    ) -> asyncio.Future[Answer]:
        now_s = self._last_request_s = time.monotonic()
        self._write(encode(kind, payload))
        answer = self._in_flight.push(kind, repeated, now_s, internal=internal)
        self._update_may_send()
        return answer

    async def _wait_until_sendable(self) -> None:
        await self._may_send.wait()
        if self._closing or self._ended is not None:
            raise NotSent

    def _update_may_send(self) -> None:
        full = self._transport_full or len(self._in_flight) >= self._limits.in_flight_max
        if not full or self._closing or self._ended is not None:
            self._may_send.set()
        else:
            self._may_send.clear()

    def _closed_here(self) -> NotConnected:
        return NotConnected("this client closed the connection: call connect() for another")

    def _end(self, reason: RingestError, *, flush: bool = False) -> None:
        """Ends the connection, or lets it send what was written; only the first reason counts."""
        if self._ended is not None:
            return
        self._ended = reason
        self._stop_heartbeat()
        self._in_flight.fail(reason)
        if flush:
            self._transport.close()
        else:
            self._transport.abort()
        self._update_may_send()
        self._callbacks.ended(self, reason)

    async def _beat(self, interval_s: float, timeout_s: float) -> None:
        """Sends a PING after each interval without a request, and ends a dead connection.

        BROADCASTs do not count as requests because they have no answer.
        """
        while True:
            wait_s = self._last_request_s + interval_s - time.monotonic()
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
                continue
            payload = TIMESTAMP.pack(now_ms())
            ahead = QueueAhead(self._bytes_written, self._bytes_delivered())
            pong = self._write_request(MessageType.PING, payload, payload, internal=True)
            if not await self.wait_while_alive(pong, timeout_s, ahead):
                cause = f"no answer to a PING, and nothing else received for {timeout_s} s"
                self._end(_connection_lost(self._target, cause))
                return

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _read_rest(self) -> None:
        """Reads what arrived before a write failed: it may be the ERROR that says why.

        After a failed write, the transport does not read again. Under TLS the decrypted bytes are
        out of reach, so the reason is lost.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or self._transport.get_extra_info("ssl_object") is not None:
            return
        with contextlib.suppress(OSError), sock.dup() as own:
            own.setblocking(False)
            while self._ended is None and (received := own.recv(RECEIVE_BYTES)):
                self.data_received(received)


async def prove(connection: Connection, credentials: Credentials | None) -> None:
    """Checks that the server has accepted the connection, with AUTH if possible, else a PING."""
    try:
        if credentials is not None:
            await connection.authenticate(credentials)
        else:
            await connection.ping(now_ms())
    except RateLimitExceeded:
        # Only an accepted connection is rate limited. But one that needs AUTH is useless without.
        if credentials is not None:
            raise
    except NotSent:
        assert connection.ended is not None
        raise connection.ended from None


def now_ms() -> int:
    """The wall-clock time, which a PING carries for readers of traces; latency is not from it."""
    return max(time.time_ns() // 1_000_000, 0)


def _connection_lost(target: Target, cause: str) -> ConnectionLostError:
    return ConnectionLostError(
        f"connection to {target} lost ({cause}): check the network; `ringest serve --debug` logs"
        " why the server closes connections"
    )
