"""Groups records by exact fractions: the slowest and most obvious way to compute a result."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from ringest import Schema, shown_text


def naive_aggregate(kind: str, function: str, values: list[Any]) -> Any:
    """A function of a group's values; None stands for null."""
    exact = [Fraction(value) for value in values]
    total, count = sum(exact), len(exact)
    if function in ("min", "max"):
        return min(values) if function == "min" else max(values)
    if function in ("first", "last"):
        return values[0] if function == "first" else values[-1]
    if function == "mean":
        return float(total / count)
    if function == "sum":
        if kind in ("f32", "f64"):
            return float(total)
        low, high = (-(2**63), 2**63 - 1) if kind.startswith("i") else (0, 2**64 - 1)
        return int(total) if low <= total <= high else None
    if count < 2:
        return None
    variance = sum((one - total / count) ** 2 for one in exact) / (count - 1)
    return float(variance) if function == "var" else math.sqrt(variance)


def naive_groups(schema: Schema, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of records, sorted by key, in the form of the engine's JSON."""
    types = {field.name: field.type for field in schema.fields}

    def sort_key(record: dict[str, Any]) -> tuple[Any, ...]:
        values = (record[key] for key in schema.by)
        return tuple(
            value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            for value in values
        )

    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(sort_key(record), []).append(record)
    rows = []
    for _, members in sorted(groups.items()):
        row: dict[str, Any] = {}
        for key in schema.by:
            value = members[0][key]
            shown = shown_text(value) if types[key] == "text" else value
            row[key] = shown.hex() if isinstance(shown, bytes) else shown
        for one in schema.aggregates:
            if one.function == "count":
                row["count"] = len(members)
            else:
                values = [record[one.field] for record in members]
                row[one.column_name] = naive_aggregate(types[one.field], one.function, values)
        rows.append(row)
    return rows


def assert_groups_match(
    wanted: list[dict[str, Any]],
    got: list[dict[str, Any]],
    *,
    relative: float = 1e-12,
    absolute: float = 1e-12,
) -> None:
    """Asserts that groups are equal, with a tolerance for floating-point numbers only."""
    assert len(wanted) == len(got)
    for one, other in zip(wanted, got, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            if isinstance(value, float):
                close = math.isclose(value, other[name], rel_tol=relative, abs_tol=absolute)
                assert close, (name, value, other[name])
            else:
                assert (type(value), value) == (type(other[name]), other[name]), name
