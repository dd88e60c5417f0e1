"""Generates random records of any schema from a seed, with a copy of their values. No I/O.

The records depend on the schema, the seed and the number of the stream only, not on how many are
taken at once. They use more forms of a value than `Schema.pack` does, since other senders may send
them: every non-zero byte for true, mixed padding, and noise in skipped bytes.
"""

from __future__ import annotations

import math
import random
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product, repeat
from typing import Any, Final, Literal, TypeAlias

from ringest.record_codec import STRUCT_CODES, STRUCT_ORDERS
from ringest.schema import Schema
from ringest.schema_types import FLOATS, PADDING_BYTES, SIGNED, WIDTHS, Endian, Field

Padding: TypeAlias = Literal["space", "nul", "mixed"]

# Records drawn at once. If this depended on the packet size, so would the records.
DRAW_RECORDS: Final = 1024
# Values of each key, and the most groups that are formed from them.
KEY_VALUES: Final = 5
GROUPS_MAX: Final = 125
# Encodings of the keys of a group: with different padding, and different bytes for true.
ENCODINGS: Final = 24
TEXT_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz 0123456789\\\x00\xe9~"
TEXT_BYTES_MAX: Final = 12
TRUE_BYTES: Final = (1, 2, 0x80, 0xFF)
FLOAT_MAX: Final = 1000.0
# 64-bit values are shifted right by so many bits, so that their sum fits into 64 bits. Every fifth
# group keeps all bits, and most of its sums overflow.
WIDE_SHIFT: Final = 24
WIDE_GROUPS_EVERY: Final = 5


@dataclass(slots=True, eq=False)
class SeededGroup:
    """A combination of key values, with the values of the records that were taken."""

    # In the order of the schema's keys; text and bytes keys are bytes without padding.
    key: tuple[Any, ...]
    # Each encoding has the bytes of every key.
    encodings: list[tuple[bytes, ...]]
    # How far 64-bit values are shifted to the right.
    shift: int
    # The values of each record, in the order of `SeededRecords.tallied`.
    rows: list[tuple[Any, ...]] = field(default_factory=list)


class SeededRecords:
    """The random records of one stream; `take` returns the next ones.

    With `tally`, the values of the taken records are kept in `groups`.
    """

    def __init__(
        self, schema: Schema, seed: int, stream: int, padding: Padding, *, tally: bool
    ) -> None:
        self._schema: Final = schema
        # A seed of text is hashed, so neighbouring streams are unrelated.
        self._rng: Final = random.Random(f"{seed}/{stream}/schema")  # noqa: S311
        # A generator of its own: the padding must not change the values.
        self._padding_rng: Final = random.Random(f"{seed}/{stream}/padding")  # noqa: S311
        self._tally: Final = tally
        used = {one.field for one in schema.aggregates}
        # The fields whose values the aggregates need.
        self.tallied: Final = tuple(one.name for one in schema.fields if one.name in used)
        self.groups: Final = _make_groups(self._rng, schema, padding)
        codes = "".join(self._code(one) for one in schema.fields)
        self._struct: Final = struct.Struct(STRUCT_ORDERS[schema.endian] + codes)
        assert self._struct.size == schema.record_bytes
        self._records: Final = self._draw()

    def take(self, count: int) -> bytes:
        """The next `count` records, packed."""
        return b"".join(islice(self._records, count))

    def _code(self, one: Field) -> str:
        """The struct code of a column; keys, texts and bytes are drawn as bytes."""
        if one.name in self._schema.by or one.type not in WIDTHS:
            return f"{one.bytes}s"
        return "B" if one.type == "bool" else STRUCT_CODES[one.type]

    def _draw(self) -> Iterator[bytes]:
        """Yields records without end; tallies each when it is taken."""
        schema = self._schema
        end_record = bytes(schema.record_bytes) if schema.packet.end == "zero-record" else None
        while True:
            groups = self._rng.choices(self.groups, k=DRAW_RECORDS)
            choices = self._padding_rng.choices(range(ENCODINGS), k=DRAW_RECORDS)
            columns: list[Sequence[Any]] = []
            tallied: list[Sequence[Any]] = []
            for one in schema.fields:
                if one.name in schema.by:
                    k = schema.by.index(one.name)
                    drawn = zip(groups, choices, strict=True)
                    packed: Sequence[Any] = [group.encodings[i][k] for group, i in drawn]
                    values: Sequence[Any] = [group.key[k] for group in groups]
                else:
                    packed, values = self._draw_column(one, groups)
                columns.append(packed)
                if one.name in self.tallied:
                    tallied.append(values)
            rows = zip(*tallied, strict=True) if tallied else repeat((), DRAW_RECORDS)
            records = map(self._struct.pack, *columns)
            for record, group, row in zip(records, groups, rows, strict=True):
                if record == end_record:
                    continue
                if self._tally:
                    group.rows.append(row)
                yield record

    def _draw_column(
        self, one: Field, groups: list[SeededGroup]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Values of a field that is not a key: the packed ones, and the ones to tally."""
        count = len(groups)
        if one.type in FLOATS:
            # The array rounds to the field's type, as the wire does.
            code = STRUCT_CODES[one.type]
            floats = array(code, (self._rng.uniform(-FLOAT_MAX, FLOAT_MAX) for _ in range(count)))
            return floats, floats
        if one.type == "bool":
            sent = self._rng.choices((0, 0, 0, *TRUE_BYTES), k=count)
            return sent, [value != 0 for value in sent]
        noise = self._rng.randbytes(count * one.bytes)
        if one.type not in WIDTHS:
            pieces = [noise[i : i + one.bytes] for i in range(0, len(noise), one.bytes)]
            return pieces, pieces
        integers = struct.unpack(f"<{count}{STRUCT_CODES[one.type]}", noise)
        if one.bytes < 8:
            return integers, integers
        shifted = [value >> group.shift for value, group in zip(integers, groups, strict=True)]
        return shifted, shifted


def _make_groups(rng: random.Random, schema: Schema, padding: Padding) -> list[SeededGroup]:
    """The groups of a stream: combinations of a few values of each key."""
    by_name = {one.name: one for one in schema.fields}
    keys = [by_name[name] for name in schema.by]
    pools = [_key_values(rng, key) for key in keys]
    if math.prod(map(len, pools)) <= GROUPS_MAX:
        chosen = list(product(*pools))
    else:
        drawn: dict[tuple[Any, ...], None] = {}
        while len(drawn) < GROUPS_MAX:
            drawn[tuple(rng.choice(pool) for pool in pools)] = None
        chosen = list(drawn)
    groups = []
    for number, values in enumerate(chosen):
        forms = [
            _key_encodings(key, value, schema.endian, padding)
            for key, value in zip(keys, values, strict=True)
        ]
        encodings = [tuple(each[i % len(each)] for each in forms) for i in range(ENCODINGS)]
        wide = number % WIDE_GROUPS_EVERY == 0
        groups.append(SeededGroup(values, encodings, 0 if wide else WIDE_SHIFT))
    return groups


def _key_values(rng: random.Random, key: Field) -> list[Any]:
    """A few different values of a key; of an integer, the lowest and the highest among them."""
    if key.type == "bool":
        return [False, True]
    values: dict[Any, None] = {}
    if key.type in WIDTHS:
        low = -(1 << (8 * key.bytes - 1)) if key.type in SIGNED else 0
        high = low + (1 << (8 * key.bytes)) - 1
        values = {low: None, high: None}
    padding = _padding_bytes(key)
    while len(values) < KEY_VALUES:
        if key.type in WIDTHS:
            values[rng.randint(low, high)] = None
        elif key.type == "bytes":
            values[rng.randbytes(key.bytes)] = None
        elif padding:
            count = rng.randint(0, min(key.bytes, TEXT_BYTES_MAX))
            values[bytes(rng.choices(TEXT_ALPHABET, k=count)).rstrip(padding)] = None
        else:
            values[bytes(rng.choices(TEXT_ALPHABET, k=key.bytes))] = None
    return list(values)


def _key_encodings(key: Field, value: Any, endian: Endian, padding: Padding) -> list[bytes]:
    """The bytes that may stand for a key's value."""
    if key.type == "bool":
        return [bytes([byte]) for byte in TRUE_BYTES] if value else [b"\x00"]
    if key.type in WIDTHS:
        return [struct.pack(STRUCT_ORDERS[endian] + STRUCT_CODES[key.type], value)]
    spaces, nuls = value.ljust(key.bytes, b" "), value.ljust(key.bytes, b"\x00")
    if len(key.padding) < 2:
        return [spaces if key.padding == ("space",) else nuls]
    if padding != "mixed":
        return [spaces if padding == "space" else nuls]
    border = (len(value) + key.bytes) // 2
    nuls_first = value.ljust(border, b"\x00").ljust(key.bytes, b" ")
    return [spaces, nuls, nuls_first, value.ljust(border, b" ").ljust(key.bytes, b"\x00")]


def _padding_bytes(key: Field) -> bytes:
    return b"".join(PADDING_BYTES[one] for one in key.padding)
