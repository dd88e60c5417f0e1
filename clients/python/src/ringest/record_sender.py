"""Sends records of a schema to an engine, over one blocking socket. It reads no result.

A stream is complete only when `finish` was called: leaving the with-block by an exception, and
`close`, cut it off so that the engine reports it as incomplete.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

from ringest.connection import Target, explain_connect
from ringest.errors import (
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    NotConnected,
    ProtocolError,
    RecordError,
    RingestError,
    SendTimeout,
)
from ringest.record_packets import RecordPackets
from ringest.schema import Record, Schema

PORT_MAX: Final = 65_535
# SO_LINGER switched on with a time of 0: close() then resets the connection.
_RESET: Final = struct.pack("ii", 1, 0)
# More than the server says: it never says a word.
_ANSWER_BYTES: Final = 64


class RecordSender:
    """One stream of records: a context manager that connects, and finishes when all went well.

    `packet_records` is how many records are collected before they are sent; by default so many
    that a packet has 60 KiB. Times are in seconds, None is no limit; `timeout_s` is for each
    packet and for the end. It is not thread-safe.
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
        if not host or not 1 <= port <= PORT_MAX:
            raise ValueError(f"{host!r}, port {port}: give a host, and a port from 1 to {PORT_MAX}")
        for name, time_s in (("connect_timeout_s", connect_timeout_s), ("timeout_s", timeout_s)):
            if time_s is not None and not time_s > 0.0:
                raise ValueError(f"{name} must be above 0, or None for no limit")
        if server_hostname is not None and not tls:
            raise ValueError("server_hostname is for TLS alone: give tls= as well")
        self._target: Final = Target(host, port, tls or None, server_hostname)
        self._connect_timeout_s: Final = connect_timeout_s
        self._timeout_s: Final = timeout_s
        self._packets: Final = RecordPackets(schema, packet_records)
        self._pack: Final = schema.pack
        self._bytes_sent: int = 0
        self._begun = False
        self._finished = False
        self._socket: socket.socket | None = None
        # Why there is none.
        self._reason: RingestError = NotConnected("not connected yet: use `with`, or connect()")

    def __repr__(self) -> str:
        state = "connected" if self._socket is not None else "not connected"
        return f"<RecordSender {self._target} {state}, {self.records} records>"

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
        """Records that were taken; those of the last packet may not have been sent yet."""
        return self._packets.records

    @property
    def packets(self) -> int:
        """Packets that were made, that of the end record included."""
        return self._packets.packets

    @property
    def bytes_sent(self) -> int:
        """Bytes that were handed to the network, below TLS."""
        return self._bytes_sent

    @property
    def local_address(self) -> tuple[str, int]:
        """The own end of the connection: the `peer` of its result."""
        host, port = self._connected().getsockname()[:2]
        return host, port

    def connect(self) -> None:
        """Opens the connection, once; ConnectError or ConnectTimeout if it fails."""
        if self._begun:
            raise NotConnected("a sender is one stream, and this one has begun: make another")
        try:
            self._socket = self._open()
        except (OSError, UnicodeError) as error:
            # Also one of TLS, and that of the system itself.
            if isinstance(error, TimeoutError):
                advice = "check the address, the firewall on the way, and whether both use TLS"
                raise ConnectTimeout(f"no connection to {self._target}: {advice}") from error
            raise ConnectError(explain_connect(error, self._target)) from error
        self._begun = True

    def send(self, record: Record) -> None:
        """Takes one record, a mapping by name or a sequence in the order of the schema's names.

        RecordError says what does not fit; then nothing was taken, and the stream can go on.
        """
        if self._socket is None:
            self._connected()
        packet = self._packets.add(self._pack(record))
        if packet is not None:
            self._write(packet)

    def send_many(self, records: Iterable[Record]) -> None:
        """Takes each record of an iterable; those before one that does not fit have been taken."""
        self._connected()
        pack, add = self._pack, self._packets.add
        for record in records:
            if (packet := add(pack(record))) is not None:
                self._write(packet)

    def send_array(self, data: Any) -> None:
        """Sends a buffer of whole records as they are: bytes, or an array of `numpy_dtype()`."""
        self._connected()
        for packet in self._packets.whole(data):
            self._write(packet)

    def flush(self) -> None:
        """Sends what has been collected, as a packet that is not full."""
        self._write(self._packets.flush())

    def finish(self) -> None:
        """Sends the rest and the end, and waits until the engine has read all of it.

        Whether the stream was taken is in its result; a ConnectionLostError here means that it was
        not. Does nothing when called again.
        """
        if self._finished:
            return
        self._write(self._packets.end())
        if self._bytes_sent == 0:
            self.close()
            rule = "no record was sent, and a stream that ends by closing needs one"
            raise RecordError(f"{rule}: the engine reports it as incomplete")
        try:
            self._close_politely(self._connected())
        except OSError as error:
            raise self._break(error) from error
        self._finished = True
        self._forget("the stream is finished: make another sender for another one")

    def close(self) -> None:
        """Cuts the stream off, so that it is incomplete; does nothing after `finish`."""
        if self._socket is None:
            return
        if self.schema.packet.end == "close":
            # An ordinary close would say that this was all.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._forget("the stream was closed before its end: make another sender to send it again")

    def _open(self) -> socket.socket:
        target = self._target
        plain = socket.create_connection((target.host, target.port), self._connect_timeout_s)
        try:
            # Where nobody listens on a port that clients are given, a client can meet itself.
            if plain.getsockname() == plain.getpeername():
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                raise ConnectionRefusedError("the connection met itself")
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            own = plain
            if target.ssl is not None:
                context = ssl.create_default_context() if target.ssl is True else target.ssl
                assert isinstance(context, ssl.SSLContext)
                name = target.server_hostname or target.host
                own = context.wrap_socket(plain, server_hostname=name)
            own.settimeout(self._timeout_s)
        except BaseException:
            plain.close()
            raise
        return own

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise type(self._reason)(str(self._reason))
        return self._socket

    def _write(self, packet: bytes) -> None:
        own = self._connected()
        if not packet:
            return
        try:
            own.sendall(packet)
        except OSError as error:
            raise self._break(error) from error
        self._bytes_sent += len(packet)

    def _close_politely(self, own: socket.socket) -> None:
        """Says that this was all, and waits for the end of the other side."""
        if isinstance(own, ssl.SSLSocket):
            # An engine that closes without a word of TLS has closed all the same.
            with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
                own.unwrap()
            return
        own.shutdown(socket.SHUT_WR)
        if answer := own.recv(_ANSWER_BYTES):
            # The first byte of a TLS alert.
            tls = answer[0] == 0x15
            why = "it speaks TLS, so give tls=" if tls else "is that the port of records?"
            self.close()
            raise ProtocolError(f"{self._target} answered, which an engine never does; {why}")

    def _break(self, error: OSError) -> RingestError:
        """The connection is of no use any more: closes it, and gives the error to raise."""
        progress = f"after {self._bytes_sent} bytes to {self._target}"
        reason: RingestError
        if isinstance(error, TimeoutError):
            advice = "it is behind or stuck: see its log, or raise timeout_s"
            reason = SendTimeout(f"nothing was taken for {self._timeout_s} s {progress}: {advice}")
        elif isinstance(error, ConnectionResetError | BrokenPipeError):
            advice = "the engine closed the stream, its result and its log have the reason"
            reason = ConnectionLostError(f"cut off {progress}: {advice}")
        else:
            reason = ConnectionLostError(f"sending stopped {progress} ({error}): see its log")
        self.close()
        self._reason = reason
        return type(reason)(str(reason))

    def _forget(self, why: str) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._reason = NotConnected(why)
