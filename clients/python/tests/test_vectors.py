"""The test vectors of docs/reference/vectors.json: this package encodes and decodes each of them.

The engine's tests cover what only a server does: rejecting frames, lengths and DATA payloads, and
reporting incomplete streams.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Coroutine, Iterator
from itertools import cycle, islice
from typing import Any, Literal, TypeAlias

import pytest
from naive_records import naive_packets
from repository import ROOT, in_repository_only
from scripted import Peer, run, scripted

from ringest import (
    BinaryProtocolClient,
    Field,
    ProtocolError,
    Schema,
    shown_text,
    text_bytes,
)
from ringest.errors import server_error
from ringest.expected_result import exact_aggregate
from ringest.protocol import (
    SEQUENCE,
    TIMESTAMP,
    Credentials,
    Frame,
    FrameParser,
    MessageType,
    encode,
)
from ringest.record_packets import RecordPackets

pytestmark = in_repository_only

VECTORS_PATH = ROOT / "docs/reference/vectors.json"
NOT_FINITE = {"NaN": math.nan, "inf": math.inf, "-inf": -math.inf}

Vector: TypeAlias = dict[str, Any]


def load(*path: str) -> list[Any]:
    """A part of the file as parameters of a test, named as in the file.

    A missing file gives one parameter, None, with which the test fails rather than is skipped.
    """
    if not VECTORS_PATH.exists():
        return [None]
    part: Any = json.loads(VECTORS_PATH.read_text(encoding="utf-8"))
    for key in path:
        part = part[key]
    assert part, path
    return [
        pytest.param(one, id=f"{number}: {one.get('name', '')}") for number, one in enumerate(part)
    ]


def of_schemas(key: str) -> list[Any]:
    """A part of every schema, as pairs of the schema's vector and its own."""
    pairs: list[Any] = []
    for parameter in load("schemas"):
        if parameter is None:
            return [(None, None)]
        (schema,) = parameter.values
        pairs += [
            pytest.param(schema, one, id=f"{schema['name']}: {one['name']}") for one in schema[key]
        ]
    return pairs


def complete_streams() -> list[Any]:
    """The streams that a sender such as this package's could send, as `of_schemas` gives them."""
    return [
        one for one in of_schemas("streams") if one == (None, None) or is_complete(one.values[1])
    ]


def is_complete(stream: Vector) -> bool:
    """Whether the engine reports a stream as complete."""
    return bool(stream["status"] == "complete")


@pytest.fixture(autouse=True)
def _vectors() -> None:
    """Fails each test if the vectors are missing."""
    assert VECTORS_PATH.is_file(), f"{VECTORS_PATH} is missing; it belongs to this repository"


def payload_of(vector: Vector) -> bytes:
    """The payload that this package makes of a frame's fields."""
    fields = vector["fields"]
    match vector["type"]:
        case "PING" | "PONG":
            return TIMESTAMP.pack(fields["timestamp"])
        case "AUTH":
            return Credentials(fields["user"], fields["token"]).payload()
        case "AUTH_REPLY":
            session: str | None = fields["session"]
            return b"\x00" if session is None else b"\x01" + session.encode()
        case "DATA":
            return SEQUENCE.pack(fields["sequence"]) + bytes.fromhex(fields["data"])
        case "DATA_ACK":
            return SEQUENCE.pack(fields["sequence"])
        case "ERROR":
            message: str = fields["message"]
            return bytes([fields["code"]]) + message.encode()
        case "CLOSE":
            return b""
    return bytes.fromhex(fields["data"])


def test_the_checksum() -> None:
    check = json.loads(VECTORS_PATH.read_text(encoding="utf-8"))["check_value"]
    assert f"{zlib.crc32(bytes.fromhex(check['data'])):08x}" == check["crc32"]


@pytest.mark.parametrize("vector", load("frames"))
def test_frames_are_encoded(vector: Vector) -> None:
    kind = MessageType[vector["type"]]
    assert kind == vector["type_byte"]
    assert payload_of(vector).hex() == vector["payload"]
    assert encode(kind, payload_of(vector)).hex() == vector["frame"]


@pytest.mark.parametrize("vector", load("frames"))
def test_frames_are_decoded(vector: Vector) -> None:
    parser = FrameParser()
    parser.feed(bytes.fromhex(vector["frame"]))
    kind, payload = MessageType[vector["type"]], bytes.fromhex(vector["payload"])
    if vector["from"] == "client" and kind not in (MessageType.BROADCAST, MessageType.ERROR):
        with pytest.raises(ProtocolError, match="no server sends"):
            parser.next_frame()
        return
    assert parser.next_frame() == Frame(kind, payload)
    assert not parser.in_frame
    if kind is MessageType.ERROR:
        error = server_error(payload[0], payload[1:].decode())
        fields = vector["fields"]
        assert (error.code, error.code.name) == (fields["code"], fields["code_name"])
        assert error.message == fields["message"]


Request: TypeAlias = Callable[[BinaryProtocolClient], Coroutine[Any, Any, object]]


def request_for(reply: bytes) -> Request:
    """The request whose answer a reply pretends to be."""
    match reply[5]:
        case MessageType.PONG:
            return lambda client: client.ping()
        case MessageType.DATA_ACK:
            return lambda client: client.send_data(b"")
        case MessageType.AUTH_REPLY:
            return lambda client: client.authenticate("alice", "s3cret")
    return lambda client: client.echo(b"hi")


@pytest.mark.parametrize("vector", load("faulty_replies"))
def test_faulty_replies_end_the_connection(vector: Vector) -> None:
    reply = bytes.fromhex(vector["bytes"])

    async def misbehave(peer: Peer) -> None:
        await peer.read()
        await peer.write(reply)
        await peer.until_gone()

    async def scenario() -> None:
        async with scripted(misbehave) as port, BinaryProtocolClient("127.0.0.1", port) as client:
            with pytest.raises(ProtocolError):
                await request_for(reply)(client)
            assert not client.connected

    run(scenario())


def schema_of(vector: Vector) -> Schema:
    """The schema of a vector."""
    return Schema.default() if vector["toml"] is None else Schema.from_toml(vector["toml"])


def value_of(value: Any, field: Field) -> Any:
    """A value in a vector as this package has it."""
    if isinstance(value, dict):
        data = bytes.fromhex(value["hex"])
        return data if field.type == "bytes" else data.decode("utf-8", "surrogateescape")
    if field.type in ("f32", "f64"):
        return NOT_FINITE[value] if isinstance(value, str) else float(value)
    return value


def values_of(schema: Schema, record: Vector) -> dict[str, Any]:
    """The values of a record in a vector."""
    fields = {field.name: field for field in schema.fields}
    return {name: value_of(value, fields[name]) for name, value in record.items()}


def padded(value: Any, field: Field, padding: str) -> Any:
    """A value to pack, with the padding that a vector asks for."""
    if field.type != "text":
        return value
    data = value.encode("utf-8", "surrogateescape")
    filler = {"space": b" ", "nul": b"\x00", "mixed": b"\x00 "}[padding]
    return data + bytes(islice(cycle(filler), field.bytes - len(data)))


@pytest.mark.parametrize("vector", load("schemas"))
def test_schemas_are_read(vector: Vector) -> None:
    schema = schema_of(vector)
    assert (schema.name, schema.record_bytes) == (vector["name"], vector["record_bytes"])
    fields = [
        {"name": one.name, "type": one.type, "offset": one.offset, "bytes": one.bytes}
        for one in schema.fields
        if one.type != "skip"
    ]
    assert fields == vector["fields"]
    ends = vector["end_record"] is not None
    assert schema.packet.end == ("zero-record" if ends else "close")
    assert not ends or bytes.fromhex(vector["end_record"]) == bytes(schema.record_bytes)


@pytest.mark.parametrize(("schema_vector", "vector"), of_schemas("packets"))
def test_packets_are_encoded(schema_vector: Vector, vector: Vector) -> None:
    schema = schema_of(schema_vector)
    fields = {field.name: field for field in schema.fields}
    packets = RecordPackets(schema, len(vector["records"]) + 1)
    for record in vector["records"]:
        values = {
            name: padded(value, fields[name], vector["padding"])
            for name, value in values_of(schema, record).items()
        }
        assert packets.add(schema.pack(values)) is None
    packet = packets.end() if vector["end_record"] else packets.flush()
    assert packet.hex() == vector["bytes"]


@pytest.mark.parametrize(("schema_vector", "vector"), of_schemas("packets"))
def test_packets_are_decoded(schema_vector: Vector, vector: Vector) -> None:
    schema = schema_of(schema_vector)
    packets, ended = naive_packets(schema, bytes.fromhex(vector["bytes"]))
    assert ended == vector["end_record"]
    records = [record for packet in packets for record in packet]
    if ended:
        assert records.pop().hex() == schema_vector["end_record"]
    wanted = [values_of(schema, record) for record in vector["records"]]
    # repr, because NaN is not equal to itself.
    assert [repr(schema.unpack(record)) for record in records] == [repr(one) for one in wanted]


def in_json(value: Any, kind: str) -> Any:
    """A value of a result in the form of the vectors."""
    if isinstance(value, bytes):
        return value.hex()
    if kind == "text":
        return shown_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def grouped(schema: Schema, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The groups of records, sorted by key."""
    types = {field.name: field.type for field in schema.fields}
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in schema.by), []).append(record)
    columns = {column.name: column.type for column in schema.result_columns}
    for key, members in sorted(groups.items()):
        row: dict[str, Any] = dict(zip(schema.by, key, strict=True))
        for one in schema.aggregates:
            if one.function == "count":
                row["count"] = len(members)
            else:
                values = [member[one.field] for member in members]
                row[one.column_name] = exact_aggregate(types[one.field], one.function, values)
        yield {name: in_json(value, columns[name]) for name, value in row.items()}


@pytest.mark.parametrize(("schema_vector", "vector"), complete_streams())
def test_complete_streams_have_this_result(schema_vector: Vector, vector: Vector) -> None:
    schema = schema_of(schema_vector)
    stream = bytes.fromhex(vector["bytes"])
    packets, ended = naive_packets(schema, stream[: len(stream) - vector["bytes_after_end"]])
    assert ended == (schema.packet.end == "zero-record")
    records = [schema.unpack(record) for packet in packets for record in packet]
    if ended:
        records.pop()
    assert (len(records), len(packets)) == (vector["records"], vector["packets"])
    assert list(grouped(schema, records)) == vector["groups"]
    schema_columns = [column.name for column in schema.result_columns]
    assert all(list(group) == schema_columns for group in vector["groups"])


@pytest.mark.parametrize("vector", load("paddings"))
def test_padding_is_removed_and_text_is_shown(vector: Vector) -> None:
    field, value = bytes.fromhex(vector["field"]), bytes.fromhex(vector["value"])
    padding: tuple[Literal["nul", "space"], ...] = tuple(vector["padding"])
    schema = Schema([Field("t", "text", len(field), padding)], by=["t"])
    unpacked = schema.unpack(field)["t"]
    assert unpacked.encode("utf-8", "surrogateescape") == value
    assert schema.unpack(schema.pack([unpacked])) == {"t": unpacked}
    assert shown_text(unpacked) == shown_text(value) == vector["shown"]
    assert text_bytes(vector["shown"]) == value


@pytest.mark.parametrize("vector", load("texts"))
def test_text_is_shown(vector: Vector) -> None:
    value = bytes.fromhex(vector["value"])
    field = Field("t", "text", len(value), encoding=vector["encoding"])
    unpacked = Schema([field], by=["t"]).unpack(value)["t"]
    assert shown_text(unpacked) == vector["shown"]
    if vector["encoding"] == "utf-8":
        assert shown_text(value) == vector["shown"]
        assert text_bytes(vector["shown"]) == value
    else:
        assert text_bytes(vector["shown"]).decode().encode("latin-1") == value
    assert Schema([field], by=["t"]).pack([unpacked]) == value
