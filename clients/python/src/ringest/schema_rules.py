"""Checks a schema against the engine's rules and reports the first one that is broken.

Each error gives the place (`At`), what is wrong, the rule, and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, NoReturn, TypeAlias

from ringest.errors import SchemaError
from ringest.schema_types import (
    ENDIANS,
    ENDS,
    FIELD_TYPES,
    FLOATS,
    INTEGERS,
    LENGTH_BYTES,
    PADDING_BYTES,
    TEXT_ENCODINGS,
    WIDTHS,
    Aggregate,
    Field,
    FieldType,
    Function,
    Packet,
)

RECORD_BYTES_MAX: Final = 65_535
FIELDS_MAX: Final = 256
KEYS_MAX: Final = 8
AGGREGATES_MAX: Final = 64
TEXT_KEY_BYTES_MAX: Final = 4095
NAME_CHARACTERS_MAX: Final = 64
RESERVED_NAMES: Final = ("node", "connection", "batch", "time_us", "count")

# The place of a broken rule: a part of the schema, and the index within it, or -1 for all of it.
At: TypeAlias = tuple[
    Literal["schema", "name", "endian", "packet", "field", "result", "by", "aggregates"], int
]

class BrokenRule(SchemaError):
    """A broken rule with its place, from which a reader of files finds the line."""

    def __init__(self, at: At, key: str, rule: str) -> None:
        super().__init__(rule)
        self.at: Final = at
        self.key: Final = key


def broken(at: At, rule: str, key: str = "") -> NoReturn:
    """Raises BrokenRule, whose text starts with the place.

    `key` is the TOML key within that part of the schema, if known.
    """
    part, index = at
    place = part if index < 0 else f"{part} {index + 1}"
    raise BrokenRule(at, key, f"{place}: {rule}")


def check_record(
    name: str,
    endian: str,
    packet: Packet,
    fields: Sequence[Field],
    record_bytes: int,
    by: Sequence[str],
    aggregates: Sequence[Aggregate],
) -> None:
    """Checks everything except the names of columns."""
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{NAME_CHARACTERS_MAX}}}", name):
        rule = f"a name consists of 1 to {NAME_CHARACTERS_MAX} letters, digits, `-` and `_`"
        broken(("name", -1), f'{rule}, e.g. "meter-2"')
    if endian not in ENDIANS:
        broken(("endian", -1), f'unknown byte order {endian!r}; use "big" or "little"')
    _check_fields(fields, record_bytes)
    _check_packet(packet, record_bytes)
    by_name = {field.name: field for field in fields if field.type != "skip"}
    _check_keys(by_name, by)
    _check_aggregates(by_name, aggregates)


def check_columns(
    fields: Sequence[Field], by: Sequence[str], aggregates: Sequence[Aggregate]
) -> None:
    """Checks that the names of columns are unique, in results and in partials."""
    result = [*by, *(one.column_name for one in aggregates)]
    partials = [*RESERVED_NAMES[:4], *by, "count", *_part_names(fields, aggregates)]
    for what, names in (("result", result), ("partials", partials)):
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            rule = f'two columns of the {what} would be named "{twice}": a key and an aggregate'
            broken(("aggregates", -1), f"{rule}; rename one of the fields")


def _part_names(fields: Sequence[Field], aggregates: Sequence[Aggregate]) -> list[str]:
    types = {field.name: field.type for field in fields}
    parts = {
        (part, one.field): None
        for one in aggregates
        if one.function != "count"
        for part in _parts_of(one.function, types[one.field])
    }
    # Two fields can lead to the same name: sum_low_x belongs to x and to low_x.
    return [f"{part}_{field}" for part, field in parts]


def _parts_of(function: Function, kind: FieldType) -> tuple[str, ...]:
    """The columns of partials that a function of a field of this type is made of."""
    if function in ("min", "max", "first", "last"):
        return (function,)
    if kind in FLOATS:
        mean: tuple[str, ...] = ("mean", "rest")
    else:
        mean = ("sum", "sum_low") if kind[1:] in ("32", "64") else ("sum",)
    if function in ("sum", "mean"):
        return mean
    return (*mean, "m2", "unit") if kind == "f64" else (*mean, "m2")


def _check_fields(fields: Sequence[Field], record_bytes: int) -> None:
    if not 1 <= len(fields) <= FIELDS_MAX:
        broken(("field", -1), f"{len(fields)} fields; a record has 1 to {FIELDS_MAX}")
    names: set[str] = set()
    for i, field in enumerate(fields):
        _check_field(("field", i), field, names)
        names.add(field.name)
    if record_bytes > RECORD_BYTES_MAX:
        rule = f"the record has {record_bytes} bytes; the maximum is {RECORD_BYTES_MAX}"
        broken(("field", -1), rule)


def _check_field(at: At, field: Field, names: set[str]) -> None:
    name = field.name
    if field.type not in FIELD_TYPES:
        known = ", ".join(FIELD_TYPES)
        broken(at, f"unknown type {field.type!r}; expected one of {known}", "type")
    if field.bytes != WIDTHS.get(field.type, field.bytes):
        rule = f"{field.type} has a fixed width; remove `bytes`, which is for text, bytes and skip"
        broken(at, rule)
    if not 1 <= field.bytes <= RECORD_BYTES_MAX:
        broken(at, f"{field.bytes} bytes; a field has 1 to {RECORD_BYTES_MAX}", "bytes")
    if field.padding and field.type != "text":
        broken(at, f"`padding` applies only to text, not to {field.type}; remove it")
    if unknown := [one for one in field.padding if one not in PADDING_BYTES]:
        broken(at, f'unknown padding {unknown[0]!r}; use "nul", "space" or both', "padding")
    if len(set(field.padding)) < len(field.padding):
        broken(at, "duplicate padding; remove one", "padding")
    if field.encoding not in TEXT_ENCODINGS:
        broken(at, f'unknown encoding {field.encoding!a}; use "utf-8" or "latin1"', "encoding")
    if field.encoding != "utf-8" and field.type != "text":
        broken(at, f"`encoding` applies only to text, not to {field.type}; remove it", "encoding")
    if field.type == "skip":
        if name:
            broken(at, "skipped bytes have no name; remove it")
        return
    if not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]{{0,{NAME_CHARACTERS_MAX - 1}}}", name):
        rule = "a name is a letter or `_`, followed by letters, digits and `_`"
        broken(at, f"invalid name {name!a}: {rule}, {NAME_CHARACTERS_MAX} at most", "name")
    if name in RESERVED_NAMES:
        rule = f'"{name}" is reserved for a column of results or partials'
        broken(at, f'{rule}; use another name, e.g. "{name}_"', "name")
    if name in names:
        broken(at, f'two fields are named "{name}"; names must be unique', "name")


def packet_bytes_max(packet: Packet, record_bytes: int) -> int:
    """Bytes of the largest packet with its length, whether or not that counts itself."""
    return record_bytes if packet.length == "none" else int(256**packet.length_bytes) - 1


def _check_packet(packet: Packet, record_bytes: int) -> None:
    at: At = ("packet", -1)
    if packet.length not in LENGTH_BYTES:
        broken(at, f'unknown length {packet.length!r}; use "u32", "u16" or "none"', "length")
    if packet.length_endian not in ENDIANS:
        rule = f'unknown length_endian {packet.length_endian!r}; use "big" or "little"'
        broken(at, rule, "length_endian")
    if packet.end not in ENDS:
        broken(at, f'unknown end {packet.end!r}; use "zero-record" or "close"', "end")
    largest = packet_bytes_max(packet, record_bytes)
    if packet.length_bytes + record_bytes > largest:
        own = packet.length_bytes + record_bytes
        rule = f"a packet of one record has {own} bytes, but a {packet.length} length allows"
        broken(at, f'{rule} {largest} at most; use length = "u32"', "length")


def _check_keys(fields: dict[str, Field], by: Sequence[str]) -> None:
    if not 1 <= len(by) <= KEYS_MAX:
        broken(("by", -1), f"{len(by)} keys; records are grouped by 1 to {KEYS_MAX}")
    for i, key in enumerate(by):
        at: At = ("by", i)
        field = fields.get(key) or _no_field(at, key, fields)
        if key in by[:i]:
            broken(at, f'"{key}" is listed twice; remove one')
        if field.type in FLOATS:
            rule = (
                f'"{key}" is {field.type}; a key must be an integer, bool, text or bytes, because'
            )
            broken(at, f"{rule} equal measurements can differ in their last bits")
        if field.bytes > TEXT_KEY_BYTES_MAX:
            rule = f'"{key}" has {field.bytes} bytes; a key has at most {TEXT_KEY_BYTES_MAX}'
            broken(at, rule)


def _check_aggregates(fields: dict[str, Field], aggregates: Sequence[Aggregate]) -> None:
    # The count does not use up the limit, since it is always part of the result.
    listed = sum(one != Aggregate.COUNT for one in aggregates)
    if listed > AGGREGATES_MAX:
        broken(("aggregates", -1), f"{listed} aggregates; the maximum is {AGGREGATES_MAX}")
    for i, one in enumerate(aggregates):
        at: At = ("aggregates", i)
        if one in aggregates[:i]:
            broken(at, f'"{one}" is listed twice; remove one')
        if one == Aggregate.COUNT:
            continue
        field = fields.get(one.field) or _no_field(at, one.field, fields)
        if field.type not in FLOATS | INTEGERS | {"bool"}:
            rule = f'no {one.function} of "{one.field}", which is {field.type}'
            broken(at, f"{rule}; functions apply to numbers and bool")


def _no_field(at: At, name: str, fields: dict[str, Field]) -> NoReturn:
    broken(at, f"unknown field {name!a}; the fields are {', '.join(fields)}")
