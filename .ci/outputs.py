"""Reads the result files of `ringest serve --output` in every format with pyarrow, csv and json, and
compares them with what a few lines of Python compute from the same records. Called by outputs.sh
with the program."""

import csv
import json
import math
import random
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

RECORD = struct.Struct(">IHfb256s")
TYPES = {
    "A": pa.uint32(),
    "E": pa.large_string(),
    "B_mean": pa.float64(),
    "C_sum": pa.float64(),
    "D_min": pa.int8(),
    "count": pa.uint64(),
}
# Of `--output-columns`, each in the place where it is listed.
ADDED = {"connection": pa.uint64(), "peer": pa.large_string(), "status": pa.large_string()}
ALL = ADDED | TYPES


def make_records(count: int) -> list[tuple]:
    """Records whose sums are exact in any order, and some whose sums are NaN or infinite."""
    chance = random.Random(count)
    records = []
    for _ in range(count):
        text = chance.choice([b"pump", b"", b"a,b", b'quo"te', b"\xff\x1b\\n", b"x" * 256])
        value = chance.choice([0.25, -3.5, 1024.0])
        records.append((chance.randrange(3), chance.randrange(65536), value,
                        chance.randrange(-128, 128), text))
    if count:
        records += [(2**32 - 1, 65535, value, 127, b"odd") for value in (math.inf, -math.inf)]
        records += [(2**32 - 1, 1, math.inf, 127, b"inf"), (7, 1, -math.inf, 0, b"-inf")]
    return records


def expected_rows(records: list[tuple]) -> list[dict]:
    groups: dict[tuple, list[tuple]] = {}
    for record in records:
        groups.setdefault((record[0], record[4].rstrip(b"\0 ")), []).append(record)
    return [
        {
            "A": a,
            "E": "".join("\\\\" if byte == 92 else chr(byte) if 32 <= byte < 127
                         else f"\\x{byte:02x}" for byte in text),
            "B_mean": sum(record[1] for record in group) / len(group),
            "C_sum": sum(record[2] for record in group),
            "D_min": min(record[3] for record in group),
            "count": len(group),
        }
        for (a, text), group in sorted(groups.items())
    ]


def stream(records: list[tuple], complete: bool) -> bytes:
    packed = [RECORD.pack(*record[:4], record[4].ljust(256)) for record in records]
    packets = [b"".join(packed[i:i + 50]) for i in range(0, len(packed), 50)]
    if complete:
        packets.append(bytes(RECORD.size))
    return b"".join(struct.pack(">I", 4 + len(packet)) + packet for packet in packets)


def read(path: Path) -> tuple[pa.Schema | None, dict, list[dict]]:
    """Schema, metadata and rows of a file; formats without types have rows only."""
    if path.suffix == ".parquet":
        table = pa.parquet.read_table(path)
        metadata = pa.parquet.read_metadata(path).metadata
        return table.schema, metadata, table.to_pylist()
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            return table.schema, table.schema.metadata, table.to_pylist()
    if path.suffix == ".ndjson":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            assert reader.fieldnames == list(ALL), reader.fieldnames
    numbers = {"A": int, "B_mean": float, "C_sum": float, "D_min": int, "count": int,
               "connection": int}
    return None, {}, [{**row, **{key: of(row[key]) for key, of in numbers.items()}} for row in rows]


def same(left: object, right: object) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and left != left and right != right
    return left == right or both_nan


def check(path: Path, result: dict, records: list[tuple]) -> None:
    schema, metadata, rows = read(path)
    expected = expected_rows(records)
    assert len(rows) == len(expected) == len(result["groups"]), (path, len(rows))
    added = {key: result[key] for key in ADDED}
    for row, right in zip(rows, expected):
        right = added | right
        assert list(row) == list(ALL), row
        assert all(same(row[key], right[key]) for key in ALL), (path, row, right)
    if schema is None:
        return
    types = {field.name: field.type for field in schema}
    assert types == ALL, schema
    said = {key.decode(): value.decode() for key, value in metadata.items()}
    for key in ("connection", "peer", "status", "records"):
        assert said[f"ringest.{key}"] == str(result[key]), (key, said)
    assert said["ringest.reason"] == (result["reason"] or ""), said
    assert said["ringest.schema"] == "default" and said["ringest.node"] == "ci", said
    assert said["ringest.started"].endswith("Z") and said["ringest.version"], said


def main() -> None:
    program = sys.argv[1]
    for file_format in ("parquet", "arrow", "csv", "ndjson"):
        with tempfile.TemporaryDirectory() as directory:
            serve = [program, "serve", "--host", "127.0.0.1", "--records-port", "0", "--no-messages",
                     "--admin-port", "0", "--format", "ndjson", "--exit-after", "3", "--node", "ci",
                     "--output", directory, "--output-format", file_format,
                     "--output-columns", ",".join(ADDED)]
            engine = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            line = next(line for line in engine.stderr if "ready for records" in line)
            port = int(line.split(" on ")[1].split(" ")[0].rsplit(":", 1)[1])
            streams = [(make_records(20_000), True), (make_records(300), False), ([], True)]
            for records, complete in streams:
                with socket.create_connection(("127.0.0.1", port)) as sender:
                    sender.sendall(stream(records, complete))
                result = json.loads(engine.stdout.readline())
                assert result["status"] == ("complete" if complete else "incomplete"), result
                check(Path(result["file"]), result, records)
            engine.communicate(timeout=60)
            # One of the three was not complete.
            assert engine.returncode == 1, engine.returncode
            print(f"{file_format}: {len(streams)} files are as expected")


if __name__ == "__main__":
    main()
