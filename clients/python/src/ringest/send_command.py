"""The command `python3 -m ringest send`: sends seeded records of any schema to an engine.

It reads the command line and prints the outcome; `send_processes` does the work.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from ringest.errors import SchemaError, counted
from ringest.record_packets import packet_records_limit
from ringest.schema import Schema
from ringest.send_processes import (
    SendPlan,
    StreamSent,
    exit_on_signals,
    send_streams,
)
from ringest.target import PORT_MAX
from ringest.tls_files import TlsFiles, TlsFilesError


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 if every stream was sent to its end, else 1; 2 for wrong usage."""
    options = _parse_arguments(arguments)
    plan = _plan_of(options)
    exit_on_signals()
    print(f"seed {plan.seed} (repeat this run with --seed {plan.seed})", flush=True)
    started_s = time.monotonic()
    sent: list[StreamSent] = []
    # How many connections failed for each reason.
    failed: Counter[str] = Counter()
    for outcome in send_streams(plan):
        if isinstance(outcome, StreamSent):
            sent.append(outcome)
            _print_sent(outcome)
        else:
            failed[outcome.reason] += 1
            # At once, but not again for each of them.
            if failed[outcome.reason] == 1:
                _complain(f"connection {outcome.connection}: {outcome.reason}")
    for reason, count in failed.items():
        if count > 1:
            _complain(f"{count} connections failed in this way: {reason}")
    duration_s, records = time.monotonic() - started_s, sum(one.records for one in sent)
    rate = f"{duration_s:.3f} s, {records / duration_s:.0f} records/s"
    total = f"{counted(records, 'record')} in {rate}"
    print(f"total of {len(sent)} of {plan.connections} connections: {total}", flush=True)
    expected = options.expect is None or _write_expected(options.expect, plan.seed, sent)
    return 0 if expected and len(sent) == plan.connections else 1


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_sent(stream: StreamSent) -> None:
    records, packets = counted(stream.records, "record"), counted(stream.packets, "packet")
    amounts = f"{records}, {packets}, {counted(stream.bytes, 'byte')}"
    print(f"connection {stream.connection} from {stream.local}: {amounts}", flush=True)


def _write_expected(file: TextIO, seed: int, sent: list[StreamSent]) -> bool:
    """Writes the expected results; failed connections have none. False if that fails."""
    sent.sort(key=lambda one: one.connection)
    try:
        with file:
            json.dump({"seed": seed, "connections": [asdict(one) for one in sent]}, file, indent=1)
            file.write("\n")
    except OSError as error:
        _complain(f"cannot write --expect {file.name}: {error.strerror}")
        return False
    return True


def _plan_of(options: argparse.Namespace) -> SendPlan:
    schema: Schema = options.schema
    seed: int | None = options.seed
    return SendPlan(
        host=options.host,
        port=options.port,
        connections=options.connections,
        records=options.records,
        packet_records=min(options.packet_records, packet_records_limit(schema)),
        padding=options.padding,
        seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
        connect_timeout_s=options.connect_timeout,
        expects=options.expect is not None,
        schema_toml=schema.to_toml(),
        tls=options.tls_files,
    )


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m ringest", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = "send random records of a schema to an engine"
    send = commands.add_parser(
        "send",
        help=about,
        description=f"{about.capitalize()}.",
        allow_abbrev=False,
    )
    _add_options(send)
    options = parser.parse_args(arguments)
    if options.schema is None:
        options.schema = Schema.default()
    if options.records == 0 and options.schema.packet.end == "close":
        send.error('--records 0, but with end = "close" a stream needs at least one record')
    options.tls_files = _tls_files(send, options)
    return options


def _tls_files(send: argparse.ArgumentParser, options: argparse.Namespace) -> TlsFiles | None:
    """The files for TLS, which are usable; None without TLS."""
    files = TlsFiles(options.ca, options.cert, options.key, options.server_name)
    if not options.tls:
        for name, value in asdict(files).items():
            if value is not None:
                send.error(f"--{name.replace('_', '-')} only applies to TLS: add --tls")
        return None
    if (files.cert is None) != (files.key is None):
        send.error("--cert and --key go together: give both, or none")
    try:
        files.context()
    except TlsFilesError as error:
        send.error(str(error))
    return files


def _add_options(send: argparse.ArgumentParser) -> None:
    def add(name: str, text: str, **options: Any) -> None:
        shown = "" if options.get("default") is None else " (default: %(default)s)"
        send.add_argument(name, help=text + shown, **options)

    schema_help = "TOML file with the schema that the engine uses (default: the built-in record)"
    add("--schema", schema_help, type=_schema, metavar="FILE")
    add("--host", "address or name of the engine", type=_host, default="127.0.0.1")
    add("--port", "the engine's port for records", type=_integer(1, PORT_MAX), default=9000)
    connections_help = "connections, each from its own process"
    add("--connections", connections_help, type=_integer(1), default=10, metavar="N")
    records_help = "records for each connection"
    add("--records", records_help, type=_integer(0), default=1_000_000, metavar="N")
    packet_help = "records per packet, or as many as the schema allows; each packet is one write"
    add("--packet-records", packet_help, type=_integer(1), default=4, metavar="N")
    padding_help = "padding of texts that the schema allows to end with NUL or space"
    add("--padding", padding_help, choices=("space", "nul", "mixed"), default="space")
    add("--seed", "repeats an earlier run (default: random)", type=int, metavar="N")
    add("--expect", "write the expected results to a JSON file", type=_writable, metavar="FILE")
    timeout_help = "how long to retry while the engine refuses connections"
    add("--connect-timeout", timeout_help, type=_seconds, default=10.0, metavar="SECONDS")
    add("--tls", "use TLS, for engines with --records-tls", action="store_true")
    ca_help = "PEM file of the authorities to trust (default: those that this machine trusts)"
    add("--ca", ca_help, metavar="FILE")
    add(
        "--cert", "PEM file of the client certificate, for engines that ask for one", metavar="FILE"
    )
    add("--key", "PEM file of its private key", metavar="FILE")
    name_help = "name that the engine's certificate must have (default: the host)"
    add("--server-name", name_help, metavar="NAME")


def _schema(path: str) -> Schema:
    try:
        return Schema.from_file(path)
    except (OSError, SchemaError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _host(text: str) -> str:
    """A host without the brackets of an IPv6 address."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not host:
        raise argparse.ArgumentTypeError("the host is empty")
    return host


def _integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of integers from `low` to `high`, both included."""

    def integer(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{value} is not {limits}")
        return value

    return integer


def _seconds(text: str) -> float:
    value = float(text)
    # NaN is not in the range either.
    if not 0.0 <= value <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 86400")
    return value


def _writable(path: str) -> TextIO:
    """Opens a file now, so that a path that cannot be written is found before the run."""
    try:
        return open(path, "w", encoding="ascii")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {error.strerror}") from error
