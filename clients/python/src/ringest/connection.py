"""One TCP or TLS connection, from its opening to its end. It never opens another one.

Requests take turns: each waits until there is room in flight and in the transport, and is then
written and noted in one go, so that the order of the frames is the order of the notes. A heartbeat
PING is outside the turns. Callbacks tell of broadcasts and, once, of the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

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
from ringest.in_flight import Answer, Ending, InFlight, Received, Refused
from ringest.protocol import TIMESTAMP, Credentials, Frame, FrameParser, MessageType, encode

log: Final = logging.getLogger("ringest")

RECEIVE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect to; shown as host and port."""

    host: str
    port: int
    ssl: ssl.SSLContext | bool | None
    server_hostname: str | None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection keeps to."""

    in_flight_max: int
    # None: no heartbeat.
    heartbeat_interval_s: float | None
    heartbeat_timeout_s: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Whom a connection tells what happens; all are called from the event loop."""

    # Another client's broadcast came.
    broadcast_received: Callable[[bytes], None]
    # A BROADCAST of this client was not passed on.
    broadcast_refused: Callable[[ServerError], None]
    # The connection is over, also if `close` or `abort` ended it.
    ended: Callable[[Connection, RingestError], None]


class NotSent(Exception):
    """The connection was over before it was the request's turn; the request can go elsewhere."""


async def open_connection(
    target: Target, limits: Limits, callbacks: Callbacks, timeout_s: float | None
) -> Connection:
    """Connects, TLS handshake included. ConnectError if it fails, ConnectTimeout if it is slow."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s) as limit:
            _transport, connection = await loop.create_connection(
                lambda: Connection(target, limits, callbacks),
                target.host,
                target.port,
                ssl=target.ssl,
                server_hostname=target.server_hostname,
            )
    except (OSError, UnicodeError) as error:
        # A time limit of the system's own is a TimeoutError, too.
        if isinstance(error, TimeoutError):
            waited = f" within {timeout_s} s" if limit.expired() else ""
            advice = "check the address, the firewall on the way, and whether both use TLS"
            raise ConnectTimeout(f"no connection to {target}{waited}: {advice}") from error
        raise ConnectError(explain_connect(error, target)) from error
    if isinstance(connection.ended, ConnectError):
        raise connection.ended
    return connection


class Connection(asyncio.Protocol):
    """A connection that was opened; see the module."""

    def __init__(self, target: Target, limits: Limits, callbacks: Callbacks) -> None:
        self._target: Final = target
        self._limits: Final = limits
        self._callbacks: Final = callbacks
        self._transport: asyncio.Transport
        self._parser: Final = FrameParser()
        self._in_flight: Final = InFlight()
        self._turn: Final = asyncio.Lock()
        # Set while the next frame may be written, and when none ever will be.
        self._may_send: Final = asyncio.Event()
        self._may_send.set()
        self._transport_full = False
        self._closing = False
        self._ended: RingestError | None = None
        self._transport_gone: Final = asyncio.Event()
        # An ERROR after which the server may close, or not.
        self._last_word: ServerError | None = None
        self._last_request_s = time.monotonic()
        self._heartbeat: asyncio.Task[None] | None = None
        self._auth_turn: Final = asyncio.Lock()
        self._auth: asyncio.Future[Answer] | None = None
        self._credentials: Credentials | None = None

    @property
    def ended(self) -> RingestError | None:
        """Why the connection is over; None while it is not."""
        return self._ended

    @property
    def session_id(self) -> str | None:
        """The server's name for this session, once AUTH was accepted."""
        if self._auth is None or not self._auth.done() or self._auth.exception() is not None:
            return None
        return self._auth.result().payload.decode("ascii")

    @property
    def credentials(self) -> Credentials | None:
        """What the connection was authenticated with; None if it was not."""
        return None if self.session_id is None else self._credentials

    async def request(
        self, kind: MessageType, payload: bytes, repeated: bytes
    ) -> asyncio.Future[Answer]:
        """Sends a request when it is its turn; its answer has to repeat `repeated`.

        Once this returns the request was sent. Whoever awaits the future may be cancelled; the
        answer is then dropped when it comes. NotSent if the connection ends before.
        """
        async with self._turn:
            await self._wait_until_sendable()
            return self._write_request(kind, payload, repeated)

    async def broadcast(self, payload: bytes) -> None:
        """Sends a BROADCAST when it is its turn. NotSent if the connection ends before."""
        async with self._turn:
            await self._wait_until_sendable()
            self._transport.write(encode(MessageType.BROADCAST, payload))
            self._in_flight.push_broadcast()

    async def ping(self, timestamp_ms: int) -> Answer:
        """Sends a PING and waits for its PONG."""
        payload = TIMESTAMP.pack(timestamp_ms)
        return await (await self.request(MessageType.PING, payload, payload))

    async def authenticate(self, credentials: Credentials) -> str:
        """Sends AUTH and waits for the session id; once accepted, only that is given.

        A second AUTH after success would end the connection. So the answer to the first counts
        even if its caller did not wait for it.
        """
        async with self._auth_turn:
            if self._auth is not None:
                await asyncio.wait([self._auth])
                if self._ended is not None:
                    raise NotSent
                if self.session_id is not None and self._credentials != credentials:
                    raise AlreadyAuthenticated(
                        "the connection is authenticated as another user or with another token:"
                        " use a client of its own for each user"
                    )
            if self.session_id is None:
                self._auth = await self.request(MessageType.AUTH, credentials.payload(), b"")
                self._credentials = credentials
                # Unlike the wait, the future must not be cancelled together with the caller.
                await asyncio.wait([self._auth])
            assert self._auth is not None
            return self._auth.result().payload.decode("ascii")

    async def close(self, timeout_s: float) -> None:
        """Says CLOSE and takes what the server still owes until it closes, or time is over."""
        self._closing = True
        self._stop_heartbeat()
        self._update_may_send()
        try:
            if self._ended is None:
                self._transport.write(encode(MessageType.CLOSE))
            async with asyncio.timeout(timeout_s):
                await self._transport_gone.wait()
        except TimeoutError:
            log.warning("%s did not close within %s s: cut off", self._target, timeout_s)
        finally:
            self.abort()

    def abort(self) -> None:
        """Cuts the connection off."""
        self._end(NotConnected("this client closed the connection: call connect() for another"))

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._met_itself():
            self._end(ConnectError(explain_refused(self._target)))
        elif self._limits.heartbeat_interval_s is not None:
            beat = self._beat(self._limits.heartbeat_interval_s, self._limits.heartbeat_timeout_s)
            self._heartbeat = asyncio.get_running_loop().create_task(beat)

    def data_received(self, data: bytes) -> None:
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
        where = " within a frame" if self._parser.in_frame else ""
        self._end(self._last_word or _lost(self._target, f"the server closed{where}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._ended is None:
            self._read_rest()
        cause = "it was closed" if exc is None else str(exc)
        self._end(self._last_word or _lost(self._target, cause))
        self._transport_gone.set()

    def pause_writing(self) -> None:
        self._transport_full = True
        self._update_may_send()

    def resume_writing(self) -> None:
        self._transport_full = False
        self._update_may_send()

    # What happens in between.

    def _handle(self, frame: Frame) -> None:
        self._last_word = None
        match self._in_flight.handle(frame, time.monotonic()):
            case Received(payload):
                self._callbacks.broadcast_received(payload)
            case Refused(error):
                self._callbacks.broadcast_refused(error)
                self._note_last_word(error)
            case Ending(error) if isinstance(error, AuthenticationError):
                # The server closes by itself, and may have answers for us until then.
                self._note_last_word(error)
            case Ending(error):
                self._end(error)

    def _note_last_word(self, error: ServerError) -> None:
        if isinstance(error, AuthenticationError):
            self._last_word = error

    def _write_request(
        self, kind: MessageType, payload: bytes, repeated: bytes, *, internal: bool = False
    ) -> asyncio.Future[Answer]:
        now_s = self._last_request_s = time.monotonic()
        self._transport.write(encode(kind, payload))
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

    def _end(self, reason: RingestError) -> None:
        """The end, whoever brings it about; only the first reason counts."""
        if self._ended is not None:
            return
        self._ended = reason
        self._stop_heartbeat()
        self._in_flight.fail(reason)
        self._transport.abort()
        self._update_may_send()
        self._callbacks.ended(self, reason)

    async def _beat(self, interval_s: float, timeout_s: float) -> None:
        """Sends a PING after each interval without a request, and ends a dead connection.

        A BROADCAST is no sign of life, for it has no answer. The PONG waits behind the answers to
        earlier requests, so the server has time for as long as answers keep coming.
        """
        while True:
            wait_s = self._last_request_s + interval_s - time.monotonic()
            if wait_s > 0.0:
                await asyncio.sleep(wait_s)
                continue
            payload = TIMESTAMP.pack(now_ms())
            pong = self._write_request(MessageType.PING, payload, payload, internal=True)
            while not pong.done():
                answered = self._in_flight.answered
                await asyncio.wait([pong], timeout=timeout_s)
                if not pong.done() and self._in_flight.answered == answered:
                    self._end(_lost(self._target, f"no answer to a PING within {timeout_s} s"))
                    return

    def _stop_heartbeat(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _read_rest(self) -> None:
        """Reads what came before a write failed: it may be the ERROR that says why.

        The transport gives up without another read then. What TLS has decrypted is not within
        reach, so there the reason is lost.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or self._transport.get_extra_info("ssl_object") is not None:
            return
        with contextlib.suppress(OSError), sock.dup() as own:
            own.setblocking(False)
            while self._ended is None and (received := own.recv(RECEIVE_BYTES)):
                self.data_received(received)

    def _met_itself(self) -> bool:
        """Whether both ends are one: it happens on local ports from which clients are served."""
        own = self._transport.get_extra_info("sockname")
        return own is not None and own == self._transport.get_extra_info("peername")


async def prove(connection: Connection, credentials: Credentials | None) -> None:
    """Finds out that the server has a place for this connection: AUTH if it can, else a PING."""
    try:
        if credentials is not None:
            await connection.authenticate(credentials)
        else:
            await connection.ping(now_ms())
    except RateLimitExceeded:
        # Only who has a place can send too much. But without AUTH the connection is of no use.
        if credentials is not None:
            raise
    except NotSent:
        assert connection.ended is not None
        raise connection.ended from None


def now_ms() -> int:
    """The time of a PING, for people who look at the frames: the client measures by another."""
    return max(time.time_ns() // 1_000_000, 0)


def _lost(target: Target, cause: str) -> ConnectionLostError:
    return ConnectionLostError(
        f"connection to {target} lost ({cause}): check the network and the server's log"
    )


def explain_connect(error: OSError | UnicodeError, target: Target) -> str:
    """Cause and next step for a connection that could not be opened."""
    if isinstance(error, ConnectionRefusedError):
        return explain_refused(target)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return f"certificate of {target} refused ({why}): check the CA file and server_hostname"
    if isinstance(error, ssl.SSLError):
        why = error.reason or str(error)
        return f"no TLS with {target} ({why}): check that server and client both use TLS"
    return f"cannot connect to {target} ({error}): is the server running, are host and port right?"


def explain_refused(target: Target) -> str:
    return f"connection refused: is the server running on {target}?"
