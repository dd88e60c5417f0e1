"""Compares the engine's ndjson results with those that test_head.py expects.

    python3 compare_results.py EXPECTED.json RESULTS.ndjson

Counts, minima, keys and their order must be equal. Means and sums may have a relative difference of
1e-9, since the engine adds in another order. Prints any differences and exits with 1.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

RELATIVE_TOLERANCE = 1e-9
DIFFERENCES_SHOWN_MAX = 20

Json = dict[str, Any]


def main() -> int:
    """Compares the two files named on the command line."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    expected: list[Json] = json.loads(Path(sys.argv[1]).read_text())["connections"]
    results: list[Json] = [json.loads(line) for line in Path(sys.argv[2]).read_text().splitlines()]
    differences = compare(expected, results)
    for difference in differences[:DIFFERENCES_SHOWN_MAX]:
        print(difference)
    if differences:
        print(f"{len(differences)} differences")
        return 1
    records = sum(one["records"] for one in results)
    groups = sum(len(one["groups"]) for one in results)
    print(f"{len(results)} connections, {records} records, {groups} groups: as expected")
    return 0


def compare(expected: list[Json], results: list[Json]) -> list[str]:
    """All differences, as sentences; none if every result is as expected."""
    if not expected:
        return ["the sender expects no results: nothing was compared"]
    differences = []
    if len(expected) != len(results):
        differences.append(f"{len(expected)} connections were sent, {len(results)} were reported")
    for one, result in pair(expected, results):
        name = f"connection {one['connection']} from {one['local']}"
        if result is None:
            differences.append(f"{name}: no result")
        else:
            differences += [f"{name}: {text}" for text in compare_connection(one, result)]
    return differences


def pair(expected: list[Json], results: list[Json]) -> list[tuple[Json, Json | None]]:
    """Each expected connection with its result.

    Matched by the sender's port or, if the network translated the ports, by content, which is
    random enough to identify a connection.
    """
    by_port = {port(result["peer"]): result for result in results}
    if {port(one["local"]) for one in expected} == set(by_port):
        return [(one, by_port[port(one["local"])]) for one in expected]
    by_content = {content(result): result for result in results}
    return [(one, by_content.get(content(one))) for one in expected]


def port(address: str) -> str:
    """The port of an address `host:port`."""
    return address.rpartition(":")[2]


def content(connection: Json) -> tuple[tuple[int, str, int, int], ...]:
    """The part of a result that must be exactly equal."""
    return tuple((g["A"], g["E"], g["count"], g["D_min"]) for g in connection["groups"])


def compare_connection(expected: Json, result: Json) -> list[str]:
    """The differences of one connection."""
    wanted = {
        "status": "complete",
        "reason": None,
        "records": expected["records"],
        "packets": expected["packets"],
        "bytes": expected["bytes"],
        "bytes_after_end": 0,
    }
    differences = [
        f"{name} is {result.get(name)!r}, expected {value!r}"
        for name, value in wanted.items()
        if result.get(name) != value
    ]
    if content(expected) != content(result):
        differences.append("groups, their order, counts or minima differ")
        return differences
    for group, got in zip(expected["groups"], result["groups"], strict=True):
        for name in ("B_mean", "C_sum"):
            if not math.isclose(group[name], got[name], rel_tol=RELATIVE_TOLERANCE):
                key = f"A {group['A']}, E {group['E']!r}"
                differences.append(f"{name} of {key} is {got[name]}, expected {group[name]}")
    return differences


if __name__ == "__main__":
    sys.exit(main())
