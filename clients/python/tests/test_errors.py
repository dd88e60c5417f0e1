"""Errors on one connection: refusals, protocol violations, lost connections, and who gets them."""

from __future__ import annotations

import asyncio
import logging

import pytest
from scripted import (
    AUTH,
    AUTH_REPLY,
    BROADCAST,
    CONNECTION_LIMIT,
    DATA,
    DATA_ACK,
    ECHO,
    ECHO_REPLY,
    ERROR,
    PING,
    PONG,
    RATE_LIMITED,
    TIMEOUT,
    UNAUTHENTICATED,
    Peer,
    answer_to,
    error_frame,
    frame,
    run,
    scripted,
)

from ringest import (
    AuthenticationError,
    BinaryProtocolClient,
    ConnectionLimitExceeded,
    ConnectionLostError,
    ErrorCode,
    NotConnected,
    ProtocolError,
    RateLimitExceeded,
    RingestError,
    ServerError,
    ServerTimeout,
)

TOKEN = "tok-5e77bf3c1d9a"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (frame(DATA_ACK, b"\x00\x00\x00\x01"), "got DATA_ACK, expected ECHO_REPLY"),
        (frame(PONG, bytes(8)), "got PONG, expected ECHO_REPLY"),
        (frame(ECHO_REPLY, b"other"), "ECHO_REPLY does not match its ECHO"),
        (frame(ERROR), "ERROR without a code"),
        (
            error_frame(RATE_LIMITED, "rate limit exceeded for PING"),
            "got the refusal of a PING, expected ECHO_REPLY",
        ),
        (
            error_frame(RATE_LIMITED, "too fast"),
            "unknown message refused by rate limit \\(too fast\\)",
        ),
        (frame(ECHO, b"echo"), "type 0x03"),
        (frame(ECHO_REPLY, b"echo")[:-1] + b"\x00", "CRC 0x"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not the magic"),
        (bytes.fromhex("deadbeef03"), "version 3"),
    ],
)
def test_what_the_protocol_does_not_allow_ends_the_connection(answer: bytes, text: str) -> None:
    async def misbehave(peer: Peer) -> None:
        await peer.expect(ECHO)
        await peer.write(answer)
        await peer.until_gone()

    async def scenario() -> None:
        async with scripted(misbehave) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            with pytest.raises(ProtocolError, match=text):
                await client.echo(b"echo")
            assert not client.connected
            with pytest.raises(NotConnected, match=text) as caught:
                await client.ping()
            assert isinstance(caught.value.__cause__, ProtocolError)
            await client.close()

    run(scenario())


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x01", b"\x02id", b"\x01\xff"],
)
def test_a_malformed_auth_reply_ends_the_connection(payload: bytes) -> None:
    async def misbehave(peer: Peer) -> None:
        await peer.expect(AUTH)
        await peer.write(frame(AUTH_REPLY, payload))
        await peer.until_gone()

    async def scenario() -> None:
        async with scripted(misbehave) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            with pytest.raises(ProtocolError, match="malformed AUTH_REPLY"):
                await client.authenticate("alice", TOKEN)
            assert client.session_id is None

    run(scenario())


def test_answers_out_of_order_are_noticed() -> None:
    async def swap(peer: Peer) -> None:
        first, second = [await peer.read() for _ in range(2)]
        await peer.write(answer_to(*second), answer_to(*first))
        await peer.until_gone()

    async def scenario() -> None:
        async with scripted(swap) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            first, second = await asyncio.gather(
                client.send_data(b"", 1), client.send_data(b"", 2), return_exceptions=True
            )
            assert isinstance(first, ProtocolError)
            assert "out of order" in str(first)
            assert isinstance(second, ConnectionLostError)
            assert isinstance(second.__cause__, ProtocolError)

    run(scenario())


def test_an_answer_unasked_ends_the_connection() -> None:
    async def scenario() -> None:
        async def eager(peer: Peer) -> None:
            await peer.write(frame(PONG, bytes(8)))
            await peer.until_gone()

        async with scripted(eager) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            with pytest.raises(NotConnected, match="got PONG, expected no answer"):
                async for _payload in client.broadcasts():
                    pass

    run(scenario())


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_dropped_mid_request(reset: bool) -> None:
    async def drop(peer: Peer) -> None:
        await peer.expect(ECHO)
        if reset:
            peer.reset()
        else:
            await peer.write(frame(ECHO_REPLY, b"echo")[:7])

    async def scenario() -> None:
        async with scripted(drop) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            with pytest.raises(ConnectionLostError, match="ECHO was sent") as caught:
                await client.echo(b"echo")
            assert ("in the middle of a frame" in str(caught.value)) is not reset
            assert isinstance(caught.value, ConnectionError)
            with pytest.raises(NotConnected, match="call connect"):
                await client.echo(b"echo")

    run(scenario())


def test_a_refusal_by_rate_limit_takes_the_place_of_the_answer() -> None:
    async def refuse_second(peer: Peer) -> None:
        messages = [await peer.read() for _ in range(3)]
        await peer.write(
            answer_to(*messages[0]),
            error_frame(RATE_LIMITED, "rate limit exceeded for ECHO"),
            answer_to(*messages[2]),
        )
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(refuse_second) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            first, second, third = await asyncio.gather(
                *map(client.echo, (b"1", b"2", b"3")), return_exceptions=True
            )
            assert (first, third) == (b"1", b"3")
            assert isinstance(second, RateLimitExceeded)
            assert second.code is ErrorCode.RATE_LIMIT_EXCEEDED
            assert second.message == "rate limit exceeded for ECHO"
            assert "send more slowly" in str(second)
            assert await client.echo(b"4") == b"4"

    run(scenario())


def test_a_refused_broadcast_answers_no_request(caplog: pytest.LogCaptureFixture) -> None:
    refused: list[ServerError] = []

    def note_and_fail(error: ServerError) -> None:
        refused.append(error)
        raise RuntimeError("a callback with a defect")

    async def refuse_broadcasts(peer: Peer) -> None:
        for kind in (ECHO, BROADCAST, BROADCAST, BROADCAST):
            message = await peer.read()
            assert message[0] == kind
        refusal = error_frame(RATE_LIMITED, "rate limit exceeded for BROADCAST")
        await peer.write(refusal, frame(ECHO_REPLY, b"1"), refusal, refusal)
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(refuse_broadcasts) as port,
            BinaryProtocolClient("127.0.0.1", port, on_broadcast_refused=note_and_fail) as client,
        ):
            echo = asyncio.create_task(client.echo(b"1"))
            await asyncio.sleep(0)
            for _ in range(3):
                await client.broadcast(b"hi")
            assert await echo == b"1"
            assert await client.echo(b"2") == b"2"
            assert client.broadcasts_refused == 3

    with caplog.at_level(logging.WARNING, "ringest"):
        run(scenario())
    assert [error.code for error in refused] == [ErrorCode.RATE_LIMIT_EXCEEDED] * 3
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "refused a broadcast" in line]) == 2
    assert len([line for line in lines if "on_broadcast_refused raised" in line]) == 3


def test_before_authentication_refusals_find_what_they_refuse() -> None:
    async def require_auth(peer: Peer) -> None:
        for kind in (BROADCAST, ECHO, DATA):
            await peer.expect(kind)
        ping = await peer.expect(PING)
        refusal = error_frame(UNAUTHENTICATED, "authenticate first")
        await peer.write(refusal, refusal, refusal, frame(PONG, ping))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(require_auth) as port,
            BinaryProtocolClient("127.0.0.1", port) as client,
        ):
            await client.broadcast(b"hi")
            echo, data, pong = await asyncio.gather(
                client.echo(b"1"), client.send_data(b"2"), client.ping(), return_exceptions=True
            )
            assert isinstance(echo, AuthenticationError)
            assert echo.message == "authenticate first"
            assert isinstance(data, AuthenticationError)
            assert not isinstance(pong, BaseException)
            assert client.broadcasts_refused == 1
            assert await client.authenticate("alice", TOKEN) == "session-of-alice"
            assert await client.echo(b"3") == b"3"

    run(scenario())


def test_refused_credentials_and_the_end_after_the_third() -> None:
    async def refuse(peer: Peer) -> None:
        for _ in range(3):
            await peer.expect(AUTH)
            await peer.write(frame(AUTH_REPLY, b"\x00"))
        await peer.write(error_frame(UNAUTHENTICATED, "too many failed attempts"))

    async def scenario() -> None:
        async with scripted(refuse) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            for _ in range(3):
                with pytest.raises(AuthenticationError, match="user or token rejected") as caught:
                    await client.authenticate("alice", TOKEN)
                assert caught.value.code is ErrorCode.AUTHENTICATION_FAILED
                assert TOKEN not in str(caught.value) + repr(caught.value)
            with pytest.raises(AuthenticationError, match="too many failed attempts"):
                async for _payload in client.broadcasts():
                    pass
            with pytest.raises(AuthenticationError, match="too many failed attempts"):
                await client.ping()

    run(scenario())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x00, ServerError),
        (0x01, ServerError),
        (0x02, ServerError),
        (0x03, ServerError),
        (0x04, ServerError),
        (0x05, ServerError),
        (CONNECTION_LIMIT, ConnectionLimitExceeded),
        (TIMEOUT, ServerTimeout),
        (0xFF, ServerError),
        (0x77, ServerError),
    ],
)
def test_a_closing_error_goes_to_the_oldest_request(code: int, kind: type[ServerError]) -> None:
    async def refuse(peer: Peer) -> None:
        for _ in range(2):
            await peer.expect(ECHO)
        await peer.write(error_frame(code, "the reason"))

    async def scenario() -> None:
        async with scripted(refuse) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            first, second = await asyncio.gather(
                client.echo(b"1"), client.echo(b"2"), return_exceptions=True
            )
            assert type(first) is kind
            assert "the reason" in first.message
            if kind is ConnectionLimitExceeded:
                # Neither request was processed.
                assert type(second) is kind
            else:
                assert isinstance(second, ConnectionLostError)
                assert isinstance(second.__cause__, kind)
            for _ in range(2):
                with pytest.raises(kind, match="the reason"):
                    await client.echo(b"3")

    run(scenario())


def test_the_reason_goes_to_the_oldest_request_that_somebody_waits_for() -> None:
    async def scenario() -> None:
        both_sent, cancelled = asyncio.Event(), asyncio.Event()

        async def refuse(peer: Peer) -> None:
            for _ in range(2):
                await peer.expect(ECHO)
            both_sent.set()
            await cancelled.wait()
            await peer.write(error_frame(TIMEOUT, "too slow"))

        async with scripted(refuse) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            first, second = (asyncio.create_task(client.echo(b"")) for _ in range(2))
            await both_sent.wait()
            first.cancel()
            await asyncio.wait([first])
            cancelled.set()
            with pytest.raises(ServerTimeout, match="too slow"):
                await second

    run(scenario())


def test_a_refusal_is_not_the_reason_if_the_server_went_on() -> None:
    async def go_on(peer: Peer) -> None:
        await peer.expect(ECHO)
        await peer.write(error_frame(UNAUTHENTICATED, "authenticate first"))
        await peer.write(frame(PONG, await peer.expect(PING)))

    async def scenario() -> None:
        async with scripted(go_on) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            with pytest.raises(AuthenticationError):
                await client.echo(b"")
            await client.ping()
            with pytest.raises(NotConnected, match="the server closed"):
                await anext(client.broadcasts())

    run(scenario())


@pytest.mark.parametrize("hard", [False, True])
def test_a_server_without_a_free_place(hard: bool) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.write(error_frame(CONNECTION_LIMIT, "connection limit reached"))
        if hard:
            peer.reset()

    async def scenario() -> None:
        async with scripted(refuse) as port:
            for number in range(20):
                client = BinaryProtocolClient("127.0.0.1", port)
                await client.connect()
                if number % 2 == 1:
                    # In every second round, the refusal has been read before the requests.
                    with pytest.raises(ConnectionLimitExceeded):
                        await anext(client.broadcasts())
                results = await asyncio.gather(
                    *(client.ping() for _ in range(10)), return_exceptions=True
                )
                assert {type(result) for result in results} == {ConnectionLimitExceeded}
                await client.close()

    run(scenario())


def test_the_token_is_nowhere_to_be_read(caplog: pytest.LogCaptureFixture) -> None:
    async def drop(peer: Peer) -> None:
        await peer.expect(AUTH)

    async def scenario() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with scripted(drop) as port:
            client = BinaryProtocolClient("127.0.0.1", port)
            await client.connect()
            task = asyncio.create_task(client.authenticate("alice", TOKEN))
            await asyncio.sleep(0)
            assert TOKEN not in repr(client) + repr(task) + repr(vars(client))
            assert TOKEN not in repr(vars(client._connection))
            with pytest.raises(RingestError) as caught:
                await task
            assert TOKEN not in repr(caught.value) + str(caught.value)
            await client.close()

    with caplog.at_level(logging.DEBUG):
        run(scenario())
    assert TOKEN not in caplog.text
