"""Reads and writes the TOML form of a schema. The schema itself checks its rules.

Errors give the line. Since tomllib does not keep lines, headers and keys are searched for in the
text; an error in a form that the search does not find, e.g. an inline table, has no line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ringest.errors import SchemaError
from ringest.schema_rules import At, BrokenRule, broken
from ringest.schema_types import FIELD_TYPES, WIDTHS, Aggregate, Endian, Field, Packet

_TOP: Final = {"name": str, "endian": str, "packet": dict, "field": list, "result": dict}
_PACKET: Final = {"length": str, "length_includes_itself": bool, "length_endian": str, "end": str}
_FIELD: Final = {"name": str, "type": str, "bytes": int, "padding": list, "encoding": str}
_RESULT: Final = {"by": list, "aggregates": list}
_TYPE_NAMES: Final[dict[type, str]] = {
    str: "a string", dict: "a table", list: "an array", bool: "true or false", int: "an integer",
}  # fmt: skip

# A table's header: `[[field]]` or `[result]`.
_HEADER: Final = re.compile(r"^[ \t]*\[\[?[ \t]*([A-Za-z0-9_-]+)[ \t]*\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SchemaParts:
    """The contents of a TOML form: the arguments of a Schema."""

    name: str
    endian: Endian
    packet: Packet
    fields: list[Field]
    by: list[str]
    aggregates: list[str]


def parse_toml(text: str) -> SchemaParts:
    """The contents of a TOML form. SchemaError states the rule that it breaks."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"invalid TOML: {error}") from error
    return _schema_parts(document)


@contextmanager
def add_lines_to_errors(text: str) -> Iterator[None]:
    """Adds the line of `text` to the text of a SchemaError that the with-block raises."""
    try:
        yield
    except BrokenRule as error:
        line = _line_of(text, error.at, error.key)
        if line is None:
            raise
        raise SchemaError(f"line {line}: {error}") from error


def _schema_parts(document: dict[str, Any]) -> SchemaParts:
    _check_table(("schema", -1), "the schema", document, _TOP)
    if "field" not in document:
        broken(("schema", -1), "[[field]] is missing; write one for each field of the record")
    if "result" not in document:
        broken(("schema", -1), '[result] is missing; write one with `by = ["FIELD"]`')
    tables: list[Any] = document["field"]
    fields = [_field_of_table(("field", i), table) for i, table in enumerate(tables)]
    endian: Endian | None = document.get("endian")
    if endian is None:
        numbers = [one for one in fields if one.type in WIDTHS and one.bytes > 1]
        if numbers:
            rule = f'"{numbers[0].name}" has {numbers[0].bytes} bytes, so a byte order is required'
            broken(("endian", -1), f'{rule}: write endian = "big" or "little" at the top')
        endian = "big"
    result: dict[str, Any] = document["result"]
    _check_table(("result", -1), "[result]", result, _RESULT)
    if "by" not in result:
        broken(("result", -1), '`by` is missing in [result]; write by = ["FIELD"]')
    return SchemaParts(
        name=document.get("name", "record"),
        endian=endian,
        packet=_packet_of_table(document.get("packet", {}), endian),
        fields=fields,
        by=_strings(("by", -1), "by", result["by"]),
        aggregates=_strings(("aggregates", -1), "aggregates", result.get("aggregates", [])),
    )


def _check_table(at: At, where: str, table: object, known: Mapping[str, type]) -> None:
    """Checks that a table has only known keys, with values of the right type."""
    if not isinstance(table, dict):
        broken(at, f"{where} must be a table")
    for key, value in table.items():
        if key not in known:
            keys = ", ".join(known)
            broken(at, f"unknown key {key!a} in {where}; expected one of {keys}", key)
        # Not isinstance, for which true is an integer.
        if type(value) is not known[key]:
            broken(at, f"`{key}` in {where} must be {_TYPE_NAMES[known[key]]}", key)


def _strings(at: At, key: str, values: list[Any]) -> list[str]:
    for value in values:
        if not isinstance(value, str):
            broken(at, f"`{key}` must be an array of strings; {value!r} is not a string", key)
    return values


def _field_of_table(at: At, table: Any) -> Field:
    _check_table(at, "[[field]]", table, _FIELD)
    known = ", ".join(FIELD_TYPES)
    kind = table.get("type")
    if kind is None:
        broken(at, f"`type` is missing in [[field]]; it is one of {known}")
    if kind not in FIELD_TYPES:
        broken(at, f"unknown type {kind!a}; expected one of {known}", "type")
    name = table.get("name", "")
    if kind == "skip" and "name" in table:
        broken(at, "skipped bytes have no name; remove it", "name")
    if kind != "skip" and "name" not in table:
        broken(at, "`name` is missing in [[field]]; only skip has no name")
    width = table.get("bytes")
    if kind in WIDTHS and width is not None:
        rule = f"{kind} has a fixed width; remove `bytes`, which is for text, bytes and skip"
        broken(at, rule, "bytes")
    if kind not in WIDTHS and width is None:
        broken(at, f"`bytes` is missing; {kind} needs a width, e.g. bytes = 16")
    for key in ("padding", "encoding"):
        if kind != "text" and key in table:
            broken(at, f"`{key}` applies only to text, not to {kind}; remove it", key)
    default = ["nul", "space"] if kind == "text" else []
    padding: list[Any] = _strings(at, "padding", table.get("padding", default))
    encoding = table.get("encoding", "utf-8")
    return Field(name, kind, WIDTHS.get(kind, width), tuple(padding), encoding=encoding)


def _packet_of_table(table: dict[str, Any], endian: Endian) -> Packet:
    at: At = ("packet", -1)
    _check_table(at, "[packet]", table, _PACKET)
    length = table.get("length", "u32")
    without = [key for key in ("length_includes_itself", "length_endian") if key in table]
    if length == "none" and without:
        broken(at, f'`{without[0]}` has no effect with length = "none"; remove it', without[0])
    return Packet(
        length,
        table.get("length_includes_itself", True),
        table.get("length_endian", endian),
        table.get("end", "zero-record"),
    )


def _line_of(text: str, at: At, key: str) -> int | None:
    """The line of a part of the schema: that of its key, or else that of its table."""
    part, index = at
    headers = list(_HEADER.finditer(text))
    begin, end = 0, headers[0].start() if headers else len(text)
    table = {"by": "result", "aggregates": "result"}.get(part, part)
    if table in ("field", "packet", "result"):
        found = [i for i, header in enumerate(headers) if header[1] == table]
        place = max(index, 0) if part == "field" else 0
        if place >= len(found):
            return None
        number = found[place]
        begin = headers[number].start(1)
        end = headers[number + 1].start() if number + 1 < len(headers) else len(text)
    elif any(header[1] == key for header in headers):
        # The key is a table, but must not be one.
        begin = next(header.start(1) for header in headers if header[1] == key)
        return 1 + text.count("\n", 0, begin)
    wanted = re.escape(key or part)
    match = re.search(rf"^[ \t]*({wanted})[ \t]*=", text[begin:end], re.MULTILINE)
    if match is not None:
        return 1 + text.count("\n", 0, begin + match.start(1))
    return 1 + text.count("\n", 0, begin) if table == part and begin else None


def format_toml(
    name: str,
    endian: Endian,
    packet: Packet,
    fields: Sequence[Field],
    by: Sequence[str],
    aggregates: Sequence[Aggregate],
) -> str:
    """The TOML form. Names and keywords contain no characters that need escapes."""
    lines = [f'name = "{name}"', f'endian = "{endian}"', "", "[packet]"]
    lines.append(f'length = "{packet.length}"')
    if packet.length != "none":
        itself = str(packet.length_includes_itself).lower()
        lines.append(f"length_includes_itself = {itself}")
        lines.append(f'length_endian = "{packet.length_endian}"')
    lines.append(f'end = "{packet.end}"')
    for field in fields:
        lines += ["", "[[field]]"]
        if field.name:
            lines.append(f'name = "{field.name}"')
        lines.append(f'type = "{field.type}"')
        if field.type not in WIDTHS:
            lines.append(f"bytes = {field.bytes}")
        if field.type == "text":
            lines.append(f"padding = {_array(field.padding)}")
            if field.encoding != "utf-8":
                lines.append(f'encoding = "{field.encoding}"')
    lines += ["", "[result]", f"by = {_array(by)}"]
    lines.append(f"aggregates = {_array([str(one) for one in aggregates])}")
    return "\n".join(lines) + "\n"


def _array(texts: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
