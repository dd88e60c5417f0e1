"""The SQL of a merge, in the words that DuckDB and Spark share. Runs nothing.

Every step adds columns to the rows of the step before, so that nothing is computed twice. Added
columns have names with spaces, which no field has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .batches import STREAM, complete, once
from .errors import PartialsError
from .plan import Aggregate, Column, MergePlan, Part

# Floats are added as integers: in units of 2^-50 of the power of two of the largest number, and
# what is left in two more pieces of 50 bits.
PIECE_BITS: Final = 50
PIECE: Final = 1 << PIECE_BITS
LARGEST: Final = "1.7976931348623157e308"
FLOATS: Final = {"f32": "FLOAT", "f64": "DOUBLE"}
SUM_LIMITS: Final = {"u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1)}
RECORDS: Final = 'CAST("count" AS DOUBLE)'
ALL_RECORDS: Final = 'CAST("all count" AS DOUBLE)'

_ONCE: Final = "One copy of each row: copies agree in node, connection, batch and keys."
COMMENTS: Final = {
    "rows_once": _ONCE,
    "rows_of_files": _ONCE,
    "complete": "Streams that ended complete and of which everything is there.",
    "with_powers": "The power of two of the largest mean of each group, and a scale.",
    "with_units": "Floats are added as integers, so that no digits cancel and the order does not "
    "matter:\n-- in units of a part of that power.",
    "with_pieces": "Each number in three pieces of 50 bits.",
    "with_origins": "For squared distances: each row's mean, in two parts.",
    "with_distances": "The distance of each mean from the least one.",
    "with_means": "The distance of the mean of all, and the furthest, for a unit.",
    "with_low_carry": "What the sums of pieces are beyond a piece.",
}


@dataclass(frozen=True)
class Dialect:
    """What DuckDB and Spark say differently."""

    # The type in which it reads u64.
    u64: str
    # The type in which integers are added: it holds every sum, and counts times numbers.
    wide: str
    # An integer near the quotient of two integers {0} and {1}.
    quotient: str
    # By what a text sorts like its bytes: results have escapes for what cannot be shown.
    text_bytes: Callable[[str], str]
    ignores_case: bool = False


@dataclass(frozen=True)
class MergeSql:
    """The queries of a merge by these keys."""

    plan: MergePlan
    by: tuple[Column, ...]
    dialect: Dialect

    def __post_init__(self) -> None:
        result = [one.name for one in (*self.plan.keys, *self.plan.result)]
        for columns in (self.plan.column_types, result) if self.dialect.ignores_case else ():
            for name, uses in Counter(name.casefold() for name in columns).items():
                if uses > 1:
                    raise PartialsError(
                        f'two columns differ only in case ("{name}"), which DuckDB cannot tell '
                        "apart; use `ringest merge` or Spark"
                    )

    @property
    def keys(self) -> str:
        """The keys of the result."""
        return ", ".join(quoted(key.name) for key in self.by)

    def merged_files(self, groups: str, streams: str | None = None) -> str:
        """The result of rows of groups; only of complete streams if there are rows of those."""
        if streams is None:
            return self.merged("rows_once", {"rows_once": self.rows_once(groups)})
        kept = f"SELECT * FROM rows_of_files SEMI JOIN complete USING ({STREAM})"
        tables = {
            "rows_of_files": self.rows_once(groups),
            "complete": complete(once(streams), "rows_of_files"),
            "rows_kept": kept,
        }
        return self.merged("rows_kept", tables)

    def merged(self, rows: str, before: dict[str, str] | None = None) -> str:
        """The result of rows without copies, which the tables `before` may make."""
        tables = dict(before or {})
        rows = self.add_steps(tables, rows, self.steps())
        tables["merged_groups"] = self.merged_groups(rows)
        rows = self.add_steps(tables, "merged_groups", self.carried())
        sections = []
        for name, sql in tables.items():
            comment = f"-- {COMMENTS[name]}\n" if name in COMMENTS else ""
            indented = "\n".join("    " + line for line in sql.splitlines())
            sections.append(f"{comment}{name} AS (\n{indented}\n)")
        return "WITH\n" + ",\n".join(sections) + "\n" + self.result(rows)

    def add_steps(self, tables: dict[str, str], rows: str, steps: dict[str, list[str]]) -> str:
        """Adds the steps that have columns; returns the last."""
        for name, columns in steps.items():
            if columns:
                window = f"\nWINDOW of_group AS (PARTITION BY {self.keys})"
                used = window if any("OVER of_group" in one for one in columns) else ""
                tables[name] = f"SELECT *,{listed(columns)}\nFROM {rows}{used}"
                rows = name
        return rows

    def rows_once(self, source: str) -> str:
        """One copy of each row."""
        identity = [*self.plan.identity, *(key.name for key in self.plan.keys)]
        others = (quoted(name) for name in self.plan.column_types if name not in identity)
        own = ", ".join(map(quoted, identity))
        columns = listed(f"any_value({name}) AS {name}" for name in others)
        return f"SELECT {own},{columns}\nFROM {source}\nGROUP BY {own}"

    def wide(self, sql: str) -> str:
        """An integer that can be added."""
        return f"CAST({sql} AS {self.dialect.wide})"

    # ---- columns that are added to each row ------------------------------------------------------

    def steps(self) -> dict[str, list[str]]:
        """The columns of each step; some have none."""
        means, squares = self.plan.means, self.plan.squares
        numbers = [(one, mean) for mean, rest in means for one in (mean, rest)]
        scales = (scale(one) for one in squares if one.unit)
        records = 'CAST(sum("count") OVER of_group AS DOUBLE) AS "all records"'
        return {
            "with_powers": [*(power_of_largest(*pair) for pair in means), *scales],
            "with_units": [in_units(*one) for one in numbers],
            "with_pieces": [column for one, _ in numbers for column in first_piece(one)],
            "with_more_pieces": [column for one, _ in numbers for column in more_pieces(one)],
            "with_origins": [column for one in squares for column in self.own_mean(one)],
            "with_distances": [records, *map(distance, squares)] if squares else [],
            "with_means": [column for one in squares for column in common_mean(one)],
        }

    def own_mean(self, column: Part) -> tuple[str, str]:
        """A row's mean in two parts, which must not be added before the least is subtracted."""
        if self.plan.column(column.around[0]).merge == "mean":
            times = f" * {of('scale', column.name)}" if column.unit else ""
            near, rest = (f"{quoted(name)}{times}" for name in column.around)
        else:
            total = whole(self.wide(quoted(name)) for name in column.around)
            count = self.wide('"count"')
            near = self.dialect.quotient.format(total, count)
            rest = f"CAST({total} - {near} * {count} AS DOUBLE)"
        origin, part = (of(what, column.name) for what in ("origin", "part"))
        return f"{near} AS {origin}", f"{rest} / {RECORDS} AS {part}"

    # ---- groups ----------------------------------------------------------------------------------

    def merged_groups(self, source: str) -> str:
        """One row for each group: its keys and merged columns."""
        columns = [column for one in self.plan.columns for column in self.merged_column(one)]
        columns += [column for pair in self.plan.means for column in self.sums_of_pieces(*pair)]
        return f"SELECT {self.keys},{listed(columns)}\nFROM {source}\nGROUP BY {self.keys}"

    def merged_column(self, column: Part) -> list[str]:
        """What merges a column's rows into one value, and what is needed besides."""
        value, name = quoted(column.name), quoted(f"all {column.name}")
        match column.merge:
            case "mean" | "rest" | "unit":
                return []
            case "sum":
                return [f"sum({self.wide(value)}) AS {name}"]
            case "min" | "max" as extreme if column.is_float:
                return [f"{extreme_of_floats(extreme, column)} AS {name}"]
            case "min" | "max" as extreme:
                return [f"{extreme}({value}) AS {name}"]
            case "first" | "last" as end:
                # Within a batch, rows of one group differ only in the keys that are merged away.
                keys = (key.name for key in self.plan.keys)
                order = ", ".join(map(quoted, (*self.plan.order, *keys)))
                function = "min_by" if end == "first" else "max_by"
                if not column.is_float:
                    return [f"{function}({value}, ({order})) AS {name}"]
                # As text, because DuckDB's function loses the sign of a zero.
                text = f"{function}(CAST({value} AS STRING), ({order}))"
                return [f"CAST({text} AS {FLOATS[column.type]}) AS {name}"]
            case "squares":
                units = {"unit": unit_of(column), "scale": of("scale", column.name)}
                maxima = (f"max({sql}) AS {of(f'{what} of all', column.name)}"
                          for what, sql in units.items() if column.unit)  # fmt: skip
                return [f"{merged_squares(column)} AS {name}", *maxima]
            case other:
                raise PartialsError(f'"{column.name}" has an unknown merge operation "{other}"')

    def sums_of_pieces(self, mean: str, rest: str) -> list[str]:
        """The sums of the pieces of floats, and what is not finite, which adds as IEEE 754 says."""
        count = self.wide('"count"')
        sums = {
            piece: f"sum({self.wide(of(piece, mean))} * {count} + {self.wide(of(piece, rest))})"
            for piece in ("piece 0", "piece 1", "piece 2")
        } | {
            "special": f"sum(CASE WHEN NOT {is_finite(mean)} THEN {quoted(mean)} END)",
            "largest": f"max(abs({quoted(mean)}))",
            "power": f"max({of('power', mean)})",
        }
        return [f"{sql} AS {of(what, mean)}" for what, sql in sums.items()]

    def carried(self) -> dict[str, list[str]]:
        """What the sums of pieces have beyond a piece, so that no last ones are rounded away."""
        low, middle, quotient = [], [], self.dialect.quotient.format
        for mean, _ in self.plan.means:
            sum_1 = f"{of('piece 1', mean)} + {of('carry 2', mean)}"
            low.append(f"{quotient(of('piece 2', mean), PIECE)} AS {of('carry 2', mean)}")
            middle.append(f"{quotient(sum_1, PIECE)} AS {of('carry 1', mean)}")
        return {"with_low_carry": low, "with_carries": middle}

    # ---- results ---------------------------------------------------------------------------------

    def result(self, rows: str) -> str:
        """The sorted result: keys, then aggregates in the schema's order."""
        columns = (f"{self.finished(one)} AS {quoted(one.name)}" for one in self.plan.result)
        order = (
            self.dialect.text_bytes(quoted(key.name)) if key.type == "text" else quoted(key.name)
            for key in self.by
        )
        return f"SELECT {self.keys},{listed(columns)}\nFROM {rows}\nORDER BY {', '.join(order)}"

    def finished(self, aggregate: Aggregate) -> str:
        """A column of the result, computed from the merged columns."""
        part, finish = self.plan.column(aggregate.of[0]), aggregate.finish
        if part.merge == "mean" and finish in ("sum", "mean"):
            return finished_float(part.name, finish)
        value = quoted(f"all {part.name}")
        total = whole(quoted(f"all {name}") for name in aggregate.of)
        match finish:
            case "value":
                return value
            case "sum":
                least, most = SUM_LIMITS[aggregate.type]
                to = self.dialect.u64 if aggregate.type == "u64" else "BIGINT"
                return (
                    f"CASE WHEN {total} BETWEEN {least} AND {most} THEN CAST({total} AS {to}) END"
                )
            case "mean":
                return f"CAST({total} AS DOUBLE) / {ALL_RECORDS}"
            case "variance" | "deviation":
                unit, by = (of(f"{what} of all", part.name) for what in ("unit", "scale"))
                unit = f" * {unit} / {by}" if part.unit else ""
                spread = f"{value} / ({ALL_RECORDS} - 1)"
                spread = (
                    f"{spread}{unit}{unit}" if finish == "variance" else f"sqrt({spread}){unit}"
                )
                return f'CASE WHEN "all count" > 1 THEN {spread} END'
            case other:
                raise PartialsError(f'"{aggregate.name}" has an unknown finish operation "{other}"')


# ---- names ---------------------------------------------------------------------------------------


def quoted(name: str) -> str:
    """A name that SQL takes as it is."""
    return '"' + name.replace('"', '""') + '"'


def of(what: str, column: str) -> str:
    """The name of an added column."""
    return quoted(f"{what} of {column}")


def listed(columns: Iterable[str]) -> str:
    """Columns, each on its line."""
    return ",".join(f"\n    {column}" for column in columns)


# ---- sums ----------------------------------------------------------------------------------------


def whole(halves: Iterable[str]) -> str:
    """A sum of integers, which may have a column for its upper and one for its lower half."""
    high, *low = halves
    return f"({high} * 4294967296 + {low[0]})" if low else high


def is_finite(column: str) -> str:
    """To both engines NaN exceeds every number."""
    return f"abs({quoted(column)}) <= {LARGEST}"


def times_power(value: str, power: str) -> str:
    """A number times a power of two, which may itself be beyond binary64."""
    half = f"floor(({power}) / 2)"
    return f"{value} * pow(2, {half}) * pow(2, ({power}) - {half})"


def power_of_largest(mean: str, rest: str) -> str:
    both = f"greatest(abs({quoted(mean)}), abs({quoted(rest)}))"
    largest = f"max(CASE WHEN {is_finite(mean)} THEN nullif({both}, 0) END) OVER of_group"
    return f"coalesce(floor(log2({largest})), 0) AS {of('power', mean)}"


def in_units(column: str, mean: str) -> str:
    units = times_power(quoted(column), f"{PIECE_BITS} - {of('power', mean)}")
    return f"CASE WHEN {is_finite(mean)} THEN {units} ELSE 0 END AS {of('units', column)}"


def first_piece(column: str) -> tuple[str, str]:
    """Rounded or cut off, as the engine does it: the rest is exact either way."""
    units, piece = of("units", column), f"CAST({of('units', column)} AS BIGINT)"
    rest = f"({units} - {piece}) * {PIECE}"
    return f"{piece} AS {of('piece 0', column)}", f"{rest} AS {of('rest', column)}"


def more_pieces(column: str) -> tuple[str, str]:
    rest, piece = of("rest", column), f"CAST({of('rest', column)} AS BIGINT)"
    last = f"CAST(({rest} - {piece}) * {PIECE} AS BIGINT)"
    return f"{piece} AS {of('piece 1', column)}", f"{last} AS {of('piece 2', column)}"


def finished_float(mean: str, finish: str) -> str:
    """A sum or a mean of floats, from the sums of their pieces."""
    names = ("piece 0", "piece 1", "piece 2", "carry 1", "carry 2")
    high, middle, low, carry_1, carry_2 = (of(name, mean) for name in names)
    terms = (
        f"CAST({high} + {carry_1} AS DOUBLE)",
        f"CAST({middle} + {carry_2} - {carry_1} * {PIECE} AS DOUBLE) / {PIECE}",
        f"CAST({low} - {carry_2} * {PIECE} AS DOUBLE) / {PIECE} / {PIECE}",
    )
    total, power = f"({' + '.join(terms)})", f"{of('power', mean)} - {PIECE_BITS}"
    if finish == "sum":
        value = times_power(total, power)
    else:
        # Rounding must not lead beyond the largest mean, which may be the largest double.
        largest = of("largest", mean)
        value = times_power(f"{total} / {ALL_RECORDS}", power)
        value = f"least(greatest({value}, -{largest}), {largest})"
    return f"coalesce({of('special', mean)}, {value})"


def extreme_of_floats(extreme: str, column: Part) -> str:
    value, to = quoted(column.name), FLOATS[column.type]
    # The engines order NaN above all numbers; here it counts only if there is nothing else.
    numbers = f"{extreme}(CASE WHEN NOT isnan({value}) THEN {value} END)"
    # To them zeros are equal.
    zero = "-0.0" if extreme == "min" else "0.0"
    other = f"bool_or(CAST({value} AS STRING) = '{zero}')"
    return (
        f"CASE WHEN {numbers} = 0 AND {other} THEN CAST('{zero}' AS {to})"
        f" ELSE coalesce({numbers}, CAST('NaN' AS {to})) END"
    )


# ---- squared distances ---------------------------------------------------------------------------


def scale(column: Part) -> str:
    """A quarter where distances may exceed a double."""
    largest = f"max(abs({quoted(column.around[0])})) OVER of_group"
    return f"CASE WHEN {largest} > 1 THEN 0.25 ELSE 1 END AS {of('scale', column.name)}"


def distance(column: Part) -> str:
    origin, part = (of(what, column.name) for what in ("origin", "part"))
    least = f"min({origin}) OVER of_group"
    return f"CAST({origin} - {least} AS DOUBLE) + {part} AS {of('distance', column.name)}"


def common_mean(column: Part) -> list[str]:
    own, share = of("distance", column.name), f'({RECORDS} / "all records")'
    columns = [f"sum({own} * {share}) OVER of_group AS {of('mean', column.name)}"]
    if column.unit:
        deviation = f"sqrt({quoted(column.name)} / {RECORDS}) * {scaled_unit(column)}"
        furthest = f"max(greatest(abs({own}), {deviation})) OVER of_group"
        columns.append(f"{furthest} AS {of('furthest', column.name)}")
    return columns


def scaled_unit(column: Part) -> str:
    return f"{quoted(column.unit or '')} * {of('scale', column.name)}"


def unit_of(column: Part) -> str:
    """The scaled unit of a group's distances: that of 1, unless squares would leave a double."""
    furthest = of("furthest", column.name)
    usual = f"{furthest} BETWEEN 1e-140 AND 1e140 OR {furthest} = 0"
    return (
        f"CASE WHEN {usual} THEN {of('scale', column.name)} ELSE greatest({furthest}, 1e-280) END"
    )


def merged_squares(column: Part) -> str:
    """Chan, Golub, LeVeque: the sum of squared distances, plus those of the means."""
    value, own, mean = quoted(column.name), of("distance", column.name), of("mean", column.name)
    if not column.unit:
        return f"sum({value} + {RECORDS} * ({own} - {mean}) * ({own} - {mean}))"
    own_unit = f"({scaled_unit(column)} / {unit_of(column)})"
    units = f"(({own} - {mean}) / {unit_of(column)})"
    return f"sum({value} * {own_unit} * {own_unit} + {RECORDS} * {units} * {units})"
