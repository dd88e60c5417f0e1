"""Calls in any order, cancelled at any time, to servers that behave in any way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import Awaitable, Callable

import pytest
from scripted import (
    AUTH,
    BROADCAST,
    CLOSE,
    CONNECTION_LIMIT,
    RATE_LIMITED,
    Handler,
    Peer,
    answer_to,
    error_frame,
    frame,
    scripted,
    serve,
    silent,
)
from virtual_time import run_in_virtual_time, virtual_loop

from ringest import (
    BinaryProtocolClient,
    ConnectError,
    NotConnected,
    ReconnectPolicy,
    RingestError,
)

HOST = "127.0.0.1"
CLOSE_TIMEOUT_S = 5.0


def random_server(rng: random.Random) -> Handler:
    """A handler whose every connection behaves in another way."""

    async def drop(peer: Peer) -> None:
        await peer.read()

    async def full(peer: Peer) -> None:
        await peer.write(error_frame(CONNECTION_LIMIT, "connection limit reached"))

    async def garbage(peer: Peer) -> None:
        await peer.read()
        await peer.write(b"garbage")

    async def moody(peer: Peer) -> None:
        """Answers, waits, broadcasts, refuses, and goes."""
        while (message := await peer.read())[0] != CLOSE:
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.1, 3.0]))
            if rng.random() < 0.1:
                return
            if message[0] == AUTH and rng.random() < 0.2:
                await peer.write(frame(AUTH + 1, b"\x00"))
            elif message[0] not in (AUTH, BROADCAST) and rng.random() < 0.1:
                name = {1: "PING", 3: "ECHO", 8: "DATA"}[message[0]]
                await peer.write(error_frame(RATE_LIMITED, f"rate limit exceeded for {name}"))
            else:
                await peer.write(frame(BROADCAST, b"hi"), answer_to(*message))

    async def any_of_them(peer: Peer) -> None:
        handlers: list[Handler] = [serve, serve, moody, moody, moody, drop, full, silent, garbage]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await rng.choice(handlers)(peer)

    return any_of_them


@pytest.mark.parametrize("seed", range(100))
def test_every_call_ends_as_it_says(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    policy = ReconnectPolicy(attempts_max=rng.choice([1, 3, None]), stable_s=rng.choice([0.0, 5.0]))
    policies = [None, policy, policy]

    async def close(client: BinaryProtocolClient) -> None:
        """It never fails, and ends in time; what is opened afterwards is not its doing."""
        begun_s = virtual_loop().time()
        await rng.choice([client.close, client.abort])()
        assert virtual_loop().time() - begun_s <= CLOSE_TIMEOUT_S + 1e-6

    async def connect(client: BinaryProtocolClient) -> None:
        with contextlib.suppress(ConnectError, NotConnected):
            await client.connect()

    async def request(client: BinaryProtocolClient) -> None:
        calls: list[Callable[[], Awaitable[object]]] = [
            client.ping,
            lambda: client.echo(b"1"),
            lambda: client.send_data(b"1"),
            lambda: client.broadcast(b"1"),
            lambda: client.authenticate("alice", rng.choice(["token", "other"])),
            lambda: anext(client.broadcasts(), None),
        ]
        with contextlib.suppress(RingestError):
            await rng.choice(calls)()

    async def scenario() -> None:
        loop = virtual_loop()
        async with scripted(random_server(rng)) as first, scripted(random_server(rng)) as second:
            servers = [f"{HOST}:{first}", f"{HOST}:{second}", "192.0.2.1:1", f"{HOST}:999"]
            loop.silent = {"192.0.2.1"}
            client = BinaryProtocolClient(
                rng.sample(servers, rng.randint(1, 4)),
                close_timeout_s=CLOSE_TIMEOUT_S,
                reconnect=rng.choice(policies),
                in_flight_max=rng.choice([1, 3]),
                heartbeat_interval_s=rng.choice([None, 30.0]),
            )
            tasks: list[asyncio.Task[None]] = []
            for _ in range(60):
                act = rng.choice([connect, connect, request, request, request, request, close])
                tasks.append(asyncio.create_task(act(client)))
                await asyncio.sleep(rng.choice([0.0, 0.0, 0.0, 0.3, 2.0, 12.0, 100.0]))
                if rng.random() < 0.2:
                    rng.choice(tasks).cancel()
            await close(client)
            assert not client.connected
            # What is left, and then the end.
            async for payload in client.broadcasts():
                assert payload == b"hi"
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                assert result is None or isinstance(result, asyncio.CancelledError), result
            # Not even by a connect() that waited for its turn.
            assert not client.connected
            # It can be used again, whatever has happened.
            await connect(client)
            await close(client)
        await asyncio.sleep(1.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_virtual_time(scenario())
    gc.collect()
    # Where asyncio reports exceptions that nobody has seen; those of the scripted server aside.
    lines = [one.getMessage() for one in caplog.records if one.name == "asyncio"]
    assert [line for line in lines if "StreamReaderProtocol" not in line] == []
