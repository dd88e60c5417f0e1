"""Reconnecting: what is sent again, what never is, and when the client gives up."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from scripted import (
    AUTH,
    AUTH_REPLY,
    BROADCAST,
    CONNECTION_LIMIT,
    DATA,
    ECHO,
    PING,
    UNAUTHENTICATED,
    Handler,
    Peer,
    answer_to,
    drop,
    error_frame,
    frame,
    run,
    scripted,
    serve,
    silent,
)
from virtual_time import run_in_virtual_time

from ringest import (
    AuthenticationError,
    BinaryProtocolClient,
    ConnectionLostError,
    NotConnected,
    ProtocolError,
    ReconnectPolicy,
    RequestTimeout,
)

TOKEN = "tok-5e77bf3c1d9a"
QUICK = ReconnectPolicy(delay_min_s=0.005, delay_max_s=0.02)


def test_requests_in_flight_fail_and_later_ones_wait() -> None:
    seen: list[bytes] = []

    async def note(peer: Peer) -> None:
        # The client first checks that the server has accepted it.
        await peer.write(answer_to(PING, await peer.expect(PING)))
        for _ in range(2):
            payload = await peer.expect(DATA)
            seen.append(payload[4:])
            await peer.write(answer_to(DATA, payload))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(drop, note) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            with pytest.raises(ConnectionLostError, match="DATA was sent"):
                await client.send_data(b"once")
            assert not client.connected
            assert repr(client).endswith(" reconnecting>")
            await asyncio.gather(client.send_data(b"twice"), client.send_data(b"thrice"))
            assert client.connected

    run(scenario())
    assert seen == [b"twice", b"thrice"]


def test_requests_that_waited_for_their_turn_go_to_the_next_connection() -> None:
    async def scenario() -> None:
        async with (
            scripted(drop, serve) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK, in_flight_max=1) as client,
        ):
            first, *others = await asyncio.gather(
                *(client.echo(bytes([number])) for number in range(5)), return_exceptions=True
            )
            assert isinstance(first, ConnectionLostError)
            assert others == [bytes([number]) for number in range(1, 5)]

    run(scenario())


def test_authentication_comes_before_everything_else() -> None:
    async def authenticate_then_drop(peer: Peer) -> None:
        await peer.write(answer_to(AUTH, await peer.expect(AUTH)))
        await peer.expect(ECHO)

    async def note(peer: Peer) -> None:
        payload = await peer.expect(AUTH)
        assert payload == b"\x05alice" + TOKEN.encode()
        await peer.write(frame(AUTH_REPLY, b"\x01second"))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(authenticate_then_drop, note) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            assert await client.authenticate("alice", TOKEN) == "session-of-alice"
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            assert client.session_id is None
            assert await client.echo(b"2") == b"2"
            assert client.session_id == "second"
            assert await client.authenticate("alice", TOKEN) == "second"

    run(scenario())


def test_a_session_that_is_over_is_not_given() -> None:
    async def accept_and_break(peer: Peer) -> None:
        await peer.write(answer_to(AUTH, await peer.expect(AUTH)), b"garbage")
        await peer.until_gone()

    async def again(peer: Peer) -> None:
        await peer.expect(AUTH)
        await peer.write(frame(AUTH_REPLY, b"\x01second"))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(accept_and_break, again) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            sessions = await asyncio.gather(
                client.authenticate("alice", TOKEN), client.authenticate("alice", TOKEN)
            )
            assert sessions[0] == "session-of-alice"
            assert sessions[1] == client.session_id == "second"

    run(scenario())


def test_refused_credentials_end_the_attempts() -> None:
    async def authenticate_then_drop(peer: Peer) -> None:
        await peer.write(answer_to(AUTH, await peer.expect(AUTH)))

    async def refuse(peer: Peer) -> None:
        await peer.expect(AUTH)
        await peer.write(frame(AUTH_REPLY, b"\x00"))
        await peer.until_gone()

    async def scenario() -> None:
        async with (
            scripted(authenticate_then_drop, refuse) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            await client.authenticate("alice", TOKEN)
            with pytest.raises(AuthenticationError, match="user or token rejected"):
                async for _payload in client.broadcasts():
                    pass
            with pytest.raises(AuthenticationError, match="user or token rejected") as caught:
                await client.ping()
            assert TOKEN not in str(caught.value)
            assert repr(client).endswith(" not connected>")

    run(scenario())


def test_too_many_failed_attempts_are_not_repeated_on_another_connection() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.expect(ECHO)
        await peer.write(error_frame(UNAUTHENTICATED, "authenticate first"))

    async def scenario() -> None:
        async with (
            scripted(refuse, serve) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            with pytest.raises(AuthenticationError, match="authenticate first"):
                await client.echo(b"1")
            with pytest.raises(AuthenticationError, match="authenticate first"):
                async for _payload in client.broadcasts():
                    pass
            await client.connect()
            assert await client.echo(b"2") == b"2"

    run(scenario())


def test_a_server_without_a_free_place_is_asked_again() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.write(error_frame(CONNECTION_LIMIT, "connection limit reached"))

    async def scenario() -> None:
        async with (
            scripted(drop, refuse, refuse, drop, serve) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            assert await client.echo(b"2") == b"2"

    run(scenario())


def test_who_speaks_another_protocol_is_not_asked_again() -> None:
    async def other(peer: Peer) -> None:
        await peer.read()
        await peer.write(b"SSH-2.0-other\r\n")
        await peer.until_gone()

    async def scenario() -> None:
        async with (
            scripted(drop, other) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            with pytest.raises(NotConnected, match="not the magic") as caught:
                await client.echo(b"2")
            assert isinstance(caught.value.__cause__, ProtocolError)

    run(scenario())


def test_attempts_have_an_end_where_the_policy_says_so() -> None:
    policy = ReconnectPolicy(delay_min_s=0.005, delay_max_s=0.01, attempts_max=3)

    async def scenario() -> None:
        async with scripted(drop) as port:
            client = BinaryProtocolClient("127.0.0.1", port, reconnect=policy)
            await client.connect()
        # Nobody listens any longer.
        with pytest.raises(NotConnected, match="connection refused"):
            await client.echo(b"1")
        await client.close()

    run(scenario())


def test_waiting_for_a_connection_has_an_end() -> None:
    async def scenario() -> None:
        accepted = asyncio.Event()

        async def accept(peer: Peer) -> None:
            accepted.set()
            await silent(peer)

        async with scripted(accept) as port:
            client = BinaryProtocolClient("127.0.0.1", port, reconnect=ReconnectPolicy())
            await client.connect()
            await accepted.wait()
        with pytest.raises(RequestTimeout, match=r"no connection for .* ECHO was not sent"):
            await client.echo(b"1")
        with pytest.raises(RequestTimeout, match=r"no connection for .* BROADCAST was not sent"):
            await client.broadcast(b"1")
        with pytest.raises(RequestTimeout, match=r"no answer to AUTH"):
            await client.authenticate("alice", TOKEN)
        await client.close()

    run_in_virtual_time(scenario())


def test_a_silent_server_is_not_waited_for_without_end() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def silent_until_gone(peer: Peer) -> None:
            await silent(peer)
            gone.set()

        async with (
            scripted(drop, silent_until_gone, serve) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            assert await client.echo(b"2") == b"2"
            await gone.wait()

    run_in_virtual_time(scenario())


def test_a_connection_that_breaks_at_once_is_followed_by_another() -> None:
    async def break_off(peer: Peer) -> None:
        await peer.write(answer_to(PING, await peer.expect(PING)), b"garbage")
        await peer.until_gone()

    async def scenario() -> None:
        async with (
            scripted(drop, break_off, serve) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            assert await client.echo(b"2") == b"2"

    run(scenario())


def lasting(time_s: float, accepted_s: list[float]) -> Handler:
    """A handler that accepts, notes when, and disconnects after this time; the 7th stays."""

    async def accept(peer: Peer) -> None:
        accepted_s.append(asyncio.get_running_loop().time())
        if len(accepted_s) == 7:
            await peer.serve()
        await peer.write(answer_to(PING, await peer.expect(PING)))
        await asyncio.sleep(time_s)

    return accept


def waits_after(time_s: float, policy: ReconnectPolicy) -> list[float]:
    """The first six waits of a client whose connections each last this time."""
    accepted_s: list[float] = []

    async def scenario() -> None:
        async with scripted(lasting(time_s, accepted_s)) as port:
            client = BinaryProtocolClient("127.0.0.1", port, reconnect=policy)
            await client.connect()
            # The first connection has a PING only for the sake of the handler.
            await client.ping()
            await asyncio.sleep(1000.0)
            await client.close()

    run_in_virtual_time(scenario())
    return [after - before - time_s for before, after in pairwise(accepted_s)]


def test_connections_that_break_at_once_do_not_reset_the_waits() -> None:
    policy = ReconnectPolicy(delay_min_s=1.0, delay_max_s=8.0, stable_s=5.0)
    for lasted_s in (0.0, 4.999):
        waits_s = waits_after(lasted_s, policy)
        for wait_s, longest_s in zip(waits_s, (1.0, 2.0, 4.0, 8.0, 8.0, 8.0), strict=True):
            assert longest_s / 2.0 - 0.001 <= wait_s <= longest_s + 0.001


def test_connections_that_last_reset_the_waits() -> None:
    policy = ReconnectPolicy(delay_min_s=1.0, delay_max_s=8.0, stable_s=5.0)
    assert all(0.499 <= wait_s <= 1.001 for wait_s in waits_after(5.001, policy))


def test_connections_that_break_at_once_count_as_failed_attempts() -> None:
    policy = ReconnectPolicy(attempts_max=2)
    accepted_s: list[float] = []

    async def scenario() -> None:
        async with scripted(lasting(0.0, accepted_s)) as port:
            client = BinaryProtocolClient("127.0.0.1", port, reconnect=policy)
            await client.connect()
            await client.ping()
            with pytest.raises(NotConnected, match="the server closed it"):
                await anext(client.broadcasts())
            assert len(accepted_s) == 1 + 2
            # connect() starts anew.
            await client.connect()
            await client.ping()
            with pytest.raises(NotConnected, match="the server closed it"):
                await anext(client.broadcasts())
            assert len(accepted_s) == 2 * (1 + 2)

    run_in_virtual_time(scenario())


def test_a_missing_pong_leads_to_another_connection() -> None:
    async def scenario() -> None:
        async with (
            scripted(silent, serve) as port,
            BinaryProtocolClient(
                "127.0.0.1", port, reconnect=QUICK, request_timeout_s=None
            ) as client,
        ):
            with pytest.raises(ConnectionLostError, match="no answer to a PING"):
                await client.echo(b"1")
            assert await client.echo(b"2") == b"2"

    run_in_virtual_time(scenario())


def test_broadcasts_go_on_over_the_next_connection() -> None:
    async def one(peer: Peer) -> None:
        await peer.write(frame(BROADCAST, b"one"))
        await peer.read()

    async def two(peer: Peer) -> None:
        await peer.write(frame(BROADCAST, b"two"))
        await peer.serve()

    async def scenario() -> None:
        async with (
            scripted(one, two) as port,
            BinaryProtocolClient("127.0.0.1", port, reconnect=QUICK) as client,
        ):
            broadcasts = client.broadcasts()
            assert await anext(broadcasts) == b"one"
            with pytest.raises(ConnectionLostError):
                await client.ping()
            assert await anext(broadcasts) == b"two"

    run(scenario())


@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_close_ends_the_attempts(wait_s: float) -> None:
    async def scenario() -> None:
        async with scripted(drop) as port:
            client = BinaryProtocolClient("127.0.0.1", port, reconnect=ReconnectPolicy())
            await client.connect()
            with pytest.raises(ConnectionLostError):
                await client.ping()
        waiting = [asyncio.create_task(one) for one in (client.echo(b"1"), client.connect())]
        await asyncio.sleep(wait_s)
        await client.close()
        for task in waiting:
            with pytest.raises(NotConnected, match="the client was closed"):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_virtual_time(scenario())


def test_without_a_policy_the_program_decides() -> None:
    async def scenario() -> None:
        async with scripted(drop, serve) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            with pytest.raises(ConnectionLostError):
                await client.echo(b"1")
            with pytest.raises(NotConnected):
                await client.echo(b"2")
            await client.connect()
            assert await client.echo(b"3") == b"3"

    run(scenario())


def test_waits_double_up_to_the_longest_and_differ() -> None:
    policy = ReconnectPolicy(delay_min_s=1.0, delay_max_s=10.0)
    for attempt, longest_s in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (10_000, 10.0)]:
        waits_s = {policy.delay_s(attempt) for _ in range(100)}
        assert all(longest_s / 2.0 <= wait_s <= longest_s for wait_s in waits_s)
        assert len(waits_s) > 1


def test_policies_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="delay_min_s"):
        ReconnectPolicy(delay_min_s=0.0)
    with pytest.raises(ValueError, match="delay_min_s"):
        ReconnectPolicy(delay_min_s=2.0, delay_max_s=1.0)
    with pytest.raises(ValueError, match="attempts_max"):
        ReconnectPolicy(attempts_max=0)
    for stable_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="stable_s"):
            ReconnectPolicy(stable_s=stable_s)
