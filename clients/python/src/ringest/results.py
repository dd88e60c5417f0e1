"""Reads the result files of `ringest serve --output`. It does not connect to an engine.

CSV and ndjson need only the standard library. Parquet and Arrow need pyarrow, which
`pip install './clients/python[results]'` installs.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from ringest.errors import ResultError
from ringest.schema import Schema
from ringest.schema_types import INTEGERS, FieldType

Status: TypeAlias = Literal["complete", "incomplete", "rejected"]

# {moment}-{node}-{pid}-{connection}, followed by the status unless it is complete.
_NAME: Final = re.compile(
    r"(?P<moment>\d{8}T\d{6}\.\d{6}Z)-(?P<node>[A-Za-z0-9._-]{1,64})-(?P<pid>\d+)"
    r"-(?P<connection>\d+)(?:\.(?P<status>incomplete|rejected))?\.[a-z]+"
)
_MOMENT: Final = "%Y%m%dT%H%M%S.%fZ"
# The columns that `ringest serve --output-columns` adds to those of the schema.
_STREAM_COLUMNS: Final[dict[str, FieldType]] = {
    "connection": "u64",
    "peer": "text",
    "status": "text",
}
# What is not printable in a text; fixed by the documents, unlike str.isprintable, which depends on
# the release of Unicode.
_HIDDEN: Final = re.compile(
    "[\\\\\x00-\x1f\x7f-\xa0\xad"
    "\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f"
    "\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ud800-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U0001fffe\U0001ffff\U0002fffe\U0002ffff"
    "\U0003fffe\U0003ffff\U00040000-\U0010ffff]"
)
# The JSON form of numbers that are not finite.
_NOT_FINITE: Final = {"NaN": math.nan, "inf": math.inf, "-inf": -math.inf}
_PYARROW_MISSING: Final = (
    "{} needs pyarrow, which is not installed: pip install './clients/python[results]', or let "
    "the engine write --output-format csv or ndjson"
)


@dataclass(frozen=True, slots=True)
class Result:
    """The groups of one stream: `columns` are lists of equal length by name, in order.

    Text is in its shown form, see `text_bytes`. Attributes are None if neither the file's name nor
    its metadata gives them. Values of type bytes are `bytes` in Parquet and Arrow, and in the other
    formats if there is a schema.
    """

    path: Path
    columns: dict[str, list[Any]]
    status: Status | None = None
    node: str | None = None
    pid: int | None = None
    connection: int | None = None
    # The sender's address, as in RecordSender.local_address: host:port.
    peer: str | None = None
    started: datetime | None = None
    # The metadata that the engine wrote into the file.
    metadata: dict[str, str] = field(default_factory=dict)
    schema: Schema | None = None
    _table: Any = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The groups, each as a dict of its values by name."""
        names = tuple(self.columns)
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(names, values, strict=True))

    def to_arrow(self) -> Any:
        """The groups as a pyarrow.Table."""
        if self._table is not None:
            return self._table
        pyarrow = _import_pyarrow("pyarrow", "to_arrow()")
        arrow_schema: Any = None
        if self.schema is not None:
            types = _column_types(self.schema)
            arrow_schema = pyarrow.schema(
                [(name, _arrow_type(pyarrow, types[name])) for name in self.columns]
            )
        return pyarrow.table(self.columns, schema=arrow_schema)

    def to_pandas(self) -> Any:
        """The groups as a pandas.DataFrame."""
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("pandas is not installed: pip install pandas") from error
        if self._table is not None:
            return self._table.to_pandas()
        return pandas.DataFrame(self.columns)


def read_result(path: str | PathLike[str], schema: Schema | None = None) -> Result:
    """Reads one result file, whose extension gives its format.

    Without a `schema`, all values of CSV are text, and so are bytes and non-finite numbers of
    ndjson. With a schema, the columns are checked and converted to their types.

    Raises ResultError if the file is not a result, OSError if it cannot be opened, and ImportError
    if it is Parquet or Arrow and pyarrow is missing.
    """
    path = Path(path)
    read = _READERS.get(path.suffix)
    if read is None:
        known = ", ".join(_READERS)
        raise ResultError(f"{path}: unknown extension {path.suffix!a}; expected one of {known}")
    try:
        columns, table, metadata = read(path, schema)
    except (OSError, ImportError, ResultError):
        raise
    # Errors of pyarrow, UTF-8 and JSON derive from ValueError.
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        rule = f"cannot be read as {path.suffix[1:]} ({error})"
        raise ResultError(f"{path}: {rule}; check that the file is complete") from error
    if schema is not None:
        names = [one.name for one in schema.result_columns]
        added = _STREAM_COLUMNS.keys() - names
        if [name for name in columns if name not in added] != names:
            rule = f"the columns are {', '.join(columns)}, those of the schema {', '.join(names)}"
            raise ResultError(f"{path}: {rule}; pass the schema that the engine used")
    facts = _facts_of_metadata(metadata) | _facts_of_name(path)
    return Result(path, columns, metadata=metadata, schema=schema, _table=table, **facts)


def text_bytes(shown: str) -> bytes:
    r"""The bytes in UTF-8 of a text in its shown form: `\\` is a backslash, `\xNN` a byte.

    Those of a field in Latin-1 are `text_bytes(shown).decode().encode("latin-1")`.
    """

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return b"\\" if code == b"\\" else bytes([int(code[1:], 16)])

    return re.sub(rb"\\(\\|x[0-9a-f]{2})", one, shown.encode())


def shown_text(value: str | bytes) -> str:
    r"""A text in the form that results show: printable, `\\` for a backslash, else `\xNN`.

    Bytes are taken as UTF-8; decode those of a field in Latin-1 first.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return _HIDDEN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    if match[0] == "\\":
        return r"\\"
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogateescape"))


def _facts_of_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The attributes in the metadata, which survive a renaming of the file."""
    values = {key.removeprefix("ringest."): value for key, value in metadata.items()}
    facts: dict[str, Any] = {}
    if values.get("status") in get_args(Status):
        facts["status"] = values["status"]
    for name in ("node", "peer"):
        if values.get(name):
            facts[name] = values[name]
    if values.get("connection", "").isdecimal():
        facts["connection"] = int(values["connection"])
    return facts


def _facts_of_name(path: Path) -> dict[str, Any]:
    """The attributes in the name of the file."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return {}
    try:
        started = datetime.strptime(match["moment"], _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return {}
    return {
        "status": match["status"] or "complete",
        "node": match["node"],
        "pid": int(match["pid"]),
        "connection": int(match["connection"]),
        "started": started,
    }


_Columns: TypeAlias = dict[str, list[Any]]
_Read: TypeAlias = tuple[_Columns, Any, dict[str, str]]


def _import_pyarrow(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(_PYARROW_MISSING.format(what)) from error


def _read_parquet(path: Path, _schema: Schema | None) -> _Read:
    parquet = _import_pyarrow("pyarrow.parquet", path.name)
    # read_table would take folders named like key=value for partitions.
    return _from_table(parquet.ParquetFile(path).read())


def _read_arrow(path: Path, _schema: Schema | None) -> _Read:
    pyarrow = _import_pyarrow("pyarrow", path.name)
    with pyarrow.OSFile(str(path), "rb") as file, pyarrow.ipc.open_file(file) as reader:
        return _from_table(reader.read_all())


def _from_table(table: Any) -> _Read:
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    shown = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in metadata.items()
        # Arrow's own copy of the types.
        if key != b"ARROW:schema"
    }
    columns = dict(zip(table.column_names, (one.to_pylist() for one in table.columns), strict=True))
    return columns, table, shown


def _read_csv(path: Path, schema: Schema | None) -> _Read:
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
        if not text:
            raise ResultError(f"{path}: the file is empty; expected a line of column names")
        # A number that is cut is a number, too.
        if not text.endswith("\n"):
            raise ResultError(f"{path}: the last line is cut: the file is not complete")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = next(lines)
        columns: _Columns = {name: [] for name in names}
        lists = list(columns.values())
        for values in lines:
            # An empty line is an empty value of a single column.
            for column, value in zip(lists, values or [""], strict=True):
                column.append(value)
    return _typed(columns, schema, _csv_value), None, {}


def _read_ndjson(path: Path, schema: Schema | None) -> _Read:
    # The columns of a file without groups.
    names = () if schema is None else (one.name for one in schema.result_columns)
    columns: _Columns = {name: [] for name in names}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            group = json.loads(line)
            if number == 1:
                columns = {name: [] for name in group}
            if list(group) != list(columns):
                rule = f"line {number} has {', '.join(group)}, not {', '.join(columns)}"
                raise ResultError(f"{path}: {rule}; pass the schema that the engine used")
            for name, value in group.items():
                columns[name].append(value)
    return _typed(columns, schema, _json_value), None, {}


_READERS: Final[dict[str, Callable[[Path, Schema | None], _Read]]] = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".csv": _read_csv,
    ".ndjson": _read_ndjson,
}


def _typed(
    columns: _Columns, schema: Schema | None, value_of: Callable[[FieldType, Any], Any]
) -> _Columns:
    """The columns converted to the types of the schema; unchanged without one."""
    if schema is None:
        return columns
    types = _column_types(schema)
    # A column that is not in the schema is reported later, with all names.
    return {
        name: [value_of(types.get(name, "text"), value) for value in values]
        for name, values in columns.items()
    }


def _column_types(schema: Schema) -> dict[str, FieldType]:
    """The types of the columns that a result of a schema can have."""
    return _STREAM_COLUMNS | {one.name: one.type for one in schema.result_columns}


def _csv_value(kind: FieldType, text: str) -> Any:
    if kind == "text":
        return text
    if kind == "bytes":
        return bytes.fromhex(text)
    if text == "":
        return None
    if kind == "bool":
        return {"true": True, "false": False}[text]
    return int(text) if kind in INTEGERS else float(text)


def _json_value(kind: FieldType, value: Any) -> Any:
    if value is None or kind in ("text", "bool"):
        return value
    if kind == "bytes":
        return bytes.fromhex(value)
    if kind in INTEGERS:
        return value
    return _NOT_FINITE[value] if isinstance(value, str) else float(value)


def _arrow_type(pyarrow: Any, kind: FieldType) -> Any:
    match kind:
        case "text":
            return pyarrow.large_string()
        case "bytes":
            return pyarrow.large_binary()
        case "bool":
            return pyarrow.bool_()
        case "f32" | "f64":
            return pyarrow.float32() if kind == "f32" else pyarrow.float64()
    return getattr(pyarrow, f"{'int' if kind[0] == 'i' else 'uint'}{kind[1:]}")()
