"""Names with several addresses, and clients with several servers."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from naive_records import listener, naive_packets
from scripted import (
    AUTH,
    AUTH_REPLY,
    CONNECTION_LIMIT,
    ECHO,
    PATIENCE_S,
    PING,
    Peer,
    answer_to,
    error_frame,
    frame,
    run,
    scripted,
    serve,
    silent,
)
from virtual_time import run_in_virtual_time, virtual_loop

from ringest import (
    AuthenticationError,
    BinaryProtocolClient,
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    Field,
    ReconnectPolicy,
    RecordSender,
    Schema,
)
from ringest.happy_eyeballs import Address, AddressRace, connect_blocking
from ringest.target import split_address, targets

HOST = "127.0.0.1"
SCHEMA = Schema([Field("a", "u8")], by=["a"])
QUICK = ReconnectPolicy(delay_min_s=0.005, delay_max_s=0.02)


def found(*hosts: str) -> list[Any]:
    """What a resolver returns for these addresses."""
    return [socket.getaddrinfo(host, 9, type=socket.SOCK_STREAM)[0] for host in hosts]


def next_host(race: AddressRace, now_s: float) -> str | None:
    address = race.next_due(now_s)
    return None if address is None else str(address.sockaddr[0])


def test_an_attempt_starts_after_a_quarter_of_a_second_or_a_failure() -> None:
    race = AddressRace(found("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"), 100.0)
    assert next_host(race, 100.0) == "192.0.2.1"
    assert next_host(race, 100.0) is None
    assert race.wait_s(100.0) == 0.25
    assert next_host(race, 100.2499) is None
    assert next_host(race, 100.25) == "192.0.2.2"
    assert race.wait_s(100.3) == pytest.approx(0.2)
    race.note_failure(Address(0, 0, ("192.0.2.1", 9)), OSError(errno.EHOSTUNREACH, ""), 100.3)
    assert race.wait_s(100.3) == 0.0
    assert next_host(race, 100.3) == "192.0.2.3"
    assert next_host(race, 100.3) is None
    assert next_host(race, 100.6) == "192.0.2.4"
    assert race.wait_s(100.6) == float("inf")
    assert next_host(race, 1000.0) is None


@pytest.mark.parametrize(
    ("hosts", "order"),
    [
        ([], []),
        (["::1"], ["::1"]),
        (["::1", "::2", "192.0.2.1"], ["::1", "192.0.2.1", "::2"]),
        (["192.0.2.1", "192.0.2.2", "192.0.2.3", "::1"], ["192.0.2.1", "::1", "192.0.2.2"]),
    ],
)
def test_both_families_take_turns(hosts: list[str], order: list[str]) -> None:
    race = AddressRace(found(*hosts), 0.0)
    for number, host in enumerate(order):
        assert next_host(race, float(number)) == host


@pytest.mark.parametrize(
    ("numbers", "kind", "text"),
    [
        ([], OSError, "no address"),
        ([errno.ECONNREFUSED] * 2, ConnectionRefusedError, "refused"),
        # That this machine has no IPv6 does not explain anything.
        ([errno.EADDRNOTAVAIL, errno.ECONNREFUSED], ConnectionRefusedError, "refused"),
        ([errno.ENETUNREACH], OSError, "unreachable"),
        ([errno.ETIMEDOUT] * 2, TimeoutError, "timed out"),
        ([errno.ECONNREFUSED, errno.EHOSTUNREACH], OSError, "0: Connection refused; 1: No route"),
    ],
)
def test_the_error_tells_what_failed(numbers: list[int], kind: type[OSError], text: str) -> None:
    race = AddressRace([], 0.0)
    for place, number in enumerate(numbers):
        race.note_failure(Address(0, 0, (str(place), 9)), OSError(number, "Connect call"), 0.0)
    error = race.error()
    assert type(error) is kind
    assert text in str(error)


def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second() -> None:
    async def scenario() -> None:
        loop = virtual_loop()
        loop.addresses = {"two.example": ["192.0.2.1", "192.0.2.2"]}
        loop.silent = {"192.0.2.1"}
        async with scripted(serve) as port, BinaryProtocolClient("two.example", port) as client:
            assert loop.dialled == [(0.0, "192.0.2.1"), (0.25, "192.0.2.2")]
            assert await client.echo(b"1") == b"1"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_in_virtual_time(scenario())


def test_if_no_address_answers_the_limit_holds() -> None:
    async def scenario() -> None:
        loop = virtual_loop()
        loop.addresses = {"two.example": ["192.0.2.1", "192.0.2.2"]}
        loop.silent = {"192.0.2.1", "192.0.2.2"}
        client = BinaryProtocolClient("two.example", 5000)
        with pytest.raises(ConnectTimeout, match=r"no connection to two.example:5000 within 10.0"):
            await client.connect()
        assert loop.time() == pytest.approx(10.0)

    run_in_virtual_time(scenario())


def test_refused_addresses_are_tried_one_after_another() -> None:
    async def scenario() -> None:
        loop = virtual_loop()
        loop.addresses = {"two.example": ["192.0.2.1", "192.0.2.2"]}
        client = BinaryProtocolClient("two.example", 5000)
        with pytest.raises(ConnectError, match=r"is the server running on two\.example:5000"):
            await client.connect()
        assert loop.dialled == [(0.0, "192.0.2.1"), (0.0, "192.0.2.2")]

    run_in_virtual_time(scenario())


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that does not answer: its backlog is full, so the kernel drops every further SYN."""
    with socket.create_server((HOST, 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = []
        for _ in range(8):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex((HOST, port))
        try:
            yield port
        finally:
            for sock in waiting:
                sock.close()


@contextmanager
def two_addresses(monkeypatch: pytest.MonkeyPatch, first: int, second: int) -> Iterator[str]:
    """A name that stands for two ports of this machine."""
    resolve = socket.getaddrinfo

    def both(host: Any, port: Any, *options: int, **named: int) -> Any:
        if host != "two.example":
            return resolve(host, port, *options, **named)
        if named.get("flags") == socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        return [resolve(HOST, own, *options, **named)[0] for own in (first, second)]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", both)
        yield "two.example"


def test_a_real_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with black_hole() as first:
            async with scripted(serve) as second:
                with two_addresses(monkeypatch, first, second) as name:
                    async with BinaryProtocolClient(
                        name, connect_timeout_s=PATIENCE_S / 2
                    ) as client:
                        assert await client.echo(b"1") == b"1"

    run(scenario())


def test_a_stream_to_a_name_whose_first_address_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with black_hole() as first, listener() as second:
        with (
            two_addresses(monkeypatch, first, second.port) as name,
            RecordSender(SCHEMA, name, connect_timeout_s=None) as sender,
        ):
            sender.send([1])
        assert naive_packets(SCHEMA, second.wait())[0] == [[b"\x01", b"\x00"]]


def test_a_stream_has_one_limit_for_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        black_hole() as first,
        black_hole() as second,
        two_addresses(monkeypatch, first, second) as name,
        pytest.raises(ConnectTimeout, match=r"no connection to two\.example:9000"),
    ):
        RecordSender(SCHEMA, name, connect_timeout_s=0.3).connect()


def test_a_stream_skips_addresses_that_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as sock:
        unused = sock.getsockname()[1]
    with listener() as second, two_addresses(monkeypatch, unused, second.port) as name:
        connect_blocking(name, 9000, None).close()
        assert second.wait() == b""


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("engine", "engine", 5000),
        ("engine:6000", "engine", 6000),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("::1", "::1", 5000),
        ("[::1]", "::1", 5000),
        ("[fe80::1%eth0]:6000", "fe80::1%eth0", 6000),
    ],
)
def test_an_address_has_a_port_of_its_own_or_the_other(address: str, host: str, port: int) -> None:
    assert split_address(address, 5000) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["", ":5000", "a:", "a:port", "a:-1", "[::1", "[]:5000", "[::1]5000", "a:5000000", "]"],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server: give 'host'"):
        split_address(address, 5000)


def test_the_servers_of_a_client() -> None:
    several = targets(["a:5000", "b"], 6000, None, None)
    assert [str(one) for one in several] == ["a:5000", "b:6000"]
    assert repr(BinaryProtocolClient(["a:5000", "b:5000"])) == (
        "<BinaryProtocolClient a:5000, b:5000 not connected>"
    )
    with pytest.raises(ValueError, match="give at least one"):
        BinaryProtocolClient([])
    with pytest.raises(ValueError, match="a port from 1 to 65535"):
        BinaryProtocolClient(["a", "b:0"])
    with pytest.raises(TypeError):
        BinaryProtocolClient([5000])  # type: ignore[list-item]


async def full(peer: Peer) -> None:
    """The handler of a server without a free place."""
    await peer.write(error_frame(CONNECTION_LIMIT, "connection limit reached"))


async def drop(peer: Peer) -> None:
    """Answers the PING that a client connects with, and drops the connection at the next one."""
    await peer.write(answer_to(PING, await peer.expect(PING)))
    await peer.read()


def test_the_first_server_that_answers_is_used() -> None:
    """One refuses, one does not answer, one is full, and one does not speak the protocol."""

    async def other(peer: Peer) -> None:
        await peer.write(b"SSH-2.0-other\r\n")
        await peer.until_gone()

    async def scenario() -> None:
        async with (
            scripted(silent) as first,
            scripted(full) as second,
            scripted(other) as third,
            scripted(serve) as fourth,
        ):
            servers = [f"{HOST}:{port}" for port in (999, first, second, third, fourth)]
            async with BinaryProtocolClient(servers) as client:
                assert await client.echo(b"1") == b"1"
                assert repr(client) == f"<BinaryProtocolClient {servers[-1]} connected>"
            assert virtual_loop().time() == pytest.approx(10.0)

    run_in_virtual_time(scenario())


def test_connecting_to_none_of_the_servers_names_each() -> None:
    async def scenario() -> None:
        virtual_loop().silent = {"192.0.2.1"}
        async with scripted(full) as port:
            client = BinaryProtocolClient(["192.0.2.1:7", f"{HOST}:{port}", f"{HOST}:999"])
            with pytest.raises(ConnectError) as caught:
                await client.connect()
            assert type(caught.value) is ConnectError
            for text in (
                "no connection to 192.0.2.1:7 within 10.0 s",
                f"{HOST}:{port}: CONNECTION_LIMIT_EXCEEDED",
                f"is the server running on {HOST}:999?",
            ):
                assert text in str(caught.value)
            only_silent = BinaryProtocolClient(["192.0.2.1:7", "192.0.2.1:8"])
            with pytest.raises(ConnectTimeout, match=r"192.0.2.1:7 .*; no .* 192.0.2.1:8 "):
                await only_silent.connect()

    run_in_virtual_time(scenario())


def test_after_a_loss_the_next_server_is_tried_first() -> None:
    used: list[str] = []

    async def scenario() -> None:
        async def one(peer: Peer) -> None:
            used.append("one")
            await drop(peer)

        async def two(peer: Peer) -> None:
            used.append("two")
            await drop(peer)

        async with scripted(one) as first, scripted(two) as second:
            servers = [f"{HOST}:{first}", f"{HOST}:{second}"]
            client = BinaryProtocolClient(servers, reconnect=QUICK)
            await client.connect()
            for _ in range(4):
                with pytest.raises(ConnectionLostError):
                    await client.echo(b"")
            await client.close()
            # A new start begins with the first one.
            used.append("again")
            await client.connect()
            await client.close()

    run_in_virtual_time(scenario())
    assert used == ["one", "two", "one", "two", "again", "one"]


def test_credentials_are_refused_for_good_only_by_all_servers() -> None:
    async def accept(peer: Peer) -> None:
        await peer.write(answer_to(PING, await peer.expect(PING)))
        await peer.write(answer_to(AUTH, await peer.expect(AUTH)))
        await peer.expect(ECHO)

    async def refuse(peer: Peer) -> None:
        await peer.expect(AUTH)
        await peer.write(frame(AUTH_REPLY, b"\x00"))
        await peer.until_gone()

    async def scenario(*handlers: Any) -> str:
        async with scripted(accept, *handlers) as first, scripted(refuse) as second:
            servers = [f"{HOST}:{first}", f"{HOST}:{second}"]
            async with BinaryProtocolClient(servers, reconnect=QUICK) as client:
                await client.authenticate("alice", "token")
                with pytest.raises(ConnectionLostError):
                    await client.echo(b"1")
                try:
                    return (await client.echo(b"2")).decode()
                except AuthenticationError as error:
                    return str(error)

    assert run_in_virtual_time(scenario(full, full, serve)) == "2"
    assert "user or token rejected" in run_in_virtual_time(scenario(refuse))
