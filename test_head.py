#!/usr/bin/env python3
"""Sends random records to ringest: the reference sender ("test head"). It reads no results.

    python3 test_head.py HOST [RECORDS_PER_CONNECTION]

The whole protocol (docs/reference/protocol.md explains it):

    stream = packet, packet, ..., then close
    packet = length u32, record, record, ...    length counts the whole packet, itself included
    record = A u32, B u16, C binary32, D i8, E 256 bytes of padded text       267 bytes

All numbers are big-endian. The last record of the last packet consists of zero bytes and ends the
stream. The engine never replies, so "sent" means handed to the kernel; the engine's results say
what arrived. `--expect FILE` writes the exact results to compare them with.

The records depend only on the seed and the number of the connection. The Python package sends
records of other schemas, and sends over TLS: `python3 -m ringest send`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import signal
import socket
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from typing import Any, TextIO, cast

PACKET_LENGTH = struct.Struct(">I")
RECORD = struct.Struct(">IHfb256s")
END_RECORD = bytes(RECORD.size)
E_BYTES = 256
E_WORDS = ("amber", "birch", "copper", "delta", "ember")
C_MAX = 3.4e38
B_AND_D = struct.Struct(">Hb")
# Records drawn at once: not a packet's, so that the packet size does not change the records.
DRAW_RECORDS = 1024
CONNECT_TIMEOUT_S = 10.0


@dataclass(slots=True, eq=False)
class Group:
    """One pair of A and E, with its aggregates for `--expect`."""

    a: int
    e: str
    # The padded forms of `e` to choose from.
    e_fields: list[bytes]
    b_sum: int = 0
    # Rounded to binary32 on assignment, as C is on the wire.
    c_values: array[float] = field(default_factory=lambda: array("f"))
    d_min: int = 127

    def add(self, b: int, c: float, d: int) -> None:
        """Adds the values of one record."""
        self.b_sum += b
        self.c_values.append(c)
        self.d_min = min(self.d_min, d)

    def expected(self) -> dict[str, Any]:
        """The result for this group: the sum of C is exact and rounded once."""
        count = len(self.c_values)
        values = {"B_mean": self.b_sum / count, "C_sum": math.fsum(self.c_values)}
        return {"A": self.a, "E": self.e, **values, "D_min": self.d_min, "count": count}


def main() -> int:
    """Returns the exit code: 0 if every connection was sent to its end, else 1."""
    options = parse_arguments()
    for ending in (signal.SIGINT, signal.SIGTERM):
        # An ordinary exit: it ends the sending processes too.
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))
    print(f"seed {options.seed} (repeat this run with --seed {options.seed})", flush=True)
    sent: list[dict[str, Any]] = []
    started_s = time.monotonic()
    for number, outcome in send_from_processes(options):
        if isinstance(outcome, str):
            print(f"connection {number}: {outcome}", file=sys.stderr, flush=True)
        else:
            sent.append(outcome)
            amounts = "{local}: {records} records, {packets} packets, {bytes} bytes"
            print(f"connection {number} from", amounts.format_map(outcome), flush=True)
    duration_s, records = time.monotonic() - started_s, len(sent) * options.records
    total = f"{records} records in {duration_s:.3f} s, {records / duration_s:.0f} records/s"
    print(f"total of {len(sent)} of {options.connections} connections: {total}", flush=True)
    if options.expect is not None:
        sent.sort(key=lambda one: int(one["connection"]))
        with options.expect as file:
            json.dump({"seed": options.seed, "connections": sent}, file, indent=1)
    return 0 if len(sent) == options.connections else 1


def parse_arguments() -> argparse.Namespace:
    """Reads the command line; exits with code 2 if it is wrong."""
    defaults_shown = argparse.ArgumentDefaultsHelpFormatter
    about = "Sends random records of the built-in schema to ringest."
    parser = argparse.ArgumentParser(description=about, formatter_class=defaults_shown)
    add = parser.add_argument
    add("host", help="name or address of the engine")
    add("records", nargs="?", type=within(0), default=1_000_000, help="records per connection")
    add("--connections", type=within(1), default=10, metavar="N", help="one process for each")
    add("--port", type=within(1, 65_535), default=9000, help="the engine's port for records")
    add("--packet-records", type=within(1, 1_000_000), default=4, help="records per packet")
    add("--padding", choices=("space", "nul", "mixed"), default="space", help="what fills up E")
    add("--seed", type=int, help="repeats an earlier run; without it, a random seed is used")
    add("--expect", type=writable, metavar="FILE", help="write the expected results here, as JSON")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().getrandbits(32)
    return options


def within(low: int, high: int = 2**63) -> Callable[[str], int]:
    """Returns a parser of integers from `low` to `high`, both included."""

    def integer(text: str) -> int:
        if low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")

    return integer


def writable(path: str) -> TextIO:
    """Opens a file now, so that a path that cannot be written is found before the run."""
    try:
        return open(path, "w", encoding="ascii")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {error.strerror}") from error


def send_from_processes(options: argparse.Namespace) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Sends each connection from its own process; yields its number and outcome."""
    context = multiprocessing.get_context("fork")
    running: dict[Connection, int] = {}
    for number in range(options.connections):
        outcome, report = context.Pipe(duplex=False)
        context.Process(target=send_connection, args=(options, number, report), daemon=True).start()
        report.close()
        running[outcome] = number
    while running:
        for ready in wait(list(running)):
            outcome = cast(Connection, ready)
            number = running.pop(outcome)
            try:
                yield number, outcome.recv()
            except EOFError:
                yield number, "its process died; see its traceback, or what killed it"


def send_connection(options: argparse.Namespace, number: int, report: Connection) -> None:
    """Sends one stream, and reports its entry for `--expect`, or why it failed."""
    # A seed of text is hashed, so the streams of neighbouring connections are unrelated.
    rng = random.Random(f"{options.seed}/{number}")
    padding_rng = random.Random(f"{options.seed}/{number}/padding")
    groups = make_groups(rng, options.padding)
    drawn = draw_records(rng, padding_rng, groups, tally=options.expect is not None)
    records = chain(islice(drawn, options.records), [END_RECORD])
    packets = 0
    try:
        with connect(options) as sock:
            host, port = sock.getsockname()[:2]
            while body := b"".join(islice(records, options.packet_records)):
                sock.sendall(PACKET_LENGTH.pack(PACKET_LENGTH.size + len(body)) + body)
                packets += 1
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1):  # An engine only closes, but one with TLS sends an alert.
                raise ConnectionError("it answered, as with TLS (python3 -m ringest send --tls)")
    except (OSError, UnicodeError) as error:
        engine = f"{options.host}:{options.port}, without TLS"
        advice = f"is the engine running on {engine}? See its log"
        return report.send(f"{error} after {packets} packets: {advice}")
    groups.sort(key=lambda group: (group.a, group.e))
    entry = {
        "connection": number,
        "local": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "records": options.records,
        "packets": packets,
        "bytes": packets * PACKET_LENGTH.size + (options.records + 1) * RECORD.size,
        "groups": [group.expected() for group in groups if group.c_values],
    }
    report.send(entry)


def connect(options: argparse.Namespace) -> socket.socket:
    """Connects to the engine, or raises why the last of several attempts failed."""
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            sock = socket.create_connection((options.host, options.port), CONNECT_TIMEOUT_S)
            # From now on the engine may take its time: sendall waits.
            sock.settimeout(None)
            return sock
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > deadline_s:
                raise
        time.sleep(0.1)


def make_groups(rng: random.Random, padding: str) -> list[Group]:
    """The 125 groups of a connection: 5 values of A, with each of 25 texts of 2 words for E."""
    texts = [f"{first} {second}" for first in E_WORDS for second in E_WORDS]
    fields = {text: padded_fields(text.encode("ascii"), padding) for text in texts}
    return [Group(a, text, fields[text]) for a in rng.sample(range(1, 256), 5) for text in texts]


def padded_fields(text: bytes, padding: str) -> list[bytes]:
    """The forms of E that stand for `text`, all equally likely."""
    spaces, nuls = text.ljust(E_BYTES, b" "), text.ljust(E_BYTES, b"\x00")
    if padding != "mixed":
        return [spaces if padding == "space" else nuls]
    # NULs followed by spaces, with the border between them in eight places.
    borders = [len(text) + 1 + (E_BYTES - 2 - len(text)) * i // 7 for i in range(8)]
    both = [text.ljust(border, b"\x00").ljust(E_BYTES, b" ") for border in borders]
    return [spaces] * 8 + [nuls] * 8 + both


def draw_records(
    rng: random.Random, padding_rng: random.Random, groups: list[Group], *, tally: bool
) -> Iterator[bytes]:
    """Yields packed random records without end; `tally` adds each to its group."""
    forms = range(len(groups[0].e_fields))
    while True:
        drawn = zip(
            rng.choices(groups, k=DRAW_RECORDS),
            B_AND_D.iter_unpack(rng.randbytes(DRAW_RECORDS * B_AND_D.size)),
            [rng.random() * C_MAX for _ in range(DRAW_RECORDS)],
            # A generator of its own: the padding must not change the values.
            padding_rng.choices(forms, k=DRAW_RECORDS),
            strict=True,
        )
        for group, (b, d), c, form in drawn:
            if tally:
                group.add(b, c, d)
            yield RECORD.pack(group.a, b, c, d, group.e_fields[form])


if __name__ == "__main__":
    sys.exit(main())
