"""The example in docs/examples, against a stand-in for the engine that groups one stream.

With the real program it is run by .ci/python.sh and tests/python_client.rs of the repository.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT, in_repository_only

EXAMPLE = ROOT / "docs/examples/accelerometer.py"

pytestmark = in_repository_only

# Accepts the options of `ringest serve` that the example uses, and writes the result of one stream.
STAND_IN = """
import argparse, socket, statistics, sys
import pyarrow, pyarrow.parquet
from naive_records import naive_packets, naive_values
from ringest import Schema

parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["serve"])
for option in ("schema", "host", "records-port", "admin-port", "exit-after", "output"):
    parser.add_argument("--" + option, required=True)
parser.add_argument("--output-format", choices=["parquet"])
parser.add_argument("--no-messages", action="store_true")
arguments = parser.parse_args()
schema = Schema.from_file(arguments.schema)
with socket.create_server((arguments.host, int(arguments.records_port))) as listener:
    port = listener.getsockname()[1]
    print(f"ringest: ready for records on 127.0.0.1:{port} with 1 worker", file=sys.stderr)
    sys.stderr.flush()
    connection, _ = listener.accept()
    stream = b""
    while data := connection.recv(1 << 16):
        stream += data
groups = {}
for packet in naive_packets(schema, stream)[0]:
    for values in (naive_values(schema, record) for record in packet):
        groups.setdefault((values["sensor"], values["second"]), []).append(values)
columns = {column.name: [] for column in schema.result_columns}
for key, members in sorted(groups.items()):
    z = [one["z"] for one in members]
    row = (*key, statistics.mean(z), min(z), max(z), statistics.stdev(z))
    row += (members[-1]["temperature"], len(z))
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)
name = "20261120T200201.123456Z-stand-in-1-1.parquet"
pyarrow.parquet.write_table(pyarrow.table(columns), f"{arguments.output}/.{name}.tmp")
import os
os.rename(f"{arguments.output}/.{name}.tmp", f"{arguments.output}/{name}")
"""


def test_the_example_runs_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("matplotlib")
    stand_in = tmp_path / "ringest"
    stand_in.write_text(f"#!{sys.executable}\n{STAND_IN}")
    stand_in.chmod(0o700)
    plot = tmp_path / "plot.png"
    tests = Path(__file__).parent
    environment = os.environ | {
        "RINGEST_BIN": str(stand_in),
        "MPLBACKEND": "Agg",
        "PLOT": str(plot),
        "PYTHONPATH": f"{tests.parent / 'src'}:{tests}",
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sent 18000 records" in done.stdout
    assert "complete at 2026-11-20 20:02:01.123456+00:00: 180 groups" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
