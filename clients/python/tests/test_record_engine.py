"""The record sender against the real engine, with its built-in schema.

RINGEST_BIN=target/release/ringest python -m pytest tests/test_record_engine.py
"""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from engine_process import BINARY, engine

from ringest import ConnectError, ProtocolError, RecordSender, Schema

pytestmark = pytest.mark.skipif(not BINARY, reason="RINGEST_BIN does not name the ringest program")

HOST = "127.0.0.1"
SCHEMA = Schema.default()


def test_a_stream_is_complete_and_grouped() -> None:
    with engine(1) as running:
        with RecordSender(SCHEMA, HOST, running.port) as sender:
            sender.send_many((i % 3, i, 0.5, -i % 100, "pump") for i in range(1000))
            address = sender.local_address
        result = running.wait()[0]
    assert (result["status"], result["reason"]) == ("complete", None)
    assert result["peer"] == f"{address[0]}:{address[1]}"
    assert (result["records"], result["packets"]) == (sender.records, sender.packets)
    assert (result["bytes"], result["bytes_after_end"]) == (sender.bytes_sent, 0)
    assert result["groups"] == [
        {
            "A": a, "E": "pump", "B_mean": sum(range(a, 1000, 3)) / len(range(a, 1000, 3)),
            "C_sum": len(range(a, 1000, 3)) / 2.0, "D_min": 0, "count": len(range(a, 1000, 3)),
        }
        for a in range(3)
    ]  # fmt: skip


def test_a_stream_that_is_left_by_an_exception_is_incomplete() -> None:
    with engine(1, "--report-empty") as running:
        sender = RecordSender(SCHEMA, HOST, running.port, packet_records=1)
        with pytest.raises(ZeroDivisionError), sender:
            sender.send_many([(1, 2 // (1 - i), 0.5, 0, "pump") for i in range(2)])
        result = running.wait()[0]
    assert result["status"] == "incomplete"


def test_records_that_went_before_an_exception_are_reported() -> None:
    with engine(1) as running:
        sender = RecordSender(SCHEMA, HOST, running.port, packet_records=1)
        with pytest.raises(ZeroDivisionError), sender:
            sender.send_many((1, 2 // (1 - i), 0.5, 0, "pump") for i in range(2))
        result = running.wait()[0]
    assert (result["status"], result["reason"]) == ("incomplete", "closed_before_end")
    assert result["records"] == 1


def test_a_stream_over_tls(tmp_path: Path) -> None:
    directory = tmp_path / "certs"
    subprocess.run([BINARY, "gen-cert", "--dir", str(directory)], check=True, capture_output=True)
    options = ["--records-tls", "--cert", str(directory / "server.crt")]
    options += ["--key", str(directory / "server.key")]
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    with engine(3, *options) as running:
        with RecordSender(SCHEMA, "localhost", running.port, tls=context) as sender:
            sender.send_many((1, 2, 0.5, -3, "pump") for _ in range(1000))
        with pytest.raises(ConnectError, match=r"certificate of .* rejected"):
            RecordSender(SCHEMA, "localhost", running.port, tls=True).connect()
        plain = RecordSender(SCHEMA, HOST, running.port)
        plain.connect()
        with pytest.raises(ProtocolError, match="pass tls="):
            plain.finish()
        result = running.wait()[0]
    assert (result["status"], result["records"]) == ("complete", 1000)
    assert result["bytes"] == sender.bytes_sent
