"""What a merge says: the summary, and what is missing, in the words of `ringest merge`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from .errors import EXIT_FAILED, EXIT_OK
from .histogram import Histogram, latency_us

# Number of names to list; the rest are only counted.
NAMES_LISTED: Final = 10


def say(text: str) -> None:
    """Prints a line on stderr. Names of files may not be UTF-8."""
    print(f"merge.py: {text}", file=sys.stderr)


def shortened(names: Sequence[str], separator: str = ", ") -> str:
    """The first names."""
    rest = len(names) - NAMES_LISTED
    return separator.join(names[:NAMES_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def say_list(one: str, many: str, names: Sequence[str]) -> None:
    """Prints a line about things of one kind."""
    if names:
        say(f"{one if len(names) == 1 else f'{len(names)} {many}'}: {shortened(names)}")


def summary(
    nodes: int, connections: int, batches: int, records: int, latency: Histogram | None
) -> dict[str, Any]:
    """A summary of what was merged, with the keys of `ringest merge`."""
    counted = {"nodes": nodes, "connections": connections, "batches": batches}
    return {**counted, "records": records, "latency_us": latency_us(latency)}


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


Stream = tuple[str, str]


@dataclass
class Findings:
    """What a result lacks. A stream is (node, connection)."""

    damaged: dict[str, str]
    unsealed: Sequence[str]
    # (node, connection, batches missing, batches expected, the first missing)
    gaps: Sequence[tuple[str, str, int, int, int]] = ()
    # (node, connection, batch, records in groups, records according to its row)
    differing: Sequence[tuple[str, str, int, int, int]] = ()
    # (node, connection, batch, whether a later batch has a row) with groups but no row: a killed
    # node leaves the last one so
    unsaid: Sequence[tuple[str, str, int, bool]] = ()
    # Streams whose last batch is not there.
    unfinished: Sequence[Stream] = ()
    # With --complete-only: streams that did not end complete, and others that lack files.
    not_complete: Sequence[Stream] = ()
    not_whole: Sequence[Stream] = ()
    # Columns with sums that do not fit.
    overflowed: Sequence[str] = field(default_factory=list)

    def report(self) -> int:
        """Prints them; returns the exit code."""
        say_list(
            "one stream did not end complete and is left out",
            "streams did not end complete and are left out",
            [name_of(*stream) for stream in self.not_complete],
        )
        say_list(
            "one stream is unfinished",
            "streams are unfinished",
            [name_of(*stream) for stream in self.unfinished],
        )
        say_list(
            "one batch has groups and no .stream.parquet",
            "batches have groups and no .stream.parquet",
            [
                f"batch {batch} of stream {name_of(*one)}"
                for *one, batch, lost in self.unsaid
                if not lost
            ],
        )
        say_list(
            "one file has no checksum, so damage to it may not be noticed",
            "files have no checksum, so damage to them may not be noticed",
            self.unsealed,
        )
        if self.overflowed:
            columns = ", ".join(self.overflowed)
            say(f"some sums of {columns} do not fit into 64 bits; they are null")
        faults = self.faults()
        for fault in faults[:NAMES_LISTED]:
            say(fault)
        if len(faults) > NAMES_LISTED:
            say(f"and {len(faults) - NAMES_LISTED} more of this kind")
        if faults:
            where = "look for the files where they were written"
            say(f"the result is not all that was received: {where}")
        return EXIT_FAILED if faults else EXIT_OK

    def faults(self) -> list[str]:
        """What is missing or damaged: files, then by stream and batch."""
        # By node, connection and batch.
        found: list[tuple[str, str, float, str]] = []
        for node, connection, missing, total, first in self.gaps:
            text = f"lacks {missing} of {total} batches, the first: {first}"
            found.append((node, connection, -1, f"stream {name_of(node, connection)} {text}"))
        for node, connection, batch, lost in self.unsaid:
            text = (
                "has no .stream.parquet, but a later one has: its packets and latencies are missing"
            )
            if lost:
                name = f"batch {batch} of stream {name_of(node, connection)}"
                found.append((node, connection, batch, f"{name} {text}"))
        for node, connection, batch, grouped, said in self.differing:
            text = f"has groups of {grouped} records, it had {said}"
            name = f"batch {batch} of stream {name_of(node, connection)}"
            found.append((node, connection, batch, f"{name} {text}"))
        for node, connection in self.not_whole:
            text = "ended complete, but not all of it is here; it was left out"
            found.append((node, connection, math.inf, f"stream {name_of(node, connection)} {text}"))
        damaged = (
            f"{path} is damaged and was left out: {why}" for path, why in self.damaged.items()
        )
        return [*damaged, *(text for *_, text in sorted(found))]


def name_of(node: str, connection: str) -> str:
    """A stream, as in messages."""
    return f"{connection} of {node}"


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
