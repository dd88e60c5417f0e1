"""`close()` in every state of a client, and clients that outlive their event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import warnings
from pathlib import Path

import pytest
from scripted import (
    BROADCAST,
    CLOSE,
    DATA,
    ECHO,
    PATIENCE_S,
    Peer,
    answer_to,
    drop,
    run,
    scripted,
    serve,
    silent,
)
from test_readme import message_server
from virtual_time import run_in_virtual_time, virtual_loop

from ringest import (
    BinaryProtocolClient,
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    NotConnected,
    ReconnectPolicy,
)

HOST = "127.0.0.1"
PATIENT = ReconnectPolicy(delay_min_s=1000.0, delay_max_s=1000.0)


@pytest.mark.parametrize("servers", [1, 2])
def test_close_ends_a_tls_handshake_that_hangs(servers: int) -> None:
    async def scenario() -> None:
        accepted, gone = asyncio.Event(), asyncio.Event()

        async def accept(peer: Peer) -> None:
            accepted.set()
            await peer.until_gone()
            gone.set()

        async with scripted(accept) as port:
            client = BinaryProtocolClient(
                [f"{HOST}:{port}"] * servers, ssl=True, connect_timeout_s=None
            )
            # The second one waits for its turn.
            connecting = [asyncio.create_task(client.connect()) for _ in range(2)]
            await accepted.wait()
            await client.close()
            for task in connecting:
                with pytest.raises(NotConnected, match="the client was closed"):
                    await task
            await gone.wait()
            with pytest.raises(NotConnected, match="the client was closed"):
                await client.ping()

    run(scenario())


@pytest.mark.parametrize("turns", range(1, 13))
def test_close_wins_against_connect_at_every_step(turns: int) -> None:
    """A turn of the event loop more each time: while it connects, and after."""

    async def scenario() -> None:
        async with scripted(serve) as port:
            client = BinaryProtocolClient(HOST, port)
            connecting = asyncio.create_task(client.connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            await client.close()
            assert not client.connected
            if not connecting.done() or connecting.exception() is not None:
                with pytest.raises(NotConnected, match="the client was closed"):
                    await connecting
            assert not client.connected
            # What comes after the close is a new start.
            await client.connect()
            assert await client.echo(b"1") == b"1"
            await client.close()

    run_in_virtual_time(scenario())


def test_connect_during_close_opens_another_connection() -> None:
    async def scenario() -> None:
        async with scripted(silent, serve) as port:
            client = BinaryProtocolClient(HOST, port)
            await client.connect()
            closing = asyncio.create_task(client.close())
            await asyncio.sleep(1.0)
            assert not closing.done()
            await client.connect()
            assert closing.done()
            assert await client.echo(b"1") == b"1"
            await client.close()

    run_in_virtual_time(scenario())


def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        virtual_loop().silent = {HOST}
        client = BinaryProtocolClient(HOST, 5000)
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(1.0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.connect(), 1.0)
        await client.close()
        # The attempt, too, learns of it in the next turn.
        await asyncio.sleep(1.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_virtual_time(scenario())


def test_a_cancelled_connect_lets_the_next_one_try() -> None:
    async def scenario() -> None:
        virtual_loop().silent = {HOST}
        async with scripted(serve) as port:
            client = BinaryProtocolClient(HOST, port)
            first, second = (asyncio.create_task(client.connect()) for _ in range(2))
            await asyncio.sleep(1.0)
            virtual_loop().silent = set()
            first.cancel()
            await second
            assert await client.echo(b"1") == b"1"
            await client.close()

    run_in_virtual_time(scenario())


def test_a_cancelled_close_aborts_the_connection() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def never_close(peer: Peer) -> None:
            await peer.until_gone()
            gone.set()

        async with scripted(never_close) as port:
            client = BinaryProtocolClient(HOST, port)
            await client.connect()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.close(), 1.0)
            await gone.wait()
            assert not client.connected
            assert [payload async for payload in client.broadcasts()] == []
            await client.close()

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("way", ["exception", "cancelled", "abort", "close", "block"])
def test_a_client_that_fails_does_not_say_that_it_is_done(way: str) -> None:
    """A server takes records in DATA for a whole stream if CLOSE follows them."""

    async def scenario() -> None:
        seen: list[int] = []
        gone = asyncio.Event()

        async def note(peer: Peer) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    kind, payload = await peer.read()
                    seen.append(kind)
                    if kind == CLOSE:
                        break
                    await peer.write(answer_to(kind, payload))
            gone.set()

        async def send(port: int) -> None:
            async with BinaryProtocolClient(HOST, port) as client:
                assert await client.send_data(b"records") == 0
                # Written, and without an answer: it is not lost.
                await client.broadcast(b"hi")
                match way:
                    case "exception":
                        raise ZeroDivisionError
                    case "cancelled":
                        await asyncio.sleep(1000.0)
                    case "abort":
                        echo = asyncio.create_task(client.echo(b""))
                        await asyncio.sleep(0)
                        await client.abort()
                        with pytest.raises(ConnectionLostError, match="this client closed the con"):
                            await echo
                        with pytest.raises(NotConnected, match="the client was closed"):
                            await client.ping()
                    case "close":
                        await client.close()

        async with scripted(note) as port:
            sending = asyncio.create_task(send(port))
            await asyncio.wait([sending], timeout=1.0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await gone.wait()
        done = [CLOSE] if way in ("close", "block") else []
        assert seen[:2] == [DATA, BROADCAST]
        assert seen[2:] == done or (way == "abort" and seen[2:] == [ECHO])

    run_in_virtual_time(scenario())


def test_abort_of_a_server_that_reads_nothing_has_an_end() -> None:
    with socket.create_server((HOST, 0)) as server:

        async def scenario() -> None:
            client = BinaryProtocolClient(HOST, server.getsockname()[1], close_timeout_s=0.05)
            await client.connect()
            sending = [asyncio.create_task(client.broadcast(bytes(65_000))) for _ in range(500)]
            await asyncio.wait(sending[:1])
            await client.abort()
            results = await asyncio.gather(*sending, return_exceptions=True)
            assert any(isinstance(result, NotConnected) for result in results)

        run(scenario())


def test_connect_waits_for_a_reconnect() -> None:
    async def scenario() -> None:
        async with scripted(drop, serve) as port:
            client = BinaryProtocolClient(HOST, port, reconnect=ReconnectPolicy())
            await client.connect()
            with pytest.raises(ConnectionLostError):
                await client.ping()
            assert not client.connected
            await client.connect()
            assert client.connected
            assert await client.echo(b"1") == b"1"
            await client.close()

    run_in_virtual_time(scenario())


def test_connect_during_a_reconnect_that_lasts_says_so_in_time() -> None:
    async def scenario() -> None:
        async with scripted(drop, serve) as port:
            client = BinaryProtocolClient(HOST, port, reconnect=PATIENT)
            await client.connect()
            with pytest.raises(ConnectionLostError):
                await client.ping()
            with pytest.raises(ConnectTimeout, match=r"not reconnected within 10.0 s .*keeps try"):
                await client.connect()
            assert virtual_loop().time() == pytest.approx(10.0)
            # It does keep trying.
            await asyncio.sleep(1000.0)
            assert client.connected
            await client.close()

    run_in_virtual_time(scenario())


def test_connect_tries_itself_once_a_reconnect_was_given_up() -> None:
    policy = ReconnectPolicy(attempts_max=2)

    async def scenario() -> None:
        async with scripted(drop) as port:
            client = BinaryProtocolClient(HOST, port, reconnect=policy)
            await client.connect()
            with pytest.raises(ConnectionLostError):
                await client.ping()
        with pytest.raises(ConnectError, match="is the server running"):
            await client.connect()
        await client.close()

    run_in_virtual_time(scenario())


def test_a_client_in_a_second_event_loop() -> None:
    """Whatever has waited for something in the first one; each state is left as it is."""
    with message_server(serve) as port:
        client = BinaryProtocolClient(HOST, port)

        async def use() -> None:
            # Contended, so that what they wait for belongs to this loop.
            await asyncio.gather(client.connect(), client.connect())
            broadcasts = asyncio.ensure_future(anext(client.broadcasts(), None))
            assert await client.echo(b"1") == b"1"
            await asyncio.gather(client.close(), client.close())
            assert await broadcasts is None

        for _ in range(3):
            run(use())


def test_close_in_a_second_event_loop() -> None:
    with message_server(serve) as port:
        client = BinaryProtocolClient(HOST, port)

        async def connect_and_leave() -> None:
            await client.connect()
            assert await client.echo(b"1") == b"1"

        async def ended() -> None:
            assert not client.connected
            assert client.session_id is None
            with pytest.raises(NotConnected, match="the event loop of the connection has ended"):
                await client.ping()
            with pytest.raises(NotConnected, match="the event loop of the connection has ended"):
                await anext(client.broadcasts())

        with warnings.catch_warnings():
            # Python's own, about a transport that was not closed in its loop.
            warnings.simplefilter("ignore", ResourceWarning)
            for following in (client.close, ended, connect_and_leave):
                run(connect_and_leave())
                run(following())
            run(client.close())
            gc.collect()


def test_close_of_a_reconnect_in_a_second_event_loop() -> None:
    async def lose() -> BinaryProtocolClient:
        async with scripted(drop) as port:
            client = BinaryProtocolClient(HOST, port, reconnect=PATIENT)
            await client.connect()
            with pytest.raises(ConnectionLostError):
                await client.ping()
            return client

    client = run(lose())
    run(client.close())
    assert repr(client).endswith(" not connected>")


def test_close_of_a_connect_that_was_left_in_another_event_loop() -> None:
    client = BinaryProtocolClient(HOST, 5000, connect_timeout_s=None)

    async def start() -> None:
        virtual_loop().silent = {HOST}
        task = asyncio.create_task(client.connect())
        await asyncio.sleep(1.0)
        assert not task.done()

    run_in_virtual_time(start())
    run(client.close())


def test_a_client_of_a_loop_that_is_paused() -> None:
    with message_server(serve) as port:
        client = BinaryProtocolClient(HOST, port)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.connect())
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            run(client.connect())
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            run(client.echo(b""))
        assert loop.run_until_complete(client.echo(b"1")) == b"1"
        run(client.close())
        with pytest.raises(NotConnected):
            loop.run_until_complete(client.echo(b"1"))
        loop.run_until_complete(client.connect())
        loop.run_until_complete(client.close())
        loop.close()


@pytest.mark.parametrize("closed", [True, False])
def test_close_while_others_wait_in_another_loop(closed: bool) -> None:
    """Readers, requests that wait for a reconnect, and a connect(), all left behind."""
    with message_server(drop) as port, warnings.catch_warnings():
        # About tasks that are destroyed with their loop, and the transport.
        warnings.simplefilter("ignore", ResourceWarning)
        client = BinaryProtocolClient(HOST, port, reconnect=PATIENT)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.connect())
        reader = loop.create_task(anext(client.broadcasts(), None))
        with pytest.raises(ConnectionLostError):
            loop.run_until_complete(client.ping())
        waiting = [reader, *(loop.create_task(one) for one in (client.echo(b""), client.connect()))]
        loop.run_until_complete(asyncio.sleep(0))
        if closed:
            loop.set_exception_handler(lambda _loop, _context: None)
            loop.close()
        run(client.close())
        if not closed:
            ended = asyncio.gather(*waiting, return_exceptions=True)
            results = loop.run_until_complete(asyncio.wait_for(ended, PATIENCE_S))
            assert results[0] is None
            assert {type(result) for result in results[1:]} == {NotConnected}
            loop.close()
        assert repr(client).endswith(" not connected>")
        del waiting, reader
        gc.collect()


def test_close_from_another_loop_wins_against_a_connect() -> None:
    with message_server(serve) as port:
        client = BinaryProtocolClient(HOST, port)
        loop = asyncio.new_event_loop()
        connecting = loop.create_task(client.connect())
        loop.run_until_complete(asyncio.sleep(0))
        run(client.close())
        with pytest.raises(NotConnected, match="the client was closed"):
            loop.run_until_complete(connecting)
        assert not client.connected
        # The attempt that was aborted ends in the next turns.
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def test_close_from_another_thread() -> None:
    with message_server(serve) as port:
        client = BinaryProtocolClient(HOST, port)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(client.connect(), loop).result(PATIENCE_S)
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            run(client.ping())
        run(client.close())
        assert not client.connected
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_close_of_a_tls_connection_in_a_second_event_loop(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=certificate[0])
    with message_server(serve, tls=context) as port:
        client = BinaryProtocolClient("localhost", port, ssl=trusting)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            run(client.connect())
            run(client.close())
            run(client.connect())
            run(client.connect())
            assert not client.connected
            run(client.close())
            gc.collect()


def test_the_server_sees_the_end_of_an_abandoned_connection() -> None:
    with socket.create_server((HOST, 0)) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        client = BinaryProtocolClient(HOST, server.getsockname()[1])
        run(client.connect())
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(PATIENCE_S)
            run(client.close())
            assert accepted.recv(1) == b""
        gc.collect()
