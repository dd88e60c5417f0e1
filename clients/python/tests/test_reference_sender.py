"""test_head.py of the repository, the reference sender: its streams, and what it expects."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from naive_records import listener, naive_packets, naive_values
from naive_result import assert_groups_match, naive_groups
from repository import ROOT, in_repository_only

from ringest import Schema

pytestmark = in_repository_only

TEST_HEAD = ROOT / "test_head.py"
# Of the bytes for seed 42, which must never change: results of other releases are compared to them.
SEED_42_SHA256 = "6af392b32e81a5bc0b55d3700f728460f576b24d9be4ffb67d52033d53c2cddd"


def sent_by(records: int, *options: str) -> bytes:
    """The bytes that it sends over one connection."""
    with listener() as port:
        command = [sys.executable, str(TEST_HEAD), "127.0.0.1", str(records)]
        command += ["--port", str(port.port), "--connections", "1", *options]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
        return port.wait()


def test_a_seed_gives_the_same_bytes_in_every_release() -> None:
    stream = sent_by(5003, "--seed", "42", "--packet-records", "7", "--padding", "mixed")
    assert hashlib.sha256(stream).hexdigest() == SEED_42_SHA256


@pytest.mark.parametrize(("count", "padding"), [(0, "space"), (4, "nul"), (3001, "mixed")])
def test_what_it_expects_is_what_it_sends(count: int, padding: str, tmp_path: Path) -> None:
    path = tmp_path / "expected.json"
    options = ["--seed", "7", "--padding", padding, "--expect", str(path)]
    stream = sent_by(count, *options)
    schema = Schema.default()
    packets, ended = naive_packets(schema, stream)
    assert ended
    values = [naive_values(schema, record) for packet in packets for record in packet][:-1]
    (connection,) = json.loads(path.read_text())["connections"]
    assert (connection["records"], len(values)) == (count, count)
    assert (connection["packets"], connection["bytes"]) == (len(packets), len(stream))
    assert_groups_match(naive_groups(schema, values), connection["groups"])


def test_an_engine_that_uses_tls_is_recognized() -> None:
    """However little was sent: all of it fits into the kernel's buffers."""
    alert = bytes.fromhex("15 03 03 00 02 02 0a")
    with listener(alert) as port:
        command = [sys.executable, str(TEST_HEAD), "127.0.0.1", "3", "--port", str(port.port)]
        command += ["--connections", "1"]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        port.wait()
    assert done.returncode == 1
    assert "it answered, as with TLS (python3 -m ringest send --tls)" in done.stderr


def test_it_is_short_enough_to_read_and_needs_no_package() -> None:
    text = TEST_HEAD.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    lines = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].split(".")[0] for line in lines}
    assert modules <= sys.stdlib_module_names
