"""Computes the exact result of seeded records, the slow and simple way. No I/O.

The engine adds in another order and groups with other code, so agreement means something.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from ringest.results import shown_text
from ringest.schema import Schema
from ringest.schema_types import FLOATS, SIGNED, FieldType, Function
from ringest.seeded_records import SeededGroup, SeededRecords


def expected_groups(schema: Schema, records: SeededRecords) -> list[dict[str, Any]]:
    """The groups of the records taken so far, as `ringest serve --format ndjson` reports them."""
    groups = [group for group in records.groups if group.rows]
    groups.sort(key=lambda group: group.key)
    return [_expected_group(schema, records.tallied, group) for group in groups]


def _expected_group(schema: Schema, tallied: Sequence[str], group: SeededGroup) -> dict[str, Any]:
    fields = {field.name: field for field in schema.fields}
    types = {name: field.type for name, field in fields.items()}
    expected: dict[str, Any] = {}
    for name, value in zip(schema.by, group.key, strict=True):
        if not isinstance(value, bytes):
            expected[name] = value
        elif types[name] != "text":
            expected[name] = value.hex()
        elif fields[name].encoding == "latin1":
            expected[name] = shown_text(value.decode("latin-1"))
        else:
            expected[name] = shown_text(value)
    values = dict(zip(tallied, zip(*group.rows, strict=True), strict=True))
    for one in schema.aggregates:
        if one.function == "count":
            expected["count"] = len(group.rows)
        else:
            of = types[one.field], one.function, values[one.field]
            expected[one.column_name] = exact_aggregate(*of)
    return expected


def exact_aggregate(kind: FieldType, function: Function, values: Sequence[Any]) -> Any:
    """A function of a group's values, exact and rounded once; None stands for null.

    Null are a variance of a single value and a sum of integers that does not fit into 64 bits.
    """
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
            # The plus makes numbers of booleans.
            variance = statistics.variance([+value for value in values])
            return float(variance) if function == "var" else math.sqrt(variance)
    total: Any = math.fsum(values) if kind in FLOATS else sum(values)
    if function == "mean":
        return total / count
    low, high = (-(1 << 63), (1 << 63) - 1) if kind in SIGNED else (0, (1 << 64) - 1)
    return total if kind in FLOATS or low <= total <= high else None
