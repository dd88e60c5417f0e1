"""Packs values into the bytes of a record and unpacks them again. No framing, no I/O."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NoReturn

from ringest.errors import RecordError, counted
from ringest.schema_types import FLOATS, INTEGERS, PADDING_BYTES, SIGNED, Endian, Field, FieldType

STRUCT_CODES: Final[dict[FieldType, str]] = {
    "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q",
    "f32": "f", "f64": "d", "bool": "?",
}  # fmt: skip
STRUCT_ORDERS: Final[dict[Endian, str]] = {"big": ">", "little": "<"}


class RecordCodec:
    """Packs and unpacks the records of a valid schema."""

    __slots__ = ("_fields", "_getter", "_packers", "_struct", "_unpackers", "names")

    def __init__(self, fields: Sequence[Field], endian: Endian) -> None:
        self._fields: Final = [field for field in fields if field.type != "skip"]
        self.names: Final = tuple(field.name for field in self._fields)
        self._struct: Final = struct.Struct(STRUCT_ORDERS[endian] + "".join(map(_code, fields)))
        # itemgetter with one name returns the value itself, not a tuple.
        get = itemgetter(*self.names)
        self._getter: Final = get if len(self.names) > 1 else lambda record: (get(record),)
        # The fields whose values need more checks or conversions than struct's own.
        self._packers: Final = [
            (i, _packer(field)) for i, field in enumerate(self._fields) if _needs_packer(field)
        ]
        self._unpackers: Final = [
            (i, _unpacker(field)) for i, field in enumerate(self._fields) if field.type == "text"
        ]

    def pack(self, record: Mapping[str, Any] | Sequence[Any]) -> bytes:
        """The bytes of a record; RecordError names the field whose value does not fit."""
        values = self._values(record)
        for i, packer in self._packers:
            values[i] = packer(values[i])
        try:
            return self._struct.pack(*values)
        except (struct.error, OverflowError, TypeError, ValueError) as error:
            self._explain(values, error)

    def unpack(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """The values of one record's bytes."""
        size = memoryview(data).nbytes
        if size != self._struct.size:
            rule = f"a record has {counted(self._struct.size, 'byte')}, not {size}"
            raise RecordError(f"{rule}; pass the bytes of exactly one record")
        values = list(self._struct.unpack(data))
        for i, unpacker in self._unpackers:
            values[i] = unpacker(values[i])
        return dict(zip(self.names, values, strict=True))

    def numpy_dtype(self) -> Any:
        """The numpy dtype of one record."""
        try:
            numpy: Any = importlib.import_module("numpy")
        except ImportError as error:
            raise ImportError("numpy is not installed: pip install numpy") from error
        order = self._struct.format[0]
        formats = [
            {"text": f"S{field.bytes}", "bytes": f"V{field.bytes}"}.get(field.type)
            or f"{order}{_NUMPY_KINDS[field.type]}{field.bytes}"
            for field in self._fields
        ]
        return numpy.dtype(
            {
                "names": list(self.names),
                "formats": formats,
                "offsets": [field.offset for field in self._fields],
                "itemsize": self._struct.size,
            }
        )

    def _values(self, record: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
        """The values in the order of the fields, in a new list."""
        # Tuples first: the check for a Mapping takes longer than everything else.
        if not isinstance(record, tuple) and isinstance(record, Mapping):
            try:
                values = list(self._getter(record))
            except KeyError as error:
                missing = [name for name in self.names if name not in record]
                raise RecordError(
                    f"no value for {', '.join(missing)}: every field needs one"
                ) from error
            if len(record) != len(values):
                unknown = [str(name) for name in record if name not in self.names]
                rule = f"unknown field {', '.join(unknown)}"
                raise RecordError(f"{rule}; the fields are {', '.join(self.names)}")
            return values
        if isinstance(record, str | bytes | bytearray | memoryview):
            rule = f"a record is a mapping or a sequence of values, not {type(record).__name__}"
            raise RecordError(f"{rule}; send packed records with send_array")
        values = list(record)
        if len(values) != len(self.names):
            rule = f"a record has {counted(len(self.names), 'value')} ({', '.join(self.names)})"
            raise RecordError(f"{rule}, not {len(values)}")
        return values

    def _explain(self, values: list[Any], cause: Exception) -> NoReturn:
        """Raises an error that names the value that struct rejected and its field's range."""
        for field, value in zip(self._fields, values, strict=True):
            try:
                struct.pack(self._struct.format[0] + _code(field), value)
            except (struct.error, OverflowError, TypeError, ValueError) as error:
                text = f"{field.name}: {_short(value)} does not fit; {_range(field)}"
                raise RecordError(text) from error
        raise RecordError(f"the record cannot be packed: {cause}") from cause


_NUMPY_KINDS: Final[dict[FieldType, str]] = {
    **{kind: "i" if kind in SIGNED else "u" for kind in STRUCT_CODES if kind in INTEGERS},
    "f32": "f",
    "f64": "f",
    "bool": "b",
}


def _code(field: Field) -> str:
    if field.type == "skip":
        return f"{field.bytes}x"
    return STRUCT_CODES.get(field.type) or f"{field.bytes}s"


def _range(field: Field) -> str:
    """The values that a number's field can hold."""
    if field.type in FLOATS:
        return f"{field.type} holds an IEEE 754 binary{8 * field.bytes} number"
    low = -(1 << (8 * field.bytes - 1)) if field.type in SIGNED else 0
    return f"{field.type} holds integers from {low} to {low + (1 << (8 * field.bytes)) - 1}"


def _needs_packer(field: Field) -> bool:
    return field.type in ("text", "bytes", "bool")


def _packer(field: Field) -> Callable[[Any], Any]:
    """A function that checks a value and converts it for struct."""
    if field.type == "text":
        return _text_packer(field)
    return _bool_packer(field.name) if field.type == "bool" else _bytes_packer(field)


def _text_packer(field: Field) -> Callable[[Any], bytes]:
    name, width = field.name, field.bytes
    # struct itself pads with NUL.
    filler = b" " if field.padding == ("space",) else None
    exact = not field.padding
    shown, codec, errors = _codec_of(field)

    def pack(value: Any) -> bytes:
        if isinstance(value, str):
            try:
                data = value.encode(codec, errors)
            except UnicodeEncodeError as error:
                rule = f"{name}: {_short(value)} cannot be encoded as {shown}; pass bytes instead"
                raise RecordError(rule) from error
        elif isinstance(value, bytes | bytearray | memoryview):
            data = bytes(value)
        else:
            raise RecordError(f"{name}: {_short(value)} is neither str nor bytes")
        if len(data) > width or (exact and len(data) < width):
            limit = "exactly" if exact else "at most"
            size = counted(len(data), "byte")
            rule = f"{name}: the text has {size} in {shown}, the field {limit} {width}"
            raise RecordError(f"{rule}: change the text or the schema")
        return data if filler is None else data.ljust(width, filler)

    return pack


def _bytes_packer(field: Field) -> Callable[[Any], bytes]:
    name, width = field.name, field.bytes

    def pack(value: Any) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise RecordError(f"{name}: {_short(value)} is not bytes")
        data = bytes(value)
        if len(data) != width:
            size = counted(len(data), "byte")
            raise RecordError(f"{name}: {size}; the field holds exactly {width}")
        return data

    return pack


def _bool_packer(name: str) -> Callable[[Any], bool]:
    def pack(value: Any) -> bool:
        # Accepts numpy's booleans too, but not text, which would always be true.
        if value in (0, 1):
            return bool(value)
        raise RecordError(f"{name}: {_short(value)} is neither True nor False")

    return pack


def _unpacker(field: Field) -> Callable[[bytes], str]:
    padding = b"".join(PADDING_BYTES[one] for one in field.padding)
    _, codec, errors = _codec_of(field)

    def unpack(data: bytes) -> str:
        return data.rstrip(padding).decode(codec, errors)

    return unpack


def _codec_of(field: Field) -> tuple[str, str, str]:
    """The encoding of a text: its name in messages, Python's name, and what errors become."""
    if field.encoding == "latin1":
        return "Latin-1", "latin-1", "strict"
    return "UTF-8", "utf-8", "surrogateescape"


def _short(value: object) -> str:
    """A value as shown in an error, at most a line long."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
