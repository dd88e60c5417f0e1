"""Result files: what pyarrow, csv and json write is read back."""

from __future__ import annotations

import csv
import json
import math
import sys
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ringest import Field, ResultError, Schema, read_result, shown_text, text_bytes

NAME = "20261120T200201.123456Z-node-1.example-417-12"
SCHEMA = Schema(
    [
        Field("flag", "bool"),
        Field("level", "i8"),
        Field.text("name", 4),
        Field("value", "f32"),
        Field("raw", "bytes", 3),
        Field("n", "u16"),
        Field("big", "u64"),
    ],
    by=["flag", "level", "name", "raw"],
    aggregates=["value:sum", "value:var", "n:min", "count", "big:sum"],
)
NAMES = ["flag", "level", "name", "raw", "value_sum", "value_var", "n_min", "count", "big_sum"]
ROWS: list[list[Any]] = [
    [False, -3, "a,\"\\\\", b"\x00\x01\xff", 1.5, None, 7, 1, 18_446_744_073_709_551_615],
    [True, 4, "", b"abc", math.inf, 0.25, 65_535, 2, None],
    [True, 4, "\\x00b", b"abc", -math.inf, math.nan, 0, 3, 0],
]  # fmt: skip
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}


def shown(value: Any) -> str:
    """A value in the form in which the engine writes it to CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return {"nan": "NaN"}.get(repr(value), repr(value))
    return str(value)


def write_csv(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(NAMES)
        writer.writerows([shown(value) for value in row] for row in ROWS)
    return path


def write_ndjson(path: Path) -> Path:
    def plain(value: Any) -> Any:
        finite = not isinstance(value, float) or math.isfinite(value)
        return value if finite and not isinstance(value, bytes) else shown(value)

    lines = [json.dumps(dict(zip(NAMES, map(plain, row), strict=True))) + "\n" for row in ROWS]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def table(metadata: dict[str, str] | None = None) -> Any:
    pyarrow: Any = pytest.importorskip("pyarrow")
    types = [
        pyarrow.bool_(), pyarrow.int8(), pyarrow.large_string(), pyarrow.large_binary(),
        pyarrow.float64(), pyarrow.float64(), pyarrow.uint16(), pyarrow.uint64(),
        pyarrow.uint64(),
    ]  # fmt: skip
    schema = pyarrow.schema(list(zip(NAMES, types, strict=True)), metadata=metadata)
    return pyarrow.table(COLUMNS, schema=schema)


def write_parquet(path: Path, metadata: dict[str, str] | None = None) -> Path:
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table(metadata), path, compression="zstd")
    return path


def write_arrow(path: Path) -> Path:
    pyarrow: Any = pytest.importorskip("pyarrow")
    made = table({"status": "rejected", "connection": "9", "node": "n"})
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, made.schema) as writer:
        writer.write_table(made)
    return path


WRITERS = {
    "csv": write_csv, "ndjson": write_ndjson, "parquet": write_parquet, "arrow": write_arrow
}  # fmt: skip


@pytest.mark.parametrize("extension", WRITERS)
def test_every_format_gives_the_same_typed_columns(extension: str, tmp_path: Path) -> None:
    path = WRITERS[extension](tmp_path / f"{NAME}.{extension}")
    result = read_result(path, SCHEMA)
    # repr, because NaN is not equal to itself.
    assert repr(result.columns) == repr(COLUMNS)
    assert [type(one) for one in result["level"]] == [int] * 3
    assert len(result) == 3
    assert list(next(iter(result)).values()) == ROWS[0]
    assert next(result.rows())["name"] == ROWS[0][2]
    assert (result.status, result.node, result.pid, result.connection) == (
        "complete", "node-1.example", 417, 12,
    )  # fmt: skip
    assert result.started == datetime(2026, 11, 20, 20, 2, 1, 123_456, UTC)
    assert (result.path, result.schema) == (path, SCHEMA)


@pytest.mark.parametrize("extension", WRITERS)
def test_every_format_becomes_a_table(extension: str, tmp_path: Path) -> None:
    expected = table()
    result = read_result(WRITERS[extension](tmp_path / f"x.{extension}"), SCHEMA)
    made = result.to_arrow()
    assert made.schema.equals(expected.schema, check_metadata=False)
    assert repr(made.to_pydict()) == repr(COLUMNS)
    pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert (list(frame.columns), len(frame)) == (NAMES, 3)
    assert list(frame["count"]) == [1, 2, 3]


@pytest.mark.parametrize("front", [True, False])
def test_columns_of_the_stream_may_be_added_to_those_of_the_schema(
    front: bool, tmp_path: Path
) -> None:
    schema = Schema.from_struct(">HI", fields="meter,n", by="meter", agg="n:sum")
    own = {"meter": [7, 8], "n_sum": [1, 2], "count": [1, 1]}
    added = {
        "connection": [3, 3],
        "peer": ["127.0.0.1:9", "127.0.0.1:9"],
        "status": ["complete"] * 2,
    }
    columns = {**added, **own} if front else {**own, **added}
    rows = list(zip(*columns.values(), strict=True))
    lines = [",".join(map(str, row)) + "\n" for row in [tuple(columns), *rows]]
    (tmp_path / "a.csv").write_text("".join(lines))
    lines = [json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows]
    (tmp_path / "a.ndjson").write_text("".join(lines))
    for name in ("a.csv", "a.ndjson"):
        assert read_result(tmp_path / name, schema).columns == columns
    pyarrow: Any = pytest.importorskip("pyarrow")
    made = read_result(tmp_path / "a.csv", schema).to_arrow()
    assert made.to_pydict() == columns
    assert made.schema.field("connection").type == pyarrow.uint64()


def test_without_a_schema_values_are_what_the_format_says(tmp_path: Path) -> None:
    result = read_result(write_csv(tmp_path / "a.csv"))
    assert {name: values[0] for name, values in result.columns.items()} == {
        name: shown(value) for name, value in zip(NAMES, ROWS[0], strict=True)
    }
    result = read_result(write_ndjson(tmp_path / "a.ndjson"))
    assert result.columns["raw"][0] == "0001ff"
    assert result.columns["value_sum"] == [1.5, "inf", "-inf"]
    assert result.columns["flag"] == [False, True, True]
    for write in (write_parquet, write_arrow):
        extension = write.__name__.removeprefix("write_")
        assert repr(read_result(write(tmp_path / f"a.{extension}")).columns) == repr(COLUMNS)


def test_status_and_origin_are_of_the_name_and_else_of_the_metadata(tmp_path: Path) -> None:
    for status in ("incomplete", "rejected"):
        assert read_result(write_csv(tmp_path / f"{NAME}.{status}.csv")).status == status
    result = read_result(write_csv(tmp_path / "mine.csv"))
    assert (result.status, result.node, result.connection, result.started) == (None,) * 4
    # A name with an invalid date.
    name = "20269920T200201.123456Z-n-1-2.csv"
    assert read_result(write_csv(tmp_path / name)).started is None
    metadata = {"status": "incomplete", "node": "n7", "connection": "3", "reason": "reset"}
    result = read_result(write_parquet(tmp_path / "mine.parquet", metadata))
    assert (result.status, result.node, result.connection) == ("incomplete", "n7", 3)
    assert result.metadata == metadata
    assert result.peer is None
    metadata = {"ringest.status": "complete", "ringest.connection": "4", "ringest.peer": "[::1]:9"}
    result = read_result(write_parquet(tmp_path / "mine.parquet", metadata))
    assert (result.status, result.connection, result.peer) == ("complete", 4, "[::1]:9")
    result = read_result(write_arrow(tmp_path / "mine.arrow"))
    assert (result.status, result.node, result.connection) == ("rejected", "n", 9)


def test_a_result_without_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(NAMES) + "\n")
    assert read_result(path, SCHEMA).columns == {name: [] for name in NAMES}
    path = tmp_path / "a.ndjson"
    path.write_text("")
    result = read_result(path, SCHEMA)
    assert result.columns == {name: [] for name in NAMES}
    assert (len(result), list(result)) == (0, [])
    assert read_result(path).columns == {}
    assert len(read_result(path)) == 0


def test_a_key_alone_can_be_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('t\n""\nx\n')
    assert read_result(path).columns == {"t": ["", "x"]}


def test_errors_say_why_a_file_is_not_a_result(tmp_path: Path) -> None:
    cases = [
        ("a.txt", b"", "unknown extension '.txt'; expected one of .parquet, .arrow, .csv, .ndjson"),
        ("a.csv", b"", "expected a line of column names"),
        ("a.csv", b"a,b\n1\n", "check that the file is complete"),
        ("a.csv", b"\xff\n", "check that the file is complete"),
        ("a.ndjson", b'{"a":1}\n{"b":1}\n', "line 2 has b, not a"),
        ("a.ndjson", b'{"a":1', "check that the file is complete"),
        ("a.ndjson", b"3\n", "check that the file is complete"),
    ]
    for name, data, why in cases:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ResultError) as caught:
            read_result(path)
        assert why in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path / "none.csv")
    pytest.importorskip("pyarrow")
    for extension in ("parquet", "arrow"):
        whole = WRITERS[extension](tmp_path / f"a.{extension}").read_bytes()
        for data in (b"", b"PAR1", whole[:-20]):
            path = tmp_path / f"cut.{extension}"
            path.write_bytes(data)
            with pytest.raises(ResultError, match="check that the file is complete"):
                read_result(path)


def test_columns_have_to_be_those_of_the_schema(tmp_path: Path) -> None:
    for extension in ("csv", "ndjson", "parquet"):
        path = WRITERS[extension](tmp_path / f"a.{extension}")
        with pytest.raises(ResultError, match="pass the schema that the engine used"):
            read_result(path, Schema.default())
    path = write_csv(tmp_path / "a.csv")
    path.write_text(path.read_text().replace("-3", "x"))
    with pytest.raises(ResultError, match="check that the file is complete"):
        read_result(path, SCHEMA)


def test_without_pyarrow_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = read_result(write_csv(tmp_path / "a.csv"))
    for module in ("pyarrow", "pyarrow.parquet", "pandas"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("a.parquet", "a.arrow"):
        (tmp_path / name).write_bytes(b"PAR1")
        with pytest.raises(ImportError, match=r"clients/python\[results\]"):
            read_result(tmp_path / name)
    with pytest.raises(ImportError, match=r"clients/python\[results\]"):
        result.to_arrow()
    with pytest.raises(ImportError, match="pip install pandas"):
        result.to_pandas()


def test_the_shown_form_of_text_is_there_and_back() -> None:
    every = bytes(range(256))
    assert text_bytes(shown_text(every)) == every
    assert shown_text(every).isascii()
    assert shown_text(every).isprintable()
    assert shown_text(b"a\\x00\x00\x1b") == "a\\\\x00\\x00\\x1b"
    assert shown_text("é\udcff") == "é\\xff"
    for text in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]):
        shown = shown_text(text)
        assert text_bytes(shown) == text.encode()
        assert shown != text or text.isprintable() or unicodedata.category(text) == "Cn"
    assert shown_text("plain") == "plain"


def test_a_file_that_is_cut_gives_no_value_that_was_not_in_it(tmp_path: Path) -> None:
    """At every byte: whole groups are left, or it is an error."""
    for name, write in (("a.csv", write_csv), ("a.ndjson", write_ndjson)):
        path = write(tmp_path / name)
        data, whole = path.read_bytes(), list(map(repr, read_result(path, SCHEMA).rows()))
        assert len(whole) == len(ROWS)
        seen = set()
        for cut in range(len(data)):
            path.write_bytes(data[:cut])
            try:
                rows = list(map(repr, read_result(path, SCHEMA).rows()))
            except ResultError:
                continue
            assert rows == whole[: len(rows)]
            seen.add(len(rows))
        # Nothing tells that whole lines are missing.
        assert seen >= {1, 2}
