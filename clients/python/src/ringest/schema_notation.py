"""Parses the short forms of a schema: lists of names, FIELD:FUNCTION, and struct notation.

Only the syntax is checked here; the schema checks its rules.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Final

from ringest.errors import SchemaError, counted
from ringest.schema_rules import At, broken
from ringest.schema_types import FUNCTIONS, Aggregate, Endian, Field, FieldType, Function

# An `s` of up to that many bytes may well be an address or another number.
SHORT_TEXT_BYTES: Final = 16

_BYTE_ORDERS: Final[dict[str, Endian]] = {">": "big", "!": "big", "<": "little"}
_NUMBER_CODES: Final[dict[str, FieldType]] = {
    "b": "i8", "B": "u8", "h": "i16", "H": "u16", "i": "i32", "I": "u32", "l": "i32", "L": "u32",
    "q": "i64", "Q": "u64", "f": "f32", "d": "f64", "?": "bool",
}  # fmt: skip
_FUNCTIONS: Final[dict[str, Function]] = {name: name for name in FUNCTIONS}
_COUNT_AND_CODE: Final = re.compile(r"\s*(\d*)(\S)")
# The codes of struct without a field type.
_UNSUPPORTED: Final = {
    "e": "binary16",
    "p": "a Pascal string",
    "n": "a native size",
    "N": "a native size",
    "P": "a pointer",
}
# Keeps a typo from creating a list of a billion fields; the rules allow 256.
_REPEATS_MAX: Final = 65_535


def split_names(names: str | Iterable[str]) -> list[str]:
    """The names of a list, which may be a single text with commas."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")] if names.strip() else []
    return list(names)


def parse_aggregate(text: str, index: int) -> Aggregate:
    """Parses FIELD:FUNCTION or count; `index` is its place among the aggregates."""
    at: At = ("aggregates", index)
    if text == "count":
        return Aggregate.COUNT
    field, colon, function = text.partition(":")
    if not colon or not field:
        rule = 'write FIELD:FUNCTION, e.g. "B:mean", or "count"'
        broken(at, f"invalid aggregate {text!a}; {rule}")
    if function not in _FUNCTIONS:
        known = ", ".join(FUNCTIONS)
        broken(at, f"unknown function {function!a}; expected one of {known}")
    return Aggregate(field, _FUNCTIONS[function])


def parse_notation(notation: str, names: list[str]) -> tuple[Endian, list[Field]]:
    """Parses struct notation into the byte order and the fields."""
    order = notation[:1]
    if order not in _BYTE_ORDERS:
        rule = "it must begin with `>`, `<` or `!`, because native sizes differ between machines"
        raise SchemaError(f"struct {notation!a}: {rule}")
    fields: list[Field] = []
    left = iter(names)
    for code, count in _split_codes(notation):
        if code == "x":
            fields.append(Field("", "skip", count))
            continue
        repeats = 1 if code == "s" else count
        for _ in range(repeats):
            name = next(left, None)
            if name is None:
                raise SchemaError(_miscount(notation, names))
            fields.append(_field_of_name(name, code, count))
    if next(left, None) is not None:
        raise SchemaError(_miscount(notation, names))
    return _BYTE_ORDERS[order], fields


def warn_of_short_keys(fields: Iterable[Field], names: list[str], by: Iterable[str]) -> None:
    """Warns of keys whose names do not say whether they are text or bytes."""
    said = {name.partition(":")[0] for name in names if ":" in name}
    for field in fields:
        if field.type != "text" or field.bytes > SHORT_TEXT_BYTES or field.name not in by:
            continue
        if field.name not in said:
            name = field.name
            warnings.warn(
                f"the key {name} is {field.bytes}s, which is taken for text: values that differ only "
                f"in NULs and spaces at the end are one group. In `fields`, write {name}:bytes if it "
                f"is binary, or {name}:text",
                stacklevel=3,
            )


def _field_of_name(listed: str, code: str, count: int) -> Field:
    """A field whose name may say what an `s` is: NAME:text, NAME:latin1 or NAME:bytes."""
    name, colon, what = listed.partition(":")
    if not colon:
        return _field_of_code(name, code, count)
    if code != "s":
        raise SchemaError(f"{listed!a}: only an s can be text or bytes; write {name!a}")
    match what:
        case "text":
            return Field.text(name, count)
        case "latin1":
            return Field.text(name, count, encoding="latin1")
        case "bytes":
            return Field(name, "bytes", count)
        case _:
            raise SchemaError(f"{listed!a}: an s is text, latin1 or bytes, not {what!a}")


def _field_of_code(name: str, code: str, count: int) -> Field:
    if code == "s":
        return Field.text(name, count)
    return Field(name, "bytes", 1) if code == "c" else Field(name, _NUMBER_CODES[code])


def _split_codes(notation: str) -> Iterator[tuple[str, int]]:
    """Yields each code with its count, which is 1 by default."""
    place, end = 1, len(notation.rstrip())
    while place < end:
        match = _COUNT_AND_CODE.match(notation, place)
        if match is None or match[2].isdigit():
            raise SchemaError(f"struct {notation!a}: it ends with a count that has no code")
        digits, code = match[1], match[2]
        at = f"struct {notation!a}, character {match.start(2) + 1}"
        if code in _UNSUPPORTED:
            raise SchemaError(f"{at}: `{code}` is {_UNSUPPORTED[code]}, which is not supported")
        if code not in _NUMBER_CODES and code not in "xcs":
            codes = " ".join([*"xcs", *_NUMBER_CODES])
            raise SchemaError(f"{at}: unknown code {code!a}; expected one of {codes}")
        count = int(digits[:6]) if digits else 1
        if not 1 <= count <= _REPEATS_MAX:
            raise SchemaError(f"{at}: the count {digits[:6]} is not from 1 to {_REPEATS_MAX}")
        yield code, count
        place = match.end()


def _miscount(notation: str, names: list[str]) -> str:
    items = sum(
        0 if code == "x" else 1 if code == "s" else count for code, count in _split_codes(notation)
    )
    listed = counted(len(names), "name")
    rule = f"it has {counted(items, 'item')} besides x, but `fields` has {listed}"
    return f"struct {notation!a}: {rule}; name each item once"
