"""Sends seeded streams, each from its own process, and yields their outcomes. Prints nothing."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeAlias, cast

from ringest.errors import ConnectError, RingestError
from ringest.expected_result import expected_groups
from ringest.record_sender import RecordSender
from ringest.schema import Schema
from ringest.seeded_records import Padding, SeededRecords
from ringest.tls_files import TlsFiles, TlsFilesError

CONNECT_RETRY_S: Final = 0.1
# How many records are generated before they are sent, in whole packets.
BLOCK_RECORDS: Final = 1024


@dataclass(frozen=True, slots=True)
class SendPlan:
    """The options of all processes. It must be picklable, so the schema is in its TOML form."""

    host: str
    port: int
    connections: int
    records: int
    packet_records: int
    padding: Padding
    seed: int
    connect_timeout_s: float
    expects: bool
    schema_toml: str
    # None: without TLS.
    tls: TlsFiles | None


@dataclass(frozen=True, slots=True)
class StreamSent:
    """A stream that was sent to its end; `groups` is its expected result, if asked for."""

    connection: int
    local: str
    records: int
    packets: int
    bytes: int
    groups: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """A stream that was not sent to its end."""

    connection: int
    reason: str


StreamOutcome: TypeAlias = StreamSent | StreamFailed


def send_streams(plan: SendPlan) -> Iterator[StreamOutcome]:
    """Starts a process for each connection; yields each outcome as soon as it is known."""
    running: dict[Connection, int] = {}
    for number in range(plan.connections):
        outcome, report = multiprocessing.Pipe(duplex=False)
        # Daemonic, so that they end together with this process.
        arguments = plan, number, report
        multiprocessing.Process(target=_run_process, args=arguments, daemon=True).start()
        # Now only the process holds this end, so the pipe ends together with it.
        report.close()
        running[outcome] = number
    while running:
        for ready in wait(list(running)):
            outcome = cast(Connection, ready)
            number = running.pop(outcome)
            try:
                yield outcome.recv()
            except EOFError:
                reason = "its process died; see its traceback, or what killed it"
                yield StreamFailed(number, reason)


def exit_on_signals() -> None:
    """Turns SIGINT and SIGTERM into an ordinary exit, which also ends daemonic processes."""
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda number, _frame: sys.exit(128 + number))


def _run_process(plan: SendPlan, number: int, report: Connection) -> None:
    exit_on_signals()
    try:
        outcome: StreamOutcome = _send_stream(plan, number)
    except (RingestError, TlsFilesError) as error:
        outcome = StreamFailed(number, str(error))
    report.send(outcome)


def _send_stream(plan: SendPlan, number: int) -> StreamSent:
    schema = Schema.from_toml(plan.schema_toml)
    records = SeededRecords(schema, plan.seed, number, plan.padding, tally=plan.expects)
    sender = RecordSender(
        schema,
        plan.host,
        plan.port,
        tls=None if plan.tls is None else plan.tls.context(),
        server_hostname=None if plan.tls is None else plan.tls.server_name,
        packet_records=plan.packet_records,
        timeout_s=None,
    )
    block_records = plan.packet_records * max(1, BLOCK_RECORDS // plan.packet_records)
    _connect(sender, plan.connect_timeout_s)
    try:
        for begin in range(0, plan.records, block_records):
            sender.send_array(records.take(min(block_records, plan.records - begin)))
        sender.finish()
    finally:
        sender.close()
    host, port = sender.local_address
    return StreamSent(
        connection=number,
        local=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        records=sender.records,
        packets=sender.packets,
        bytes=sender.bytes_sent,
        groups=expected_groups(schema, records) if plan.expects else [],
    )


def _connect(sender: RecordSender, timeout_s: float) -> None:
    """Connects, and tries again while the engine does not accept connections yet."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            sender.connect()
            return
        except ConnectError as error:
            refused = isinstance(error.__cause__, ConnectionRefusedError)
            if not refused or time.monotonic() + CONNECT_RETRY_S > deadline_s:
                raise
        time.sleep(CONNECT_RETRY_S)
