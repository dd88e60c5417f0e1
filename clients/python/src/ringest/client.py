"""The client that programs use. It keeps at most one connection; its frames are made elsewhere.

`BinaryProtocolClient` sends requests, hands out broadcasts, and opens a lost connection again if it
has a `ReconnectPolicy`. It never sends a request twice. It belongs to one event loop and is not
thread-safe; many tasks may use it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import logging
import math
import ssl as tls
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

from ringest.broadcasts import BroadcastBuffer, Broadcasts
from ringest.connection import (
    Callbacks,
    Connection,
    Limits,
    NotSent,
    Target,
    now_ms,
    open_connection,
    prove,
)
from ringest.errors import (
    AuthenticationError,
    ConnectTimeout,
    NotConnected,
    ProtocolError,
    RequestTimeout,
    RingestError,
    ServerError,
)
from ringest.in_flight import Answer
from ringest.protocol import (
    DATA_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SEQUENCE,
    SEQUENCE_MAX,
    TIMESTAMP,
    Credentials,
    MessageType,
)
from ringest.reconnect import ReconnectPolicy

log: Final = logging.getLogger("ringest")

PORT_MAX: Final = 65_535

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a PING: the timestamp that was sent, and the time from sending to answer."""

    timestamp_ms: int
    latency_ms: float


class BinaryProtocolClient:
    """A client of the ringest message server.

    Times are in seconds; None is no limit for `connect_timeout_s` and `request_timeout_s`, and no
    heartbeat for `heartbeat_interval_s`. `ssl` and `server_hostname` mean what they mean to
    asyncio. README.md describes each method and what it can raise.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5000,
        *,
        ssl: tls.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        connect_timeout_s: float | None = 10.0,
        request_timeout_s: float | None = 30.0,
        close_timeout_s: float = 5.0,
        heartbeat_interval_s: float | None = 30.0,
        heartbeat_timeout_s: float = 10.0,
        in_flight_max: int = 256,
        broadcasts_max: int = 1024,
        reconnect: ReconnectPolicy | None = None,
        on_broadcast_refused: Callable[[ServerError], None] | None = None,
    ) -> None:
        if not host or not 1 <= port <= PORT_MAX:
            raise ValueError(f"{host!r}, port {port}: give a host, and a port from 1 to {PORT_MAX}")
        _check_positive("connect_timeout_s", connect_timeout_s)
        _check_positive("request_timeout_s", request_timeout_s)
        _check_positive("close_timeout_s", close_timeout_s)
        _check_positive("heartbeat_interval_s", heartbeat_interval_s)
        _check_positive("heartbeat_timeout_s", heartbeat_timeout_s)
        _check_positive("in_flight_max", in_flight_max)
        _check_positive("broadcasts_max", broadcasts_max)
        if server_hostname is not None and not ssl:
            raise ValueError("server_hostname is for TLS alone: give ssl= as well")
        self._target: Final = Target(host, port, ssl or None, server_hostname)
        self._limits: Final = Limits(in_flight_max, heartbeat_interval_s, heartbeat_timeout_s)
        self._connect_timeout_s: Final = connect_timeout_s
        self._request_timeout_s: Final = request_timeout_s
        self._close_timeout_s: Final = close_timeout_s
        self._policy: Final = reconnect
        self._on_broadcast_refused: Final = on_broadcast_refused
        self._broadcasts_refused = 0
        self._sequence_next = 0
        self._connection: Connection | None = None
        # Why there is none.
        self._reason: RingestError = NotConnected("not connected yet: call connect() first")
        self._broadcasts: Final = BroadcastBuffer(broadcasts_max, self._reason)
        self._callbacks: Final = Callbacks(self._broadcasts.put, self._note_refusal, self._note_end)
        self._reconnecting: asyncio.Task[None] | None = None
        # Set unless a lost connection is being opened again.
        self._settled: Final = asyncio.Event()
        self._settled.set()
        # Connecting and closing exclude each other.
        self._life_turn: Final = asyncio.Lock()

    def __repr__(self) -> str:
        if self._connection is not None:
            state = "connected"
        else:
            state = "not connected" if self._reconnecting is None else "reconnecting"
        return f"<BinaryProtocolClient {self._target} {state}>"

    async def __aenter__(self) -> BinaryProtocolClient:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    @property
    def session_id(self) -> str | None:
        """The session id of this connection; None if it is not authenticated."""
        return None if self._connection is None else self._connection.session_id

    @property
    def broadcasts_dropped(self) -> int:
        """Received broadcasts that were dropped because nobody read them in time."""
        return self._broadcasts.dropped

    @property
    def broadcasts_refused(self) -> int:
        """Own broadcasts that the server did not pass on."""
        return self._broadcasts_refused

    async def connect(self) -> None:
        """Opens the connection; does nothing if there is one, or one is being opened again."""
        async with self._life_turn:
            if self._connection is not None or self._reconnecting is not None:
                return
            connection = await self._open()
            self._broadcasts.begin()
            self._adopt(connection)

    async def close(self) -> None:
        """Says CLOSE, waits until the server has closed, and ends everything. Never fails."""
        async with self._life_turn:
            connection, self._connection = self._connection, None
            self._reason = NotConnected("the client was closed: call connect() to use it again")
            try:
                if self._reconnecting is not None:
                    self._reconnecting.cancel()
                    await asyncio.wait([self._reconnecting])
                    # A task that had not begun yet could not say so itself.
                    self._stop_waiting()
                if connection is not None:
                    await connection.close(self._close_timeout_s)
            finally:
                self._broadcasts.end(None)

    async def ping(self) -> Pong:
        """Measures the time to the server and back."""
        timestamp_ms = now_ms()
        payload = TIMESTAMP.pack(timestamp_ms)
        answer = await self._request(MessageType.PING, payload, payload)
        return Pong(timestamp_ms, answer.latency_s * 1000.0)

    async def echo(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Sends up to 65,535 bytes; returns what the server sent back, which is the same."""
        own = _own_bytes(payload, PAYLOAD_BYTES_MAX)
        return (await self._request(MessageType.ECHO, own, own)).payload

    async def send_data(
        self, payload: bytes | bytearray | memoryview, sequence: int | None = None
    ) -> int:
        """Sends up to 65,531 bytes and waits until the server has them; returns the sequence.

        Without `sequence` the next of the client's own is taken, which after 4,294,967,295 is 0.
        """
        own = _own_bytes(payload, DATA_BYTES_MAX)
        if sequence is None:
            sequence = self._sequence_next
            self._sequence_next = (sequence + 1) & SEQUENCE_MAX
        elif not 0 <= sequence <= SEQUENCE_MAX:
            raise ValueError(f"sequence {sequence} is not from 0 to {SEQUENCE_MAX}")
        number = SEQUENCE.pack(sequence)
        await self._request(MessageType.DATA, number + own, number)
        return sequence

    async def authenticate(self, user: str, token: str) -> str:
        """Proves who this client is; returns the session id."""
        credentials = Credentials(user, token)
        return await self._in_time(
            MessageType.AUTH, lambda connection: connection.authenticate(credentials), lambda: None
        )

    async def broadcast(self, payload: bytes | bytearray | memoryview) -> None:
        """Sends up to 65,535 bytes to all other clients; returns when they are on their way."""
        own = _own_bytes(payload, PAYLOAD_BYTES_MAX)
        await self._in_time(
            MessageType.BROADCAST, lambda connection: connection.broadcast(own), lambda: False
        )

    def broadcasts(self) -> Broadcasts:
        """An asynchronous iterator over the broadcasts of others; it ends when `close` is done."""
        return Broadcasts(self._broadcasts)

    async def _request(self, kind: MessageType, payload: bytes, repeated: bytes) -> Answer:
        """Sends one request, once, and waits for its answer."""
        answer: asyncio.Future[Answer] | None = None

        async def send(connection: Connection) -> Answer:
            nonlocal answer
            answer = await connection.request(kind, payload, repeated)
            return await answer

        try:
            return await self._in_time(kind, send, lambda: answer is not None)
        except RequestTimeout:
            if answer is None or not answer.done() or answer.cancelled():
                raise
            # It came while the event loop was too busy to notice in time.
            return answer.result()

    async def _in_time(
        self,
        kind: MessageType,
        send: Callable[[Connection], Awaitable[T]],
        was_sent: Callable[[], bool | None],
    ) -> T:
        """Does `send` on the connection, or on the next one if nothing was sent on the first."""
        try:
            async with asyncio.timeout(self._request_timeout_s) as limit:
                while True:
                    connection = await self._ready_connection()
                    with contextlib.suppress(NotSent):
                        return await send(connection)
        except TimeoutError as error:
            # Errors of this package can be of that class, too.
            if not limit.expired():
                raise
            raise self._timed_out(kind, was_sent()) from error

    def _timed_out(self, kind: MessageType, sent: bool | None) -> RequestTimeout:
        """The error of a request; `sent` is None where that is not known."""
        limit_s = self._request_timeout_s
        answer = f"no answer to {kind.name} from {self._target} within {limit_s} s"
        if sent:
            text = f"{answer}: it was sent, so repeat it only if that does no harm"
        elif sent is None:
            text = f"{answer}: call authenticate() again, which does no harm"
        elif self._connection is None:
            text = f"no connection for {limit_s} s, {kind.name} was not sent: {self._reason}"
        else:
            text = f"the server is behind, {kind.name} was not sent for {limit_s} s: send less"
        return RequestTimeout(text)

    async def _ready_connection(self) -> Connection:
        """The connection; waits while it is being opened again. Raises why there is none."""
        while self._connection is None:
            if self._reconnecting is None:
                raise self._refusal()
            await self._settled.wait()
        return self._connection

    def _refusal(self) -> RingestError:
        """What a request is told that comes when there is no connection."""
        if isinstance(self._reason, ServerError | NotConnected):
            return copy.copy(self._reason)
        error = NotConnected(f"not connected ({self._reason}): then call connect() again")
        error.__cause__ = self._reason
        return error

    async def _open(self) -> Connection:
        return await open_connection(
            self._target, self._limits, self._callbacks, self._connect_timeout_s
        )

    def _note_refusal(self, error: ServerError) -> None:
        """Counts a broadcast that was refused, logs it and tells the callback."""
        self._broadcasts_refused += 1
        count = self._broadcasts_refused
        # The 1st, 2nd, 4th, 8th...: a flood of refusals must not become a flood of lines.
        if count & (count - 1) == 0:
            log.warning("%s refused a broadcast, %d so far: %s", self._target, count, error)
        if self._on_broadcast_refused is None:
            return
        try:
            self._on_broadcast_refused(error)
        except Exception:
            log.exception("on_broadcast_refused failed: correct that function")

    def _note_end(self, connection: Connection, reason: RingestError) -> None:
        """Decides what becomes of a connection that is over; those being tried are not decided."""
        if connection is not self._connection:
            return
        self._connection = None
        self._reason = reason
        if self._policy is None or isinstance(reason, AuthenticationError):
            log.info("%s: connection ended: %s", self._target, reason)
            self._broadcasts.end(self._refusal())
        else:
            log.warning("%s: connection ended, to be opened again: %s", self._target, reason)
            self._settled.clear()
            task = self._reconnect(self._policy, connection.credentials)
            self._reconnecting = asyncio.get_running_loop().create_task(task)

    def _adopt(self, connection: Connection) -> None:
        """From now on this is the connection, unless it has ended meanwhile."""
        self._connection = connection
        if connection.ended is not None:
            self._note_end(connection, connection.ended)

    async def _reconnect(self, policy: ReconnectPolicy, credentials: Credentials | None) -> None:
        """Tries until there is a connection that the server has taken in, or gives up.

        Refused credentials would be refused again, and who speaks another protocol goes on doing
        so; anything else may be over at the next attempt.
        """
        try:
            for attempt in itertools.count(1):
                if not policy.allows(attempt):
                    break
                await asyncio.sleep(policy.delay_s(attempt))
                try:
                    connection = await self._open_proven(credentials)
                except RingestError as error:
                    self._reason = error
                    log.warning("%s: attempt %d to reconnect: %s", self._target, attempt, error)
                    if isinstance(error, AuthenticationError | ProtocolError):
                        break
                else:
                    log.info("%s: connected again", self._target)
                    self._adopt(connection)
                    return
            log.error("%s: given up reconnecting: %s", self._target, self._reason)
            self._broadcasts.end(self._refusal())
        finally:
            # Unless the connection has ended already, and another task is at it.
            if self._reconnecting is asyncio.current_task():
                self._stop_waiting()

    def _stop_waiting(self) -> None:
        """No connection is being opened again; requests that waited for it look what there is."""
        self._reconnecting = None
        self._settled.set()

    async def _open_proven(self, credentials: Credentials | None) -> Connection:
        connection = await self._open()
        try:
            async with asyncio.timeout(self._connect_timeout_s) as limit:
                await prove(connection, credentials)
        except BaseException as error:
            connection.abort()
            if isinstance(error, TimeoutError) and limit.expired():
                waited = f"within {self._connect_timeout_s} s"
                raise ConnectTimeout(
                    f"{self._target} accepted, but gave no answer {waited}: look at its log"
                ) from error
            raise
        return connection


def _own_bytes(payload: bytes | bytearray | memoryview, bytes_max: int) -> bytes:
    """`payload` as bytes that nobody changes while they wait; ValueError if they are too many."""
    # The view refuses what is not made of bytes; `bytes` would make zeros out of a number.
    own = payload if isinstance(payload, bytes) else bytes(memoryview(payload))
    if len(own) > bytes_max:
        raise ValueError(f"the payload has {len(own)} bytes, {bytes_max} is the most: split it")
    return own


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}: it must be above 0 and finite")
