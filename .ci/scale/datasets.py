"""Random records of several nodes, their partials as files, and the expected result of a merge.

This is an oracle: written from the documentation alone, it shares no code with deploy/. Records are
kept as Python integers and floats, so sums are exact, and the expected result is computed from the
records, never from the partials.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hdrh.histogram import HdrHistogram
from histograms import encode_v2, new_histogram

ARROW_TYPES: dict[str, pa.DataType] = {
    "u8": pa.uint8(),
    "u16": pa.uint16(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "i8": pa.int8(),
    "i16": pa.int16(),
    "i32": pa.int32(),
    "i64": pa.int64(),
    "f32": pa.float32(),
    "f64": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "bytes": pa.binary(),
}
STRUCT_CODES = dict(zip(ARROW_TYPES, "BHIQbhiqfd?", strict=False))
# Width of every bytes field here; text fields may be wider.
BYTES_WIDTH = 2
PART_ORDER = ("sum", "sum_low", "min", "max", "first", "last", "mean", "rest", "m2", "unit")

Record = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """A schema: names with types, keys, and (field, function) pairs."""

    fields: dict[str, str]
    keys: tuple[str, ...]
    aggregates: tuple[tuple[str, str], ...]
    text_bytes: int = 16

    def width(self, name: str) -> int:
        """Width of a text or bytes field."""
        return self.text_bytes if self.fields[name] == "text" else BYTES_WIDTH

    def toml(self) -> str:
        lines = ['name = "ci"', 'endian = "big"']
        for name, kind in self.fields.items():
            lines += ["[[field]]", f'name = "{name}"', f'type = "{kind}"']
            lines += [f"bytes = {self.width(name)}"] if kind in ("text", "bytes") else []
        by = ", ".join(f'"{key}"' for key in self.keys)
        listed = ", ".join(f'"{name}:{function}"' for name, function in self.aggregates)
        return "\n".join([*lines, "[result]", f"by = [{by}]", f"aggregates = [{listed}]", ""])

    def parts(self) -> list[tuple[str, str]]:
        needed = set()
        for name, function in self.aggregates:
            if function in ("sum", "mean", "var", "std"):
                needed |= {(name, part) for part in mean_parts(self.fields[name])}
            else:
                needed.add((name, function))
            if function in ("var", "std"):
                needed.add((name, "m2"))
                if self.fields[name] == "f64":
                    needed.add((name, "unit"))
        return [
            (name, part) for name in self.fields for part in PART_ORDER if (name, part) in needed
        ]


def mean_parts(kind: str) -> list[str]:
    """The columns that the mean of a type is made of."""
    if kind in ("f32", "f64"):
        return ["mean", "rest"]
    return ["sum", "sum_low"] if kind[1:] in ("32", "64") else ["sum"]


@dataclass
class Stream:
    """The batches that one connection sent."""

    node: str
    connection: str
    batches: list[tuple[int, list[Record]]]
    status: str = "complete"
    final: bool = True
    # Batches whose files never reached the merge.
    lost: set[int] = field(default_factory=set)
    latencies: list[HdrHistogram] = field(default_factory=list)


# ---- what is shown, what is sorted ---------------------------------------------------------------


def shown(value: bytes) -> str:
    """Text as results have it: whatever is printable, and escapes."""
    text = value.decode("utf-8", "surrogateescape")
    return "".join(
        "\\\\" if one == "\\" else one if one.isprintable() else "".join(
            f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape")
        )
        for one in text
    )


def stored(kind: str, value: Any) -> Any:
    return shown(value) if kind == "text" else value


def packed(layout: Layout, record: Record) -> bytes:
    """A record as it is sent, big-endian; text is padded with NUL."""
    parts = []
    for name, kind in layout.fields.items():
        if kind in ("text", "bytes"):
            parts.append(record[name].ljust(layout.width(name), b"\x00"))
        else:
            parts.append(struct.pack(f">{STRUCT_CODES[kind]}", record[name]))
    return b"".join(parts)


# ---- partials ------------------------------------------------------------------------------------


def part_of(part: str, kind: str, values: Sequence[Any]) -> Any:
    """One part of a group's values in a batch, given in the order in which they came."""
    if part == "sum" and kind[1:] in ("32", "64"):
        return sum(values) >> 32
    if part == "sum_low":
        return sum(values) & 0xFFFFFFFF
    if part == "sum":
        return sum(map(int, values))
    if part in ("min", "max"):
        numbers = [value for value in values if value == value]
        # Of zeros, the negative one is less.
        signed = (lambda one: (one, math.copysign(1, one))) if kind in ("f32", "f64") else None
        return (min if part == "min" else max)(numbers, key=signed) if numbers else math.nan
    if part in ("first", "last"):
        return values[0 if part == "first" else -1]
    if not all(math.isfinite(value) for value in values):
        return {"mean": sum_of_special(values), "rest": 0.0, "m2": math.nan, "unit": 1.0}[part]
    total, squares = exact_moments(values)
    mean = float(total / len(values))
    unit = unit_of(squares / len(values)) if kind == "f64" else 1
    rest = float(total - len(values) * Fraction(mean))
    return {"mean": mean, "rest": rest, "m2": float(squares / unit**2), "unit": float(unit)}[part]


def sum_of_special(values: Iterable[float]) -> float:
    """The sum of the infinities and NaN among these."""
    return sum(value for value in values if not math.isfinite(value))


def exact_moments(values: Sequence[Any]) -> tuple[Fraction, Fraction]:
    """The sum, and the sum of the squared distances from the mean."""
    exact = [Fraction(value) for value in values]
    total = sum(exact, Fraction(0))
    squares = sum(((one - total / len(exact)) ** 2 for one in exact), Fraction(0))
    return total, squares


def unit_of(variance: Fraction) -> Fraction:
    """A unit in which the square of a deviation is within binary64."""
    if variance > Fraction(2) ** 900:
        return Fraction(2) ** 600
    return Fraction(1, 2**600) if 0 < variance < Fraction(1, 2**900) else Fraction(1)


def rounded(value: Fraction) -> float:
    """The nearest binary64; infinite beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def root(value: Fraction) -> float:
    """The square root, also where the square is not a binary64."""
    scale = unit_of(value)
    return rounded(Fraction(math.sqrt(value / scale**2)) * scale)


def part_type(part: str, kind: str) -> pa.DataType:
    if part == "sum":
        return pa.int64() if kind[0] == "i" else pa.uint64()
    if part == "sum_low":
        return pa.uint64()
    return pa.float64() if part in ("mean", "rest", "m2", "unit") else ARROW_TYPES[kind]


def type_name(part: str, kind: str) -> str:
    """The type of a part or of a function's result, as metadata has it."""
    if part == "sum":
        return {"i": "i64", "f": "f64"}.get(kind[0], "u64")
    if part == "sum_low":
        return "u64"
    return "f64" if part in ("mean", "rest", "m2", "unit", "var", "std") else kind


def merge_plan(layout: Layout) -> dict[str, Any]:
    """What a file of groups says of merging it, under `ringest.merge` in its metadata."""
    columns = [{"name": "count", "type": "u64", "merge": "sum"}]
    for name, part in layout.parts():
        merge = {"sum_low": "sum", "m2": "squares"}.get(part, part)
        column = {"name": f"{part}_{name}", "type": type_name(part, layout.fields[name])}
        more: dict[str, Any] = {}
        if part == "m2":
            kind = layout.fields[name]
            more["around"] = [f"{one}_{name}" for one in mean_parts(kind)]
            more |= {"unit": f"unit_{name}"} if kind == "f64" else {}
        columns.append(column | {"merge": merge} | more)
    result = []
    finishes = {"sum": "sum", "mean": "mean", "var": "variance", "std": "deviation"}
    for name, function in layout.aggregates:
        kind = layout.fields[name]
        if function in ("sum", "mean"):
            parts = mean_parts(kind)
        else:
            parts = ["m2"] if function in ("var", "std") else [function]
        result.append(
            {
                "name": f"{name}_{function}",
                "type": type_name(function, kind),
                "finish": finishes.get(function, "value"),
                "of": [f"{part}_{name}" for part in parts],
            }
        )
    result.append({"name": "count", "type": "u64", "finish": "sum", "of": ["count"]})
    return {
        "version": 2,
        "identity": ["node", "connection", "batch"],
        "order": ["time_us", "node", "connection", "batch"],
        "keys": [{"name": name, "type": layout.fields[name]} for name in layout.keys],
        "columns": columns,
        "result": result,
    }


def groups_table(layout: Layout, stream: Stream, batch: int) -> pa.Table:
    time_us, records = stream.batches[batch]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        key = tuple(stored(layout.fields[name], record[name]) for name in layout.keys)
        groups.setdefault(key, []).append(record)
    count = len(groups)
    columns: dict[str, pa.Array] = {
        "node": pa.array([stream.node] * count, pa.string()),
        "connection": pa.array([stream.connection] * count, pa.string()),
        "batch": pa.array([batch] * count, pa.uint32()),
        "time_us": pa.array([time_us] * count, pa.int64()),
    }
    for i, name in enumerate(layout.keys):
        kind = ARROW_TYPES[layout.fields[name]]
        columns[name] = pa.array([key[i] for key in groups], kind)
    columns["count"] = pa.array([len(rows) for rows in groups.values()], pa.uint64())
    for name, part in layout.parts():
        kind = layout.fields[name]
        values = [part_of(part, kind, [row[name] for row in rows]) for rows in groups.values()]
        columns[f"{part}_{name}"] = pa.array(values, part_type(part, kind))
    plan = json.dumps(merge_plan(layout))
    return pa.table(columns).replace_schema_metadata({"ringest.merge": plan})


def stream_table(stream: Stream, batch: int) -> pa.Table:
    time_us, records = stream.batches[batch]
    final = stream.final and batch == len(stream.batches) - 1
    reason = None if stream.status == "complete" else "idle_timeout"
    columns = {
        "node": pa.array([stream.node], pa.string()),
        "connection": pa.array([stream.connection], pa.string()),
        "batch": pa.array([batch], pa.uint32()),
        "time_us": pa.array([time_us], pa.int64()),
        "final": pa.array([final], pa.bool_()),
        "status": pa.array([stream.status if final else None], pa.string()),
        "reason": pa.array([reason if final else None], pa.string()),
        "records": pa.array([len(records)], pa.uint64()),
        "packets": pa.array([len(records)], pa.uint64()),
        "bytes": pa.array([len(records) * 100], pa.uint64()),
        "latency_v2": pa.array([encode_v2(stream.latencies[batch])], pa.binary()),
    }
    return pa.table(columns)


def write_partial(table: pa.Table, file: Path, compression: str = "snappy") -> None:
    """Writes a file as ringest does: with a checksum in its metadata."""
    metadata = (table.schema.metadata or {}) | {b"ringest.crc32": b"0" * 8}
    pq.write_table(table.replace_schema_metadata(metadata), file, compression=compression)
    content = file.read_bytes()
    checksum = f"{zlib.crc32(content):08x}".encode()
    before, after = content.split(b"ringest.crc32\x18\x0800000000")
    file.write_bytes(before + b"ringest.crc32\x18\x08" + checksum + after)


def write(layout: Layout, streams: Iterable[Stream], root: Path) -> list[Path]:
    """Writes a directory for each node and returns them. Each table is a single row group."""
    directories = []
    for i, stream in enumerate(streams):
        directory = root / stream.node
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "schema.toml").write_text(layout.toml())
        for batch in range(len(stream.batches)):
            if batch in stream.lost:
                continue
            name = f"20261120T200201.123456Z-{stream.node}-77-{i}-{batch:06}"
            schema = {"ringest.schema_toml": layout.toml()}
            groups = groups_table(layout, stream, batch)
            groups = groups.replace_schema_metadata(dict(groups.schema.metadata) | schema)
            write_partial(groups, directory / f"{name}.groups.parquet")
            about = stream_table(stream, batch).replace_schema_metadata(schema)
            write_partial(about, directory / f"{name}.stream.parquet")
        # A killed writer leaves such a file; readers must not take it for partials.
        (directory / ".20261120T200201.123456Z-x.groups.parquet.tmp").write_bytes(b"PAR1 cut o")
        if directory not in directories:
            directories.append(directory)
    return directories


def copy_some(directories: Sequence[Path], rng: random.Random) -> None:
    """Copies files to another directory, and writes one file that repeats whole batches."""
    first, other = directories[0], directories[-1]
    for file in sorted(first.glob("[!.]*.parquet")):
        if rng.random() < 0.5:
            shutil.copy(file, other / file.name)
    for kind in ("groups", "stream"):
        tables = [pq.read_table(file) for file in sorted(other.glob(f"[!.]*.{kind}.parquet"))]
        write_partial(pa.concat_tables([*tables, tables[0]]), other / f"packed.{kind}.parquet")


# ---- what must come out --------------------------------------------------------------------------


def expected(layout: Layout, streams: Iterable[Stream], by: Sequence[str]) -> list[Record]:
    """The sorted groups of all records. Sums are exact, and `None` if they do not fit 64 bits."""
    groups: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], Record]]] = {}
    for stream in streams:
        for batch, (time_us, records) in enumerate(stream.batches):
            for i, record in enumerate(records):
                keys = tuple(stored(layout.fields[name], record[name]) for name in layout.keys)
                # Within a batch, groups that are merged come in the order of their keys.
                moment = (time_us, stream.node, stream.connection, batch, keys, i)
                groups.setdefault(tuple(record[name] for name in by), []).append((moment, record))
    result = []
    for key in sorted(groups):
        rows = [record for _, record in sorted(groups[key], key=lambda row: row[0])]
        line = {
            name: stored(layout.fields[name], value) for name, value in zip(by, key, strict=True)
        }
        for name, function in layout.aggregates:
            values = [row[name] for row in rows]
            line[f"{name}_{function}"] = value_of(function, layout.fields[name], values)
        result.append(line | {"count": len(rows)})
    return result


def value_of(function: str, kind: str, values: Sequence[Any]) -> Any:
    """The exact value of a function, rounded once."""
    if function in ("min", "max", "first", "last"):
        return part_of(function, kind, values)
    spread = function in ("var", "std")
    if spread and len(values) < 2:
        return None
    if not all(math.isfinite(value) for value in values):
        return math.nan if spread else sum_of_special(values)
    total, squares = exact_moments(values)
    if spread:
        variance = squares / (len(values) - 1)
        return rounded(variance) if function == "var" else root(variance)
    if function == "mean":
        return rounded(total / len(values))
    if kind in ("f32", "f64"):
        return rounded(total)
    low, high = (-(2**63), 2**63 - 1) if kind[0] == "i" else (0, 2**64 - 1)
    return int(total) if low <= total <= high else None


def expected_latency(streams: Iterable[Stream]) -> HdrHistogram:
    """The expected latency, computed with the package `hdrhistogram`."""
    combined = new_histogram()
    for stream in streams:
        for one in stream.latencies:
            combined.add(one)
    return combined


def differences(expected: Sequence[Record], found: Sequence[Record]) -> list[str]:
    """Compares counts, minima, keys and integers exactly, and sums and spreads to 1e-12."""
    if len(expected) != len(found):
        return [f"{len(found)} groups, expected are {len(expected)}"]
    texts = []
    for wanted, got in zip(expected, found, strict=True):
        if list(wanted) != list(got):
            return [f"columns {list(got)}, expected are {list(wanted)}"]
        texts += [
            f"{name} of {wanted} is {got[name]!r}"
            for name, value in wanted.items()
            if not equal(value, got[name], 5e-324 if name.endswith("_std") else 0.0)
        ]
    return texts


def equal(wanted: Any, got: Any, least: float = 0.0) -> bool:
    """Whether two values agree. A root of the least numbers may be off by one of them."""
    wanted, got = (worded(value) for value in (wanted, got))
    if isinstance(wanted, float) and isinstance(got, float):
        # Zeros have signs.
        return math.isclose(wanted, got, rel_tol=1e-12, abs_tol=least) and (
            wanted != 0 or math.copysign(1, wanted) == math.copysign(1, got)
        )
    # A JSON number without a fraction may be parsed as either.
    return bool(wanted == got) and isinstance(wanted, bool) == isinstance(got, bool)


def worded(value: Any) -> Any:
    """The value as in ndjson, where some numbers are strings."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


# ---- data sets -----------------------------------------------------------------------------------

DEFAULT = Layout(
    {"A": "u32", "B": "u16", "C": "f32", "D": "i8", "E": "text"},
    ("A", "E"),
    (("B", "mean"), ("C", "sum"), ("D", "min")),
    text_bytes=256,
)
_NUMBERS = ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64")
FUNCTIONS = ("sum", "mean", "min", "max", "first", "last", "var", "std")
# At most 64 aggregates: the functions spread over all types, and all functions of the hard types.
EVERYTHING = Layout(
    {
        "k64": "u64", "on": "bool", "word": "text", "raw": "bytes", "signed": "i64",
        **{f"v_{kind}": kind for kind in _NUMBERS},
        "flag": "bool",
    },
    ("k64", "on", "word", "raw", "signed"),
    (
        *((f"v_{kind}", function) for kind in ("u64", "i64", "f64") for function in FUNCTIONS),
        *(
            (f"v_{kind}", function)
            for i, kind in enumerate(("u8", "u16", "u32", "i8", "i16", "i32", "f32"))
            for function in (*FUNCTIONS[:4], FUNCTIONS[4 + i % 4])
        ),
        *(("flag", function) for function in ("sum", "mean", "max", "last", "var")),
    ),
)  # fmt: skip


def value_maker(rng: random.Random) -> Callable[..., Any]:
    """Values of each type, including those at its limits."""
    nan = math.nan

    # Keys may differ by one, which is finer than the binary64 that variances are computed in.
    def make(kind: str, step: int | None = None) -> Any:
        if kind == "bool":
            return rng.random() < 0.5
        if kind == "text":
            # Characters that sort otherwise than bytes that begin no character.
            pieces = (*(bytes([one]) for one in b'\\x5"ab\x00\x80\xff\xe0'), "ü".encode(), "€".encode())
            return b"".join(rng.choices(pieces, k=rng.randrange(4))).rstrip(b"\x00 ")
        if kind == "bytes":
            return bytes(rng.choices(b"\x00\x7f\x80\xff\\", k=BYTES_WIDTH))
        if kind in ("f32", "f64"):
            # Far from zero and close together, where a variance from squares loses all precision;
            # rarely a value that makes the sum NaN.
            others = (rng.uniform(-1e3, 1e3), 0.0, nan if rng.random() < 0.1 else 1.5)
            value = rng.choice(others) if rng.random() < 0.1 else rng.gauss(1e6, 1.0)
            return value if kind == "f64" else struct.unpack(">f", struct.pack(">f", value))[0]
        bits = int(kind[1:])
        low, high = (
            (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "i" else (0, 2**bits - 1)
        )
        near = high - (step or 1 << bits // 2)
        return rng.choice((low, high, near, rng.randint(low, high), max(low, 5), max(low, 7)))

    return make


def make_streams(layout: Layout, rng: random.Random, nodes: int, connections: int) -> list[Stream]:
    """Disjoint connections with shared keys and colliding times."""
    make = value_maker(rng)
    keys = [{name: make(layout.fields[name], 1) for name in layout.keys} for _ in range(12)]
    streams = []
    for i in range(connections):
        node = f"node-{i % nodes}"
        stream = Stream(node, f"20261120T200201.123456Z-77-{i}", [])
        for batch in range(rng.randrange(1, 5)):
            records = [
                {name: make(kind) for name, kind in layout.fields.items()} | rng.choice(keys[2:])
                for _ in range(rng.randrange(1, 40))
            ]
            stream.batches.append((1_700_000_000_000_000 + rng.randrange(3) + batch, records))
            stream.latencies.append(random_latency(rng, len(records)))
        streams.append(stream)
    # A group with a single record, and one whose floats are all NaN.
    lonely = {name: make(kind) for name, kind in layout.fields.items()} | keys[0]
    streams[0].batches[0][1].append(lonely)
    for stream in streams[:2]:
        nothing = {
            name: math.nan if kind in ("f32", "f64") else make(kind)
            for name, kind in layout.fields.items()
        }
        stream.batches[0][1].extend([nothing | keys[1]] * 2)
    return streams


def random_latency(rng: random.Random, packets: int) -> HdrHistogram:
    histogram = new_histogram()
    for _ in range(packets):
        histogram.record_value(int(2 ** rng.uniform(7, 34)), rng.choice((1, 1, 1, 200)))
    return histogram


def random_records(layout: Layout, rng: random.Random, count: int) -> list[Record]:
    """Records of few groups. None is all zero, since that would end its stream."""
    make = value_maker(rng)
    keys = [{name: make(layout.fields[name], 1) for name in layout.keys} for _ in range(12)]
    records: list[Record] = []
    while len(records) < count:
        record = {name: make(kind) for name, kind in layout.fields.items()} | rng.choice(keys)
        if any(packed(layout, record)):
            records.append(record)
    return records


def counted(streams: Iterable[Stream]) -> dict[str, int]:
    """The expected summary, except for the latency."""
    streams = list(streams)
    batches = Counter((one.node, one.connection) for one in streams for _ in one.batches)
    return {
        "nodes": len({one.node for one in streams}),
        "connections": len(batches),
        "batches": batches.total(),
        "records": sum(len(records) for one in streams for _, records in one.batches),
    }
