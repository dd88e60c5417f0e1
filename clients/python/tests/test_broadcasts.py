"""Received broadcasts: between answers, without a reader, with several, and at the end."""

from __future__ import annotations

import asyncio

import pytest
from scripted import BROADCAST, CLOSE, ECHO, Peer, answer_to, frame, run, scripted, serve
from virtual_time import run_in_virtual_time

from ringest import BinaryProtocolClient, NotConnected


async def announce(peer: Peer) -> None:
    """Sends ten broadcasts around the answer to an ECHO, then serves as usual."""
    message = await peer.read()
    frames = [frame(BROADCAST, bytes([number])) for number in range(10)]
    await peer.write(*frames[:5], answer_to(*message), *frames[5:])
    await peer.serve()


def test_broadcasts_come_between_answers() -> None:
    async def scenario() -> None:
        async with scripted(announce) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            assert await client.echo(b"go") == b"go"
            seen = [await anext(client.broadcasts()) for _ in range(10)]
            assert seen == [bytes([number]) for number in range(10)]
            assert client.broadcasts_dropped == 0

    run(scenario())


def test_without_a_reader_the_oldest_are_dropped_and_counted() -> None:
    async def scenario() -> None:
        async with (
            scripted(announce) as port,
            BinaryProtocolClient("127.0.0.1", port, broadcasts_max=3) as client,
        ):
            await client.echo(b"go")
            await client.echo(b"after all of them")
            assert client.broadcasts_dropped == 7
            seen = [await anext(client.broadcasts()) for _ in range(3)]
            assert seen == [b"\x07", b"\x08", b"\x09"]

    run(scenario())


def test_the_iteration_ends_with_close_after_the_rest() -> None:
    async def scenario() -> None:
        async with scripted(announce) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            await client.echo(b"go")
            await client.echo(b"after all of them")
            await client.close()
            assert len([payload async for payload in client.broadcasts()]) == 10
            assert [payload async for payload in client.broadcasts()] == []

    run(scenario())


def test_broadcasts_during_close_are_not_lost() -> None:
    async def late(peer: Peer) -> None:
        await peer.expect(CLOSE)
        await peer.write(frame(BROADCAST, b"late"))

    async def scenario() -> None:
        async with scripted(late) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            await client.close()
            assert [payload async for payload in client.broadcasts()] == [b"late"]

    run(scenario())


def test_a_waiting_reader_learns_of_close_and_of_loss() -> None:
    async def read_all(client: BinaryProtocolClient) -> list[bytes]:
        return [payload async for payload in client.broadcasts()]

    async def drop(peer: Peer) -> None:
        await peer.write(frame(BROADCAST, b"last"))
        await peer.expect(ECHO)

    async def scenario() -> None:
        async with scripted(serve) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            reader = asyncio.create_task(read_all(client))
            await asyncio.sleep(0)
            await client.close()
            assert await reader == []
        async with scripted(drop) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            broadcasts = client.broadcasts()
            assert await anext(broadcasts) == b"last"
            waiting = asyncio.create_task(anext(broadcasts))
            await asyncio.gather(client.echo(b""), return_exceptions=True)
            with pytest.raises(NotConnected, match="the server closed"):
                await waiting
            await client.close()

    run(scenario())


def test_several_readers_share_and_a_cancelled_wait_loses_nothing() -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def later(peer: Peer) -> None:
            await go.wait()
            await peer.write(*(frame(BROADCAST, bytes([number])) for number in range(100)))
            await peer.serve()

        seen: list[bytes] = []

        async def read(client: BinaryProtocolClient) -> None:
            async for payload in client.broadcasts():
                seen.append(payload)
                await asyncio.sleep(0)

        async with scripted(later) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            broadcasts = client.broadcasts()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(broadcasts), 10.0)
            readers = [asyncio.create_task(read(client)) for _ in range(3)]
            go.set()
            await client.ping()
            await client.close()
            await asyncio.gather(*readers)
            assert sorted(seen) == [bytes([number]) for number in range(100)]

    run_in_virtual_time(scenario())
