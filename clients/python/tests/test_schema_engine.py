"""Schemas, result files and `python3 -m ringest send` against the real engine.

The engine and the naive decoder of these tests have to agree on the same stream, whether it comes
from `RecordSender` or from the command.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_process import BINARY, engine
from naive_records import random_schema
from naive_result import assert_groups_match, naive_groups
from test_send_command import run_send

from ringest import (
    Field,
    Packet,
    RecordSender,
    Result,
    Schema,
    SchemaError,
    read_result,
    text_bytes,
)

pytestmark = pytest.mark.skipif(not BINARY, reason="RINGEST_BIN does not name the ringest program")

HOST = "127.0.0.1"
FORMATS = ("parquet", "arrow", "csv", "ndjson")

# Every type, little-endian, behind a big-endian length: unlike anything a C program writes.
EVERY = Schema(
    [
        Field("unit", "text", 6, ("space",)),
        Field("flag", "bool"),
        Field("", "skip", 3),
        Field("raw", "bytes", 2),
        *(Field(kind, kind) for kind in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64")),
        Field("f32", "f32"),
        Field("f64", "f64"),
    ],
    by=["raw", "flag", "unit"],
    aggregates=[
        "u64:sum", "i64:sum", "u8:mean", "f32:sum", "f64:std", "count", "i16:min", "u16:max",
        "i8:first", "i32:last", "flag:sum", "u32:var",
    ],
    endian="little",
    packet=Packet("u16", False, "big", "close"),
    name="every-type",
)  # fmt: skip


def assert_same(wanted: list[dict[str, Any]], got: list[dict[str, Any]]) -> None:
    """Asserts that groups are equal; the engine may add in another order."""
    assert_groups_match(wanted, got, relative=1e-9, absolute=1e-6)


def in_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the form of results on stdout and of `--expect`: bytes in hexadecimal."""
    return [
        {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
        for row in rows
    ]


def every_records(count: int) -> list[dict[str, Any]]:
    """Records of all types, in few groups, with numbers from the full range."""
    rng = random.Random(3)
    records = []
    for _ in range(count):
        record: dict[str, Any] = {
            "unit": rng.choice(["mbar", "", "Ångs", "a\\b"]),
            "flag": rng.random() < 0.5,
            "raw": rng.choice([b"\x00\x00", b"\xff\x01"]),
            "f32": struct.unpack("f", struct.pack("f", rng.uniform(-9, 9)))[0],
            "f64": rng.uniform(-1e9, 1e9),
        }
        for field in EVERY.fields:
            if field.name[:1] in ("u", "i") and field.type == field.name:
                low = -(1 << (8 * field.bytes - 1)) if field.type.startswith("i") else 0
                record[field.name] = rng.randint(low, low + (1 << (8 * field.bytes)) - 1)
        # The sums of some groups fit into 64 bits; others do not.
        if record["flag"]:
            record["u64"] >>= 20
            record["i64"] >>= 20
        records.append(record)
    return records


def receive(schema: Schema, folder: Path, file_format: str, send: Any) -> tuple[Any, Path]:
    """Sends one stream to an engine with a schema; returns its result on stdout and its file."""
    path = folder / "schema.toml"
    path.write_text(schema.to_toml(), encoding="utf-8")
    output = folder / file_format
    output.mkdir()
    options = ["--schema", str(path), "--output", str(output), "--output-format", file_format]
    with engine(1, *options, "--node", "node-1") as running:
        send(running.port)
        (result,) = running.wait()
    (written,) = output.glob(f"*.{file_format}")
    return result, written


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_type_goes_through_to_every_format(file_format: str, tmp_path: Path) -> None:
    if file_format in ("parquet", "arrow"):
        pytest.importorskip("pyarrow")
    records = every_records(2000)
    sender: RecordSender | None = None

    def send(port: int) -> None:
        nonlocal sender
        with RecordSender(EVERY, HOST, port, packet_records=100) as sender:
            sender.send_many(records)

    result, path = receive(EVERY, tmp_path, file_format, send)
    assert sender is not None
    wanted = naive_groups(EVERY, records)
    assert any(row["u64_sum"] is None for row in wanted)
    assert any(row["u64_sum"] is not None for row in wanted)
    assert (result["status"], result["records"]) == ("complete", 2000)
    assert (result["packets"], result["bytes"]) == (sender.packets, sender.bytes_sent)
    assert_same(wanted, result["groups"])
    read = read_result(path, EVERY)
    assert (read.status, read.node, read.connection) == ("complete", "node-1", 1)
    assert read.started is not None
    assert_same(wanted, in_json(list(read.rows())))
    assert {text_bytes(one).decode() for one in read["unit"]} == {r["unit"] for r in records}
    assert all(isinstance(one, bytes) for one in read["raw"])
    if file_format in ("parquet", "arrow"):
        assert_types(read)


def assert_types(result: Result) -> None:
    """Asserts that the columns of a file have the types of the schema."""
    names = {"bool": "bool", "f32": "float", "f64": "double"}
    for column, kind in zip(EVERY.result_columns, result.to_arrow().schema.types, strict=True):
        if column.type in ("text", "bytes"):
            word = "string" if column.type == "text" else "binary"
            assert word in str(kind), (column, kind)
        else:
            integer = f"{'int' if column.type[0] == 'i' else 'uint'}{column.type[1:]}"
            assert str(kind) == names.get(column.type, integer), (column, kind)


def test_the_file_of_an_aborted_stream_says_so_in_its_name(tmp_path: Path) -> None:
    def send(port: int) -> None:
        record = every_records(1)[0]
        sender = RecordSender(EVERY, HOST, port, packet_records=1)
        with pytest.raises(ZeroDivisionError), sender:
            sender.send_many({**record, "u8": 2 // (1 - i)} for i in range(2))

    result, path = receive(EVERY, tmp_path, "csv", send)
    assert result["status"] == "incomplete"
    assert path.name.endswith(".incomplete.csv")
    assert read_result(path, EVERY).status == "incomplete"


def test_a_stream_without_records_gives_columns_without_rows(tmp_path: Path) -> None:
    schema = Schema.default()

    def send(port: int) -> None:
        with RecordSender(schema, HOST, port):
            pass

    for file_format in ("csv", "ndjson"):
        result, path = receive(schema, tmp_path, file_format, send)
        read = read_result(path, schema)
        assert (result["records"], len(read)) == (0, 0)
        assert list(read.columns) == ["A", "E", "B_mean", "C_sum", "D_min", "count"]


@pytest.mark.parametrize("seed", range(12))
def test_the_engine_gives_the_result_that_the_command_expects(seed: int, tmp_path: Path) -> None:
    schema = random_schema(random.Random(1000 + seed))
    expected_path = tmp_path / "expected.json"

    def send(port: int) -> None:
        options = ["--port", str(port), "--connections", "1", "--records", "5000"]
        options += ["--schema", str(tmp_path / "schema.toml"), "--seed", str(seed)]
        done = run_send(*options, "--padding", "mixed", "--expect", str(expected_path))
        assert done.returncode == 0, done.stderr

    result, path = receive(schema, tmp_path, "ndjson", send)
    expected = json.loads(expected_path.read_text())["connections"][0]
    # Sums of random 64-bit numbers may not fit into 64 bits; the stream is complete nevertheless.
    assert (result["status"], result["reason"] in (None, "sum_overflow")) == ("complete", True)
    for name in ("records", "packets", "bytes"):
        assert result[name] == expected[name], name
    assert_same(expected["groups"], result["groups"])
    assert_same(expected["groups"], in_json(list(read_result(path, schema).rows())))


def test_the_struct_notation_means_the_same_to_the_engine() -> None:
    schema = Schema.from_struct("<H2x4sq?", fields="a,t:text,v,o", by="t,o", agg="v:sum,a:max")
    options = ["--struct", "<H2x4sq?", "--fields", "a,t,v,o", "--by", "t,o"]
    records = [{"a": i, "t": "ab"[i % 2], "v": -i, "o": i % 3 == 0} for i in range(100)]
    with engine(1, *options, "--agg", "v:sum,a:max") as running:
        with RecordSender(schema, HOST, running.port) as sender:
            sender.send_many(records)
        (result,) = running.wait()
    assert result["status"] == "complete"
    assert_same(naive_groups(schema, records), result["groups"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        'endian = "big"\n[[field]]\nname = "a"\ntype = "u33"\n[result]\nby = ["a"]\n',
        '[[field]]\nname = "a"\ntype = "u16"\n[result]\nby = ["a"]\n',
        '[[field]]\nname = "count"\ntype = "u8"\n[result]\nby = ["count"]\n',
        '[[field]]\nname = "a"\ntype = "u8"\n[result]\nby = ["a", "a"]\n',
        '[[field]]\nname = "a"\ntype = "u8"\nbytes = 1\n[result]\nby = ["a"]\n',
        '[[field]]\nname = "a"\ntype = "text"\nbytes = 4096\n[result]\nby = ["a"]\n',
    ],
)
def test_the_engine_rejects_what_this_package_rejects(text: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        Schema.from_toml(text)
    path = tmp_path / "schema.toml"
    path.write_text(text, encoding="utf-8")
    command = [BINARY, "serve", "--no-messages", "--records-port", "0", "--admin-port", "0"]
    done = subprocess.run(
        [*command, "--schema", str(path)], capture_output=True, check=False, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    assert "schema.toml" in done.stderr
