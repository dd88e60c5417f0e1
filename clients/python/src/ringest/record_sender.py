"""Sends records of a schema to an engine over one blocking socket. It does not read results.

Only `finish` completes a stream. `close`, and leaving the with-block by an exception, abort it, and
the engine reports it as incomplete.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, TypeAlias

from ringest.errors import (
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    NotConnected,
    ProtocolError,
    RecordError,
    RingestError,
    SendTimeout,
    counted,
)
from ringest.happy_eyeballs import LINGER_RESET, connect_blocking
from ringest.record_packets import RecordPackets
from ringest.schema import Record, Schema
from ringest.target import Target, explain_alert, explain_connect, split_address
from ringest.tls_socket import TlsSocket
from ringest.unacknowledged import unacknowledged_bytes

Stream: TypeAlias = socket.socket | TlsSocket

# The engine never answers. What another kind of server sends is only looked at, so this suffices.
_ANSWER_BYTES: Final = 64


class RecordSender:
    """One stream of records: a context manager that connects, and finishes if nothing was raised.

    `packet_records` is the number of records per packet; by default, a packet has up to 60 KiB.
    Times are in seconds, None means no limit; `timeout_s` is how long the engine may make no
    progress. A sender is not thread-safe.
    """

    def __init__(
        self,
        schema: Schema,
        host: str = "localhost",
        port: int = 9000,
        *,
        tls: ssl.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        packet_records: int | None = None,
        connect_timeout_s: float | None = 10.0,
        timeout_s: float | None = 60.0,
    ) -> None:
        for name, time_s in (("connect_timeout_s", connect_timeout_s), ("timeout_s", timeout_s)):
            if time_s is not None and not time_s > 0.0:
                raise ValueError(f"{name} must be greater than 0, or None for no limit")
        self._target: Final = Target(*split_address(host, port), tls or None, server_hostname)
        self._connect_timeout_s: Final = connect_timeout_s
        self._timeout_s: Final = timeout_s
        self._packets: Final = RecordPackets(schema, packet_records)
        self._pack: Final = schema.pack
        self._bytes_sent: int = 0
        self._local_address: tuple[str, int] | None = None
        self._finished = False
        self._socket: Stream | None = None
        # Why there is no socket.
        self._reason: RingestError = NotConnected("not connected: use `with`, or call connect()")

    def __repr__(self) -> str:
        state = "connected" if self._socket is not None else "not connected"
        return f"<RecordSender {self._target} {state}, {counted(self.records, 'record')}>"

    def __enter__(self) -> RecordSender:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self._finished:
            self.finish()
        else:
            self.close()

    @property
    def schema(self) -> Schema:
        """The schema of the records."""
        return self._packets.schema

    @property
    def records(self) -> int:
        """Records accepted so far; those of the current packet may not have been sent yet."""
        return self._packets.records

    @property
    def packets(self) -> int:
        """Packets completed so far, including that of the end record."""
        return self._packets.packets

    @property
    def bytes_sent(self) -> int:
        """Bytes passed to the network so far, before encryption by TLS."""
        return self._bytes_sent

    @property
    def local_address(self) -> tuple[str, int]:
        """This end of the connection, which is `peer` in the result; still known after the end."""
        if self._local_address is None:
            raise NotConnected("there is no local address before connect()")
        return self._local_address

    def connect(self) -> None:
        """Opens the connection; ConnectError or ConnectTimeout if that fails.

        A sender is one stream, so it does nothing if it is connected, and does not connect again
        after that.
        """
        if self._socket is not None:
            return
        if self._local_address is not None:
            raise NotConnected("this sender has already sent its stream: create another one")
        try:
            self._socket = self._open()
        except (OSError, UnicodeError) as error:
            # The timeout of the TLS handshake and that of the operating system included.
            if isinstance(error, TimeoutError):
                advice = "check the address, firewalls, and that both sides use TLS or neither does"
                raise ConnectTimeout(f"no connection to {self._target}: {advice}") from error
            raise ConnectError(explain_connect(error, self._target)) from error
        host, port = self._socket.getsockname()[:2]
        self._local_address = host, port

    def send(self, record: Record) -> None:
        """Sends one record: a mapping by name, or a sequence in the order of `schema.names`.

        A RecordError says what does not fit; the record is not sent, and the stream can continue.
        """
        if self._socket is None:
            self._connected()
        packet = self._packets.add(self._pack(record))
        if packet is not None:
            self._write(packet)

    def send_many(self, records: Iterable[Record]) -> None:
        """Sends each record of an iterable; after a RecordError, those before it have been sent."""
        self._connected()
        pack, add = self._pack, self._packets.add
        for record in records:
            if (packet := add(pack(record))) is not None:
                self._write(packet)

    def send_array(self, data: Any) -> None:
        """Sends a buffer of packed records unchanged: bytes, or an array of `numpy_dtype()`.

        After a RecordError, none of them has been sent.
        """
        self._connected()
        for packet in self._packets.whole(data):
            self._write(packet)

    def flush(self) -> None:
        """Sends the records collected so far, as a packet that is not full."""
        self._connected()
        self._write(self._packets.flush())

    def finish(self) -> None:
        """Sends the remaining records and the end, and waits until the engine has read everything.

        A ConnectionLostError means that the stream is incomplete. Otherwise its result says whether
        it is complete. Calling it again does nothing.
        """
        if self._finished:
            return
        self._connected()
        self._write(self._packets.end())
        if self._bytes_sent == 0:
            self.close()
            rule = 'no record was sent, but with end = "close" a stream needs at least one'
            raise RecordError(f"{rule}: the engine reports this one as incomplete")
        own = self._connected()
        try:
            self._shut_down(own)
        except OSError as error:
            raise self._break(own, error) from error
        except BaseException:
            # An interrupt. The end is on its way, so it must not be sent again.
            self._drop_socket("finish() was interrupted: see the result of the stream")
            raise
        self._finished = True
        self._drop_socket("the stream is finished: create another sender for another stream")

    def close(self) -> None:
        """Aborts the stream, which is then incomplete; does nothing after `finish`."""
        if self._socket is None:
            return
        if self.schema.packet.end == "close":
            # A regular close would end the stream as complete.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self._drop_socket("the stream was aborted: create another sender to send it again")

    def _open(self) -> Stream:
        target = self._target
        limit_s = math.inf if self._connect_timeout_s is None else self._connect_timeout_s
        deadline_s = time.monotonic() + limit_s
        plain = connect_blocking(target.host, target.port, self._connect_timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            own: Stream = plain
            if target.ssl is not None:
                context = ssl.create_default_context() if target.ssl is True else target.ssl
                assert isinstance(context, ssl.SSLContext)
                own = TlsSocket(plain, context, target.certificate_name)
                own.handshake(deadline_s)
            own.settimeout(None if self._timeout_s is None else self._timeout_s / 2.0)
        except BaseException:
            plain.close()
            raise
        return own

    def _connected(self) -> Stream:
        if self._socket is None:
            raise type(self._reason)(str(self._reason))
        return self._socket

    def _write(self, packet: bytes) -> None:
        own = self._connected()
        if not packet:
            return
        try:
            rest: bytes | memoryview = packet
            while (sent := self._patiently(own, own.send, rest)) < len(rest):
                rest = memoryview(rest)[sent:]
        except OSError as error:
            raise self._break(own, error) from error
        except BaseException:
            # An interrupt. What followed would be read as the rest of this packet.
            self.close()
            raise
        self._bytes_sent += len(packet)

    def _patiently(self, own: Stream, call: Callable[..., Any], argument: Any) -> Any:
        """Makes a call until it is done; TimeoutError if there is no progress for `timeout_s`.

        On a slow network, a single wait may take longer than that. The timeout of the socket is
        half of it: after the first half, this learns how much is not acknowledged, and after the
        second, whether that is less. So waits that are short cost nothing.
        """
        queued: int | None = None
        while True:
            try:
                return call(argument)
            except TimeoutError:
                before, queued = queued, unacknowledged_bytes(own)
                if before is not None and queued >= before:
                    raise

    def _shut_down(self, own: Stream) -> None:
        """Shuts down the sending side, and waits until the engine closes."""
        self._patiently(own, own.shutdown, socket.SHUT_WR)
        if answer := self._patiently(own, own.recv, _ANSWER_BYTES):
            self.close()
            why = _explain_answer(answer) or "check that this is its port for records"
            raise ProtocolError(f"{self._target} answered, which an engine never does; {why}")

    def _break(self, own: Stream, error: OSError) -> RingestError:
        """Aborts the stream after a socket error; returns the error to raise."""
        progress = f"after {counted(self._bytes_sent, 'byte')} to {self._target}"
        reason: RingestError
        if isinstance(error, TimeoutError):
            advice = "the engine is overloaded or stuck: see its log, or raise timeout_s"
            reason = SendTimeout(f"no progress for {self._timeout_s} s {progress}: {advice}")
        elif isinstance(error, ConnectionResetError | BrokenPipeError | ssl.SSLError):
            closed = "the engine closed the stream; its result and its log say why"
            advice = explain_alert(error) or _explain_end(own) or closed
            reason = ConnectionLostError(f"connection lost {progress}: {advice}")
        else:
            advice = "check the network and the engine's log"
            reason = ConnectionLostError(f"connection lost {progress} ({error}): {advice}")
        self.close()
        self._reason = reason
        return type(reason)(str(reason))

    def _drop_socket(self, why: str) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._reason = NotConnected(why)


def _explain_end(own: Stream) -> str | None:
    """Why the engine ended the connection; None unless a TLS alert arrived before the end."""
    try:
        own.settimeout(0.0)
        return _explain_answer(own.recv(_ANSWER_BYTES))
    except OSError as error:
        return explain_alert(error)


def _explain_answer(answer: bytes) -> str | None:
    """What to do about a TLS alert; None if the answer is none."""
    return "it uses TLS: pass tls= (or --tls)" if answer[:1] == b"\x15" else None
