"""Requests on one connection: what is sent, when, and who gets which answer."""

from __future__ import annotations

import asyncio

import pytest
from scripted import (
    AUTH,
    BROADCAST,
    CLOSE,
    DATA,
    ECHO,
    PING,
    Peer,
    answer_to,
    run,
    scripted,
    serve,
    silent,
)
from virtual_time import run_in_virtual_time

from ringest import (
    AlreadyAuthenticated,
    BinaryProtocolClient,
    RequestTimeout,
)

TOKEN = "tok-5e77bf3c1d9a"


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with scripted(serve) as port:
            client = BinaryProtocolClient("localhost", port)
            await client.connect()
            pong = await client.ping()
            print(f"Latency: {pong.latency_ms}ms")
            assert await client.echo(b"Hello, Server!") == b"Hello, Server!"
            await client.broadcast(b"Message to all clients")
            await client.send_data(b"Large data payload...")
            await client.close()

    run(scenario())
    assert capsys.readouterr().out.startswith("Latency: ")


def test_each_request_is_the_message_it_should_be() -> None:
    seen: list[tuple[int, bytes]] = []

    async def note(peer: Peer) -> None:
        for _ in range(6):
            message = await peer.read()
            seen.append(message)
            await peer.write(answer_to(*message))

    async def scenario() -> None:
        async with scripted(note) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            pong = await client.ping()
            assert pong.timestamp_ms == int.from_bytes(seen[0][1], "big")
            assert pong.latency_ms >= 0.0
            assert await client.echo(b"") == b""
            await client.broadcast(b"hi")
            assert await client.authenticate("alice", TOKEN) == "session-of-alice"
            assert client.session_id == "session-of-alice"
            assert await client.send_data(b"payload", sequence=7) == 7

    run(scenario())
    assert [kind for kind, _payload in seen] == [PING, ECHO, BROADCAST, AUTH, DATA, CLOSE]
    assert len(seen[0][1]) == 8
    assert [payload for _kind, payload in seen[1:]] == [
        b"",
        b"hi",
        b"\x05alice" + TOKEN.encode(),
        b"\x00\x00\x00\x07payload",
        b"",
    ]


def test_sequences_count_up_and_wrap() -> None:
    async def scenario() -> None:
        async with scripted(serve) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            assert [await client.send_data(b"") for _ in range(3)] == [0, 1, 2]
            assert await client.send_data(b"", sequence=2**32 - 1) == 2**32 - 1
            assert await client.send_data(b"") == 3
            client._sequence_next = 2**32 - 1
            assert [await client.send_data(b"") for _ in range(2)] == [2**32 - 1, 0]

    run(scenario())


def test_limits_are_kept_before_anything_is_sent() -> None:
    async def scenario() -> None:
        async with scripted(serve) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            assert len(await client.echo(bytes(65_535))) == 65_535
            await client.broadcast(bytes(65_535))
            await client.send_data(bytes(65_531))
            with pytest.raises(ValueError, match=r"65536 bytes; the maximum is 65535"):
                await client.echo(bytes(65_536))
            with pytest.raises(ValueError, match=r"65536 bytes; the maximum is 65535"):
                await client.broadcast(bytes(65_536))
            with pytest.raises(ValueError, match=r"65532 bytes; the maximum is 65531"):
                await client.send_data(bytes(65_532))
            for sequence in (-1, 2**32):
                with pytest.raises(ValueError, match="sequence"):
                    await client.send_data(b"", sequence=sequence)
            for wrong in (5, "text"):
                with pytest.raises(TypeError):
                    await client.echo(wrong)  # type: ignore[arg-type]
            assert await client.send_data(b"") == 1
            assert await client.echo(bytearray(b"a")) == b"a"
            assert await client.echo(memoryview(b"abc")[::2]) == b"ac"

    run(scenario())


def test_many_requests_of_many_tasks_get_their_own_answers() -> None:
    async def one(client: BinaryProtocolClient, number: int) -> None:
        payload = number.to_bytes(4, "big") * (number % 50)
        match number % 3:
            case 0:
                assert await client.echo(payload) == payload
            case 1:
                assert await client.send_data(payload, sequence=number) == number
            case 2:
                await client.ping()

    async def scenario() -> None:
        async with (
            scripted(serve) as port,
            BinaryProtocolClient("127.0.0.1", port, in_flight_max=16) as client,
        ):
            await asyncio.gather(*(one(client, number) for number in range(2000)))

    run(scenario())


def test_requests_are_sent_without_waiting_for_answers() -> None:
    async def collect_then_answer(peer: Peer) -> None:
        messages = [await peer.read() for _ in range(10)]
        await peer.write(*(answer_to(*message) for message in messages))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(collect_then_answer) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            payloads = [bytes([number]) for number in range(10)]
            assert await asyncio.gather(*map(client.echo, payloads)) == payloads

    run(scenario())


def test_no_more_than_the_limit_is_in_flight() -> None:
    async def hold_back(peer: Peer) -> None:
        messages = [await peer.read() for _ in range(3)]
        # No fourth message before an answer, however long this waits.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await peer.read()
        await peer.write(answer_to(*messages[0]))
        messages.append(await peer.read())
        await peer.write(*(answer_to(*message) for message in messages[1:]))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(hold_back) as port,
            BinaryProtocolClient("127.0.0.1", port, in_flight_max=3) as client,
        ):
            payloads = [bytes([number]) for number in range(20)]
            assert await asyncio.gather(*map(client.echo, payloads)) == payloads

    run_in_virtual_time(scenario())


def test_a_server_that_does_not_read_holds_senders_back() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def late(peer: Peer) -> None:
            await release.wait()
            await peer.serve()

        async with scripted(late) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            sent = [asyncio.create_task(client.broadcast(bytes(65_535))) for _ in range(500)]
            await asyncio.wait(sent[:1])
            # Each could have been sent in a turn of the loop.
            for _ in range(2 * len(sent)):
                await asyncio.sleep(0)
            assert not all(task.done() for task in sent)
            release.set()
            await asyncio.gather(*sent)
            await client.ping()

    run(scenario())


def test_a_cancelled_request_keeps_its_place() -> None:
    async def scenario() -> None:
        all_sent, cancelled = asyncio.Event(), asyncio.Event()

        async def answer_later(peer: Peer) -> None:
            messages = [await peer.read() for _ in range(3)]
            all_sent.set()
            await cancelled.wait()
            await peer.write(*(answer_to(*message) for message in messages))
            await peer.serve()

        async with (
            scripted(answer_later) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            tasks = [asyncio.create_task(client.echo(bytes([number]))) for number in range(3)]
            await all_sent.wait()
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.wait(tasks[:2])
            assert all(task.cancelled() for task in tasks[:2])
            cancelled.set()
            assert await tasks[2] == b"\x02"
            assert await client.echo(b"next") == b"next"

    run(scenario())


def test_a_request_cancelled_before_its_turn_is_not_sent() -> None:
    seen: list[tuple[int, bytes]] = []

    async def scenario() -> None:
        first_sent, cancelled = asyncio.Event(), asyncio.Event()

        async def one_then_all(peer: Peer) -> None:
            seen.append(await peer.read())
            first_sent.set()
            await cancelled.wait()
            await peer.write(answer_to(*seen[0]))
            while (message := await peer.read())[0] != CLOSE:
                seen.append(message)
                await peer.write(answer_to(*message))

        async with (
            scripted(one_then_all) as port,
            BinaryProtocolClient("127.0.0.1", port, in_flight_max=1) as client,
        ):
            tasks = [asyncio.create_task(client.echo(bytes([number]))) for number in range(3)]
            await first_sent.wait()
            tasks[1].cancel()
            await asyncio.wait(tasks[1:2])
            cancelled.set()
            assert await tasks[0] == b"\x00"
            assert await tasks[2] == b"\x02"

    run(scenario())
    assert seen == [(ECHO, b"\x00"), (ECHO, b"\x02")]


def test_a_late_answer_does_not_disturb_the_next_request() -> None:
    async def scenario() -> None:
        given_up = asyncio.Event()

        async def late(peer: Peer) -> None:
            message = await peer.read()
            await given_up.wait()
            await peer.write(answer_to(*message))
            await peer.serve()

        async with (
            scripted(late) as port,
            BinaryProtocolClient("127.0.0.1", port, request_timeout_s=5.0) as client,
        ):
            with pytest.raises(RequestTimeout, match=r"no answer to ECHO.*it was sent") as caught:
                await client.echo(b"late")
            assert isinstance(caught.value, TimeoutError)
            assert client.connected
            given_up.set()
            assert await client.echo(b"next") == b"next"

    run_in_virtual_time(scenario())


def test_a_timeout_before_its_turn_says_that_nothing_was_sent() -> None:
    async def scenario() -> None:
        async with (
            scripted(silent) as port,
            BinaryProtocolClient(
                "127.0.0.1", port, in_flight_max=1, request_timeout_s=5.0
            ) as client,
        ):
            with pytest.raises(RequestTimeout, match=r"PING.*was sent"):
                await client.ping()
            with pytest.raises(RequestTimeout, match="ECHO was not sent"):
                await client.echo(b"")
            with pytest.raises(RequestTimeout, match="BROADCAST was not sent"):
                await client.broadcast(b"")

    run_in_virtual_time(scenario())


def test_after_success_no_second_auth_is_sent() -> None:
    async def one_auth(peer: Peer) -> None:
        await peer.write(answer_to(AUTH, await peer.expect(AUTH)))
        await peer.write(answer_to(ECHO, await peer.expect(ECHO)))
        await peer.expect(CLOSE)

    async def scenario() -> None:
        async with scripted(one_auth) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            sessions = await asyncio.gather(
                client.authenticate("alice", TOKEN), client.authenticate("alice", TOKEN)
            )
            assert set(sessions) == {"session-of-alice"}
            with pytest.raises(AlreadyAuthenticated) as caught:
                await client.authenticate("bob", "t0ken-of-bob")
            assert "t0ken-of-bob" not in str(caught.value)
            assert await client.echo(b"1") == b"1"

    run(scenario())


def test_the_answer_to_an_auth_counts_even_if_nobody_waited_for_it() -> None:
    async def scenario() -> None:
        auth_sent, cancelled = asyncio.Event(), asyncio.Event()

        async def late(peer: Peer) -> None:
            payload = await peer.expect(AUTH)
            auth_sent.set()
            await cancelled.wait()
            await peer.write(answer_to(AUTH, payload))
            await peer.expect(CLOSE)

        async with scripted(late) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            task = asyncio.create_task(client.authenticate("alice", TOKEN))
            await auth_sent.wait()
            task.cancel()
            await asyncio.wait([task])
            cancelled.set()
            assert await client.authenticate("alice", TOKEN) == "session-of-alice"

    run(scenario())


def test_an_auth_without_answer_times_out() -> None:
    async def scenario() -> None:
        async with (
            scripted(silent) as port,
            BinaryProtocolClient("127.0.0.1", port, request_timeout_s=5.0) as client,
        ):
            for _ in range(2):
                with pytest.raises(RequestTimeout, match="no answer to AUTH") as caught:
                    await client.authenticate("alice", TOKEN)
                assert TOKEN not in str(caught.value)

    run_in_virtual_time(scenario())
