"""Connections that are slow but alive are kept; those that are dead are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from typing import Any

import pytest
from scripted import (
    BROADCAST,
    ECHO,
    ECHO_REPLY,
    PATIENCE_S,
    PING,
    PONG,
    Peer,
    answer_to,
    frame,
    scripted,
    serve,
    silent,
)
from virtual_time import run_in_virtual_time, virtual_loop

from ringest import (
    BinaryProtocolClient,
    ConnectionLostError,
    Field,
    NotConnected,
    Packet,
    ReconnectPolicy,
    RecordSender,
    Schema,
    SendTimeout,
)
from ringest.unacknowledged import unacknowledged_bytes

HOST = "127.0.0.1"
LARGE = bytes(60_000)
SLOW_BYTES_PER_S = 200_000.0


def test_a_pong_may_queue_behind_many_broadcasts() -> None:
    """60 broadcasts of 60 KB at 200 KB/s take 18 s, and a PONG has 10 s."""

    async def scenario() -> None:
        async def flood(peer: Peer) -> None:
            ping = await peer.expect(PING)
            for _ in range(60):
                await peer.write(frame(BROADCAST, LARGE))
            await peer.write(frame(PONG, ping))
            await peer.serve()

        virtual_loop().bytes_per_s = SLOW_BYTES_PER_S
        async with scripted(flood) as port, BinaryProtocolClient(HOST, port) as client:
            broadcasts = client.broadcasts()
            assert [await anext(broadcasts) for _ in range(60)] == [LARGE] * 60
            assert virtual_loop().time() > 30.0 + 10.0
            assert await client.echo(b"1") == b"1"

    run_in_virtual_time(scenario())


def test_any_byte_is_a_sign_of_life() -> None:
    """One answer in pieces: there is no whole frame for longer than a PONG has."""

    async def scenario() -> None:
        async def trickle(peer: Peer) -> None:
            await peer.expect(ECHO)
            ping = await peer.expect(PING)
            answer = frame(ECHO_REPLY, b"slow") + frame(PONG, ping)
            for place in range(len(answer)):
                await asyncio.sleep(9.9)
                await peer.write(answer[place : place + 1])
            await peer.serve()

        async with (
            scripted(trickle) as port,
            BinaryProtocolClient(HOST, port, request_timeout_s=None) as client,
        ):
            assert await client.echo(b"slow") == b"slow"

    run_in_virtual_time(scenario())


def test_silence_is_counted_from_the_last_byte() -> None:
    async def scenario() -> None:
        async def stop(peer: Peer) -> None:
            await peer.expect(PING)
            await asyncio.sleep(9.0)
            await peer.write(frame(BROADCAST, b"last")[:1])
            await silent(peer)

        async with scripted(stop) as port, BinaryProtocolClient(HOST, port) as client:
            with pytest.raises(NotConnected, match=r"nothing else received for 10\.0 s"):
                await anext(client.broadcasts())
            assert virtual_loop().time() == pytest.approx(30.0 + 9.0 + 10.0)

    run_in_virtual_time(scenario())


def test_a_ping_may_queue_behind_what_was_sent() -> None:
    """60 broadcasts of 60 KB at 200 KB/s again, in the other direction."""

    async def scenario() -> None:
        virtual_loop().bytes_per_s = SLOW_BYTES_PER_S
        async with (
            scripted(serve) as port,
            BinaryProtocolClient(HOST, port, heartbeat_interval_s=1.0) as client,
        ):
            for _ in range(60):
                await client.broadcast(LARGE)
            await asyncio.sleep(30.0)
            assert client.connected
            assert await client.echo(b"1") == b"1"

    run_in_virtual_time(scenario())


def test_a_peer_that_takes_nothing_is_dead_whatever_is_written() -> None:
    async def scenario() -> None:
        virtual_loop().bytes_per_s = 1e-6
        async with (
            scripted(serve) as port,
            BinaryProtocolClient(HOST, port, heartbeat_interval_s=1.0) as client,
        ):
            ended = asyncio.ensure_future(anext(client.broadcasts()))
            while not ended.done():
                with contextlib.suppress(NotConnected):
                    await client.broadcast(b"more")
                await asyncio.wait([ended], timeout=0.5)
            with pytest.raises(NotConnected, match="no answer to a PING"):
                await ended
            assert virtual_loop().time() == pytest.approx(1.0 + 10.0)

    run_in_virtual_time(scenario())


def test_a_reconnect_waits_for_a_slow_server() -> None:
    """Its proof, too, queues behind broadcasts."""

    async def drop(peer: Peer) -> None:
        await peer.read()

    async def scenario() -> None:
        async def flood(peer: Peer) -> None:
            ping = await peer.expect(PING)
            for _ in range(60):
                await peer.write(frame(BROADCAST, LARGE))
            await peer.write(answer_to(PING, ping))
            await peer.serve()

        virtual_loop().bytes_per_s = SLOW_BYTES_PER_S
        async with (
            scripted(drop, flood) as port,
            BinaryProtocolClient(HOST, port, reconnect=ReconnectPolicy(attempts_max=1)) as client,
        ):
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            assert await client.echo(b"2") == b"2"

    run_in_virtual_time(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much is acknowledged")
def test_the_kernel_tells_what_is_not_acknowledged() -> None:
    with socket.create_server((HOST, 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
        with sender, receiver:
            assert unacknowledged_bytes(sender) == 0
            sender.setblocking(False)
            sent = 0
            while True:
                try:
                    sent += sender.send(LARGE)
                except BlockingIOError:
                    break
            queued = unacknowledged_bytes(sender)
            assert 0 < queued <= sent
            while sent > 0:
                sent -= len(receiver.recv(1 << 20))
            patience_s = time.monotonic() + PATIENCE_S
            # The last acknowledgement may be delayed.
            while unacknowledged_bytes(sender) > 0:
                assert time.monotonic() < patience_s
                time.sleep(0.001)
    assert unacknowledged_bytes(sender) == 0


class SlowSocket:
    """A socket of a slow network with a clock of its own.

    Nothing can be written before a third of the buffer has been acknowledged, as on Linux.
    """

    def __init__(self, bytes_per_s: float, timeout_s: float) -> None:
        self.sent = b""
        self.queued = 0.0
        self.ended = False
        self.closed = False
        self._bytes_per_s = bytes_per_s
        self._timeout_s = timeout_s
        self._buffer_bytes = 3000

    def _wait(self, queued_max: float) -> None:
        wait_s = max(self.queued - queued_max, 0.0) / self._bytes_per_s
        self.queued -= min(wait_s, self._timeout_s) * self._bytes_per_s
        if wait_s > self._timeout_s:
            raise TimeoutError("timed out")

    def send(self, data: Any) -> int:
        self._wait(self._buffer_bytes * 2 / 3)
        taken = bytes(data[: self._buffer_bytes - int(self.queued)])
        self.sent += taken
        self.queued += len(taken)
        return len(taken)

    def sendall(self, data: Any) -> None:
        """As Python does it: the timeout is that of all of it."""
        if (self.queued + len(data)) / self._bytes_per_s > self._timeout_s:
            raise TimeoutError("timed out")
        self.send(data)

    def shutdown(self, _how: int) -> None:
        self.ended = True

    def recv(self, _bytes_max: int) -> bytes:
        assert self.ended
        self._wait(0.0)
        return b""

    def setsockopt(self, *_option: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def slow_sender(
    monkeypatch: pytest.MonkeyPatch, bytes_per_s: float
) -> tuple[RecordSender, SlowSocket]:
    """A sender on such a socket, and the socket."""
    # Half of the sender's.
    fake = SlowSocket(bytes_per_s, timeout_s=30.0)
    monkeypatch.setattr(
        "ringest.record_sender.unacknowledged_bytes", lambda own: max(int(own.queued), 0)
    )
    schema = Schema([Field("a", "u8")], by=["a"], packet=Packet("none", end="close"))
    sender = RecordSender(schema, packet_records=1)
    sender._socket = fake  # type: ignore[assignment]
    return sender, fake


def test_a_stream_over_a_slow_network_ends_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 bytes at 10 bytes/s: the whole, a packet and the end take longer than timeout_s."""
    sender, fake = slow_sender(monkeypatch, 10.0)
    sender._write(bytes([1]) * 10_000)
    sender.finish()
    assert fake.sent == bytes([1]) * 10_000
    assert (sender.bytes_sent, fake.closed) == (10_000, True)


def test_a_stream_to_a_network_that_takes_nothing_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender, fake = slow_sender(monkeypatch, 1e-9)
    with pytest.raises(SendTimeout, match=r"no progress for 60.0 s after 0 bytes"):
        sender._write(bytes([1]) * 10_000)
    assert fake.closed
    sender, fake = slow_sender(monkeypatch, 1e-9)
    sender.send([1])
    with pytest.raises(SendTimeout, match=r"no progress for 60.0 s after 1 byte "):
        sender.finish()
    assert fake.closed


def test_an_interrupted_packet_aborts_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be sent after it, would be taken for the rest of the packet."""
    sender, fake = slow_sender(monkeypatch, 1e9)
    cut = fake.send

    def interrupt(data: Any) -> int:
        cut(data[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "send", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sender.send_array(struct.pack(">4B", 1, 2, 3, 4))
    assert fake.closed
    with pytest.raises(NotConnected, match="the stream was aborted"):
        sender.send([5])
    with pytest.raises(NotConnected, match="the stream was aborted"):
        sender.finish()


def test_an_interrupted_finish_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end was sent; a second one would be bytes after the end."""
    sender, fake = slow_sender(monkeypatch, 1e9)

    def interrupt(_bytes_max: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "recv", interrupt)
    sender.send([1])
    with pytest.raises(KeyboardInterrupt):
        sender.finish()
    sent = fake.sent
    with pytest.raises(NotConnected, match="see the result of the stream"):
        sender.finish()
    assert fake.sent == sent
    assert fake.closed
