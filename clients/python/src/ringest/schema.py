"""What a record consists of, how records are framed, and what is made of them. It opens no socket.

A `Schema` is a value that keeps the rules of the engine. It is read from the TOML form that
`ringest serve --schema` takes, or from Python's own struct notation, and it makes records of
values and values of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeAlias

from ringest.errors import SchemaError
from ringest.record_codec import RecordCodec
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
from ringest.schema_words import parse_aggregate, parse_notation, split_names
from ringest.toml_schema import format_toml, parse_toml

# What a file with a schema may have: 256 fields, with comments.
FILE_BYTES_MAX: Final = 1 << 20

Record: TypeAlias = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result; `type` is a type of fields, `text` being text in its shown form."""

    name: str
    type: FieldType


class Schema:
    """Fields in the order of their bytes, how they are framed, and what is made of them.

    `by` names the keys. `aggregates` are "FIELD:FUNCTION" or "count"; where the count is not among
    them, it becomes the last. Raises SchemaError, whose text names the rule that is broken.
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
        """The schema that is built into the engine."""
        return cls.from_struct(
            ">IHfb256s",
            fields=("A", "B", "C", "D", "E"),
            by=("A", "E"),
            agg=("B:mean", "C:sum", "D:min"),
            name="default",
        )

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Schema:
        """Reads the TOML form; SchemaError names the file, the line and the rule."""
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise SchemaError(f"{path}: above 1 MiB; is this the schema?")
        try:
            return cls.from_toml(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise SchemaError(f"{path}: {error}; a schema is UTF-8") from error
        except SchemaError as error:
            raise SchemaError(f"{path}: {error}") from error

    @classmethod
    def from_toml(cls, text: str) -> Schema:
        """As from_file, of a text."""
        return parse_toml(text, cls)

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
        """Reads Python's struct notation, such as '>IHfb256s'. Lists may be one text, 'A,B,C'.

        `fields` names each item of the notation but x. Packets have a u32 length in front, in the
        order of the record's bytes, that counts itself; the all-zero record ends the stream.
        """
        endian, parsed = parse_notation(notation, split_names(fields))
        return cls(
            parsed, by=split_names(by), aggregates=split_names(agg), endian=endian, name=name
        )

    def to_toml(self) -> str:
        """The TOML form, for `ringest serve --schema`; from_toml of it is equal to this."""
        return format_toml(
            self.name, self.endian, self.packet, self.fields, self.by, self.aggregates
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        fields = ", ".join(f"{field.name or '-'} {field.type}" for field in self.fields)
        return f"<Schema {self.name}: {fields}; {self.record_bytes} bytes>"

    def _parts(self) -> tuple[object, ...]:
        return (self.name, self.endian, self.packet, self.fields, self.by, self.aggregates)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the values of a record, in order: of all fields but skipped ones."""
        return self._codec.names

    @property
    def packet_records_max(self) -> int:
        """Records of the largest packet; 1 where records are bare."""
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
        """The bytes of a record, from a mapping by name or a sequence in the order of `names`.

        RecordError names the field and what it can hold.
        """
        return self._codec.pack(record)

    def unpack(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """The values of one record's bytes, by name.

        Text is without its padding; bytes that are no UTF-8 stand in it as surrogates, so that
        `pack` makes the same bytes of it again.
        """
        return self._codec.unpack(data)

    def numpy_dtype(self) -> Any:
        """The numpy type of one record, for arrays that are sent whole; it needs numpy."""
        return self._codec.numpy_dtype()


def aggregate_type(field: FieldType, function: Function) -> FieldType:
    """The type of a column that is made of a field's values."""
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
