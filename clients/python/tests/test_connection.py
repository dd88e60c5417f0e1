"""Opening, keeping and closing a connection: timeouts, heartbeats, TLS, CLOSE."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from scripted import (
    CLOSE,
    ECHO,
    PING,
    PONG,
    RATE_LIMITED,
    Peer,
    answer_to,
    error_frame,
    frame,
    run,
    scripted,
    serve,
    server_context,
    silent,
)
from virtual_time import run_in_virtual_time

from ringest import (
    BinaryProtocolClient,
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    NotConnected,
    RingestError,
)


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def test_requests_need_a_connection() -> None:
    async def scenario() -> None:
        client = BinaryProtocolClient("127.0.0.1", 5000)
        assert not client.connected
        for request in (
            client.ping(),
            client.echo(b""),
            client.send_data(b""),
            client.broadcast(b""),
            client.authenticate("alice", "token"),
            anext(client.broadcasts()),
        ):
            with pytest.raises(NotConnected, match=r"call connect\(\) first"):
                await request
        await client.close()

    run(scenario())


def test_nobody_listens() -> None:
    async def scenario() -> None:
        client = BinaryProtocolClient("127.0.0.1", unused_port())
        with pytest.raises(ConnectError, match="is the server running") as caught:
            await client.connect()
        assert isinstance(caught.value, OSError)
        assert not client.connected

    run(scenario())


def test_a_host_without_an_address() -> None:
    async def scenario() -> None:
        client = BinaryProtocolClient("host.invalid", 5000)
        with pytest.raises(ConnectError, match=r"cannot connect to host.invalid:5000"):
            await client.connect()

    run(scenario())


def test_connecting_has_an_end() -> None:
    async def scenario() -> None:
        # The backlog is full and nobody accepts, so further connections get no answer.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            port = listener.getsockname()[1]
            clients = [
                BinaryProtocolClient("127.0.0.1", port, connect_timeout_s=0.1, close_timeout_s=0.01)
                for _ in range(10)
            ]
            results = await asyncio.gather(
                *(client.connect() for client in clients), return_exceptions=True
            )
            refused = [result for result in results if result is not None]
            assert refused
            for error in refused:
                assert isinstance(error, ConnectTimeout)
                assert isinstance(error, TimeoutError)
                assert "within 0.1 s: check the address" in str(error)
            await asyncio.gather(*(client.close() for client in clients))

    run(scenario())


def test_a_second_connect_does_nothing() -> None:
    async def scenario() -> None:
        async with scripted(serve) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            await asyncio.gather(client.connect(), client.connect())
            assert await client.echo(b"1") == b"1"
            assert repr(client) == f"<BinaryProtocolClient 127.0.0.1:{port} connected>"

    run(scenario())


def test_close_takes_the_answers_that_are_owed() -> None:
    async def scenario() -> None:
        async def owe(peer: Peer) -> None:
            messages = [await peer.read() for _ in range(2)]
            await peer.expect(CLOSE)
            await peer.write(*(answer_to(*message) for message in messages))

        async with scripted(owe) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            tasks = [asyncio.create_task(client.echo(bytes([number]))) for number in range(2)]
            await asyncio.sleep(0)
            await client.close()
            assert await asyncio.gather(*tasks) == [b"\x00", b"\x01"]

    run(scenario())


def test_nothing_is_sent_after_close() -> None:
    async def scenario() -> None:
        async def owe(peer: Peer) -> None:
            message = await peer.read()
            await peer.expect(CLOSE)
            await peer.write(answer_to(*message))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await peer.read()

        async with scripted(owe) as port:
            client = BinaryProtocolClient("127.0.0.1", port, in_flight_max=1)
            await client.connect()
            tasks = [asyncio.create_task(client.echo(bytes([number]))) for number in range(2)]
            await asyncio.sleep(0.5)
            await client.close()
            assert await tasks[0] == b"\x00"
            with pytest.raises(NotConnected, match="the client was closed"):
                await tasks[1]

    run_in_virtual_time(scenario())


def test_close_twice_at_once_and_again() -> None:
    closes = 0

    async def count(peer: Peer) -> None:
        nonlocal closes
        await peer.expect(CLOSE)
        closes += 1
        await peer.until_gone()

    async def scenario() -> None:
        async with scripted(count) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            await asyncio.gather(client.close(), client.close())
            await client.close()
            with pytest.raises(NotConnected, match="the client was closed"):
                await client.ping()

    run_in_virtual_time(scenario())
    assert closes == 1


def test_close_of_a_server_that_never_closes() -> None:
    async def scenario() -> None:
        async with scripted(silent) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            ping = asyncio.create_task(client.ping())
            await asyncio.sleep(0)
            begun_s = asyncio.get_running_loop().time()
            await client.close()
            assert asyncio.get_running_loop().time() == pytest.approx(begun_s + 5.0)
            with pytest.raises(ConnectionLostError, match="PING was sent"):
                await ping

    run_in_virtual_time(scenario())


def test_a_client_can_be_used_again_after_close() -> None:
    async def scenario() -> None:
        async with scripted(serve) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            for _ in range(3):
                async with client:
                    assert await client.echo(b"1") == b"1"
                assert not client.connected

    run(scenario())


def test_requests_that_wait_for_their_turn_learn_of_the_close() -> None:
    async def scenario() -> None:
        async with scripted(silent) as port:
            client = BinaryProtocolClient("127.0.0.1", port, in_flight_max=1)
            await client.connect()
            tasks = [asyncio.create_task(client.ping()) for _ in range(3)]
            await asyncio.sleep(0.5)
            await client.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [
                ConnectionLostError,
                NotConnected,
                NotConnected,
            ]

    run_in_virtual_time(scenario())


def test_heartbeats_keep_an_idle_connection() -> None:
    async def scenario() -> None:
        beaten = asyncio.Event()

        async def count(peer: Peer) -> None:
            for _ in range(5):
                await peer.write(frame(PONG, await peer.expect(PING)))
            # A refusal is a sign of life too.
            await peer.expect(PING)
            await peer.write(error_frame(RATE_LIMITED, "rate limit exceeded for PING"))
            await peer.write(frame(PONG, await peer.expect(PING)))
            beaten.set()
            await peer.serve()

        async with (
            scripted(count) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            await beaten.wait()
            assert asyncio.get_running_loop().time() == pytest.approx(7 * 30.0)
            assert client.connected
            assert await client.echo(b"1") == b"1"

    run_in_virtual_time(scenario())


def test_a_missing_pong_ends_the_connection() -> None:
    async def scenario() -> None:
        async with scripted(silent) as port:
            client = BinaryProtocolClient("127.0.0.1", port, request_timeout_s=None)
            await client.connect()
            with pytest.raises(ConnectionLostError, match=r"no answer to a PING, .* for 10.0 s"):
                await client.echo(b"1")
            assert asyncio.get_running_loop().time() == pytest.approx(30.0 + 10.0)
            with pytest.raises(NotConnected, match="no answer to a PING"):
                await client.ping()
            await client.close()

    run_in_virtual_time(scenario())


def test_requests_make_heartbeats_needless() -> None:
    seen: list[int] = []

    async def note(peer: Peer) -> None:
        while (message := await peer.read())[0] != CLOSE:
            seen.append(message[0])
            await peer.write(answer_to(*message))

    async def scenario() -> None:
        async with scripted(note) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            for _ in range(10):
                await client.echo(b"")
                await asyncio.sleep(29.9)
            assert seen == [ECHO] * 10
            await asyncio.sleep(0.2)
            assert seen == [ECHO] * 10 + [PING]

    run_in_virtual_time(scenario())


def test_a_lost_heartbeat_is_nobodys_forgotten_error(caplog: pytest.LogCaptureFixture) -> None:
    async def drop(peer: Peer) -> None:
        await peer.expect(PING)

    async def scenario() -> None:
        async with (
            scripted(drop) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            with pytest.raises(NotConnected):
                await anext(client.broadcasts())

    run_in_virtual_time(scenario())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_broadcasts_do_not_pass_for_a_heartbeat() -> None:
    async def scenario() -> None:
        beaten = asyncio.Event()

        async def wait_for_ping(peer: Peer) -> None:
            while (await peer.read())[0] != PING:
                pass
            beaten.set()

        async with (
            scripted(wait_for_ping) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            for _ in range(29):
                await client.broadcast(b"hi")
                await asyncio.sleep(1.0)
            assert not beaten.is_set()
            await client.broadcast(b"hi")
            await asyncio.sleep(1.5)
            assert beaten.is_set()

    run_in_virtual_time(scenario())


def test_slow_answers_are_no_missing_pong() -> None:
    async def scenario() -> None:
        async def slow(peer: Peer) -> None:
            messages = []
            while (message := await peer.read())[0] != PING:
                messages.append(message)
            # In all, this is longer than the time for a PONG; no single step is.
            for message in messages:
                await asyncio.sleep(9.0)
                await peer.write(answer_to(*message))
            await peer.write(frame(PONG, message[1]))
            await peer.serve()

        async with (
            scripted(slow) as port,
            BinaryProtocolClient("127.0.0.1", port, request_timeout_s=None) as client,
        ):
            payloads = [bytes([number]) for number in range(12)]
            assert await asyncio.gather(*map(client.echo, payloads)) == payloads
            assert asyncio.get_running_loop().time() == pytest.approx(30.0 + 12 * 9.0)

    run_in_virtual_time(scenario())


def test_without_heartbeats_none_are_sent() -> None:
    async def scenario() -> None:
        async def only_echo(peer: Peer) -> None:
            await peer.write(answer_to(ECHO, await peer.expect(ECHO)))
            await peer.expect(CLOSE)

        async with (
            scripted(only_echo) as port,
            BinaryProtocolClient("127.0.0.1", port, heartbeat_interval_s=None) as client,
        ):
            assert await client.echo(b"1") == b"1"
            assert len(asyncio.all_tasks()) == 2

    run(scenario())


@pytest.mark.parametrize(
    "arguments",
    [
        {"connect_timeout_s": 0.0},
        {"request_timeout_s": -1.0},
        {"close_timeout_s": float("nan")},
        {"heartbeat_interval_s": float("inf")},
        {"heartbeat_timeout_s": 0.0},
        {"in_flight_max": 0},
        {"broadcasts_max": 0},
        {"port": 0},
        {"port": 65_536},
        {"host": ""},
        {"server_hostname": "localhost"},
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|give|TLS"):
        BinaryProtocolClient(**arguments)


def test_all_methods_are_described() -> None:
    for name, method in inspect.getmembers(BinaryProtocolClient):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name


def test_tls(certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        trusting = ssl.create_default_context(cafile=certificate[0])
        async with (
            scripted(serve, tls=server_context(certificate)) as port,
            BinaryProtocolClient(
                "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
            ) as client,
        ):
            payloads = [bytes([number]) * 30_000 for number in range(50)]
            assert await asyncio.gather(*map(client.echo, payloads)) == payloads

    run(scenario())


def test_tls_trusts_nobody_unasked(certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        trusting = ssl.create_default_context(cafile=certificate[0])
        async with scripted(silent, tls=server_context(certificate)) as port:
            stranger = BinaryProtocolClient("localhost", port, ssl=True)
            with pytest.raises(ConnectError, match=r"certificate of .* rejected"):
                await stranger.connect()
            other_name = BinaryProtocolClient("127.0.0.1", port, ssl=trusting)
            with pytest.raises(ConnectError, match=r"certificate of .* rejected"):
                await other_name.connect()

    run(scenario())


def test_tls_with_one_side_alone(certificate: tuple[Path, Path]) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.write(b"\xde\xad\xbe\xef\x01")

    async def scenario() -> None:
        async with scripted(refuse) as port:
            client = BinaryProtocolClient("127.0.0.1", port, ssl=True)
            with pytest.raises(ConnectError):
                await client.connect()
        async with scripted(silent, tls=server_context(certificate)) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            with pytest.raises(RingestError):
                await client.ping()
            await client.close()

    run(scenario())
