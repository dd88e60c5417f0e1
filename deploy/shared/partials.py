"""Shared by the DuckDB and Spark merges: options, checksums, merge operations, HdrHistogram V2.

Decodes no Parquet. The metadata of groups files says how to merge each column, so nothing here
depends on types or functions. Standard library only, Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

GROUPS_FILES: Final = "*.groups.parquet"
STREAM_FILES: Final = "*.stream.parquet"

# The columns that identify the batch of a row, in both kinds of files.
IDENTITY: Final = ("node", "connection", "batch")

# Key of the merge operations in the Parquet metadata of groups files.
MERGE_KEY: Final = "ringest.merge"
MERGE_VERSION: Final = 2

EXIT_OK: Final = 0
EXIT_FILES_MISSING: Final = 1
EXIT_USAGE: Final = 2

# Number of missing files to list; the rest are only counted.
LINES_SHOWN: Final = 10


class PartialsError(Exception):
    """Partials that cannot be merged as requested; the text names the cause and the next step."""

    exit_code: int = EXIT_USAGE


class DamagedPartialsError(PartialsError):
    """A file that cannot be read, or that `serve --partials` did not write."""

    exit_code = EXIT_FILES_MISSING


# ---- options -------------------------------------------------------------------------------------


def parser(engine: str, output: str) -> argparse.ArgumentParser:
    """The options that both merges have."""
    options = argparse.ArgumentParser(description=f"Merges partials of ringest with {engine}.")
    add = options.add_argument
    add(
        "directories", nargs="+", metavar="DIR", help="directories of partials, of one node or many"
    )
    add("--by", help="comma-separated keys to group by; default: all keys")
    add(
        "--complete-only",
        action="store_true",
        help="leave out streams that did not end complete or lack files",
    )
    add("--skip-damaged", action="store_true", help="merge without files that are damaged")
    add("--format", choices=["table", "ndjson"], default="table", help="format of the output")
    add("--output", help=output)
    add("--output-format", choices=["parquet", "csv"], help="default: by the end of the name")
    return options


def output_format(output: str, chosen: str | None, default: str | None = None) -> str:
    """The format of the output: the end of its name decides, and must not contradict the option."""
    end = Path(output).suffix.lower().removeprefix(".")
    if end not in ("parquet", "csv"):
        if chosen is None and (default is None or end in ("arrow", "ndjson")):
            raise PartialsError(
                f"--output {output} does not end in .parquet or .csv; rename it, or choose its "
                "format with --output-format"
            )
        end = chosen or default
    if chosen not in (None, end):
        raise PartialsError(
            f"--output {output} ends in .{end}, but --output-format is {chosen}; rename it, or "
            "leave --output-format out"
        )
    return end


# ---- checksums -----------------------------------------------------------------------------------

# Key of a file's checksum in its metadata: eight hexadecimal digits, the CRC-32 of all bytes of the
# file with zeros in place of these digits.
CHECKSUM_KEY: Final = "ringest.crc32"
_BLANK: Final = b"00000000"
# Metadata is Thrift: a string of 13 bytes and one of eight, each behind its type and its length.
_CHECKSUM: Final = b"\x18\x0d" + CHECKSUM_KEY.encode() + b"\x18\x08"
# Metadata is at the end of the file.
_SEARCHED_BYTES: Final = 1 << 20

NO_CHECKSUM: Final = "no checksum"


def damage(content: bytes) -> str | None:
    """How a file of partials is damaged; `NO_CHECKSUM` if nothing can tell, `None` if it is not."""
    if len(content) < 12 or not content.startswith(b"PAR1") or not content.endswith(b"PAR1"):
        return "it is cut off or not Parquet"
    found = _checksum(content)
    if found is None:
        return NO_CHECKSUM
    at, checksum = found
    recorded = content[at : at + len(_BLANK)]
    if recorded == checksum:
        return None
    return f"its checksum is {checksum.decode()}, but {recorded.decode(errors='replace')} was recorded"


def seal(file: Path | str) -> None:
    """Puts the checksum into a file that was written with eight zeros for it."""
    with Path(file).open("r+b") as parquet:
        found = _checksum(parquet.read())
        if found is None:
            raise PartialsError(f"{file} has no {CHECKSUM_KEY} to be filled in")
        parquet.seek(found[0])
        parquet.write(found[1])


def _checksum(content: bytes) -> tuple[int, bytes] | None:
    """Where the digits are, and what they should be."""
    at = content.rfind(_CHECKSUM, max(len(content) - _SEARCHED_BYTES, 0))
    if at < 0:
        return None
    at += len(_CHECKSUM)
    view = memoryview(content)
    checksum = zlib.crc32(_BLANK, zlib.crc32(view[:at]))
    return at, b"%08x" % zlib.crc32(view[at + len(_BLANK) :], checksum)


def left_out(
    found: Iterable[tuple[str, str | None]], skip_damaged: bool, out: TextIO
) -> dict[str, str]:
    """Of files with their damage, those that cannot be merged.

    Raises an error about the first one unless they are to be skipped.
    """
    damaged = {file: wrong for file, wrong in found if wrong is not None}
    unsealed = [file for file, wrong in damaged.items() if wrong == NO_CHECKSUM]
    say_list(
        out,
        "one file has no checksum, so damage to it may not be noticed",
        "files have no checksum, so damage to them may not be noticed",
        unsealed,
    )
    for file in unsealed:
        del damaged[file]
    if damaged and not skip_damaged:
        file, wrong = next(iter(damaged.items()))
        raise DamagedPartialsError(
            f"{file} is damaged: {wrong}; copy it again, seal it again if another program has "
            "rewritten it, or merge without it (--skip-damaged)"
        )
    return damaged


# ---- merge operations ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column's name and type: u8 to u64, i8 to i64, f32, f64, bool, text or bytes."""

    name: str
    type: str

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.type in ("f32", "f64")


@dataclass(frozen=True)
class Part(Column):
    """A column of partials other than a key: the rows of a group merge into one value.

    `merge` is sum, min, max (NaN counts only if there is nothing else, and -0.0 is below 0.0),
    first, last (in time order), mean and rest (of floats: the sum is the count times the mean, plus
    the rest), squares (squared distances from the mean that the columns `around` give, in squares of
    the column `unit` if there is one), or unit.
    """

    merge: str
    around: tuple[str, ...] = ()
    unit: str | None = None


@dataclass(frozen=True)
class Aggregate(Column):
    """A column of the result other than a key, computed from the merged columns `of`.

    `finish` is value (unchanged), sum (null if its type cannot hold it), mean (divided by the
    count), variance or deviation (of a sample; null for a single record). Of integers, two columns
    form one sum: the first times 2**32, plus the second. Of floats, they are a mean and its rest.
    """

    finish: str
    of: tuple[str, ...]


@dataclass(frozen=True)
class MergePlan:
    """How to merge partials."""

    # The columns that identify a row, in addition to its keys.
    identity: tuple[str, ...] = IDENTITY
    # The columns that define the time order.
    order: tuple[str, ...] = ()
    keys: tuple[Column, ...] = ()
    columns: tuple[Part, ...] = ()
    result: tuple[Aggregate, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns of groups files."""
        others = [name for name in self.order if name not in self.identity]
        described = [one.name for one in (*self.keys, *self.columns)]
        return [*self.identity, *others, *described]

    @property
    def squares(self) -> list[Part]:
        """The columns of squared distances."""
        return [one for one in self.columns if one.merge == "squares"]

    @property
    def means(self) -> list[Part]:
        """The columns of means of which a sum or a mean is made."""
        used = {name for one in self.result if one.finish in ("sum", "mean") for name in one.of}
        return [one for one in self.columns if one.merge == "mean" and one.name in used]

    def column(self, name: str) -> Part:
        """The column with this name."""
        return next(one for one in self.columns if one.name == name)

    def keys_by(self, names: str | None) -> tuple[Column, ...]:
        """The keys with these names, in this order; all keys for `None`, any without partials."""
        if names is None or not self.keys:
            return self.keys
        by_name = {key.name: key for key in self.keys}
        wanted = names.split(",")
        for name in wanted:
            if name not in by_name:
                there = ", ".join(by_name)
                raise PartialsError(f'--by: "{name}" is not a key of these partials; keys: {there}')
        if len(set(wanted)) < len(wanted):
            raise PartialsError("--by: name each key once")
        return tuple(by_name[name] for name in wanted)


def parse_plan(text: str, where: str) -> MergePlan:
    """Reads the merge operations of a file."""
    try:
        document = json.loads(text)
        version = document["version"]
        if version != MERGE_VERSION:
            raise DamagedPartialsError(
                f"{where}: merge operations have version {version}, supported is {MERGE_VERSION}; "
                "use the scripts of the release that wrote the file"
            )
        return MergePlan(
            tuple(document["identity"]),
            tuple(document["order"]),
            tuple(Column(**one) for one in document["keys"]),
            tuple(
                Part(**one | {"around": tuple(one.get("around", ()))})
                for one in document["columns"]
            ),
            tuple(Aggregate(**one | {"of": tuple(one["of"])}) for one in document["result"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedPartialsError(f"{where}: its {MERGE_KEY} cannot be read: {error}") from error


def one_plan(found: Iterable[tuple[str | None, str]]) -> MergePlan:
    """The plan shared by all of these (text, where). Repacked files may have none."""
    plan, first, where = None, "", ""
    for text, where in found:
        if text is None:
            continue
        other = parse_plan(text, where)
        if plan is not None and other != plan:
            raise PartialsError(
                f"{where} differs from {first}: partials of different schemas cannot be merged; "
                "name directories of one schema"
            )
        plan, first = other, where
    if plan is None:
        raise PartialsError(
            f"{where} has no {MERGE_KEY}: an older ringest wrote it, or it was repacked without "
            "its metadata; `ringest merge` reads it"
        )
    return plan


# ---- latencies -----------------------------------------------------------------------------------

# "HdrHistogram encoding V2": cookie, bytes of the counts, normalizing offset, digits, lowest and
# highest value, ratio; then counts as zig-zag LEB128 of at most nine bytes, of which negative ones
# give the number of zero counts left out. All numbers are big-endian.
_HEADER: Final = struct.Struct(">IIIIQQd")
_COOKIE: Final = 0x1C849313
_VARINT_BYTES_MAX: Final = 9

QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999))


@dataclass
class Histogram:
    """Counts of nanoseconds by bucket. The lowest value and the digits determine the buckets."""

    lowest: int
    highest: int
    digits: int
    counts: Counter[int] = field(default_factory=Counter)

    @classmethod
    def decode(cls, encoded: bytes) -> Histogram:
        """Reads encoding V2, uncompressed, as in the column `latency_v2`."""
        if len(encoded) < _HEADER.size:
            raise DamagedPartialsError(f"latency_v2: {len(encoded)} bytes, the header alone has 40")
        cookie, length, offset, digits, lowest, highest, _ = _HEADER.unpack_from(encoded)
        if cookie != _COOKIE:
            raise DamagedPartialsError(
                f"latency_v2: begins with {cookie:#010x}, not {_COOKIE:#010x}"
            )
        if offset != 0 or not 0 <= digits <= 5 or lowest < 1:
            raise DamagedPartialsError("latency_v2: not a histogram written by ringest")
        if len(encoded) != _HEADER.size + length:
            raise DamagedPartialsError(
                f"latency_v2: {len(encoded) - _HEADER.size} bytes of counts, the header says "
                f"{length}"
            )
        return cls(lowest, highest, digits, Counter(_counts(encoded, _HEADER.size)))

    @property
    def total(self) -> int:
        """Number of recorded values."""
        return self.counts.total()

    def add(self, other: Histogram) -> None:
        """Adds the values of another. If its buckets differ, counts go by their lowest values."""
        if (self.lowest, self.digits) == (other.lowest, other.digits):
            mine = self.counts
            for index, count in other.counts.items():
                mine[index] = mine.get(index, 0) + count
        else:
            for index, count in other.counts.items():
                self.counts[self._index_of(other._bounds(index)[0])] += count
        self.highest = max(self.highest, other.highest)

    def quantile(self, quantile: float) -> int:
        """The highest value of the bucket with this quantile; 0 if nothing is recorded."""
        rank = max(math.ceil(quantile * self.total), 1)
        reached = 0
        for index in sorted(self.counts):
            reached += self.counts[index]
            if reached >= rank:
                return self._bounds(index)[1]
        return 0

    def summary_us(self) -> dict[str, float]:
        """Percentiles and maximum in microseconds, and the count, as in results."""
        quantiles: dict[str, float] = {name: self.quantile(q) / 1000 for name, q in QUANTILES}
        longest = self._bounds(max(self.counts))[1] if self.counts else 0
        return {**quantiles, "max": longest / 1000, "count": self.total}

    @property
    def _shifts(self) -> tuple[int, int]:
        """Number of bits below the finest step, and of bits for half of a bucket's steps."""
        steps_bits = (2 * 10**self.digits - 1).bit_length()
        return self.lowest.bit_length() - 1, max(steps_bits, 1) - 1

    def _bounds(self, index: int) -> tuple[int, int]:
        """The smallest and the largest value of a bucket."""
        unit, half_bits = self._shifts
        half = 1 << half_bits
        bucket = (index >> half_bits) - 1
        step = (index & (half - 1)) + (half if bucket >= 0 else 0)
        shift = unit + max(bucket, 0)
        low = step << shift
        return low, low + (1 << shift) - 1

    def _index_of(self, value: int) -> int:
        unit, half_bits = self._shifts
        bucket = max(value.bit_length() - unit - half_bits - 1, 0)
        return ((bucket + 1) << half_bits) + (value >> (bucket + unit)) - (1 << half_bits)


def _counts(encoded: bytes, at: int) -> dict[int, int]:
    """Counts by index. The loop makes no calls, as a merge may have a million histograms."""
    counts: dict[int, int] = {}
    index, end = 0, len(encoded)
    while at < end:
        number = encoded[at]
        at += 1
        if number >= 0x80:
            number, at = _long_number(encoded, at - 1)
        if number & 1:
            # Zig-zag of a negative number: the number of zero counts left out.
            index += (number >> 1) + 1
        else:
            if number:
                counts[index] = number >> 1
            index += 1
    return counts


def _long_number(encoded: bytes, start: int) -> tuple[int, int]:
    """A number of two bytes or more, before zig-zag decoding, and its end."""
    number = 0
    for place, byte in enumerate(encoded[start : start + _VARINT_BYTES_MAX]):
        if place == _VARINT_BYTES_MAX - 1:
            # All eight bits of the ninth byte count: it has no continuation bit.
            return number | byte << 56, start + _VARINT_BYTES_MAX
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, start + place + 1
    raise DamagedPartialsError("latency_v2: ends within a count")


def merged_latency(encoded: Iterable[bytes | None]) -> Histogram | None:
    """The combined histogram; `None` if there is none."""
    merged: Histogram | None = None
    for one in encoded:
        if one is None:
            continue
        histogram = Histogram.decode(bytes(one))
        if merged is None:
            merged = histogram
        else:
            merged.add(histogram)
    return merged


def latency_us(merged: Histogram | None) -> dict[str, float]:
    """The summary of a histogram as in results; zeros if there is none."""
    return (merged or Histogram(1, 2, 0)).summary_us()


# ---- what is shown -------------------------------------------------------------------------------


def summary(
    nodes: int, connections: int, batches: int, records: int, latency: Histogram | None
) -> dict[str, Any]:
    """A summary of what was merged, with the keys of `ringest merge`."""
    counted = {"nodes": nodes, "connections": connections, "batches": batches}
    return {**counted, "records": int(records), "latency_us": latency_us(latency)}


def summary_line(summary: dict[str, Any]) -> str:
    """The summary as text."""
    latency = summary["latency_us"]
    shown = {name: value for name, value in latency.items() if name != "count"}
    percentiles = ", ".join(f"{name} {value} µs" for name, value in shown.items())
    return (
        f"{summary['nodes']} nodes, {summary['connections']} connections, {summary['batches']} "
        f"batches, {summary['records']} records\n"
        f"latency of {latency['count']} packets: {percentiles}"
    )


def say_list(out: TextIO, one: str, many: str, names: Sequence[str]) -> None:
    """Prints a line about things of one kind, as `ringest merge` does."""
    if names:
        what = one if len(names) == 1 else f"{len(names)} {many}"
        rest = len(names) - LINES_SHOWN
        shown = ", ".join(names[:LINES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
        print(f"merge.py: {what}: {shown}", file=out)


Stream = tuple[str, str]


@dataclass(frozen=True)
class MissingFiles:
    """What a result lacks, as `ringest merge` reports it. A stream is (node, connection)."""

    # (node, connection, batches missing, batches expected)
    gaps: Sequence[tuple[str, str, int, int]]
    # (node, connection, batch, records in groups, records according to its row)
    differing: Sequence[tuple[str, str, int, int, int]]
    # (node, connection, batch, whether a later batch has a row) with groups but no row: a killed
    # node leaves the last one so
    unsaid: Sequence[tuple[str, str, int, bool]]
    # With --complete-only: streams that did not end complete, and others of which files are missing.
    not_complete: Sequence[Stream] = ()
    not_whole: Sequence[Stream] = ()

    def report(self, damaged: dict[str, str], out: TextIO) -> int:
        """Prints what is missing, and the damaged files; returns the exit code."""
        say_list(
            out,
            "one stream did not end complete and is left out",
            "streams did not end complete and are left out",
            [f"{connection} of {node}" for node, connection in self.not_complete],
        )
        say_list(
            out,
            "one batch has groups and no .stream.parquet",
            "batches have groups and no .stream.parquet",
            [
                f"batch {batch} of stream {connection} of {node}"
                for node, connection, batch, lost in self.unsaid
                if not lost
            ],
        )
        faults = [f"{file} is damaged and was left out: {why}" for file, why in damaged.items()]
        faults += [
            f"stream {connection} of {node} lacks {missing} of {total} batches"
            for node, connection, missing, total in self.gaps
        ]
        faults += [
            f"batch {batch} of stream {connection} of {node} has no .stream.parquet, but a later "
            "one has: its packets and latencies are missing"
            for node, connection, batch, lost in self.unsaid
            if lost
        ]
        faults += [
            f"batch {batch} of stream {connection} of {node} has groups of {grouped} records, "
            f"it had {said}"
            for node, connection, batch, grouped, said in self.differing
        ]
        faults += [
            f"stream {connection} of {node} ended complete, but not all of it is here; it was "
            "left out"
            for node, connection in self.not_whole
        ]
        for fault in faults[:LINES_SHOWN]:
            print(f"merge.py: {fault}", file=out)
        if len(faults) > LINES_SHOWN:
            print(f"merge.py: and {len(faults) - LINES_SHOWN} more of this kind", file=out)
        if not faults:
            return EXIT_OK
        print(
            "merge.py: the result is not all that was received: look for the files where they "
            "were written",
            file=out,
        )
        return EXIT_FILES_MISSING


def write_ndjson(
    out: TextIO, summary: dict[str, Any], groups: Iterable[dict[str, Any]] | None
) -> None:
    """Writes one object on one line. Groups are written one by one, as they may fill the memory."""
    line = json.dumps(summary)
    if groups is None:
        out.write(line + "\n")
        return
    out.write(line[:-1] + ', "groups": [')
    for i, group in enumerate(groups):
        shown = {name: json_value(value) for name, value in group.items()}
        out.write((", " if i else "") + json.dumps(shown))
    out.write("]}\n")


def json_value(value: Any) -> Any:
    """A value as in ndjson: bytes in hexadecimal, and strings for numbers that JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    # Spark returns these integers as decimals.
    return value if isinstance(value, bool | int | float | str | None) else int(value)
