"""Random schemas and values, and a slow, simple decoder that shares no code with the package."""

from __future__ import annotations

import math
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ringest import Field, Packet, Schema
from ringest.schema_types import FieldType

PATIENCE_S = 30.0

WIDTHS: dict[FieldType, int] = {
    "u8": 1, "u16": 2, "u32": 4, "u64": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4,
    "f64": 8, "bool": 1,
}  # fmt: skip
PADDINGS: list[tuple[Any, ...]] = [(), ("nul",), ("space",), ("nul", "space"), ("space", "nul")]


def random_schema(rng: random.Random) -> Schema:
    """A random valid schema, with any types and framing."""
    kinds: list[FieldType] = [*WIDTHS, "text", "bytes", "skip"]
    fields: list[Field] = [Field("key_0", rng.choice(["u8", "u32", "i64", "bool"]))]
    for i in range(rng.randrange(12)):
        kind = rng.choice(kinds)
        if kind == "text":
            fields.append(Field(f"f{i}", kind, rng.randint(1, 40), rng.choice(PADDINGS)))
        elif kind == "bytes":
            fields.append(Field(f"f{i}", kind, rng.randint(1, 12)))
        elif kind == "skip":
            fields.append(Field("", kind, rng.randint(1, 9)))
        else:
            fields.append(Field(f"f{i}", kind))
    rng.shuffle(fields)
    keys = [one.name for one in fields if one.type not in ("f32", "f64", "skip")]
    numbers = [one.name for one in fields if one.type in WIDTHS]
    functions = ["sum", "mean", "min", "max", "first", "last", "var", "std"]
    aggregates = {f"{rng.choice(numbers)}:{rng.choice(functions)}" for _ in range(rng.randrange(5))}
    if rng.random() < 0.5:
        aggregates.add("count")
    return Schema(
        fields,
        by=rng.sample(keys, rng.randint(1, min(len(keys), 8))),
        aggregates=rng.sample(sorted(aggregates), len(aggregates)),
        endian=rng.choice(["big", "little"]),
        packet=random_packet(rng),
        name=rng.choice(["record", "meter-2", "x" * 64]),
    )


def random_packet(rng: random.Random) -> Packet:
    """Random framing."""
    return Packet(
        rng.choice(["u32", "u16", "none"]),
        rng.random() < 0.5,
        rng.choice(["big", "little"]),
        rng.choice(["zero-record", "close"]),
    )


def random_value(rng: random.Random, field: Field) -> Any:
    """A random value of a field that survives packing and unpacking."""
    if field.type in ("f32", "f64"):
        value = rng.choice([rng.uniform(-1e6, 1e6), 0.0, -0.0, math.inf])
        mark = "f" if field.type == "f32" else "d"
        return struct.unpack(mark, struct.pack(mark, value))[0]
    if field.type == "bool":
        return rng.random() < 0.5
    if field.type == "bytes":
        return rng.randbytes(field.bytes)
    if field.type == "text":
        width = field.bytes if not field.padding else rng.randint(0, field.bytes)
        # It must not end with padding.
        data = bytes(rng.choice(b"abc \\\x00\xe9") for _ in range(max(width - 1, 0)))
        return (data + b"z" * min(width, 1)).decode("utf-8", "surrogateescape")
    low = -(1 << (8 * field.bytes - 1)) if field.type.startswith("i") else 0
    high = low + (1 << (8 * field.bytes)) - 1
    return rng.choice([low, high, rng.randint(low, high)])


def naive_values(schema: Schema, record: bytes) -> dict[str, Any]:
    """Decodes a record, field by field."""
    values: dict[str, Any] = {}
    place = 0
    for field in schema.fields:
        raw = record[place : place + field.bytes]
        place += field.bytes
        if field.type == "skip":
            continue
        if field.type in ("f32", "f64"):
            ordered = raw if schema.endian == "big" else raw[::-1]
            values[field.name] = struct.unpack(">f" if len(raw) == 4 else ">d", ordered)[0]
        elif field.type == "bool":
            values[field.name] = raw != b"\x00"
        elif field.type == "bytes":
            values[field.name] = raw
        elif field.type == "text":
            while raw and (
                (raw[-1] == 0 and "nul" in field.padding)
                or (raw[-1] == 32 and "space" in field.padding)
            ):
                raw = raw[:-1]
            values[field.name] = raw.decode("utf-8", "surrogateescape")
        else:
            signed = field.type.startswith("i")
            values[field.name] = int.from_bytes(raw, schema.endian, signed=signed)
    assert place == len(record)
    return values


def naive_packets(schema: Schema, stream: bytes) -> tuple[list[list[bytes]], bool]:
    """The records of each packet of a stream, and whether the last one was an end record."""
    packets: list[list[bytes]] = []
    framing, size, place = schema.packet, schema.record_bytes, 0
    while place < len(stream):
        count = 1
        if framing.length != "none":
            own = 4 if framing.length == "u32" else 2
            length = int.from_bytes(stream[place : place + own], framing.length_endian)
            assert length > 0
            body = length - own if framing.length_includes_itself else length
            assert body > 0
            assert body % size == 0
            place += own
            count = body // size
        records = [stream[place + i * size : place + (i + 1) * size] for i in range(count)]
        place += count * size
        assert len(records[-1]) == size
        packets.append(records)
        if framing.end == "zero-record" and records[-1] == bytes(size):
            assert place == len(stream)
            return packets, True
        assert bytes(size) not in records or framing.end == "close"
    return packets, False


class Listener:
    """Receives one stream: keeps its bytes, and whether it was reset."""

    def __init__(self, sock: socket.socket, answer: bytes) -> None:
        self.port: int = sock.getsockname()[1]
        self.received = b""
        self.was_reset = False
        self._socket = sock
        self._answer = answer
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            if self._answer:
                connection.sendall(self._answer)
            try:
                while data := connection.recv(1 << 16):
                    self.received += data
            except ConnectionResetError:
                self.was_reset = True

    def wait(self) -> bytes:
        """Waits until the stream ends; returns its bytes."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.received


@contextmanager
def listener(answer: bytes = b"") -> Iterator[Listener]:
    """A local port that receives one stream."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(PATIENCE_S)
        taken = Listener(sock, answer)
        yield taken
        taken.wait()
