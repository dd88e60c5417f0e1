"""The message client. It has at most one connection at a time and does not encode frames.

`BinaryProtocolClient` sends requests, delivers broadcasts, and reopens a lost connection if it has
a `ReconnectPolicy`. It never sends a request twice. It belongs to one event loop at a time and is
not thread-safe; any number of tasks may use it concurrently.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import ssl as tls
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

from ringest.broadcasts import BroadcastBuffer, Broadcasts
from ringest.connection import Callbacks, Connection, Limits, NotSent, log, now_ms
from ringest.errors import (
    AuthenticationError,
    ConnectTimeout,
    NotConnected,
    RequestTimeout,
    RingestError,
    ServerError,
)
from ringest.in_flight import Answer
from ringest.opening import NotOpened, Opener
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
from ringest.target import targets

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a PING: the timestamp that was sent, and the round-trip time."""

    timestamp_ms: int
    latency_ms: float


class BinaryProtocolClient:
    """A client of the ringest message server.

    `host` is the server, or a sequence of servers of which one is used at a time: each a name or an
    address, with its own port if that is not `port`. Times are in seconds. None means
    no limit for `connect_timeout_s` and `request_timeout_s`, and no heartbeat for
    `heartbeat_interval_s`. `ssl` and `server_hostname` are those of asyncio's `create_connection`.
    README.md describes each method and the errors that it raises.
    """

    def __init__(
        self,
        host: str | Sequence[str] = "localhost",
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
        self._connect_timeout_s: Final = connect_timeout_s
        self._request_timeout_s: Final = request_timeout_s
        self._close_timeout_s: Final = close_timeout_s
        self._policy: Final = reconnect
        self._on_broadcast_refused: Final = on_broadcast_refused
        self._broadcasts_refused = 0
        self._sequence_next = 0
        self._connection: Connection | None = None
        # When the connection was opened, by the clock of its event loop.
        self._opened_s = 0.0
        # Why there is no connection.
        self._reason: RingestError = NotConnected("not connected: call connect() first")
        self._broadcasts: Final = BroadcastBuffer(broadcasts_max, self._reason)
        limits = Limits(in_flight_max, heartbeat_interval_s, heartbeat_timeout_s)
        callbacks = Callbacks(self._broadcasts.put, self._note_refusal, self._note_end)
        servers = targets(host, port, ssl, server_hostname)
        self._opener: Final = Opener(servers, limits, callbacks, connect_timeout_s)
        self._reconnecting: asyncio.Task[None] | None = None
        # Attempts in a row that failed, or whose connection did not last.
        self._attempts_failed = 0
        # How often close() was called: a connect() from before that must not succeed after it.
        self._closes = 0
        # The limit by which close() ends a connect() that is under way.
        self._connect_limit: asyncio.Timeout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reset_loop()

    def __repr__(self) -> str:
        if self.connected:
            state = "connected"
        else:
            state = "not connected" if self._reconnecting is None else "reconnecting"
        return f"<BinaryProtocolClient {self._server()} {state}>"

    async def __aenter__(self) -> BinaryProtocolClient:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end(complete=kind is None)

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as the client knows."""
        return self._connection is not None and not self._loop_is_closed()

    @property
    def session_id(self) -> str | None:
        """The session id of the current connection; None if it is not authenticated."""
        if self._connection is None or self._loop_is_closed():
            return None
        return self._connection.session_id

    @property
    def broadcasts_dropped(self) -> int:
        """Received broadcasts that were dropped because they were not read in time."""
        return self._broadcasts.dropped

    @property
    def broadcasts_refused(self) -> int:
        """Broadcasts of this client that the server refused to forward."""
        return self._broadcasts_refused

    async def connect(self) -> None:
        """Opens the connection, or waits for a reconnect under way; does nothing if there is one.

        ConnectError or ConnectTimeout if that fails. NotConnected if `close` is called meanwhile.
        """
        self._enter_loop()
        closes = self._closes
        async with self._open_close_turn:
            if closes != self._closes:
                raise NotConnected(_CLOSED)
            try:
                async with asyncio.timeout(None) as self._connect_limit:
                    if self._reconnecting is not None:
                        await self._wait_for_reconnect()
                    # A close() in another event loop does not end these waits.
                    if closes != self._closes:
                        raise NotConnected(_CLOSED)
                    if self._connection is None:
                        connection = await self._opener.open_first()
                        if closes != self._closes:
                            connection.abort()
                            raise NotConnected(_CLOSED)
                        self._attempts_failed = 0
                        self._broadcasts.begin()
                        self._adopt(connection)
            except NotOpened as failed:
                error = failed.connect_error()
                raise error from error.__cause__
            except TimeoutError:
                if closes == self._closes:
                    raise
                raise NotConnected(_CLOSED) from None
            finally:
                self._connect_limit = None

    async def close(self) -> None:
        """Sends CLOSE, waits until the server has closed, and ends `connect` and reconnects.

        It never fails, and takes no longer than `close_timeout_s`.
        """
        await self._end(complete=True)

    async def abort(self) -> None:
        """As `close`, but without CLOSE: records that were sent in DATA are not complete.

        It takes no more answers. A with-block that is left by an exception ends with it.
        """
        await self._end(complete=False)

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
        return Broadcasts(self._broadcasts, self._enter_loop)

    async def _end(self, *, complete: bool) -> None:
        """Ends the connection, `connect` and reconnects; with CLOSE if it is complete."""
        if self._runs_elsewhere():
            await self._end_elsewhere(complete)
            return
        self._leave_loop()
        self._closes += 1
        if self._connect_limit is not None:
            self._connect_limit.reschedule(0.0)
            self._connect_limit = None
        async with self._open_close_turn:
            connection, self._connection = self._connection, None
            self._reason = NotConnected(_CLOSED)
            try:
                if self._reconnecting is not None:
                    self._reconnecting.cancel()
                    await asyncio.wait([self._reconnecting])
                    # A task that is cancelled before it starts does not run its `finally`.
                    self._stop_waiting()
                if connection is not None:
                    await connection.close(self._close_timeout_s, complete=complete)
            finally:
                self._broadcasts.end(None)

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
        answer = f"no answer to {kind.name} from {self._server()} within {limit_s} s"
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
        self._enter_loop()
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

    def _server(self) -> str:
        """The server of the connection; all servers if there is none."""
        return str(self._opener if self._connection is None else self._connection.target)

    def _note_refusal(self, error: ServerError) -> None:
        """Counts a refused broadcast, logs it and calls the callback."""
        self._broadcasts_refused += 1
        count = self._broadcasts_refused
        # The 1st, 2nd, 4th, 8th and so on: a flood of refusals must not flood the log.
        if count & (count - 1) == 0:
            log.warning("%s refused a broadcast, %d so far: %s", self._server(), count, error)
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
            log.info("%s: connection ended: %s", connection.target, reason)
            self._broadcasts.end(self._refusal())
            return
        log.warning("%s: connection ended, reconnecting: %s", connection.target, reason)
        loop = asyncio.get_running_loop()
        if loop.time() - self._opened_s >= self._policy.stable_s:
            self._attempts_failed = 0
        self._settled.clear()
        task = self._reconnect(self._policy, connection.credentials)
        self._reconnecting = loop.create_task(task)

    def _adopt(self, connection: Connection) -> None:
        """Makes this the current connection, unless it has ended in the meantime."""
        self._connection = connection
        self._opened_s = asyncio.get_running_loop().time()
        if connection.ended is not None:
            self._note_end(connection, connection.ended)

    async def _wait_for_reconnect(self) -> None:
        """Waits until the reconnect under way has succeeded or was given up."""
        limit_s = self._connect_timeout_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                while self._reconnecting is not None:
                    await self._settled.wait()
        except TimeoutError as error:
            if not limit.expired():
                raise
            text = f"not reconnected within {limit_s} s ({self._reason}): the client keeps trying"
            raise ConnectTimeout(text) from error

    async def _reconnect(self, policy: ReconnectPolicy, credentials: Credentials | None) -> None:
        """Tries until a server has accepted a connection, or gives up.

        It gives up at once on errors that would come back: refused credentials, and a server of
        another protocol.
        """
        own_task = asyncio.current_task()
        try:
            while policy.allows(self._attempts_failed + 1):
                # It counts as failed until its connection has lasted.
                self._attempts_failed += 1
                attempt = self._attempts_failed
                await asyncio.sleep(policy.delay_s(attempt))
                try:
                    connection = await self._opener.open_proven(credentials)
                except NotOpened as failed:
                    self._reason = failed.reason()
                    log.warning("reconnect attempt %d: %s", attempt, self._reason)
                    if failed.final:
                        break
                else:
                    log.info("%s: reconnected", connection.target)
                    self._adopt(connection)
                    return
            log.error("%s: reconnecting failed: %s", self._server(), self._reason)
            self._broadcasts.end(self._refusal())
        finally:
            # Unless the new connection has already ended, and another task is reconnecting. A task
            # that its event loop has left behind ends when there is none.
            if self._reconnecting is own_task and not self._loop_is_closed():
                self._stop_waiting()

    def _stop_waiting(self) -> None:
        """Ends the reconnect; requests that waited for it look for a connection again."""
        self._reconnecting = None
        self._settled.set()

    # The event loop, of which there is one at a time.

    def _loop_is_closed(self) -> bool:
        return self._loop is not None and self._loop.is_closed()

    def _runs_elsewhere(self) -> bool:
        """Whether the client is in use in the event loop of another thread."""
        elsewhere = self._loop is not None and self._loop is not asyncio.get_running_loop()
        return elsewhere and self._in_use() and self._loop is not None and self._loop.is_running()

    def _in_use(self) -> bool:
        opening_or_closing = self._open_close_turn.locked()
        return opening_or_closing or self._connection is not None or self._reconnecting is not None

    def _enter_loop(self) -> None:
        """Makes the client belong to the running event loop.

        What it had in a loop that was closed has ended. RuntimeError if the other loop is not.
        """
        if self._loop is asyncio.get_running_loop():
            return
        if self._in_use() and not self._loop_is_closed():
            raise RuntimeError("this client belongs to another event loop: use a client for each")
        self._leave_loop()

    def _leave_loop(self) -> None:
        """Ends what the client has in an event loop that no longer runs, and enters this one."""
        if self._loop is asyncio.get_running_loop():
            return
        connection, self._connection = self._connection, None
        task, self._reconnecting = self._reconnecting, None
        was_in_use = connection is not None or task is not None
        if self._loop_is_closed():
            # Nobody can be woken there.
            if connection is not None:
                connection.abandon()
            self._reset_loop()
            self._note_loss_of_loop(was_in_use)
        else:
            self._note_loss_of_loop(was_in_use)
            if connection is not None:
                connection.abort()
            if task is not None:
                task.cancel()
            self._settled.set()
            self._reset_loop()
        self._loop = asyncio.get_running_loop()

    def _note_loss_of_loop(self, was_in_use: bool) -> None:
        if was_in_use:
            why = "the event loop of the connection has ended"
            self._reason = NotConnected(f"{why}: call connect() in each event loop")
            self._broadcasts.end(self._reason)

    def _reset_loop(self) -> None:
        """Makes what waits for others anew: such an object belongs to the loop of its first use."""
        # Set unless a reconnect is under way.
        self._settled = asyncio.Event()
        self._settled.set()
        # Connecting and closing exclude each other.
        self._open_close_turn = asyncio.Lock()
        self._connect_limit = None
        self._broadcasts.enter_loop()

    async def _end_elsewhere(self, complete: bool) -> None:
        """Closes the client in the event loop of the other thread."""
        assert self._loop is not None
        closed = asyncio.run_coroutine_threadsafe(self._end(complete=complete), self._loop)
        # That loop may end before it closes the client.
        await asyncio.wait([asyncio.wrap_future(closed)], timeout=self._close_timeout_s)


_CLOSED: Final = "the client was closed: call connect() to use it again"


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
