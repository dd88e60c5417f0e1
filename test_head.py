#!/usr/bin/env python3
"""Sends generated records to ringest over TCP; it reads no reply and judges no result.

The reference sender ("test head"), standard library only. Each connection is a process of its own
that connects once, sends its records in packets, ends with the all-zero record, and closes:

    python3 test_head.py <target> [number_of_records]

Wire format (docs/PROTOCOL.md): a packet is a u32 with the length of the whole packet, its own four
bytes included, and then n records of 267 bytes: A u32, B u16, C binary32, D i8, E 256 bytes with
padding; all numbers big-endian. The all-zero record is the last record of the last packet.

What "sent" means: the bytes were handed to the kernel. The protocol has no reply, so a stream short
enough to fit in the socket buffers counts as sent even if the engine rejects it later. Whether all
of it was aggregated, the engine tells; `--expect` writes the answer to compare with.

The records depend on `--seed` and on the number of the connection only, not on the packet size or
the padding, so that runs that differ in these two must give the same result.

With `--schema FILE` the records, their framing and what is expected of them are those of a schema
in the TOML form that `ringest serve --schema` takes. This file reads that form by itself, so that
two implementations have to agree; it checks what it needs, `ringest schema check` checks the rest.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import signal
import socket
import statistics
import struct
import sys
import time
import tomllib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, product, repeat
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TextIO, TypeAlias

TLV: Final = struct.Struct(">I")
RECORD: Final = struct.Struct(">IHfb256s")
E_BYTES: Final = 256
assert RECORD.size == 4 + 2 + 4 + 1 + E_BYTES == 267
assert TLV.size + 4 * RECORD.size == 1072

# The most records whose packet length still fits into the u32 in front of them.
PACKET_RECORDS_MAX: Final = (2**32 - 1 - TLV.size) // RECORD.size

A_RANGE: Final = range(1, 256)
A_VALUES: Final = 5
E_WORDS: Final = ("amber", "birch", "copper", "delta", "ember")
C_MAX: Final = 3.4e38
D_MAX: Final = 127

# B and D of one record, cut from random bytes: uniform over u16 and i8 without arithmetic.
B_AND_D: Final = struct.Struct(">Hb")

# Records drawn at once. It is a constant, and not the packet size, because the random generator
# must be asked for the same amounts whatever the packet size, to give the same records.
DRAW_RECORDS: Final = 1024

# How many different places the border between NUL and space has when padding is mixed.
MIXED_BORDERS: Final = 8

CONNECT_RETRY_S: Final = 0.1
CONNECT_TIMEOUT_S_MAX: Final = 86_400.0

# A socket timeout of 0 would mean "do not block", so that the last attempt gets at least this.
CONNECT_ATTEMPT_S_MIN: Final = 0.1

# SO_LINGER switched on with a time of 0: close() then drops the connection at once.
LINGER_ABORT: Final = struct.pack("ii", 1, 0)

Padding: TypeAlias = Literal["space", "nul", "mixed"]

# The types of a schema's fields that are numbers: struct's code, and how many bytes they have.
NUMBERS: Final = {
    "u8": ("B", 1), "u16": ("H", 2), "u32": ("I", 4), "u64": ("Q", 8), "i8": ("b", 1),
    "i16": ("h", 2), "i32": ("i", 4), "i64": ("q", 8), "f32": ("f", 4), "f64": ("d", 8),
    "bool": ("B", 1),
}  # fmt: skip
FLOATS: Final = ("f32", "f64")
FUNCTIONS: Final = ("sum", "mean", "min", "max", "first", "last", "var", "std")
LENGTHS: Final = {"u32": "I", "u16": "H", "none": ""}
PADDING_BYTES: Final = {"nul": b"\x00", "space": b" "}

# Values that each key of a schema takes, and the groups that are made of them at most.
KEY_VALUES: Final = 5
GROUPS_MAX: Final = 125
# How many different ways a group's keys are sent in: paddings of texts, and bytes that are true.
KEY_FORMS: Final = 24
TEXT_ALPHABET: Final = b"abcdefghijklmnopqrstuvwxyz 0123456789\\\x00\xe9~"
TEXT_VALUE_MAX: Final = 12
TRUE_BYTES: Final = (1, 2, 0x80, 0xFF)
FLOAT_MAX: Final = 1000.0
# Bits that most groups' 64-bit values lack, so that their sums fit into 64 bits. In every fifth
# group values are of the whole range, and sums mostly do not fit.
WIDE_SHIFT: Final = 24
WIDE_EVERY: Final = 5


class StreamError(Exception):
    """A connection that could not be opened or finished; its text names cause and next step."""


class SchemaError(Exception):
    """A schema that cannot be read; its text names the rule."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What stands in front of the records of a packet, and what ends a stream."""

    record_bytes: int
    # None: bare records, each a packet of its own.
    length: struct.Struct | None
    includes_itself: bool
    # 1 if a record of zeros ends the stream, 0 if closing does.
    end_records: int

    @property
    def header_bytes(self) -> int:
        """Bytes in front of the records."""
        return 0 if self.length is None else self.length.size

    @property
    def packet_records_max(self) -> int:
        """Records whose packet still fits its length; bare ones are only written together."""
        if self.length is None:
            return 1 << 20
        return int((256**self.length.size - 1 - self.length.size) // self.record_bytes)

    def write_length(self, packet: bytearray, packet_bytes: int) -> None:
        """Writes the length of a packet, given with the bytes of the length itself."""
        if self.length is not None:
            own = 0 if self.includes_itself else self.length.size
            self.length.pack_into(packet, 0, packet_bytes - own)

    def packets(self, packets_sent: int, records: int) -> int:
        """The packets that an engine counts."""
        return packets_sent if self.length is not None else records + self.end_records


BUILT_IN: Final = Framing(RECORD.size, TLV, True, 1)


@dataclass(frozen=True, slots=True)
class SchemaField:
    """A field of a schema; only text has padding, the bytes that it may be padded with."""

    name: str
    kind: str
    width: int
    padding: bytes


@dataclass(frozen=True, slots=True)
class Schema:
    """What a TOML file says: `keys` are indices of fields, and so are the fields of functions."""

    # Of struct: ">" or "<".
    order: str
    fields: tuple[SchemaField, ...]
    keys: tuple[int, ...]
    # Without a field it is the count.
    aggregates: tuple[tuple[int | None, str], ...]
    framing: Framing

    @property
    def tallied(self) -> list[int]:
        """The fields of which something is expected."""
        return sorted({index for index, _ in self.aggregates if index is not None})


@dataclass(frozen=True, slots=True)
class Plan:
    """What every connection is to do, as the command line says."""

    host: str
    port: int
    connections: int
    records: int
    packet_records: int
    padding: Padding
    seed: int
    connect_timeout_s: float
    expects: bool
    schema: Schema | None

    @property
    def target(self) -> str:
        """Host and port as shown to a person."""
        return show_address(self.host, self.port)


@dataclass(slots=True, eq=False)
class Group:
    """One pair of A and E: how it is sent, and what was drawn for it if `--expect` asks."""

    a: int
    e_value: bytes
    e_fields: tuple[bytes, ...]
    b_sum: int = 0
    d_min: int = D_MAX
    # Type "f" rounds each value to binary32, as the wire does.
    c_values: array[float] = field(default_factory=lambda: array("f"))


# Group, (B, D), C before it is rounded, index into the padded forms of E.
Draw: TypeAlias = tuple[Group, tuple[int, int], float, int]


@dataclass(frozen=True, slots=True)
class Expected:
    """The aggregate of one group; the names of the fields are the names in the JSON file."""

    A: int
    E: str
    B_mean: float
    C_sum: float
    D_min: int
    count: int


@dataclass(frozen=True, slots=True)
class Sent:
    """A connection that was sent to its end; times are of the machine's monotonic clock."""

    connection: int
    local: str
    records: int
    packets: int
    bytes: int
    started_s: float
    ended_s: float
    groups: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Failed:
    """A connection that was not sent to its end, and why."""

    connection: int
    reason: str


Outcome: TypeAlias = Sent | Failed


def main() -> int:
    """Runs the command line; returns the exit code: 0 all sent, 1 a failure, 130 interrupted."""
    plan, expect_file = parse_arguments()
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        print(f"seed {plan.seed} (repeat this run with --seed {plan.seed})", flush=True)
        outcomes = [show_outcome(outcome) for outcome in send_from_processes(plan)]
        sent = [outcome for outcome in outcomes if isinstance(outcome, Sent)]
        sent.sort(key=lambda outcome: outcome.connection)
        show_total(plan, sent)
        if expect_file is not None:
            with expect_file:
                write_expected(expect_file, plan.seed, sent)
    except KeyboardInterrupt:
        print("interrupted: the connections were cut off", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        print(f"test_head: {error}", file=sys.stderr)
        return 1
    return 0 if len(sent) == plan.connections else 1


def exit_on_signal(number: int, _frame: object) -> NoReturn:
    """Leaves through the interpreter's exit, which is what ends the sending processes."""
    sys.exit(128 + number)


def parse_arguments() -> tuple[Plan, TextIO | None]:
    """Reads the command line; bad arguments end the program with exit code 2.

    The `--expect` file is opened here, to find out before the run that it cannot be written, and
    to leave no older answer in it when the run is cut off.
    """
    parser = build_parser()
    arguments = parser.parse_args()
    seed: int | None = arguments.seed
    try:
        schema = None if arguments.schema == "default" else read_schema(arguments.schema)
    except (OSError, SchemaError) as error:
        parser.error(f"argument --schema: {arguments.schema}: {error}")
    packet_records: int = arguments.packet_records
    if schema is not None:
        packet_records = min(packet_records, schema.framing.packet_records_max)
        if arguments.number_of_records == 0 and schema.framing.end_records == 0:
            parser.error("0 records of a schema that ends by closing: nothing would be sent")
    plan = Plan(
        host=arguments.target,
        port=arguments.port,
        connections=arguments.connections,
        records=arguments.number_of_records,
        packet_records=packet_records,
        padding=arguments.padding,
        seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
        connect_timeout_s=arguments.connect_timeout,
        expects=arguments.expect is not None,
        schema=schema,
    )
    if arguments.expect is None:
        return plan, None
    try:
        return plan, open(arguments.expect, "w", encoding="ascii")
    except OSError as error:
        parser.error(f"argument --expect: cannot write {arguments.expect}: {error.strerror}")


def build_parser() -> argparse.ArgumentParser:
    """Describes the command line; every default is the behaviour of the sender in the field."""
    parser = argparse.ArgumentParser(
        description="Reference sender for ringest: sends generated records over TCP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("target", type=host_name, help="IPv4 or IPv6 address, or name, of the engine")
    add(
        "number_of_records",
        nargs="?",
        type=integer_in(0, None),
        default=1_000_000,
        help="data records per connection; 0 sends the end record alone",
    )
    add("--connections", type=integer_in(1, None), default=10, metavar="N", help="processes")
    add("--port", type=integer_in(1, 65_535), default=9000, help="TCP port of the engine")
    add(
        "--packet-records",
        type=integer_in(1, PACKET_RECORDS_MAX),
        default=4,
        metavar="N",
        help="records per packet, or fewer where a schema's length cannot say so many; one send "
        "call per packet",
    )
    add(
        "--padding",
        choices=("space", "nul", "mixed"),
        default="space",
        help="what follows the value of E; mixed: per record space, nul, or nul and then space; "
        "of a schema, for texts that allow both",
    )
    add("--schema", default="default", metavar="FILE", help="records of this TOML file instead")
    add("--seed", type=int, help="repeats an earlier run; without it a random seed is printed")
    add("--expect", metavar="FILE", help="write the expected result of each connection as JSON")
    add(
        "--connect-timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to retry while the engine does not accept",
    )
    return parser


def host_name(text: str) -> str:
    """An address or name, without the brackets that IPv6 addresses have in front of a port."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not host:
        # The resolver would take an empty name for the local machine.
        raise argparse.ArgumentTypeError("the target is empty")
    return host


def integer_in(low: int, high: int | None) -> Callable[[str], int]:
    """A parser of integers from `low` to `high`, both included; `None` is no upper limit."""

    def integer(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{value} is not {limits}")
        return value

    return integer


def seconds(text: str) -> float:
    """A span of time; neither negative nor without end nor NaN, which is in no range."""
    value = float(text)
    if not 0.0 <= value <= CONNECT_TIMEOUT_S_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {CONNECT_TIMEOUT_S_MAX:.0f}")
    return value


def send_from_processes(plan: Plan) -> Iterator[Outcome]:
    """Starts one process per connection and yields each outcome as soon as it is known."""
    running = start_processes(plan)
    while running:
        for pipe in wait(list(running)):
            assert isinstance(pipe, Connection)
            connection, process = running.pop(pipe)
            try:
                outcome: Outcome = pipe.recv()
            except EOFError:
                # The process ended without a word: killed, out of memory, or a bug in this file.
                process.join()
                cause = f"its process ended with code {process.exitcode}"
                outcome = Failed(connection, f"{cause}: see its traceback, or who killed it")
            pipe.close()
            yield outcome


def start_processes(plan: Plan) -> dict[Connection, tuple[int, BaseProcess]]:
    """Starts the sending processes; returns number and process of each, by the pipe it reports to.

    Forked, because a fork starts in a millisecond where a fresh interpreter takes fifty, and the
    connections are to start at once. Signals wait until all have started: a Ctrl-C reaches every
    process of the terminal, and none may meet it before it has chosen to ignore it. Daemonic, so
    that the interpreter ends them when this process leaves, whatever the way.
    """
    context = multiprocessing.get_context("fork")
    held = {signal.SIGINT, signal.SIGTERM}
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        for connection in range(plan.connections):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=run_connection, args=(plan, connection, sender), daemon=True
            )
            process.start()
            # With the only other copy closed, the end of the process is the end of the pipe.
            sender.close()
            running[receiver] = (connection, process)
    except OSError as error:
        reason = f"process {len(running)} of {plan.connections} did not start: {error.strerror}"
        raise OSError(f"{reason}; use fewer --connections or raise the limits (ulimit)") from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
    return running


def run_connection(plan: Plan, connection: int, report: Connection) -> None:
    """The life of one sending process: one connection, one outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    outcome: Outcome
    try:
        outcome = send_connection(plan, connection)
    except StreamError as error:
        outcome = Failed(connection, str(error))
    report.send(outcome)


def send_connection(plan: Plan, connection: int) -> Sent:
    """Connects, sends all records and the end record, closes.

    Raises StreamError if the connection cannot be opened or breaks.
    """
    stream = (BuiltInStream if plan.schema is None else SchemaStream)(plan, connection)
    framing = stream.framing
    with connect(plan) as sock:
        started_s = time.monotonic()
        local = show_address(*sock.getsockname()[:2])
        packets = send_packets(sock, plan, framing, stream.write_records)
    records = plan.records + framing.end_records
    return Sent(
        connection=connection,
        local=local,
        records=plan.records,
        packets=framing.packets(packets, plan.records),
        bytes=packets * framing.header_bytes + records * framing.record_bytes,
        started_s=started_s,
        ended_s=time.monotonic(),
        groups=stream.expected(),
    )


def connect(plan: Plan) -> socket.socket:
    """Opens the connection, retrying until `connect_timeout_s` is over; StreamError after that."""
    deadline_s = time.monotonic() + plan.connect_timeout_s
    while True:
        attempt_s = max(deadline_s - time.monotonic(), CONNECT_ATTEMPT_S_MIN)
        try:
            return open_socket(plan, attempt_s)
        except (socket.gaierror, UnicodeError) as error:
            reason = f"cannot find the address of {plan.host} ({error}): check the spelling"
            raise StreamError(reason) from error
        except OSError as error:
            if time.monotonic() + CONNECT_RETRY_S > deadline_s:
                raise StreamError(explain_connect(error, plan)) from error
        time.sleep(CONNECT_RETRY_S)


def open_socket(plan: Plan, timeout_s: float) -> socket.socket:
    """One attempt to connect, to every address of the host in turn; OSError if all fail."""
    sock = socket.create_connection((plan.host, plan.port), timeout_s)
    try:
        # Where nobody listens on a local port that the kernel also hands out to clients, an attempt
        # can be given that very port and meets itself. It is aborted, not closed, for a port in
        # TIME_WAIT would keep the engine from it for a minute.
        if sock.getsockname() == sock.getpeername():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)
            raise ConnectionRefusedError("the connection met itself")
        # Sends may wait as long as the engine holds back.
        sock.settimeout(None)
    except OSError:
        sock.close()
        raise
    return sock


def explain_connect(error: OSError, plan: Plan) -> str:
    """Cause and next step for a connection that could not be opened."""
    if isinstance(error, ConnectionRefusedError):
        return f"connection refused: is the engine running on {plan.target}?"
    if isinstance(error, TimeoutError):
        return f"no answer from {plan.target}: check the address, and the firewall on the way"
    cause = error.strerror or error
    return f"cannot connect to {plan.target} ({cause}): check the address and the route"


def send_packets(
    sock: socket.socket,
    plan: Plan,
    framing: Framing,
    write_records: Callable[[bytearray, Sequence[int]], None],
) -> int:
    """Sends the whole stream, one call of sendall per packet; returns the number of packets.

    The records that do not fill a packet go in front of the end record, in the last packet.
    """
    packets_full, records_left = divmod(plan.records, plan.packet_records)
    # A packet larger than the stream is never filled, so that memory follows the smaller of them.
    capacity = min(plan.packet_records, plan.records + framing.end_records)
    packet = bytearray(framing.header_bytes + capacity * framing.record_bytes)
    offsets = range(framing.header_bytes, len(packet), framing.record_bytes)
    framing.write_length(packet, len(packet))
    packets = 0
    try:
        while packets < packets_full:
            write_records(packet, offsets)
            sock.sendall(packet)
            packets += 1
        last = records_left + framing.end_records
        if last == 0:
            return packets
        end = framing.header_bytes + records_left * framing.record_bytes
        write_records(packet, offsets[:records_left])
        packet_bytes = framing.header_bytes + last * framing.record_bytes
        packet[end:packet_bytes] = bytes(packet_bytes - end)
        framing.write_length(packet, packet_bytes)
        sock.sendall(memoryview(packet)[:packet_bytes])
        return packets + 1
    except OSError as error:
        raise StreamError(explain_send(error, plan, packets)) from error


def explain_send(error: OSError, plan: Plan, packets: int) -> str:
    """Cause and next step for a connection that broke after `packets` packets."""
    progress = f"after {packets} packets to {plan.target}"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        cause = "connection reset" if isinstance(error, ConnectionResetError) else "broken pipe"
        return f"{cause} {progress}: the engine closed the stream, see its log for the reason"
    return f"sending stopped {progress} ({error.strerror or error}): check the network"


class BuiltInStream:
    """The records of the built-in schema: how they are drawn, written and expected."""

    framing: Final = BUILT_IN

    def __init__(self, plan: Plan, connection: int) -> None:
        # Text seeds go through SHA-512, so that neighbouring connections share nothing.
        rng = random.Random(f"{plan.seed}/{connection}")
        self._groups: Final = make_groups(rng, plan.padding)
        padding_rng = random.Random(f"{plan.seed}/{connection}/padding")
        draws = chain.from_iterable(draw_batches(rng, padding_rng, self._groups))
        self._draws: Final[Iterator[Draw]] = tallied(draws) if plan.expects else draws

    def write_records(self, packet: bytearray, offsets: Iterable[int]) -> None:
        """Writes the next records into `packet`, one at each of `offsets`."""
        pack_into = RECORD.pack_into
        # The offsets come first: zip asks them first, and so takes no record that has no place.
        for offset, (group, (b, d), c, form) in zip(offsets, self._draws, strict=False):
            pack_into(packet, offset, group.a, b, c, d, group.e_fields[form])

    def expected(self) -> list[dict[str, Any]]:
        """What must come out for the records that were written."""
        return [asdict(group) for group in expected_groups(self._groups)]


def make_groups(rng: random.Random, padding: Padding) -> list[Group]:
    """All groups of a connection: five values of A, times two words out of five for E."""
    values = [f"{first} {second}".encode("ascii") for first in E_WORDS for second in E_WORDS]
    fields = {value: padded_forms(value, padding) for value in values}
    a_values = rng.sample(A_RANGE, A_VALUES)
    return [Group(a, value, fields[value]) for a in a_values for value in values]


def padded_forms(value: bytes, padding: Padding) -> tuple[bytes, ...]:
    """The 256-byte fields that stand for `value`; each is to be sent equally often."""
    spaces = value.ljust(E_BYTES, b" ")
    nuls = value.ljust(E_BYTES, b"\x00")
    if padding == "space":
        return (spaces,)
    if padding == "nul":
        return (nuls,)
    # From one NUL and then spaces to NULs and one space at the end.
    first, last = len(value) + 1, E_BYTES - 1
    borders = (first + (last - first) * i // (MIXED_BORDERS - 1) for i in range(MIXED_BORDERS))
    both = tuple(value.ljust(border, b"\x00").ljust(E_BYTES, b" ") for border in borders)
    return (spaces,) * len(both) + (nuls,) * len(both) + both


def draw_batches(
    rng: random.Random, padding_rng: random.Random, groups: list[Group]
) -> Iterator[Iterable[Draw]]:
    """Endless batches of random records.

    In batches, because each call of the random generator then serves many records. The padding has
    a generator of its own: it may not change the values.
    """
    count = DRAW_RECORDS
    uniform = rng.random
    forms = range(len(groups[0].e_fields))
    while True:
        yield zip(
            rng.choices(groups, k=count),
            B_AND_D.iter_unpack(rng.randbytes(count * B_AND_D.size)),
            [uniform() * C_MAX for _ in range(count)],
            padding_rng.choices(forms, k=count),
            strict=True,
        )


def tallied(draws: Iterable[Draw]) -> Iterator[Draw]:
    """Passes on the records and adds each to its group; it costs time, so only for `--expect`."""
    for draw in draws:
        group, (b, d), c, _form = draw
        group.b_sum += b
        group.c_values.append(c)
        if d < group.d_min:
            group.d_min = d
        yield draw


def expected_groups(groups: Iterable[Group]) -> list[Expected]:
    """The aggregates of the groups that got a record, by A and then E; none without a tally.

    The mean is the exact integer sum divided once, the sum of C is exact and rounded once: whatever
    the order in which the engine adds, this is the value to be near to.
    """
    return [
        Expected(
            A=group.a,
            E=show_e(group.e_value),
            B_mean=group.b_sum / len(group.c_values),
            C_sum=math.fsum(group.c_values),
            D_min=group.d_min,
            count=len(group.c_values),
        )
        for group in sorted(groups, key=lambda group: (group.a, group.e_value))
        if group.c_values
    ]


def show_e(value: bytes) -> str:
    r"""The text form of E: printable ASCII as it is, `\\` for a backslash, else `\xNN`."""
    return "".join(
        r"\\" if byte == ord("\\") else chr(byte) if 0x20 <= byte <= 0x7E else f"\\x{byte:02x}"
        for byte in value
    )


@dataclass(slots=True, eq=False)
class SchemaGroup:
    """One combination of the keys of a schema, and what was drawn for it."""

    # In the order of the keys: integers, bools, and bytes for text and bytes.
    values: tuple[Any, ...]
    # Ways to send the keys, each the bytes of all of them.
    forms: list[tuple[bytes, ...]]
    # By how much 64-bit values are shifted to the right.
    shift: int
    # The values of the tallied fields, record by record.
    rows: list[tuple[Any, ...]] = field(default_factory=list)


class SchemaStream:
    """The records of a schema: how they are drawn, written and expected."""

    def __init__(self, plan: Plan, connection: int) -> None:
        assert plan.schema is not None
        self._schema: Final = plan.schema
        self.framing: Final = plan.schema.framing
        self._rng: Final = random.Random(f"{plan.seed}/{connection}/schema")
        self._form_rng: Final = random.Random(f"{plan.seed}/{connection}/padding")
        self._groups: Final = make_schema_groups(self._rng, plan.schema, plan.padding)
        self._expects: Final = plan.expects
        # Keys, texts, bytes and what is skipped are bytes already.
        codes = [
            f"{one.width}s" if i in plan.schema.keys or one.kind not in NUMBERS
            else NUMBERS[one.kind][0]
            for i, one in enumerate(plan.schema.fields)
        ]  # fmt: skip
        self._struct: Final = struct.Struct(plan.schema.order + "".join(codes))
        assert self._struct.size == self.framing.record_bytes
        self._records: Final = self._draw()

    def write_records(self, packet: bytearray, offsets: Iterable[int]) -> None:
        """Writes the next records into `packet`, one at each of `offsets`."""
        size = self.framing.record_bytes
        for offset, (record, group, row) in zip(offsets, self._records, strict=False):
            packet[offset : offset + size] = record
            if self._expects:
                group.rows.append(row)

    def expected(self) -> list[dict[str, Any]]:
        """What must come out for the records that were written; nothing without `--expect`."""
        groups = sorted((one for one in self._groups if one.rows), key=lambda one: one.values)
        return [self._expected_group(group) for group in groups]

    def _draw(self) -> Iterator[tuple[bytes, SchemaGroup, tuple[Any, ...]]]:
        """Endless records, drawn in batches, each with its group and its tallied values."""
        schema, ends = self._schema, self.framing.end_records > 0
        end_record = bytes(self.framing.record_bytes)
        while True:
            groups = self._rng.choices(self._groups, k=DRAW_RECORDS)
            forms = self._form_rng.choices(range(KEY_FORMS), k=DRAW_RECORDS)
            columns: list[Sequence[Any]] = []
            tallied: list[Sequence[Any]] = []
            for i, one in enumerate(schema.fields):
                if i in schema.keys:
                    k = schema.keys.index(i)
                    drawn = zip(groups, forms, strict=True)
                    sent: Sequence[Any] = [group.forms[form][k] for group, form in drawn]
                    values: Sequence[Any] = [group.values[k] for group in groups]
                else:
                    sent, values = self._draw_column(one, groups)
                columns.append(sent)
                if i in schema.tallied:
                    tallied.append(values)
            rows = zip(*tallied, strict=True) if tallied else repeat((), DRAW_RECORDS)
            for record, group, row in zip(
                map(self._struct.pack, *columns), groups, rows, strict=True
            ):
                # It would be the end of the stream.
                if not ends or record != end_record:
                    yield record, group, row

    def _draw_column(
        self, one: SchemaField, groups: list[SchemaGroup]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Values of a field that is no key: as they are packed, and as they are expected."""
        count = len(groups)
        if one.kind in FLOATS:
            # The array rounds to the type, as the wire does.
            code = NUMBERS[one.kind][0]
            drawn = array(code, (self._rng.uniform(-FLOAT_MAX, FLOAT_MAX) for _ in range(count)))
            return drawn, drawn
        if one.kind == "bool":
            sent = self._rng.choices((0, 0, 0, *TRUE_BYTES), k=count)
            return sent, [value != 0 for value in sent]
        noise = self._rng.randbytes(count * one.width)
        if one.kind not in NUMBERS:
            cut = [noise[i : i + one.width] for i in range(0, len(noise), one.width)]
            return cut, cut
        integers = struct.unpack(f"<{count}{NUMBERS[one.kind][0]}", noise)
        if one.width < 8:
            return integers, integers
        shifted = [value >> group.shift for value, group in zip(integers, groups, strict=True)]
        return shifted, shifted

    def _expected_group(self, group: SchemaGroup) -> dict[str, Any]:
        schema, fields = self._schema, self._schema.fields
        expected: dict[str, Any] = {}
        for index, value in zip(schema.keys, group.values, strict=True):
            shown = value
            if isinstance(value, bytes):
                shown = show_e(value) if fields[index].kind == "text" else value.hex()
            expected[fields[index].name] = shown
        columns = dict(zip(schema.tallied, zip(*group.rows, strict=True), strict=True))
        for of, function in schema.aggregates:
            if of is None:
                expected["count"] = len(group.rows)
            else:
                name = f"{fields[of].name}_{function}"
                expected[name] = aggregate(fields[of].kind, function, columns[of])
        return expected


def make_schema_groups(rng: random.Random, schema: Schema, padding: Padding) -> list[SchemaGroup]:
    """The groups of a connection: combinations of a few values of each key."""
    keys = [schema.fields[key] for key in schema.keys]
    pools = [key_values(rng, one) for one in keys]
    if math.prod(map(len, pools)) <= GROUPS_MAX:
        chosen = list(product(*pools))
    else:
        drawn: dict[tuple[Any, ...], None] = {}
        while len(drawn) < GROUPS_MAX:
            drawn[tuple(rng.choice(pool) for pool in pools)] = None
        chosen = list(drawn)
    groups = []
    for number, values in enumerate(chosen):
        each = [
            key_forms(one, value, schema.order, padding)
            for one, value in zip(keys, values, strict=True)
        ]
        forms = [tuple(ways[i % len(ways)] for ways in each) for i in range(KEY_FORMS)]
        groups.append(SchemaGroup(values, forms, 0 if number % WIDE_EVERY == 0 else WIDE_SHIFT))
    return groups


def key_values(rng: random.Random, one: SchemaField) -> list[Any]:
    """A few values of a key, no two the same."""
    if one.kind == "bool":
        return [False, True]
    values: dict[Any, None] = {}
    if one.kind in NUMBERS:
        low = -(1 << (8 * one.width - 1)) if one.kind.startswith("i") else 0
        high = low + (1 << (8 * one.width)) - 1
        values = {low: None, high: None}
    while len(values) < KEY_VALUES:
        if one.kind in NUMBERS:
            values[rng.randint(low, high)] = None
        elif one.kind == "bytes":
            values[rng.randbytes(one.width)] = None
        elif one.padding:
            count = rng.randint(0, min(one.width, TEXT_VALUE_MAX))
            values[bytes(rng.choices(TEXT_ALPHABET, k=count)).rstrip(one.padding)] = None
        else:
            values[bytes(rng.choices(TEXT_ALPHABET, k=one.width))] = None
    return list(values)


def key_forms(one: SchemaField, value: Any, order: str, padding: Padding) -> list[bytes]:
    """The bytes that a key's value may be sent as."""
    if one.kind == "bool":
        return [bytes([byte]) for byte in TRUE_BYTES] if value else [b"\x00"]
    if one.kind in NUMBERS:
        return [struct.pack(order + NUMBERS[one.kind][0], value)]
    spaces, nuls = value.ljust(one.width, b" "), value.ljust(one.width, b"\x00")
    if len(one.padding) < 2:
        return [spaces if one.padding == b" " else nuls]
    if padding != "mixed":
        return [spaces if padding == "space" else nuls]
    border = (len(value) + one.width) // 2
    both = value.ljust(border, b"\x00").ljust(one.width, b" ")
    return [spaces, nuls, both, value.ljust(border, b" ").ljust(one.width, b"\x00")]


def aggregate(kind: str, function: str, values: Sequence[Any]) -> Any:
    """What a function gives for the values of a group, exact and rounded once; None is null."""
    count = len(values)
    match function:
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "var" | "std":
            if count < 2:
                return None
            # Of bools as well, which are 0 and 1.
            variance = statistics.variance([+value for value in values])
            return float(variance) if function == "var" else math.sqrt(variance)
    total: Any = math.fsum(values) if kind in FLOATS else sum(values)
    if function == "mean":
        return total / count
    low, high = (-(1 << 63), (1 << 63) - 1) if kind.startswith("i") else (0, (1 << 64) - 1)
    return total if kind in FLOATS or low <= total <= high else None


def read_schema(path: str) -> Schema:
    """Reads the TOML form; SchemaError names the rule that it breaks."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return parse_schema(document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"this is no TOML: {error}") from error
    except KeyError as error:
        raise SchemaError(f"{error.args[0]} is missing, or is no value that it can have") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise SchemaError(f"a value has the wrong type: {error}") from error


def parse_schema(document: dict[str, Any]) -> Schema:
    """The schema of a document. It leaves to the engine what it does not need itself."""
    endian = document.get("endian", "big")
    fields = tuple(parse_field(table) for table in document["field"])
    indices = {one.name: i for i, one in enumerate(fields) if one.kind != "skip"}
    keys = tuple(index_of(indices, name) for name in document["result"]["by"])
    for one in (fields[key] for key in keys):
        if one.kind in FLOATS:
            raise SchemaError(f"key {one.name} is {one.kind}; a key is an integer, bool or text")
    aggregates: list[tuple[int | None, str]] = []
    for text in document["result"].get("aggregates", []):
        name, _, function = text.partition(":")
        if text == "count":
            aggregates.append((None, text))
            continue
        if function not in FUNCTIONS:
            raise SchemaError(f"{text!r} is no FIELD:FUNCTION of {', '.join(FUNCTIONS)}")
        index = index_of(indices, name)
        if fields[index].kind not in NUMBERS:
            raise SchemaError(f"{text!r}: {fields[index].kind} has no {function}")
        aggregates.append((index, function))
    if (None, "count") not in aggregates:
        aggregates.append((None, "count"))
    orders = {"big": ">", "little": "<"}
    packet = document.get("packet", {})
    length = LENGTHS[packet.get("length", "u32")]
    length_order = orders[packet.get("length_endian", endian)]
    framing = Framing(
        record_bytes=sum(one.width for one in fields),
        length=struct.Struct(length_order + length) if length else None,
        includes_itself=packet.get("length_includes_itself", True),
        end_records={"zero-record": 1, "close": 0}[packet.get("end", "zero-record")],
    )
    if not keys or framing.packet_records_max < 1:
        raise SchemaError("there is no key, or one record is too large for a packet")
    return Schema(orders[endian], fields, keys, tuple(aggregates), framing)


def parse_field(table: dict[str, Any]) -> SchemaField:
    """One [[field]]."""
    kind: str = table["type"]
    name: str = table.get("name", "") if kind == "skip" else table["name"]
    if kind in NUMBERS:
        return SchemaField(name, kind, NUMBERS[kind][1], b"")
    if kind not in ("text", "bytes", "skip") or table["bytes"] < 1:
        raise SchemaError(f"field {name!r}: {kind!r} is no type, or has no bytes")
    words = table.get("padding", ["nul", "space"]) if kind == "text" else []
    return SchemaField(name, kind, table["bytes"], b"".join(PADDING_BYTES[one] for one in words))


def index_of(indices: dict[str, int], name: str) -> int:
    """The index of a field."""
    if name not in indices:
        raise SchemaError(f"there is no field {name!r}; fields are {', '.join(indices)}")
    return indices[name]


def write_expected(file: TextIO, seed: int, sent: Iterable[Sent]) -> None:
    """Writes the JSON answer; connections that failed are not in it, for they have no result."""
    connections = [
        {
            "connection": outcome.connection,
            "local": outcome.local,
            "records": outcome.records,
            "packets": outcome.packets,
            "bytes": outcome.bytes,
            "groups": outcome.groups,
        }
        for outcome in sent
    ]
    json.dump({"seed": seed, "connections": connections}, file, indent=1)
    file.write("\n")


def show_outcome(outcome: Outcome) -> Outcome:
    """Prints the line of one connection, a failure to stderr; returns what it was given."""
    if isinstance(outcome, Failed):
        print(f"connection {outcome.connection}: {outcome.reason}", file=sys.stderr, flush=True)
        return outcome
    duration_s = outcome.ended_s - outcome.started_s
    volume = show_volume(outcome.records, outcome.packets, outcome.bytes, duration_s)
    print(f"connection {outcome.connection} from {outcome.local}: {volume}", flush=True)
    return outcome


def show_total(plan: Plan, sent: list[Sent]) -> None:
    """Prints the total line; its time runs from the first connection to the last close."""
    duration_s = 0.0
    if sent:
        duration_s = max(one.ended_s for one in sent) - min(one.started_s for one in sent)
    volume = show_volume(
        sum(one.records for one in sent),
        sum(one.packets for one in sent),
        sum(one.bytes for one in sent),
        duration_s,
    )
    print(f"total of {len(sent)} of {plan.connections} connections: {volume}", flush=True)


def show_volume(records: int, packets: int, size_bytes: int, duration_s: float) -> str:
    """Amounts and rate, the same for one connection and for all."""
    rate = records / duration_s if duration_s > 0.0 else 0.0
    amounts = f"{records} records, {packets} packets, {size_bytes} bytes"
    return f"{amounts} in {duration_s:.3f} s, {rate:.0f} records/s"


def show_address(host: str, port: int) -> str:
    """Address and port; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
