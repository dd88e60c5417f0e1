"""Two engines that write partials, one that gets everything in one stream, and one that is killed.

The records are generated here, and the expected results are computed from them alone. Which records
a batch holds, and when it began, is read from the files, so no test depends on timing.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import (
    DEFAULT,
    EVERYTHING,
    Layout,
    Record,
    Stream,
    counted,
    differences,
    expected,
    expected_latency,
    merge_plan,
    packed,
    random_records,
)
from engines import merged_by
from histograms import decode_v2, summary_us

pytestmark = pytest.mark.engine

READY_TIMEOUT_S = 30
STOP_TIMEOUT_S = 60
FILES_TIMEOUT_S = 120
INTERVAL_S = 1
PACKET_RECORDS = 7


class Engine:
    """A `serve` process, ended by its pid when the block ends."""

    def __init__(self, scratch: Path, name: str, *options: str) -> None:
        binary = os.environ["RINGEST_BIN"]
        self.results = scratch / f"{name}.ndjson"
        self.log = scratch / f"{name}.log"
        ports = ["--port", "0", "--records-port", "0", "--admin-port", "0"]
        arguments = [binary, "serve", "--host", "127.0.0.1", *ports, "--format", "ndjson", *options]
        with self.results.open("w") as results, self.log.open("w") as log:
            self.process = subprocess.Popen(arguments, stdout=results, stderr=log)
        self.port = self._ready_port()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _ready_port(self) -> int:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(r"ready for records on [0-9.]+:(\d+)", self.log.read_text())
            if found:
                return int(found[1])
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(f"the engine is not ready:\n{self.log.read_text()}")

    def stop(self) -> list[dict[str, Any]]:
        """Ends it gracefully and returns its results."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_TIMEOUT_S) == 0, self.log.read_text()
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    def kill(self) -> None:
        """Kills it, as a crash would."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), READY_TIMEOUT_S)


# ---- sending -------------------------------------------------------------------------------------


def packets(layout: Layout, records: Sequence[Record]) -> Iterator[bytes]:
    """A u32 length that includes itself, and the records."""
    for at in range(0, len(records), PACKET_RECORDS):
        body = b"".join(packed(layout, one) for one in records[at : at + PACKET_RECORDS])
        yield struct.pack(">I", len(body) + 4) + body


def end_packet(layout: Layout) -> bytes:
    record = packed(layout, {name: b"" if kind in ("text", "bytes") else 0
                             for name, kind in layout.fields.items()})  # fmt: skip
    assert not any(record)
    return struct.pack(">I", len(record) + 4) + record


def send_whole(layout: Layout, connection: socket.socket, records: Sequence[Record]) -> None:
    """Sends a whole stream."""
    for packet in packets(layout, records):
        connection.sendall(packet)
    finish(layout, connection)


def finish(layout: Layout, connection: socket.socket) -> None:
    """Sends the end record and waits until the engine has closed."""
    connection.sendall(end_packet(layout))
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(STOP_TIMEOUT_S)
    assert connection.recv(1) == b""
    connection.close()


# ---- what the files say --------------------------------------------------------------------------


def rows_of(directory: Path, kind: str) -> list[Record]:
    rows = []
    for file in sorted(directory.glob(f"[!.]*.{kind}.parquet")):
        rows += pq.ParquetFile(file).read().to_pylist()
    return rows


def streams_of(directory: Path, sent: dict[int, list[Record]]) -> list[Stream]:
    """The records sent, split into the existing batches. Connections are numbered from 1.

    Fails if the batches of a connection are not exactly the first part of what it sent.
    """
    sizes: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for row in rows_of(directory, "groups"):
        batches = sizes.setdefault((row["node"], row["connection"]), {})
        time_us, count = batches.get(row["batch"], (row["time_us"], 0))
        assert time_us == row["time_us"]
        batches[row["batch"]] = (time_us, count + row["count"])
    numbers = sorted(int(connection.rpartition("-")[2]) for _, connection in sizes)
    streams = []
    for (node, connection), batches in sizes.items():
        number = numbers.index(int(connection.rpartition("-")[2]))
        left = iter(sent[number])
        stream = Stream(node, connection, [])
        for batch in range(len(batches)):
            time_us, count = batches[batch]
            records = [record for _, record in zip(range(count), left, strict=False)]
            assert len(records) == count, "more records than were sent"
            stream.batches.append((time_us, records))
        streams.append(stream)
    return streams


def add_stream_rows(directory: Path, streams: Sequence[Stream]) -> None:
    """Latencies from the stream files, which must agree with the groups."""
    by_connection = {(one.node, one.connection): one for one in streams}
    for row in sorted(rows_of(directory, "stream"), key=lambda row: row["batch"]):
        stream = by_connection[row["node"], row["connection"]]
        if row["batch"] == len(stream.batches):
            # A batch without records has no groups.
            stream.batches.append((row["time_us"], []))
        assert row["records"] == len(stream.batches[row["batch"]][1])
        assert row["time_us"] == stream.batches[row["batch"]][0]
        stream.latencies.append(decode_v2(row["latency_v2"]))
        assert row["final"] == (row["batch"] == len(stream.batches) - 1)
        assert row["status"] == "complete" or not row["final"]


def in_order_of_time(streams: Sequence[Stream]) -> list[Record]:
    """All records in the order of a single stream."""
    batches = [
        ((time_us, stream.node, stream.connection, batch), records)
        for stream in streams
        for batch, (time_us, records) in enumerate(stream.batches)
    ]
    return [one for _, records in sorted(batches, key=lambda one: one[0]) for one in records]


# ---- the tests -----------------------------------------------------------------------------------


def partials_options(layout: Layout, scratch: Path, node: str) -> list[str]:
    directory = scratch / node
    directory.mkdir(exist_ok=True)
    options = ["--node", node, "--partials", str(directory)]
    return [*options, "--partials-interval", f"{INTERVAL_S}s", *schema_options(layout, scratch)]


def schema_options(layout: Layout, scratch: Path) -> list[str]:
    """The schema option; the built-in schema needs none."""
    if layout is DEFAULT:
        return []
    (scratch / "ci.toml").write_text(layout.toml())
    return ["--schema", str(scratch / "ci.toml")]


def send_to_both(layout: Layout, engines: Sequence[Engine], rng: random.Random) -> list[Any]:
    """Sends over two connections to each engine, in phases an interval apart. Returns what each
    engine received."""
    records = random_records(layout, rng, 1200)
    sent: list[dict[int, list[Record]]] = [{0: [], 1: []} for _ in engines]
    with ExitStack() as stack:
        connections = []
        for place, engine in enumerate(engines):
            for number in range(2):
                connections.append((place, number, stack.enter_context(engine.connect())))
        for phase in range(3):
            time.sleep(INTERVAL_S * 1.2 if phase else 0)
            for i, (place, number, connection) in enumerate(connections):
                part = records[(phase * 4 + i) * 100 :][:100]
                sent[place][number] += part
                for packet in packets(layout, part):
                    connection.sendall(packet)
        for _, _, connection in connections:
            finish(layout, connection)
    return sent


@pytest.mark.parametrize(
    ("layout", "engines"),
    [
        (DEFAULT, ["ringest", "duckdb"]),
        (EVERYTHING, ["ringest", "duckdb"]),
        pytest.param(DEFAULT, ["spark-cluster"], marks=pytest.mark.spark),
    ],
    ids=["default", "everything", "spark"],
)
def test_two_engines_merged_are_one_engine_over_the_union(
    layout: Layout, engines: list[str], tmp_path: Path
) -> None:
    with (
        Engine(tmp_path, "a", *partials_options(layout, tmp_path, "a")) as a,
        Engine(tmp_path, "b", *partials_options(layout, tmp_path, "b")) as b,
    ):
        sent = send_to_both(layout, [a, b], random.Random(1))
        assert all(one["status"] == "complete" for one in a.stop() + b.stop())
    directories = [tmp_path / "a", tmp_path / "b"]
    streams = []
    for directory, sent_there in zip(directories, sent, strict=True):
        found = streams_of(directory, sent_there)
        assert {len(records) for records in sent_there.values()} == {300}
        assert sum(len(records) for one in found for _, records in one.batches) == 600
        add_stream_rows(directory, found)
        streams += found
        for file in directory.glob("[!.]*.groups.parquet"):
            metadata = pq.read_metadata(file).metadata
            assert json.loads(metadata[b"ringest.merge"]) == merge_plan(layout)
    print(f"{counted(streams)['batches']} batches of 4 connections")

    with Engine(tmp_path, "union", *schema_options(layout, tmp_path)) as engine:
        send_whole(layout, engine.connect(), in_order_of_time(streams))
        (union,) = engine.stop()
    assert not differences(expected(layout, streams, layout.keys), union["groups"])
    for name in engines:
        merged = merged_by(name, directories)
        assert not differences(union["groups"], merged["groups"]), name
        summary = {key: merged[key] for key in ("nodes", "connections", "batches", "records")}
        assert summary == counted(streams), name
        assert merged["latency_us"] == summary_us(expected_latency(streams)), name


@pytest.mark.parametrize(
    "name", ["ringest", "duckdb", pytest.param("spark", marks=pytest.mark.spark)]
)
def test_an_engine_killed_in_mid_batch_counts_nothing_twice(name: str, tmp_path: Path) -> None:
    layout = DEFAULT
    options = partials_options(layout, tmp_path, "a")
    directory = tmp_path / "a"
    records = random_records(layout, random.Random(2), 70_000)
    with Engine(tmp_path, "killed", *options) as engine:
        senders = [SlowSender(layout, engine, records[number::2]) for number in range(2)]
        wait_for_files(directory, senders)
        engine.kill()
        sent = {number: sender.stop() for number, sender in enumerate(senders)}
    streams = streams_of(directory, sent)
    lost = sum(map(len, sent.values())) - counted(streams)["records"]
    print(f"killed: {counted(streams)['records']} records in whole batches, {lost} lost")
    assert counted(streams)["records"] > 0
    merged = merged_by(name, [directory])
    assert not differences(expected(layout, streams, layout.keys), merged["groups"])

    # The same node and directory again; one sender starts over.
    with Engine(tmp_path, "again", *options) as engine:
        send_whole(layout, engine.connect(), sent[0])
        engine.stop()
    check_after_the_resend(name, directory, streams, sent[0])


def check_after_the_resend(
    name: str, directory: Path, before: Sequence[Stream], resent: list[Record]
) -> None:
    """The whole stream arrived. Earlier batches count again; `final` tells them apart."""
    there = {(one.node, one.connection) for one in before}
    row = max(rows_of(directory, "groups"), key=lambda row: row["time_us"])
    assert (row["node"], row["connection"]) not in there
    whole = Stream(row["node"], row["connection"], [(row["time_us"], resent)])
    finals = {row["connection"] for row in rows_of(directory, "stream") if row["final"]}
    assert finals == {whole.connection}
    merged = merged_by(name, [directory])
    wanted = expected(DEFAULT, [*before, whole], DEFAULT.keys)
    assert not differences(wanted, merged["groups"])
    if name == "ringest":
        return
    merged = merged_by(name, [directory], "--complete-only")
    assert not differences(expected(DEFAULT, [whole], DEFAULT.keys), merged["groups"])
    assert merged["connections"] == 1


class SlowSender:
    """Sends packets in its own thread until stopped or refused."""

    def __init__(self, layout: Layout, engine: Engine, records: list[Record]) -> None:
        self._layout, self._records = layout, records
        self._connection = engine.connect()
        self._stopped = threading.Event()
        self._begun = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for packet in packets(self._layout, self._records):
            if self._stopped.wait(0.002):
                return
            # A partly sent packet may have arrived.
            self._begun += PACKET_RECORDS
            try:
                self._connection.sendall(packet)
            except OSError:
                return

    def stop(self) -> list[Record]:
        """The records that may have been received."""
        self._stopped.set()
        self._thread.join()
        self._connection.close()
        return self._records[: self._begun]


def wait_for_files(directory: Path, senders: Sequence[SlowSender]) -> None:
    """Waits until each connection has a batch in files of both kinds."""
    deadline = time.monotonic() + FILES_TIMEOUT_S
    while time.monotonic() < deadline:
        connections = {row["connection"] for row in rows_of(directory, "stream")}
        if len(connections) == len(senders):
            return
        time.sleep(0.05)
    raise AssertionError("no batch was written")
