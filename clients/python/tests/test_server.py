"""The message client against the real server, which must have been built.

RINGEST_BIN=target/release/ringest python -m pytest tests/test_server.py
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import signal
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

import pytest
from scripted import PATIENCE_S, run

from ringest import (
    AuthenticationError,
    BinaryProtocolClient,
    ConnectError,
    ConnectionLimitExceeded,
    ErrorCode,
    NotConnected,
    RateLimitExceeded,
    ReconnectPolicy,
    RingestError,
    ServerError,
    ServerTimeout,
)

BINARY = os.environ.get("RINGEST_BIN", "")

pytestmark = pytest.mark.skipif(not BINARY, reason="RINGEST_BIN does not name the ringest program")

READY = re.compile(r"ringest: ready for messages on 127\.0\.0\.1:(\d+)\b")
QUICK = ReconnectPolicy(delay_min_s=0.01, delay_max_s=0.2)


@contextmanager
def server(*options: str, port: int = 0) -> Iterator[int]:
    """Runs a server; yields its port for messages."""
    command = [BINARY, "serve", "--no-records", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--admin-port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stderr is not None
    ports: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    lines: list[str] = []
    reader = threading.Thread(target=read_log, args=(process.stderr, lines, ports))
    reader.start()
    try:
        try:
            found = ports.get(timeout=PATIENCE_S)
        except queue.Empty:
            found = None
        assert found is not None, "the server did not get ready:\n" + "".join(lines)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stderr.close()
            # pytest shows this if the test failed.
            print("".join(lines))
    assert process.returncode == 0


def read_log(log: IO[str], lines: list[str], ports: queue.SimpleQueue[int | None]) -> None:
    """Collects the lines and reports the port in them; None if the log ends without one."""
    for line in log:
        lines.append(line)
        if match := READY.search(line):
            ports.put(int(match[1]))
    ports.put(None)


@asynccontextmanager
async def two_clients(
    port: int,
) -> AsyncIterator[tuple[BinaryProtocolClient, BinaryProtocolClient]]:
    """Two clients that the server has accepted, so that each gets the other's broadcasts."""
    async with (
        BinaryProtocolClient("127.0.0.1", port) as one,
        BinaryProtocolClient("127.0.0.1", port) as other,
    ):
        await one.ping()
        await other.ping()
        yield one, other


def make_user(user: str, auth_file: Path) -> str:
    """Adds a user; returns the token."""
    command = [BINARY, "token", user, "--auth-file", str(auth_file)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    return done.stdout.removesuffix("\n")


def test_the_example_of_the_readme() -> None:
    async def scenario(port: int) -> None:
        client = BinaryProtocolClient("localhost", port)
        await client.connect()
        pong = await client.ping()
        assert pong.latency_ms >= 0.0
        assert await client.echo(b"Hello, Server!") == b"Hello, Server!"
        await client.broadcast(b"Message to all clients")
        await client.send_data(b"Large data payload...")
        await client.close()

    with server() as port:
        run(scenario(port))


def test_payloads_of_all_sizes() -> None:
    async def scenario(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            for size in (0, 1, 1000, 4096, 65_534, 65_535):
                payload = os.urandom(size)
                assert await client.echo(payload) == payload
            for size in (0, 1, 65_531):
                await client.send_data(os.urandom(size))
            assert await client.send_data(b"", sequence=2**32 - 1) == 2**32 - 1

    with server() as port:
        run(scenario(port))


def test_many_requests_of_many_tasks_on_many_connections() -> None:
    async def one(client: BinaryProtocolClient, number: int) -> None:
        payload = number.to_bytes(4, "big") * (number % 500)
        assert await client.echo(payload) == payload
        # Whatever the number: it does not begin with the length of a packet.
        await client.send_data(b"text" + payload, sequence=number)
        await client.ping()

    async def many(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            await asyncio.gather(*(one(client, number) for number in range(500)))

    async def scenario(port: int) -> None:
        await asyncio.gather(*(many(port) for _ in range(4)))

    with server("--rate-limit", "1000000", "--global-rate-limit", "1000000") as port:
        run(scenario(port))


def test_data_that_is_nearly_a_packet_is_refused() -> None:
    packet = (271).to_bytes(4, "big") + b"\x01" * 267

    async def scenario(port: int) -> None:
        for payload in (packet[:-1], packet + b"\x00"):
            async with BinaryProtocolClient("127.0.0.1", port) as client:
                assert await client.send_data(packet) == 0
                with pytest.raises(ServerError, match="records rejected") as caught:
                    await client.send_data(payload)
                assert caught.value.code is ErrorCode.UNKNOWN
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            assert await client.send_data(packet * 2) == 0

    with server() as port:
        run(scenario(port))


def test_cancelled_requests_keep_the_order() -> None:
    async def scenario(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            tasks = [
                asyncio.create_task(client.echo(number.to_bytes(2, "big") * 10_000))
                for number in range(100)
            ]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks[1::2])
            assert results == [number.to_bytes(2, "big") * 10_000 for number in range(1, 100, 2)]

    with server() as port:
        run(scenario(port))


def test_broadcasts_reach_the_others_and_not_the_sender() -> None:
    async def scenario(port: int) -> None:
        async with two_clients(port) as (one, other):
            await one.broadcast(b"from one")
            assert await anext(other.broadcasts()) == b"from one"
            await other.broadcast(b"from the other")
            assert await anext(one.broadcasts()) == b"from the other"
            await one.close()
            assert [payload async for payload in one.broadcasts()] == []

    with server() as port:
        run(scenario(port))


def test_the_rate_limit_refuses_requests() -> None:
    async def scenario(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            results = await asyncio.gather(
                *(client.echo(number.to_bytes(2, "big")) for number in range(500)),
                return_exceptions=True,
            )
            refused = [result for result in results if isinstance(result, RateLimitExceeded)]
            assert 0 < len(refused) < len(results)
            assert {error.message for error in refused} == {"rate limit exceeded for ECHO"}
            for number, result in enumerate(results):
                if not isinstance(result, RateLimitExceeded):
                    assert result == number.to_bytes(2, "big")
            assert client.connected

    with server("--rate-limit", "10") as port:
        run(scenario(port))


@pytest.mark.parametrize("option", ["--rate-limit", "--global-rate-limit"])
def test_the_rate_limit_refuses_broadcasts(option: str) -> None:
    refused: list[ServerError] = []

    async def scenario(port: int) -> None:
        client = BinaryProtocolClient("127.0.0.1", port, on_broadcast_refused=refused.append)
        async with client:
            for _ in range(500):
                await client.broadcast(b"hi")
            # Refused or not, this is answered, and all refusals arrive before its answer.
            with contextlib.suppress(RateLimitExceeded):
                await client.ping()
            assert client.broadcasts_refused == len(refused) > 0
            assert {error.code for error in refused} == {ErrorCode.RATE_LIMIT_EXCEEDED}

    with server(option, "10") as port:
        run(scenario(port))


def test_a_silent_client_gets_an_error_and_is_closed() -> None:
    async def scenario(port: int) -> None:
        client = BinaryProtocolClient("127.0.0.1", port, heartbeat_interval_s=None)
        async with client:
            with pytest.raises(ServerTimeout):
                await anext(client.broadcasts())
            with pytest.raises(ServerTimeout):
                await client.ping()

    with server("--idle-timeout", "500ms") as port:
        run(scenario(port))


def test_heartbeats_keep_an_idle_connection() -> None:
    async def scenario(port: int) -> None:
        async with (
            BinaryProtocolClient("127.0.0.1", port, heartbeat_interval_s=0.1) as beating,
            BinaryProtocolClient("127.0.0.1", port, heartbeat_interval_s=None) as silent,
        ):
            with pytest.raises(ServerTimeout):
                await anext(silent.broadcasts())
            # This connection is the older one.
            assert await beating.echo(b"still there") == b"still there"

    with server("--idle-timeout", "2s") as port:
        run(scenario(port))


def test_a_server_without_a_free_place() -> None:
    async def scenario(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as first:
            await first.ping()
            second = BinaryProtocolClient("127.0.0.1", port)
            await second.connect()
            with pytest.raises(ConnectionLimitExceeded):
                await second.ping()
            await second.close()
        # The server soon notices that the first connection is gone.
        for _ in range(1000):
            async with second:
                try:
                    await second.ping()
                    return
                except ConnectionLimitExceeded:
                    await asyncio.sleep(0.01)
        pytest.fail("the connection limit was never free again")

    with server("--max-connections", "1", "--admit-timeout", "0s") as port:
        run(scenario(port))


def test_authentication(tmp_path: Path) -> None:
    auth_file = tmp_path / "users"
    token = make_user("alice", auth_file)

    async def scenario(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            assert client.session_id is None
            session_id = await client.authenticate("alice", token)
            # At least 128 bits, whatever the alphabet.
            assert len(session_id) >= 20
            assert client.session_id == session_id == await client.authenticate("alice", token)
            assert await client.echo(b"1") == b"1"
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            assert await client.authenticate("alice", token) != session_id

    with server("--auth-file", str(auth_file)) as port:
        run(scenario(port))


def test_authentication_that_is_open_to_anyone() -> None:
    async def scenario(port: int) -> None:
        async with BinaryProtocolClient("127.0.0.1", port) as client:
            assert await client.authenticate("anyone", "anything")

    with server("--auth-open") as port:
        run(scenario(port))


def test_wrong_credentials_and_the_end_after_the_third(tmp_path: Path) -> None:
    auth_file = tmp_path / "users"
    token = make_user("alice", auth_file)

    async def scenario(port: int) -> None:
        client = BinaryProtocolClient("127.0.0.1", port)
        async with client:
            for user, wrong in (("alice", token + "x"), ("bob", token), ("alice", "")):
                with pytest.raises(AuthenticationError) as caught:
                    await client.authenticate(user, wrong)
                assert token not in str(caught.value) + repr(caught.value)
            with pytest.raises(AuthenticationError):
                await anext(client.broadcasts())
            with pytest.raises(AuthenticationError):
                await client.ping()
        async with client:
            await client.authenticate("alice", token)

    with server("--auth-file", str(auth_file)) as port:
        run(scenario(port))


def test_where_authentication_is_required(tmp_path: Path) -> None:
    auth_file = tmp_path / "users"
    token = make_user("alice", auth_file)

    async def scenario(port: int) -> None:
        client = BinaryProtocolClient("127.0.0.1", port)
        async with client:
            await client.ping()
            with pytest.raises(AuthenticationError):
                await client.echo(b"1")
            await client.broadcast(b"2")
            await client.ping()
            assert client.broadcasts_refused == 1
            await client.authenticate("alice", token)
            assert await client.echo(b"3") == b"3"
        async with client:
            # The server closes after the third refusal of any kind.
            results = await asyncio.gather(
                client.echo(b"1"),
                client.send_data(b"2"),
                client.echo(b"3"),
                return_exceptions=True,
            )
            assert {type(result) for result in results} == {AuthenticationError}
            with pytest.raises(AuthenticationError):
                await anext(client.broadcasts())

    with server("--auth-file", str(auth_file), "--require-auth") as port:
        run(scenario(port))


def test_tls(tmp_path: Path) -> None:
    subprocess.run([BINARY, "gen-cert", "--dir", str(tmp_path)], check=True, capture_output=True)

    async def scenario(port: int) -> None:
        trusting = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        for host, name in (("localhost", None), ("127.0.0.1", None), ("127.0.0.1", "localhost")):
            client = BinaryProtocolClient(host, port, ssl=trusting, server_hostname=name)
            async with client:
                payloads = [os.urandom(60_000) for _ in range(20)]
                assert await asyncio.gather(*map(client.echo, payloads)) == payloads
        stranger = BinaryProtocolClient("localhost", port, ssl=True)
        with pytest.raises(ConnectError, match="certificate of"):
            await stranger.connect()
        async with BinaryProtocolClient("127.0.0.1", port) as plain:
            with pytest.raises(RingestError):
                await plain.ping()

    cert, key = str(tmp_path / "server.crt"), str(tmp_path / "server.key")
    with server("--tls", "--cert", cert, "--key", key) as port:
        run(scenario(port))


def test_a_server_that_is_started_again(tmp_path: Path) -> None:
    auth_file = tmp_path / "users"
    token = make_user("alice", auth_file)
    options = "--auth-file", str(auth_file), "--require-auth"

    async def scenario() -> None:
        with server(*options) as port:
            client = BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK)
            await client.connect()
            session_id = await client.authenticate("alice", token)
        with server(*options, port=port):
            while True:
                # The client may notice the loss only now; it does not repeat a request by itself.
                try:
                    assert await client.echo(b"again") == b"again"
                except ConnectionError:
                    continue
                break
            assert client.session_id not in (None, session_id)
            await client.close()

    run(scenario())


def test_a_server_that_stops() -> None:
    async def scenario() -> None:
        with server() as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            await client.ping()
        # If the server gave a reason, that is the error.
        for request in (anext(client.broadcasts()), client.ping()):
            with pytest.raises((NotConnected, ServerError)):
                await request
        await client.close()

    run(scenario())
