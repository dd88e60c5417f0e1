"""test_head.py of the repository, the second implementation of schemas, against this package.

What it sends is read by the naive parser and grouped here; `--expect` has to say the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from naive_records import listener, naive_packets, naive_values, random_schema

from ringest import Schema, shown_text

TEST_HEAD = Path(__file__).parents[3] / "test_head.py"

pytestmark = pytest.mark.skipif(not TEST_HEAD.exists(), reason="test_head.py is not beside this")

# Of the bytes that seed 42 gave before there were schemas.
BUILT_IN_SHA256 = "6af392b32e81a5bc0b55d3700f728460f576b24d9be4ffb67d52033d53c2cddd"


def run_head(port: int, records: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs it with one connection."""
    command = [sys.executable, str(TEST_HEAD), "127.0.0.1", str(records), "--port", str(port)]
    return subprocess.run(
        [*command, "--connections", "1", *options], capture_output=True, check=False, text=True
    )


def sent_by(records: int, *options: str) -> bytes:
    """What it sends with these options."""
    with listener() as port:
        done = run_head(port.port, records, *options)
        assert done.returncode == 0, done.stderr
        return port.wait()


def aggregate(kind: str, function: str, values: list[Any]) -> Any:
    """A function of a group's values, by exact fractions."""
    exact = [Fraction(value) for value in values]
    total, count = sum(exact), len(exact)
    if function in ("min", "max"):
        return min(values) if function == "min" else max(values)
    if function in ("first", "last"):
        return values[0] if function == "first" else values[-1]
    if function == "mean":
        return float(total / count)
    if function == "sum":
        if kind in ("f32", "f64"):
            return float(total)
        low, high = (-(2**63), 2**63 - 1) if kind.startswith("i") else (0, 2**64 - 1)
        return int(total) if low <= total <= high else None
    if count < 2:
        return None
    variance = sum((one - total / count) ** 2 for one in exact) / (count - 1)
    return float(variance) if function == "var" else math.sqrt(variance)


def grouped(schema: Schema, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The result of records, in its order."""
    types = {field.name: field.type for field in schema.fields}

    def sort_key(record: dict[str, Any]) -> tuple[Any, ...]:
        values = (record[key] for key in schema.by)
        return tuple(
            value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            for value in values
        )

    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(sort_key(record), []).append(record)
    rows = []
    for _, members in sorted(groups.items()):
        row: dict[str, Any] = {}
        for key in schema.by:
            value = members[0][key]
            shown = shown_text(value) if types[key] == "text" else value
            row[key] = shown.hex() if isinstance(shown, bytes) else shown
        for one in schema.aggregates:
            if one.function == "count":
                row["count"] = len(members)
            else:
                values = [record[one.field] for record in members]
                row[one.column_name] = aggregate(types[one.field], one.function, values)
        rows.append(row)
    return rows


def assert_close(wanted: list[dict[str, Any]], got: list[dict[str, Any]]) -> None:
    """Equal, but for the last digits of numbers with a fraction."""
    assert len(wanted) == len(got)
    for one, other in zip(wanted, got, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            if isinstance(value, float):
                assert math.isclose(value, other[name], rel_tol=1e-12, abs_tol=1e-12), name
            else:
                assert (type(value), value) == (type(other[name]), other[name]), name


@pytest.mark.parametrize("seed", range(30))
def test_random_schemas_are_sent_and_expected(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    schema = random_schema(rng)
    path, expected_path = tmp_path / "schema.toml", tmp_path / "expected.json"
    path.write_text(schema.to_toml(), encoding="utf-8")
    count = rng.choice([1, 7, 3000])
    options = ["--schema", str(path), "--seed", str(seed)]
    options += ["--padding", rng.choice(["mixed", "nul", "space"])]
    expect = ["--expect", str(expected_path), "--packet-records", str(rng.choice([1, 4, 50]))]
    stream = sent_by(count, *options, *expect)
    packets, ended = naive_packets(schema, stream)
    assert ended == (schema.packet.end == "zero-record")
    records = [naive_values(schema, record) for packet in packets for record in packet]
    if ended:
        records.pop()
    assert len(records) == count
    connection = json.loads(expected_path.read_text())["connections"][0]
    assert (connection["records"], connection["packets"]) == (count, len(packets))
    assert connection["bytes"] == len(stream)
    assert_close(grouped(schema, records), connection["groups"])
    # Neither the size of packets nor whether anything is expected changes the records.
    again, _ = naive_packets(schema, sent_by(count, *options, "--packet-records", "9"))
    assert [r for packet in again for r in packet] == [r for packet in packets for r in packet]


def test_groups_and_paddings_are_many(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    schema = Schema.from_struct("<I8s?qx", fields="a,t,b,v", by="a,t,b", agg="v:sum,v:first")
    path.write_text(schema.to_toml(), encoding="utf-8")
    stream = sent_by(20_000, "--schema", str(path), "--seed", "5", "--padding", "mixed")
    records = [record for packet in naive_packets(schema, stream)[0] for record in packet]
    values = [naive_values(schema, record) for record in records[:-1]]
    groups = {(one["a"], one["t"], one["b"]) for one in values}
    assert len(groups) == 50
    texts = {record[4:12] for record in records}
    assert len(texts) > len({one["t"] for one in values})
    assert {record[12] for record in records} == {0, 1, 2, 0x80, 0xFF}
    # What is skipped is noise, so that whoever reads it is found out.
    assert len({record[-1] for record in records}) == 256
    rows = grouped(schema, values)
    sums = [row["v_sum"] for row in rows]
    assert None in sums
    assert sum(one is not None for one in sums) >= 40


def test_the_built_in_stream_is_what_it_was() -> None:
    options = ["--seed", "42", "--packet-records", "7", "--padding", "mixed"]
    assert hashlib.sha256(sent_by(5003, *options)).hexdigest() == BUILT_IN_SHA256
    named = sent_by(5003, *options, "--schema", "default")
    assert hashlib.sha256(named).hexdigest() == BUILT_IN_SHA256


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file"),
        ("a = ", "this is no TOML"),
        ("", "field is missing"),
        ('[[field]]\nname="a"\ntype="u9"\n[result]\nby=["a"]', "'u9' is no type"),
        ('[[field]]\nname="a"\ntype="u8"\n[result]\nby=["b"]', "there is no field 'b'"),
        ('[[field]]\nname="a"\ntype="f32"\n[result]\nby=["a"]', "a key is an integer"),
        ('[[field]]\nname="a"\ntype="u8"\n[result]\nby=["a"]\naggregates=["a:avg"]', "a:avg"),
        ('[[field]]\nname="a"\ntype="u8"\n[result]\nby=[]', "there is no key"),
        ('[[field]]\nname="a"\ntype="text"\nbytes=9\npadding=["x"]', "x is missing, or is no val"),
        ('field = 3\n[result]\nby=["a"]', "wrong type"),
    ],
)
def test_bad_schemas_are_told_why(text: str | None, why: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    done = run_head(1, 1, "--schema", str(path))
    assert done.returncode == 2
    assert "argument --schema: " in done.stderr
    assert why in done.stderr


def test_a_stream_without_a_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "schema.toml"
    text = '[packet]\nend="close"\n[[field]]\nname="a"\ntype="u8"\n[result]\nby=["a"]\n'
    path.write_text(text, encoding="utf-8")
    done = run_head(1, 0, "--schema", str(path))
    assert (done.returncode, "nothing would be sent" in done.stderr) == (2, True)
