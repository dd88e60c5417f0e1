"""The record sender against a listening socket; a naive parser reads what it sent."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from naive_records import (
    listener,
    naive_packets,
    naive_values,
    random_schema,
    random_value,
)

from ringest import (
    ConnectError,
    ConnectionLostError,
    ConnectTimeout,
    Field,
    NotConnected,
    Packet,
    ProtocolError,
    RecordError,
    RecordSender,
    Schema,
    SendTimeout,
)

HOST = "127.0.0.1"
BYTE = [Field("a", "u8"), Field("b", "u16")]


def small(**packet: Any) -> Schema:
    """A schema of three bytes with the given framing."""
    return Schema(BYTE, by=["a"], packet=Packet(**packet))


def random_records(schema: Schema, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Random records that can be sent: none is all zero."""
    fields = [field for field in schema.fields if field.type != "skip"]
    records = [{one.name: random_value(rng, one) for one in fields} for _ in range(count)]
    return [record for record in records if any(schema.pack(record))]


@pytest.mark.parametrize("seed", range(40))
def test_random_streams_arrive_as_they_were_sent(seed: int) -> None:
    rng = random.Random(seed)
    schema = random_schema(rng)
    records = random_records(schema, rng, rng.randint(1, 200))
    half = len(records) // 2
    packet_records = rng.choice([None, 1, 3, 50])
    with listener() as port:
        with RecordSender(schema, HOST, port.port, packet_records=packet_records) as sender:
            for record in records[:half]:
                sender.send(record)
            sender.send_many(tuple(record.values()) for record in records[half:])
        stream = port.wait()
    packets, ended = naive_packets(schema, stream)
    assert ended == (schema.packet.end == "zero-record")
    assert not port.was_reset
    came = [record for packet in packets for record in packet]
    if ended:
        assert came.pop() == bytes(schema.record_bytes)
    assert [naive_values(schema, record) for record in came] == records
    assert (sender.records, sender.packets) == (len(records), len(packets))
    assert sender.bytes_sent == len(stream)
    if packet_records is not None and schema.packet.length != "none":
        assert {len(packet) for packet in packets[:-1]} <= {packet_records}


def test_the_local_address_is_known_from_connect_on_and_after_the_end() -> None:
    sender = RecordSender(small(), HOST, 9)
    with pytest.raises(NotConnected, match="before connect"):
        _ = sender.local_address
    with socket.create_server((HOST, 0)) as server:
        for finish in (True, False):
            sender = RecordSender(small(), HOST, server.getsockname()[1])
            sender.connect()
            accepted, peer = server.accept()
            assert sender.local_address == peer
            with accepted:
                # What `finish` waits for: the end of the other side.
                accepted.shutdown(socket.SHUT_WR)
                if finish:
                    sender.finish()
                else:
                    sender.close()
            assert sender.local_address == peer


def test_the_smallest_stream_is_that_of_the_protocol() -> None:
    with listener() as port:
        with RecordSender(Schema.default(), HOST, port.port) as sender:
            sender.send((1, 500, 2.5, -3, b"pump" + b" " * 252))
        stream = port.wait()
    record = struct.pack(">IHfb", 1, 500, 2.5, -3) + b"pump" + b" " * 252
    assert stream == struct.pack(">I", 538) + record + bytes(267)
    assert (sender.records, sender.packets, sender.bytes_sent) == (1, 1, 538)


def test_a_stream_without_records_has_the_end_record() -> None:
    with listener() as port:
        with RecordSender(small(length="u16", length_includes_itself=False), HOST, port.port):
            pass
        assert port.wait() == b"\x00\x03" + bytes(3)
    with listener() as port:
        with (
            pytest.raises(RecordError, match='no record was sent, but with end = "close"'),
            RecordSender(small(end="close"), HOST, port.port),
        ):
            pass
        assert port.wait() == b""


@pytest.mark.parametrize("end", ["zero-record", "close"])
def test_an_exception_aborts_the_stream(end: str) -> None:
    schema = small(length="none", end=end)
    with listener() as port:
        sender = RecordSender(schema, HOST, port.port, packet_records=1)
        with pytest.raises(ZeroDivisionError), sender:
            sender.send_many([1, 2 // (1 - i)] for i in range(2))
        stream = port.wait()
    # With end = "close" the connection is reset, which may discard the bytes.
    assert port.was_reset == (end == "close")
    assert b"\x01\x00\x02".startswith(stream)
    assert port.was_reset or stream == b"\x01\x00\x02"
    with pytest.raises(NotConnected, match="stream was aborted"):
        sender.send([1, 2])


def test_flush_sends_a_packet_that_is_not_full() -> None:
    schema = small(length="u32", end="close")
    with listener() as port:
        with RecordSender(schema, HOST, port.port) as sender:
            sender.flush()
            sender.send([1, 2])
            sender.flush()
            assert (sender.packets, sender.bytes_sent) == (1, 7)
            sender.send([3, 4])
        assert port.wait() == bytes.fromhex("00000007 010002 00000007 030004")


def test_packets_are_60_kib_and_fit_their_length() -> None:
    with listener() as port:
        with RecordSender(Schema.default(), HOST, port.port) as sender:
            sender.send_many((1, 2, 3.0, 4, "x") for _ in range(1000))
        packets, _ = naive_packets(Schema.default(), port.wait())
    assert [len(packet) for packet in packets] == [230] * 4 + [81]
    large = Schema(
        [Field("a", "u8"), Field("", "skip", 32_767)], by=["a"], packet=Packet("u16", end="close")
    )
    assert large.packet_records_max == 1
    with listener() as port:
        with RecordSender(large, HOST, port.port) as sender:
            sender.send_many([[1], [2]])
        assert [len(one) for one in naive_packets(large, port.wait())[0]] == [1, 1]
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"packet_records {count} is not from 1 to 1"):
            RecordSender(large, packet_records=count)


def test_an_all_zero_record_is_refused_where_it_would_be_the_end() -> None:
    with listener() as port:
        with RecordSender(small(), HOST, port.port) as sender:
            sender.send([1, 1])
            with pytest.raises(RecordError, match="would end the stream"):
                sender.send([0, 0])
            with pytest.raises(RecordError, match=r"record 2 of the array: .* would end"):
                sender.send_array(b"\x01\x00\x00\x00\x00\x01\x00\x00\x00")
            # The stream continues without them.
            sender.send([0, 1])
        packets, ended = naive_packets(small(), port.wait())
    assert ended
    assert [r for packet in packets for r in packet] == [b"\x01\x00\x01", b"\x00\x00\x01", bytes(3)]
    with listener() as port:
        with RecordSender(small(end="close"), HOST, port.port) as sender:
            sender.send([0, 0])
            sender.send_array(bytes(3))
        assert port.wait() == (b"\x00\x00\x00\x07" + bytes(3)) * 2


@pytest.mark.parametrize("length", ["u32", "none"])
@pytest.mark.parametrize("bad", [0, 1, 49_999, 99_999])
def test_an_array_is_sent_whole_or_not_at_all(length: str, bad: int) -> None:
    """It is many packets long, and the record that cannot be sent is in any of them."""
    good = b"\x01\x00\x00" * 100_000
    with listener() as port:
        with RecordSender(small(length=length), HOST, port.port) as sender:
            sender.send([9, 9])
            with pytest.raises(RecordError, match=f"record {bad} of the array"):
                sender.send_array(good[: 3 * bad] + bytes(3) + good[3 * bad + 3 :])
            assert (sender.records, sender.bytes_sent) == (1, 0)
            sender.send_array(good)
        packets, ended = naive_packets(small(length=length), port.wait())
    assert ended
    records = [record for packet in packets for record in packet]
    assert records == [b"\x09\x00\x09"] + [good[:3]] * 100_000 + [bytes(3)]
    assert sender.packets == len(packets)


def test_calls_before_connect_leave_nothing_behind() -> None:
    with listener() as port:
        sender = RecordSender(small(), HOST, port.port)
        for use in (sender.finish, sender.flush):
            with pytest.raises(NotConnected):
                use()
        with sender:
            # Connecting twice is connecting once.
            sender.connect()
            sender.send([1, 2])
        packets, ended = naive_packets(small(), port.wait())
    assert ended
    assert packets == [[b"\x01\x00\x02", bytes(3)]]
    assert sender.packets == 1


@pytest.mark.parametrize("length", ["u32", "u16", "none"])
def test_arrays_arrive_unchanged(length: str) -> None:
    rng = random.Random(7)
    schema = small(length=length)
    # Many zeros, most of which straddle two records.
    data = b"".join(rng.choice([b"\x00\x00\x01", b"\x01\x00\x00"]) for _ in range(1000))
    with listener() as port:
        with RecordSender(schema, HOST, port.port, packet_records=64) as sender:
            sender.send([9, 9])
            for form in (data, bytearray(data), memoryview(data), b""):
                sender.send_array(form)
            assert sender.records == 3001
            for bad in (data[:-1], b"x"):
                with pytest.raises(RecordError, match="does not consist of records of 3 bytes"):
                    sender.send_array(bad)
        stream = port.wait()
    packets, ended = naive_packets(schema, stream)
    assert ended
    came = b"".join(record for packet in packets for record in packet)
    assert came == b"\x09\x00\x09" + data * 3 + bytes(3)
    assert (sender.packets, sender.bytes_sent) == (len(packets), len(stream))


def test_numpy_arrays_arrive_unchanged() -> None:
    numpy = pytest.importorskip("numpy")
    schema = Schema.default()
    array = numpy.zeros(500, schema.numpy_dtype())
    array["A"] = range(500)
    array["C"] = 0.5
    array["E"] = b"valve"
    with listener() as port:
        with RecordSender(schema, HOST, port.port) as sender:
            sender.send_array(array)
            sender.send_array(array[::2])
            sender.send_array(array.reshape(50, 10))
            # Another type, whose bytes are a multiple only by accident.
            other = numpy.zeros(267, [("A", "u1"), ("B", "u2")])
            with pytest.raises(RecordError, match="items of 3"):
                sender.send_array(other)
        packets, _ = naive_packets(schema, port.wait())
    values = [naive_values(schema, record) for packet in packets for record in packet][:-1]
    assert [one["A"] for one in values] == [*range(500), *range(0, 500, 2), *range(500)]
    assert {(one["C"], one["E"]) for one in values} == {(0.5, "valve")}
    whole = Schema.from_struct(">Q", fields="a", by="a")
    with listener() as port:
        with RecordSender(whole, HOST, port.port) as sender:
            sender.send_array(numpy.arange(1, 4, dtype=">u8"))
            sender.send_array(numpy.arange(1, 3, dtype=">u4"))
        assert naive_packets(whole, port.wait())[0] == [
            [struct.pack(">Q", i) for i in (1, 2, 3)],
            [struct.pack(">II", 1, 2)],
            [bytes(8)],
        ]


def test_misuse_raises_an_error_with_the_next_step() -> None:
    sender = RecordSender(small())
    uses: list[Callable[[], None]] = [
        lambda: sender.send([1, 2]),
        lambda: sender.send_many([]),
        lambda: sender.send_array(b""),
        sender.flush,
        sender.finish,
    ]
    for use in uses:
        with pytest.raises(NotConnected, match="use `with`, or call connect"):
            use()
    assert sender.records == 0
    sender.close()
    with listener() as port:
        with RecordSender(small(), HOST, port.port) as sender:
            sender.finish()
            with pytest.raises(NotConnected, match="another sender"):
                sender.send([1, 2])
            sender.finish()
        sender.close()
        with pytest.raises(NotConnected, match="create another"):
            sender.connect()
    for arguments, rule in (
        ({"port": 0}, "a port from 1 to 65535"),
        ({"host": ""}, "not the address of a server"),
        ({"timeout_s": 0.0}, "timeout_s must be greater than 0"),
        ({"connect_timeout_s": -1.0}, "connect_timeout_s must be greater than 0"),
        ({"server_hostname": "x"}, "enable TLS"),
        ({"packet_records": 0}, "packet_records 0"),
    ):
        with pytest.raises(ValueError, match=rule):
            RecordSender(small(), **arguments)


def test_a_failed_connect_says_why() -> None:
    with socket.create_server((HOST, 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectError, match="is the server running"):
        RecordSender(small(), HOST, port).connect()
    with pytest.raises(ConnectError, match="cannot connect"):
        RecordSender(small(), "no.such.host.invalid", port).connect()
    # A listener without TLS does not answer the handshake.
    with socket.create_server((HOST, 0)) as sock:
        sender = RecordSender(
            small(), HOST, sock.getsockname()[1], tls=True, connect_timeout_s=0.05
        )
        with pytest.raises(ConnectTimeout, match="both sides use TLS"):
            sender.connect()


def test_a_reset_is_reported() -> None:
    with socket.create_server((HOST, 0)) as sock:
        sender = RecordSender(small(), HOST, sock.getsockname()[1], packet_records=1)
        sender.connect()
        accepted, _ = sock.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()

        def send_until_noticed() -> None:
            for _ in range(100_000):
                sender.send([1, 2])

        with pytest.raises(ConnectionLostError, match="its log say why"):
            send_until_noticed()
        # The error persists, and finishing does not hide it.
        with pytest.raises(ConnectionLostError, match="its log say why"):
            sender.finish()
        assert sender.records <= 100_000


def test_a_receiver_that_reads_nothing_times_out() -> None:
    with socket.create_server((HOST, 0)) as sock:
        sender = RecordSender(small(), HOST, sock.getsockname()[1], timeout_s=0.05)
        sender.connect()
        accepted, _ = sock.accept()
        with accepted, pytest.raises(SendTimeout, match=r"no progress for 0\.05 s"):
            sender.send_array(b"\x01" * (30 << 20))


@pytest.mark.parametrize(("answer", "why"), [(b"\x15\x03\x03", "pass tls="), (b"\xde", "port for")])
def test_an_answer_shows_that_it_is_another_port(answer: bytes, why: str) -> None:
    with listener(answer) as port:
        with (
            pytest.raises(ProtocolError, match=why),
            RecordSender(small(), HOST, port.port) as sender,
        ):
            sender.send([1, 2])
        port.wait()
