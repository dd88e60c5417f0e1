"""The rules that a schema keeps, those of the engine: finds the first that is broken, mends none.

Each error says where (`At`), what is wrong, the rule, and what would be right.
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
    WIDTHS,
    Aggregate,
    Field,
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

# Where a rule is broken: a part of the schema, and the index within it, or -1 for the whole.
At: TypeAlias = tuple[
    Literal["schema", "name", "endian", "packet", "field", "result", "by", "aggregates"], int
]

# The columns of the mergeable form that each function needs; 64-bit sums need one more.
_PARTS: Final[dict[Function, tuple[str, ...]]] = {
    "sum": ("sum",),
    "mean": ("sum",),
    "min": ("min",),
    "max": ("max",),
    "first": ("first",),
    "last": ("last",),
    "var": ("mean", "m2"),
    "std": ("mean", "m2"),
    "count": (),
}


class BrokenRule(SchemaError):
    """A rule that is broken, and where, for those who can show the line."""

    def __init__(self, at: At, key: str, rule: str) -> None:
        super().__init__(rule)
        self.at: Final = at
        self.key: Final = key


def broken(at: At, rule: str, key: str = "") -> NoReturn:
    """Raises the error of a rule that is broken, with the place in front of it.

    `key` is the key within the part, as it is called in TOML, where that is known.
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
    """Checks all but the names of columns."""
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{NAME_CHARACTERS_MAX}}}", name):
        rule = f"a name has 1 to {NAME_CHARACTERS_MAX} letters, digits, `-` and `_`"
        broken(("name", -1), f'{rule}, as in "meter-2"')
    if endian not in ENDIANS:
        broken(("endian", -1), f'{endian!r} is neither "big" nor "little"')
    _check_fields(fields, record_bytes)
    _check_packet(packet, record_bytes)
    by_name = {field.name: field for field in fields if field.type != "skip"}
    _check_keys(by_name, by)
    _check_aggregates(by_name, aggregates)


def check_columns(
    fields: Sequence[Field], by: Sequence[str], aggregates: Sequence[Aggregate]
) -> None:
    """Checks that the columns of results and of partials have names of their own."""
    result = [*by, *(one.column_name for one in aggregates)]
    partials = [*RESERVED_NAMES[:4], *by, "count", *_part_names(fields, aggregates)]
    for what, names in (("result", result), ("partials", partials)):
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            rule = f'two columns of the {what} would be called "{twice}": a key, and one that is'
            broken(("aggregates", -1), f"{rule} made of a field; rename one of the two fields")


def _part_names(fields: Sequence[Field], aggregates: Sequence[Aggregate]) -> list[str]:
    types = {field.name: field.type for field in fields}
    parts: dict[tuple[str, str], None] = {}
    for one in aggregates:
        for part in _PARTS[one.function]:
            parts[part, one.field] = None
            if part == "sum" and types[one.field] in ("u64", "i64"):
                parts["sum_low", one.field] = None
    # Of two fields they can be the same: sum_low_x is made of x, and of low_x.
    return [f"{part}_{field}" for part, field in parts]


def _check_fields(fields: Sequence[Field], record_bytes: int) -> None:
    if not 1 <= len(fields) <= FIELDS_MAX:
        broken(("field", -1), f"{len(fields)} fields; a record has 1 to {FIELDS_MAX}")
    names: set[str] = set()
    for i, field in enumerate(fields):
        _check_field(("field", i), field, names)
        names.add(field.name)
    if record_bytes > RECORD_BYTES_MAX:
        rule = f"records of {record_bytes} bytes; at most {RECORD_BYTES_MAX} are allowed"
        broken(("field", -1), rule)


def _check_field(at: At, field: Field, names: set[str]) -> None:
    name = field.name
    if field.type not in FIELD_TYPES:
        broken(at, f"{field.type!r} is no type. Types: {', '.join(FIELD_TYPES)}", "type")
    if field.bytes != WIDTHS.get(field.type, field.bytes):
        broken(at, f"`bytes` is for text, bytes and skip; {field.type} has its own. Leave it out")
    if not 1 <= field.bytes <= RECORD_BYTES_MAX:
        broken(at, f"{field.bytes} bytes; a field has 1 to {RECORD_BYTES_MAX}", "bytes")
    if field.padding and field.type != "text":
        broken(at, f"`padding` is for text, not for {field.type}; leave it out")
    if unknown := [one for one in field.padding if one not in PADDING_BYTES]:
        broken(at, f'{unknown[0]!r} is no padding; a text has any of "nul" and "space"', "padding")
    if len(set(field.padding)) < len(field.padding):
        broken(at, "a padding stands there twice; leave one out", "padding")
    if field.type == "skip":
        if name:
            broken(at, "skipped bytes have no name; leave it out")
        return
    if not re.fullmatch(rf"[A-Za-z_][A-Za-z0-9_]{{0,{NAME_CHARACTERS_MAX - 1}}}", name):
        rule = "the name of a field is a letter or `_`, then letters, digits and `_`"
        broken(at, f"{rule}, {NAME_CHARACTERS_MAX} at most; {name!a} is none", "name")
    if name in RESERVED_NAMES:
        rule = f'"{name}" is a column of its own in results or partials; call the field otherwise'
        broken(at, f'{rule}, such as "{name}_"', "name")
    if name in names:
        broken(at, f'two fields are called "{name}"; each needs a name of its own', "name")


def packet_bytes_max(packet: Packet, record_bytes: int) -> int:
    """Bytes of the largest packet, the length included, whether that counts itself or not."""
    return record_bytes if packet.length == "none" else int(256**packet.length_bytes) - 1


def _check_packet(packet: Packet, record_bytes: int) -> None:
    at: At = ("packet", -1)
    if packet.length not in LENGTH_BYTES:
        broken(at, f'{packet.length!r} is no length; it is "u32", "u16" or "none"', "length")
    if packet.length_endian not in ENDIANS:
        rule = f'length_endian {packet.length_endian!r} is neither "big" nor "little"'
        broken(at, rule, "length_endian")
    if packet.end not in ENDS:
        broken(at, f'end {packet.end!r} is neither "zero-record" nor "close"', "end")
    largest = packet_bytes_max(packet, record_bytes)
    if packet.length_bytes + record_bytes > largest:
        rule = f"with a {packet.length} length a packet has {largest} bytes at most, and one record"
        own = packet.length_bytes + record_bytes
        broken(at, f'{rule} with its length has {own}; use length = "u32"', "length")


def _check_keys(fields: dict[str, Field], by: Sequence[str]) -> None:
    if not 1 <= len(by) <= KEYS_MAX:
        broken(("by", -1), f"{len(by)} keys; records are grouped by 1 to {KEYS_MAX}")
    for i, key in enumerate(by):
        at: At = ("by", i)
        field = fields.get(key) or _no_field(at, key, fields)
        if key in by[:i]:
            broken(at, f'"{key}" is a key twice; leave one out')
        if field.type in FLOATS:
            rule = f'"{key}" is {field.type}; a key is an integer, bool, text or bytes, since equal'
            broken(at, f"{rule} measurements need not be equal bits")
        if field.bytes > TEXT_KEY_BYTES_MAX:
            rule = f'"{key}" has {field.bytes} bytes; a key has {TEXT_KEY_BYTES_MAX} at most'
            broken(at, rule)


def _check_aggregates(fields: dict[str, Field], aggregates: Sequence[Aggregate]) -> None:
    # The count is always there, whether it is listed or not.
    listed = sum(one != Aggregate.COUNT for one in aggregates)
    if listed > AGGREGATES_MAX:
        rule = f"{listed} aggregates; at most {AGGREGATES_MAX} are allowed"
        broken(("aggregates", -1), rule)
    for i, one in enumerate(aggregates):
        at: At = ("aggregates", i)
        if one in aggregates[:i]:
            broken(at, f'"{one}" stands there twice; leave one out')
        if one == Aggregate.COUNT:
            continue
        field = fields.get(one.field) or _no_field(at, one.field, fields)
        if field.type not in FLOATS | INTEGERS | {"bool"}:
            rule = f'"{one.field}" is {field.type}, which has no {one.function}'
            broken(at, f"{rule}; functions are of numbers and bool")


def _no_field(at: At, name: str, fields: dict[str, Field]) -> NoReturn:
    broken(at, f"there is no field {name!a}. Fields: {', '.join(fields)}")
