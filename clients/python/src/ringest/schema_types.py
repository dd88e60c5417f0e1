"""The parts of a schema: fields, packets and aggregates. They are not validated here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, get_args

FieldType: TypeAlias = Literal[
    "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64", "bool", "text", "bytes",
    "skip",
]  # fmt: skip
Endian: TypeAlias = Literal["big", "little"]
Length: TypeAlias = Literal["u32", "u16", "none"]
End: TypeAlias = Literal["zero-record", "close"]
PaddingByte: TypeAlias = Literal["nul", "space"]
TextEncoding: TypeAlias = Literal["utf-8", "latin1"]
Function: TypeAlias = Literal["sum", "mean", "min", "max", "first", "last", "var", "std", "count"]

FIELD_TYPES: Final[tuple[FieldType, ...]] = get_args(FieldType)
ENDIANS: Final[tuple[Endian, ...]] = get_args(Endian)
ENDS: Final[tuple[End, ...]] = get_args(End)
PADDING_BYTES: Final[dict[PaddingByte, bytes]] = {"nul": b"\x00", "space": b" "}
TEXT_ENCODINGS: Final[tuple[TextEncoding, ...]] = get_args(TextEncoding)
LENGTH_BYTES: Final[dict[Length, int]] = {"u32": 4, "u16": 2, "none": 0}
# The functions of a field; the count is that of records.
FUNCTIONS: Final[tuple[Function, ...]] = get_args(Function)[:-1]

# The types of fixed width.
WIDTHS: Final[dict[FieldType, int]] = {
    "u8": 1, "u16": 2, "u32": 4, "u64": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4,
    "f64": 8, "bool": 1,
}  # fmt: skip
FLOATS: Final = frozenset({"f32", "f64"})
SIGNED: Final = frozenset({"i8", "i16", "i32", "i64"})
INTEGERS: Final = SIGNED | {"u8", "u16", "u32", "u64"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record; skipped bytes have no name.

    `bytes` is the width: required for text, bytes and skip, and set automatically for other types.
    `padding` and `encoding` apply only to text. `offset` is the first byte within the record; the
    schema sets it.
    """

    name: str
    type: FieldType
    bytes: int = 0
    padding: tuple[PaddingByte, ...] = ()
    offset: int = 0
    encoding: TextEncoding = "utf-8"

    def __post_init__(self) -> None:
        # A wrong type or width is kept, for the rules to report.
        if self.bytes == 0 and self.type in WIDTHS:
            object.__setattr__(self, "bytes", WIDTHS[self.type])

    @staticmethod
    def text(
        name: str,
        width: int,
        padding: tuple[PaddingByte, ...] = ("nul", "space"),
        encoding: TextEncoding = "utf-8",
    ) -> Field:
        """A text of `width` bytes, whose value ends before the trailing padding."""
        return Field(name, "text", width, padding, encoding=encoding)


@dataclass(frozen=True, slots=True)
class Packet:
    """The framing of records: the length in front of each packet, and the end of a stream.

    With `length` "none", each record is a packet by itself.
    """

    length: Length = "u32"
    length_includes_itself: bool = True
    length_endian: Endian = "big"
    end: End = "zero-record"

    def __post_init__(self) -> None:
        # Without a length these have no meaning; with fixed values, equal framings compare equal.
        if self.length == "none":
            object.__setattr__(self, "length_includes_itself", True)
            object.__setattr__(self, "length_endian", "big")

    @property
    def length_bytes(self) -> int:
        """The width of the length field."""
        return LENGTH_BYTES[self.length]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A function of a field's values, or the count: a column of the result that is not a key."""

    COUNT: ClassVar[Aggregate]

    field: str
    function: Function

    def __str__(self) -> str:
        return f"{self.field}:{self.function}" if self.field else self.function

    @property
    def column_name(self) -> str:
        """The name of its column, e.g. B_mean."""
        return f"{self.field}_{self.function}" if self.field else self.function


Aggregate.COUNT = Aggregate("", "count")
