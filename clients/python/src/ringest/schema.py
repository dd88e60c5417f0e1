"""Schemas: the fields of a record, its framing, and the aggregates of its result. No network I/O.

A `Schema` is an immutable value that satisfies the engine's rules. It is read from the TOML form
that `ringest serve --schema` takes, or from the notation of Python's struct module. It packs values
into records and unpacks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from ringest.errors import SchemaError, counted
from ringest.record_codec import RecordCodec
from ringest.schema_notation import (
    parse_aggregate,
    parse_notation,
    split_names,
    warn_of_short_keys,
)
from ringest.schema_rules import check_columns, check_record, packet_bytes_max
from ringest.schema_types import (
    FLOATS,
    SIGNED,
    WIDTHS,
    Aggregate,
    Endian,
    Field,
    FieldType,
    Function,
    Packet,
)
from ringest.toml_schema import add_lines_to_errors, format_toml, parse_toml

# Enough for 256 fields with comments.
FILE_BYTES_MAX: Final = 1 << 20

Record: TypeAlias = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result. Its type is a field type; text is in its shown form."""

    name: str
    type: FieldType


class Schema:
    """The fields of a record in the order of their bytes, its framing, keys and aggregates.

    `by` names the keys. Each aggregate is "FIELD:FUNCTION" or "count"; the count is appended if it
    is not listed. Raises SchemaError, whose text states the rule that is broken.
    """

    __slots__ = ("_codec", "aggregates", "by", "endian", "fields", "name", "packet", "record_bytes")

    def __init__(
        self,
        fields: Iterable[Field],
        *,
        by: Iterable[str],
        aggregates: Iterable[str] = (),
        endian: Endian = "big",
        packet: Packet | None = None,
        name: str = "record",
    ) -> None:
        self.name: Final = name
        self.endian: Final[Endian] = endian
        self.packet: Final = packet or Packet(length_endian=endian)
        placed: list[Field] = []
        offset = 0
        for field in fields:
            placed.append(replace(field, offset=offset))
            offset += field.bytes
        self.fields: Final = tuple(placed)
        self.record_bytes: Final = offset
        self.by: Final = tuple(by)
        listed = [parse_aggregate(text, i) for i, text in enumerate(aggregates)]
        check_record(name, endian, self.packet, self.fields, offset, self.by, listed)
        if Aggregate.COUNT not in listed:
            listed.append(Aggregate.COUNT)
        self.aggregates: Final = tuple(listed)
        check_columns(self.fields, self.by, listed)
        self._codec: Final = RecordCodec(self.fields, endian)

    @classmethod
    def default(cls) -> Schema:
        """The engine's built-in schema."""
        return cls.from_struct(
            ">IHfb256s",
            fields=("A", "B", "C", "D", "E"),
            by=("A", "E"),
            agg=("B:mean", "C:sum", "D:min"),
            name="default",
        )

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Schema:
        """Reads the TOML form from a file.

        SchemaError states the file, the line and the rule; OSError if the file cannot be opened.
        """
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise SchemaError(f"{path}: larger than 1 MiB; check that this is a schema")
        try:
            return cls.from_toml(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise SchemaError(f"{path}: {error}; a schema is encoded in UTF-8") from error
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from error

    @classmethod
    def from_toml(cls, text: str) -> Schema:
        """Reads the TOML form from a text."""
        with add_lines_to_errors(text):
            parts = parse_toml(text)
            return cls(
                parts.fields,
                by=parts.by,
                aggregates=parts.aggregates,
                endian=parts.endian,
                packet=parts.packet,
                name=parts.name,
            )

    @classmethod
    def from_struct(
        cls,
        notation: str,
        *,
        fields: str | Iterable[str],
        by: str | Iterable[str],
        agg: str | Iterable[str] = (),
        name: str = "record",
    ) -> Schema:
        """Reads the notation of Python's struct module, e.g. '>IHfb256s'. A list may be 'A,B,C'.

        `fields` names every item of the notation except x; behind the name of an `s` may stand what
        it is, as in 'ip:bytes', 'unit:text' or 'city:latin1'. A packet starts with a u32 length that
        includes itself, in the byte order of the record; an all-zero record ends the stream.
        """
        names, keys = split_names(fields), split_names(by)
        endian, parsed = parse_notation(notation, names)
        warn_of_short_keys(parsed, names, keys)
        return cls(parsed, by=keys, aggregates=split_names(agg), endian=endian, name=name)

    def to_toml(self) -> str:
        """The TOML form, for `ringest serve --schema`; from_toml reads it back."""
        return format_toml(
            self.name, self.endian, self.packet, self.fields, self.by, self.aggregates
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        fields = ", ".join(f"{field.name or '-'} {field.type}" for field in self.fields)
        return f"<Schema {self.name}: {fields}; {counted(self.record_bytes, 'byte')}>"

    def _parts(self) -> tuple[object, ...]:
        return (self.name, self.endian, self.packet, self.fields, self.by, self.aggregates)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all fields except skipped ones, in order."""
        return self._codec.names

    @property
    def packet_records_max(self) -> int:
        """The number of records in the largest packet; 1 if packets have no length."""
        room = packet_bytes_max(self.packet, self.record_bytes) - self.packet.length_bytes
        return room // self.record_bytes

    @property
    def result_columns(self) -> tuple[Column, ...]:
        """The columns of a result, in order."""
        types = {field.name: field.type for field in self.fields}
        keys = [Column(key, types[key]) for key in self.by]
        return (
            *keys,
            *(
                Column(one.column_name, aggregate_type(types.get(one.field, "u64"), one.function))
                for one in self.aggregates
            ),
        )

    def pack(self, record: Record) -> bytes:
        """The bytes of a record, given as a mapping by name or a sequence in the order of `names`.

        RecordError names the field whose value does not fit, and its range.
        """
        return self._codec.pack(record)

    def unpack(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """The values of a record, by name.

        Padding is removed from text. Bytes that are not UTF-8 become surrogates, from which `pack`
        restores the same bytes.
        """
        return self._codec.unpack(data)

    def numpy_dtype(self) -> Any:
        """The numpy dtype of one record, for arrays to send; ImportError without numpy."""
        return self._codec.numpy_dtype()


def aggregate_type(field: FieldType, function: Function) -> FieldType:
    """The type of the column of an aggregate."""
    match function:
        case "count":
            return "u64"
        case "mean" | "var" | "std":
            return "f64"
        case "sum":
            if field in FLOATS:
                return "f64"
            return "i64" if field in SIGNED else "u64"
    assert function in ("min", "max", "first", "last")
    assert field in WIDTHS
    return field
