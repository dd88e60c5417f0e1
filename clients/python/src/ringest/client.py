"""The message client. It has at most one connection at a time and does not encode frames.

`BinaryProtocolClient` sends requests, delivers broadcasts, and reopens a lost connection if it has
a `ReconnectPolicy`. It never sends a request twice. It belongs to one event loop and is not
thread-safe; any number of tasks may use it concurrently.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
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
    log,
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
from ringest.target import Target

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a PING: the timestamp that was sent, and the round-trip time."""

    timestamp_ms: int
    latency_ms: float


class BinaryProtocolClient:
    """A client of the ringest message server.

    Times are in seconds. None means no limit for `connect_timeout_s` and `request_timeout_s`, and
    no heartbeat for `heartbeat_interval_s`. `ssl` and `server_hostname` are those of asyncio's
    `create_connection`. README.md describes each method and the errors that it raises.
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
        _check_positive("connect_timeout_s", connect_timeout_s)
        _check_positive("request_timeout_s", request_timeout_s)
        _check_positive("close_timeout_s", close_timeout_s)
        _check_positive("heartbeat_interval_s", heartbeat_interval_s)
        _check_positive("heartbeat_timeout_s", heartbeat_timeout_s)
        _check_positive("in_flight_max", in_flight_max)
        _check_positive("broadcasts_max", broadcasts_max)
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
        # Why there is no connection.
        self._reason: RingestError = NotConnected("not connected: call connect() first")
        self._broadcasts: Final = BroadcastBuffer(broadcasts_max, self._reason)
        self._callbacks: Final = Callbacks(self._broadcasts.put, self._note_refusal, self._note_end)
        self._reconnecting: asyncio.Task[None] | None = None
        # Set unless a reconnect is under way.
        self._settled: Final = asyncio.Event()
        self._settled.set()
        # Connecting and closing exclude each other.
        self._open_close_turn: Final = asyncio.Lock()

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
        """Whether there is a connection, as far as the client knows."""
        return self._connection is not None

    @property
    def session_id(self) -> str | None:
        """The session id of the current connection; None if it is not authenticated."""
        return None if self._connection is None else self._connection.session_id

    @property
    def broadcasts_dropped(self) -> int:
        """Received broadcasts that were dropped because they were not read in time."""
        return self._broadcasts.dropped

    @property
    def broadcasts_refused(self) -> int:
        """Broadcasts of this client that the server refused to forward."""
        return self._broadcasts_refused

    async def connect(self) -> None:
        """Opens the connection; does nothing if there is one, or during a reconnect."""
        async with self._open_close_turn:
            if self._connection is not None or self._reconnecting is not None:
                return
            connection = await self._open()
            self._broadcasts.begin()
            self._adopt(connection)

    async def close(self) -> None:
        """Sends CLOSE, waits until the server has closed, and ends reconnects. Never fails."""
        async with self._open_close_turn:
            connection, self._connection = self._connection, None
            self._reason = NotConnected("the client was closed: call connect() to use it again")
            try:
                if self._reconnecting is not None:
                    self._reconnecting.cancel()
                    await asyncio.wait([self._reconnecting])
                    # A task that is cancelled before it starts does not run its `finally`.
                    self._stop_waiting()
                if connection is not None:
                    await connection.close(self._close_timeout_s)
            finally:
                self._broadcasts.end(None)

    async def ping(self) -> Pong:
        """Measures the round-trip time to the server."""
        timestamp_ms = now_ms()
        payload = TIMESTAMP.pack(timestamp_ms)
        answer = await self._request(MessageType.PING, payload, payload)
        return Pong(timestamp_ms, answer.latency_s * 1000.0)

    async def echo(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Sends up to 65,535 bytes, which the server sends back; returns them."""
        own = _own_bytes(payload, PAYLOAD_BYTES_MAX)
        return (await self._request(MessageType.ECHO, own, own)).payload

    async def send_data(
        self, payload: bytes | bytearray | memoryview, sequence: int | None = None
    ) -> int:
        """Sends up to 65,531 bytes and waits for the acknowledgement; returns the sequence number.

        Without `sequence`, the client numbers the payloads itself, from 0 to 4,294,967,295 and then
        from 0 again.
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
        """Authenticates this client; returns the session id."""
        credentials = Credentials(user, token)
        return await self._in_time(
            MessageType.AUTH, lambda connection: connection.authenticate(credentials), lambda: None
        )

    async def broadcast(self, payload: bytes | bytearray | memoryview) -> None:
        """Sends up to 65,535 bytes to all other clients; does not wait for their delivery."""
        own = _own_bytes(payload, PAYLOAD_BYTES_MAX)
        await self._in_time(
            MessageType.BROADCAST, lambda connection: connection.broadcast(own), lambda: False
        )

    def broadcasts(self) -> Broadcasts:
        """An async iterator over the broadcasts of other clients; it ends after `close`."""
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
            # The answer arrived, but the event loop was too busy to handle it in time.
            return answer.result()

    async def _in_time(
        self,
        kind: MessageType,
        send: Callable[[Connection], Awaitable[T]],
        was_sent: Callable[[], bool | None],
    ) -> T:
        """Runs `send` on the connection, or on the next one if that ends before the send."""
        try:
            async with asyncio.timeout(self._request_timeout_s) as limit:
                while True:
                    connection = await self._ready_connection()
                    with contextlib.suppress(NotSent):
                        return await send(connection)
        except TimeoutError as error:
            # Some errors of this package are also a TimeoutError.
            if not limit.expired():
                raise
            raise self._timed_out(kind, was_sent()) from error

    def _timed_out(self, kind: MessageType, sent: bool | None) -> RequestTimeout:
        """The error of a request; `sent` is None if that is unknown."""
        limit_s = self._request_timeout_s
        answer = f"no answer to {kind.name} from {self._target} within {limit_s} s"
        if sent:
            text = f"{answer}: it was sent, so repeat it only if that is safe"
        elif sent is None:
            text = f"{answer}: it is safe to call authenticate() again"
        elif self._connection is None:
            text = f"no connection for {limit_s} s, {kind.name} was not sent: {self._reason}"
        else:
            text = f"the server lags, {kind.name} was not sent within {limit_s} s: send more slowly"
        return RequestTimeout(text)

    async def _ready_connection(self) -> Connection:
        """The connection; waits during a reconnect. Raises the reason if there is none."""
        while self._connection is None:
            if self._reconnecting is None:
                raise self._refusal()
            await self._settled.wait()
        return self._connection

    def _refusal(self) -> RingestError:
        """The error of a request that is made without a connection."""
        if isinstance(self._reason, ServerError | NotConnected):
            return copy.copy(self._reason)
        error = NotConnected(f"not connected ({self._reason}); then call connect() again")
        error.__cause__ = self._reason
        return error

    async def _open(self) -> Connection:
        return await open_connection(
            self._target, self._limits, self._callbacks, self._connect_timeout_s
        )

    def _note_refusal(self, error: ServerError) -> None:
        """Counts a refused broadcast, logs it and calls the callback."""
        self._broadcasts_refused += 1
        count = self._broadcasts_refused
        # The 1st, 2nd, 4th, 8th and so on: a flood of refusals must not flood the log.
        if count & (count - 1) == 0:
            log.warning("%s refused a broadcast, %d so far: %s", self._target, count, error)
        if self._on_broadcast_refused is None:
            return
        try:
            self._on_broadcast_refused(error)
        except Exception:
            log.exception("on_broadcast_refused raised an exception: fix that function")

    def _note_end(self, connection: Connection, reason: RingestError) -> None:
        """Handles the end of the current connection; others are those of a reconnect attempt."""
        if connection is not self._connection:
            return
        self._connection = None
        self._reason = reason
        if self._policy is None or isinstance(reason, AuthenticationError):
            log.info("%s: connection ended: %s", self._target, reason)
            self._broadcasts.end(self._refusal())
        else:
            log.warning("%s: connection ended, reconnecting: %s", self._target, reason)
            self._settled.clear()
            task = self._reconnect(self._policy, connection.credentials)
            self._reconnecting = asyncio.get_running_loop().create_task(task)

    def _adopt(self, connection: Connection) -> None:
        """Makes this the current connection, unless it has ended in the meantime."""
        self._connection = connection
        if connection.ended is not None:
            self._note_end(connection, connection.ended)

    async def _reconnect(self, policy: ReconnectPolicy, credentials: Credentials | None) -> None:
        """Tries until the server has accepted a connection, or gives up.

        It gives up at once on errors that would come back: refused credentials, and a server of
        another protocol.
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
                    log.warning("%s: reconnect attempt %d: %s", self._target, attempt, error)
                    if isinstance(error, AuthenticationError | ProtocolError):
                        break
                else:
                    log.info("%s: reconnected", self._target)
                    self._adopt(connection)
                    return
            log.error("%s: reconnecting failed: %s", self._target, self._reason)
            self._broadcasts.end(self._refusal())
        finally:
            # Unless the new connection has already ended, and another task is reconnecting.
            if self._reconnecting is asyncio.current_task():
                self._stop_waiting()

    def _stop_waiting(self) -> None:
        """Ends the reconnect; requests that waited for it look for a connection again."""
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
                waited = f"did not answer within {self._connect_timeout_s} s"
                raise ConnectTimeout(
                    f"{self._target} accepted the connection but {waited}: see its log"
                ) from error
            raise
        return connection


def _own_bytes(payload: bytes | bytearray | memoryview, bytes_max: int) -> bytes:
    """An immutable copy of `payload`; ValueError if it is too long."""
    # memoryview rejects what is not a buffer; `bytes` would turn a number into that many zeros.
    own = payload if isinstance(payload, bytes) else bytes(memoryview(payload))
    if len(own) > bytes_max:
        raise ValueError(f"the payload has {len(own)} bytes; the maximum is {bytes_max}: split it")
    return own


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; it must be greater than 0 and finite")
