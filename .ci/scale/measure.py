#!/usr/bin/env python3
"""Measures how many rows of partials per second a merge handles. Generates the partials itself.

    python3 .ci/scale/measure.py duckdb spark --files 1000 --groups 1000

Prints the size of the files and, for each merge, its seconds and rows per second, including the
start of the process. `ringest` can be measured too, if RINGEST_BIN names the program.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from datasets import DEFAULT, merge_plan, write_partial
from engines import merged_by
from histograms import encode_v2, new_histogram

BATCHES_A_CONNECTION = 100
STREAM_COLUMNS = pa.schema(
    {
        "node": pa.string(),
        "connection": pa.string(),
        "batch": pa.uint32(),
        "time_us": pa.int64(),
        "final": pa.bool_(),
        "status": pa.string(),
        "reason": pa.string(),
        "records": pa.uint64(),
        "packets": pa.uint64(),
        "bytes": pa.uint64(),
        "latency_v2": pa.binary(),
    }
)


def main() -> int:
    """Writes partials of the built-in schema and merges them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+", choices=["duckdb", "spark", "ringest"])
    parser.add_argument("--files", type=int, default=1000, help="batches, a file of groups each")
    parser.add_argument("--groups", type=int, default=1000, help="groups in each")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        write(directory, options.files, options.groups)
        rows = options.files * options.groups
        for kind in ("groups", "stream"):
            size = sum(file.stat().st_size for file in directory.glob(f"*.{kind}.parquet"))
            print(
                f"{kind}: {options.files} files, {size / 1e6:.1f} MB, {size / rows:.1f} bytes a row"
            )
        for engine in options.engines:
            seconds = sorted(timed(engine, directory, rows) for _ in range(options.rounds))
            median = seconds[len(seconds) // 2]
            spread = f"{seconds[0]:.1f} to {seconds[-1]:.1f} s"
            print(f"{engine}: {median:.1f} s ({spread}), {rows / median / 1e6:.2f} M rows/s")
    return 0


def timed(engine: str, directory: Path, rows: int) -> float:
    result = directory / f"result-{time.monotonic_ns()}"
    output = ["--output", str(result), "--output-format", "parquet"]
    started = time.monotonic()
    merged = merged_by(engine, [directory], *output)
    seconds = time.monotonic() - started
    assert merged["records"] == rows * 100, "wrong result"
    return seconds


def write(directory: Path, files: int, groups: int) -> None:
    """Each file has the same groups, with keys like those of `ringest send`."""
    (directory / "schema.toml").write_text(DEFAULT.toml())
    metadata = {"ringest.merge": json.dumps(merge_plan(DEFAULT))}
    rng = random.Random(1)
    values = {
        "count": pa.array([100] * groups, pa.uint64()),
        "sum_B": pa.array([rng.randrange(1 << 22) for _ in range(groups)], pa.uint64()),
        "mean_C": pa.array([rng.uniform(0, 1e38) for _ in range(groups)], pa.float64()),
        "rest_C": pa.array([rng.uniform(0, 1e22) for _ in range(groups)], pa.float64()),
        "min_D": pa.array([rng.randrange(-128, -100) for _ in range(groups)], pa.int8()),
    }
    keys = {
        "A": pa.array([i % 251 for i in range(groups)], pa.uint32()),
        "E": pa.array([f"meter north {i // 251}" for i in range(groups)], pa.string()),
    }
    histogram = new_histogram()
    for _ in range(10_000):
        histogram.record_value(int(rng.lognormvariate(10, 1)))
    for i in range(files):
        connection, batch = divmod(i, BATCHES_A_CONNECTION)
        identity = {
            "node": f"node-{connection % 4}",
            "connection": f"20261120T200201.123456Z-77-{connection}",
        }
        name = f"20261120T200201.123456Z-{identity['node']}-77-{connection}-{batch:06}"
        common = {column: pa.array([value] * groups) for column, value in identity.items()}
        common["batch"] = pa.array([batch] * groups, pa.uint32())
        common["time_us"] = pa.array([batch * 10_000_000] * groups, pa.int64())
        table = pa.table(common | keys | values).replace_schema_metadata(metadata)
        write_partial(table, directory / f"{name}.groups.parquet", compression="zstd")
        last = batch == BATCHES_A_CONNECTION - 1
        row = identity | {"batch": batch, "time_us": batch * 10_000_000, "final": last}
        row |= {"status": "complete" if last else None, "reason": None, "records": groups * 100}
        row |= {"packets": 10_000, "bytes": 0, "latency_v2": encode_v2(histogram)}
        stream = pa.Table.from_pylist([row], STREAM_COLUMNS)
        write_partial(stream, directory / f"{name}.stream.parquet", compression="zstd")


if __name__ == "__main__":
    sys.exit(main())
