"""The TOML form of a schema: reads and writes texts. The rules themselves are checked elsewhere.

Errors name the line where it can be found: tomllib keeps no lines, so headers and keys are looked
for again in the text. A form that this does not see, such as an inline table, gets no line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ringest.errors import SchemaError
from ringest.schema_rules import At, BrokenRule, broken
from ringest.schema_types import FIELD_TYPES, WIDTHS, Aggregate, Endian, Field, Packet

if TYPE_CHECKING:
    from ringest.schema import Schema

_TOP: Final = {"name": str, "endian": str, "packet": dict, "field": list, "result": dict}
_PACKET: Final = {"length": str, "length_includes_itself": bool, "length_endian": str, "end": str}
_FIELD: Final = {"name": str, "type": str, "bytes": int, "padding": list}
_RESULT: Final = {"by": list, "aggregates": list}
_WORDS: Final[dict[type, str]] = {
    str: "a string", dict: "a table", list: "an array", bool: "true or false", int: "an integer",
}  # fmt: skip

# Tables and keys as they stand in a file: `[[field]]`, `[result]`, `by = [...]`.
_HEADER: Final = re.compile(r"^[ \t]*\[\[?[ \t]*([A-Za-z0-9_-]+)[ \t]*\]", re.MULTILINE)


def parse_toml(text: str, make: type[Schema]) -> Schema:
    """The schema that a text describes; SchemaError names the line and the rule."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"this is no TOML: {error}") from error
    try:
        return _schema(document, make)
    except BrokenRule as error:
        line = _line_of(text, error.at, error.key)
        if line is None:
            raise
        raise SchemaError(f"line {line}: {error}") from error


def _schema(document: dict[str, Any], make: type[Schema]) -> Schema:
    _check_keys(("schema", -1), "the schema", document, _TOP)
    if "field" not in document:
        broken(("schema", -1), "there is no [[field]]; write one for each field of the record")
    if "result" not in document:
        broken(("schema", -1), 'there is no [result]; write one with `by = ["FIELD"]`')
    tables: list[Any] = document["field"]
    fields = [_field(("field", i), table) for i, table in enumerate(tables)]
    endian: Endian | None = document.get("endian")
    if endian is None:
        numbers = [one for one in fields if one.type in WIDTHS and one.bytes > 1]
        if numbers:
            rule = f'"{numbers[0].name}" has {numbers[0].bytes} bytes, so their order is needed'
            broken(("endian", -1), f'{rule}: write endian = "big" or "little" at the top')
        endian = "big"
    result: dict[str, Any] = document["result"]
    _check_keys(("result", -1), "[result]", result, _RESULT)
    if "by" not in result:
        broken(("result", -1), '`by` is missing in [result]; write by = ["FIELD"]')
    return make(
        fields,
        by=_strings(("by", -1), "by", result["by"]),
        aggregates=_aggregates(result),
        endian=endian,
        packet=_packet(document.get("packet", {}), endian),
        name=document.get("name", "record"),
    )


def _check_keys(at: At, where: str, table: object, known: Mapping[str, type]) -> None:
    """Checks that a table has no other keys, and values of the right type."""
    if not isinstance(table, dict):
        broken(at, f"{where} has to be a table")
    for key, value in table.items():
        if key not in known:
            broken(at, f"unknown key {key!a} in {where}. Keys: {', '.join(known)}", key)
        # type(), since true is an integer to isinstance.
        if type(value) is not known[key]:
            broken(at, f"`{key}` in {where} has to be {_WORDS[known[key]]}", key)


def _strings(at: At, key: str, values: list[Any]) -> list[str]:
    for value in values:
        if not isinstance(value, str):
            broken(at, f"`{key}` is an array of strings; {value!r} is none", key)
    return values


def _aggregates(result: dict[str, Any]) -> list[str]:
    return _strings(("aggregates", -1), "aggregates", result.get("aggregates", []))


def _field(at: At, table: Any) -> Field:
    _check_keys(at, "[[field]]", table, _FIELD)
    kind = table.get("type")
    if kind is None:
        broken(at, f"`type` is missing in [[field]]. Types: {', '.join(FIELD_TYPES)}")
    if kind not in FIELD_TYPES:
        broken(at, f"{kind!a} is no type. Types: {', '.join(FIELD_TYPES)}", "type")
    name = table.get("name", "")
    if kind == "skip" and "name" in table:
        broken(at, "skipped bytes have no name; leave it out", "name")
    if kind != "skip" and "name" not in table:
        broken(at, "`name` is missing in [[field]]; only skip has none")
    width = table.get("bytes")
    if kind in WIDTHS and width is not None:
        rule = f"`bytes` is for text, bytes and skip; {kind} has its own. Leave it out"
        broken(at, rule, "bytes")
    if kind not in WIDTHS and width is None:
        broken(at, f"`bytes` is missing; {kind} has no width of its own. Write bytes = 16")
    if kind != "text" and "padding" in table:
        broken(at, f"`padding` is for text, not for {kind}; leave it out", "padding")
    default = ["nul", "space"] if kind == "text" else []
    padding: list[Any] = _strings(at, "padding", table.get("padding", default))
    return Field(name, kind, WIDTHS.get(kind, width), tuple(padding))


def _packet(table: dict[str, Any], endian: Endian) -> Packet:
    at: At = ("packet", -1)
    _check_keys(at, "[packet]", table, _PACKET)
    length = table.get("length", "u32")
    without = [key for key in ("length_includes_itself", "length_endian") if key in table]
    if length == "none" and without:
        rule = f'`{without[0]}` is for packets with a length; with length = "none" leave it out'
        broken(at, rule, without[0])
    return Packet(
        length,
        table.get("length_includes_itself", True),
        table.get("length_endian", endian),
        table.get("end", "zero-record"),
    )


def _line_of(text: str, at: At, key: str) -> int | None:
    """The line of a part of the schema: that of its key, else that of its table."""
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
        # A table where there is to be none.
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
    """The TOML form; every name and word in it is of characters that need no escape."""
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
    lines += ["", "[result]", f"by = {_array(by)}"]
    lines.append(f"aggregates = {_array([str(one) for one in aggregates])}")
    return "\n".join(lines) + "\n"


def _array(texts: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
