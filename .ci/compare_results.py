"""Compares the engine's ndjson with what test_head.py says that it sent.

    python3 compare_results.py EXPECTED.json RESULTS.ndjson

Counts, minima, keys and their order must be equal; means and sums may differ by 1e-9 relative,
since the engine adds in another order. Exits 1 and says what differs if anything does.
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
    """Compares the two files that the command line names."""
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
    print(f"{len(results)} connections, {records} records, {groups} groups: as they were sent")
    return 0


def compare(expected: list[Json], results: list[Json]) -> list[str]:
    """All differences, as sentences; none if every connection came out as it was sent."""
    if not expected:
        return ["the sender expects no result at all: nothing was compared"]
    differences = []
    if len(expected) != len(results):
        differences.append(f"{len(expected)} connections were sent, {len(results)} were reported")
    for one, result in pair(expected, results):
        name = f"connection {one['connection']} from {one['local']}"
        if result is None:
            differences.append(f"{name}: no such result")
        else:
            differences += [f"{name}: {text}" for text in compare_connection(one, result)]
    return differences


def pair(expected: list[Json], results: list[Json]) -> list[tuple[Json, Json | None]]:
    """Each expected connection with its result.

    By the sender's port; where the network has changed the ports on the way, by the content, which
    is random enough to tell the connections apart.
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
    """The part of a result that must be equal to the last bit."""
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
