"""What a file of partials says of itself: its checksum, columns, schema and merge operations."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Final, NamedTuple

from .errors import PartialsError
from .plan import MERGE_KEY

# Keys in the metadata. The checksum is eight hexadecimal digits: the CRC-32 of all bytes of the
# file with zeros in place of these digits.
CHECKSUM_KEY: Final = "ringest.crc32"
SCHEMA_KEY: Final = "ringest.schema_toml"
NO_CHECKSUM: Final = "no checksum"

_BLANK: Final = b"00000000"
_MAGIC: Final = b"PAR1"
# Metadata is at the end of the file.
_SEARCHED_BYTES: Final = 1 << 20

# Names of types by Parquet's physical and converted types.
_TYPES: Final = {
    (0, None): "bool", (1, 11): "u8", (1, 12): "u16", (1, 13): "u32", (2, 14): "u64",
    (1, 15): "i8", (1, 16): "i16", (1, 17): "i32", (1, None): "i32", (2, 18): "i64",
    (2, None): "i64", (4, None): "f32", (5, None): "f64", (6, 0): "text", (6, None): "bytes",
}  # fmt: skip


class Contents(NamedTuple):
    """What the files of partials of one kind and one schema have in common."""

    columns: tuple[tuple[str, str], ...]
    schema: str | None
    plan: str | None


# ---- checksums -----------------------------------------------------------------------------------


def damage(content: bytes) -> str | None:
    """How a file of partials is damaged; `NO_CHECKSUM` if nothing can tell, `None` if it is not."""
    if len(content) < 12 or not content.startswith(_MAGIC) or not content.endswith(_MAGIC):
        return "it is cut off or not Parquet"
    found = _checksum(content)
    if found is None:
        return NO_CHECKSUM
    at, checksum = found
    recorded = content[at : at + len(_BLANK)]
    if recorded == checksum:
        return None
    return (
        f"its checksum is {checksum.decode()}, but {recorded.decode(errors='replace')} was recorded"
    )


def seal(file: Path | str) -> None:
    """Puts the checksum into a file that was written with eight zeros for it."""
    with Path(file).open("r+b") as parquet:
        found = _checksum(parquet.read())
        if found is None:
            raise PartialsError(f"{file} has no {CHECKSUM_KEY} to be filled in")
        parquet.seek(found[0])
        parquet.write(found[1])


def _checksum(content: bytes) -> tuple[int, bytes] | None:
    """Where the digits are, and what they should be."""
    at = _find(content, CHECKSUM_KEY)
    if at is None or content[at] != len(_BLANK):
        return None
    at += 1
    view = memoryview(content)
    checksum = zlib.crc32(_BLANK, zlib.crc32(view[:at]))
    return at, b"%08x" % zlib.crc32(view[at + len(_BLANK) :], checksum)


def _find(content: bytes, key: str) -> int | None:
    """Where the value of a key in the metadata begins, with its length. Metadata is Thrift: two
    strings, each behind a byte for its type and its length."""
    entry = bytes([0x18, len(key)]) + key.encode() + b"\x18"
    at = content.rfind(entry, max(len(content) - _SEARCHED_BYTES, 0))
    return None if at < 0 or at + len(entry) >= len(content) else at + len(entry)


# ---- contents ------------------------------------------------------------------------------------


def contents(content: bytes) -> Contents:
    """The contents of a file; raises a ValueError if its footer cannot be read."""
    end = len(content) - 8
    start = end - int.from_bytes(content[end : end + 4], "little")
    try:
        columns = _columns(_Thrift(content, max(start, 0)))
        texts = (_text(content, key) for key in (SCHEMA_KEY, MERGE_KEY))
        return Contents(columns, *texts)
    except (IndexError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError("its footer cannot be read") from error


def _text(content: bytes, key: str) -> str | None:
    at = _find(content, key)
    return None if at is None else _Thrift(content, at).value(8).decode()


def _columns(footer: _Thrift) -> tuple[tuple[str, str], ...]:
    """The columns of a footer, which begins with a version and the schema's elements."""
    footer.field(0)
    _, elements = footer.field(1)
    # Of an element: 1 physical type, 4 name, 6 converted type.
    return tuple(
        (
            one[4].decode(),
            _TYPES.get((one.get(1), one.get(6)), "of another type"),
        )
        for one in elements[1:]
    )


class _Thrift:
    """Reads the compact protocol, as far as footers of Parquet need it."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def varint(self) -> int:
        number = shift = 0
        while (byte := self.byte()) >= 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
        return number | byte << shift

    def zigzag(self) -> int:
        number = self.varint()
        return number >> 1 ^ -(number & 1)

    def field(self, before: int) -> tuple[int, Any]:
        """The number and the value of a field; number 0 at the end of a struct."""
        head = self.byte()
        if head == 0:
            return 0, None
        number = before + (head >> 4) if head >> 4 else self.zigzag()
        return number, self.value(head & 15)

    def value(self, kind: int) -> Any:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self.byte()
            case 4 | 5 | 6:
                return self.zigzag()
            case 8:
                size = self.varint()
                self.at += size
                if self.at > len(self.content):
                    raise IndexError
                return self.content[self.at - size : self.at]
            case 9 | 10:
                head = self.byte()
                size = head >> 4 if head >> 4 < 15 else self.varint()
                return [self.value(head & 15) for _ in range(size)]
            case 12:
                fields: dict[int, Any] = {}
                number, value = self.field(0)
                while number:
                    fields[number] = value
                    number, value = self.field(number)
                return fields
        raise ValueError(f"type {kind}")
