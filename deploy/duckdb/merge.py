#!/usr/bin/env python3
"""Merges partials with DuckDB on one machine: generates the SQL and runs it.

    python3 deploy/duckdb/merge.py DIR…                                   # shows the result
    python3 deploy/duckdb/merge.py DIR… --output result.parquet           # or .csv
    python3 deploy/duckdb/merge.py DIR… --format ndjson                   # one object on one line
    python3 deploy/duckdb/merge.py DIR… --sql > merge.sql                 # the SQL only

`pip install duckdb`; Python 3.11 or later. The SQL is plain: merge.sql next to this file is what
`--sql` writes for the built-in schema. Exit codes are those of `ringest merge`.
docs/operating/partials.md says what partials are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "shared"))
import partials
from partials import Aggregate, Column, MergePlan, Part, PartialsError

if TYPE_CHECKING:
    import duckdb

TYPES = {
    "u8": "UTINYINT",
    "u16": "USMALLINT",
    "u32": "UINTEGER",
    "u64": "UBIGINT",
    "i8": "TINYINT",
    "i16": "SMALLINT",
    "i32": "INTEGER",
    "i64": "BIGINT",
    "f32": "FLOAT",
    "f64": "DOUBLE",
    "bool": "BOOLEAN",
    "text": "VARCHAR",
    "bytes": "BLOB",
}


# ---- the SQL -------------------------------------------------------------------------------------


# Sums of floats are added as integers, which gives the same in any order: each number is divided by
# the power of two of the group's largest, and cut into three pieces of 50 bits.
PIECE = 50
MACROS = """\
-- Floats are added as integers, so that no digits cancel and the order does not matter: the largest
-- mean of a group gives the power of two, and each number three pieces of 50 bits below it.
CREATE OR REPLACE TEMP MACRO times_power(x, power) AS
    x * pow(2, power // 2) * pow(2, power - power // 2);
CREATE OR REPLACE TEMP MACRO power_of(x) AS
    coalesce(CAST(floor(log2(nullif(x, 0))) AS INTEGER), 0);
CREATE OR REPLACE TEMP MACRO after_piece(x) AS
    x * 1125899906842624 - trunc(x * 1125899906842624);
CREATE OR REPLACE TEMP MACRO piece(x) AS
    CAST(TRY_CAST(trunc(x * 1125899906842624) AS BIGINT) AS HUGEINT);
CREATE OR REPLACE TEMP MACRO joined(x, y, z) AS
    CAST(x + y // 1125899906842624 AS DOUBLE)
    + CAST(y % 1125899906842624 AS DOUBLE) / 1125899906842624
    + CAST(z AS DOUBLE) / 1125899906842624 / 1125899906842624;
CREATE OR REPLACE TEMP MACRO sum_of_pieces(x, y, z) AS
    joined(x, y + z // 1125899906842624, z % 1125899906842624);
"""


def merge_sql(
    plan: MergePlan, by: Sequence[Column] | None = None, complete_only: bool = False
) -> str:
    """A view `merged` of the files named by the variables `groups` and `streams`."""
    refuse_case(plan)
    by = list(by or plan.keys)
    once = rows_once(plan, "read_parquet(getvariable('groups'))")
    tables = {"rows_once": once}
    if complete_only:
        complete = complete_streams("read_parquet(getvariable('streams'))", "rows_of_files")
        kept = "SELECT *\nFROM rows_of_files\nSEMI JOIN complete USING (node, connection)"
        tables = {"rows_of_files": once, "complete": complete, "rows_once": kept}
    tables |= steps(plan, by)
    sections = [f"{COMMENTS[name]}{name} AS (\n{indented(sql)}\n)" for name, sql in tables.items()]
    return (
        (MACROS if plan.means else "")
        + "CREATE OR REPLACE TEMP VIEW merged AS\nWITH\n"
        + ",\n".join(sections)
        + f"\n{select_result(plan, by, list(tables)[-1])};\n"
    )


_COPIES = "-- One copy of each row: copies agree in node, connection, batch and keys.\n"
COMMENTS = {
    "rows_of_files": _COPIES,
    "complete": "-- Streams that ended complete and of which everything is there.\n",
    "rows_once": _COPIES,
    "rows_with_powers": "-- The power of two of the largest mean.\n",
    "rows_with_origins": "-- For squared distances: each row's mean, in two parts.\n",
    "rows_with_distances": "-- The distance of each mean from the least one.\n",
    "rows_with_means": "-- The distance of the mean of all, and the furthest, for a unit.\n",
}


def rows_once(plan: MergePlan, source: str) -> str:
    columns = ",\n    ".join(quoted(name) for name in plan.names)
    return f"SELECT DISTINCT ON ({identity(plan)})\n    {columns}\nFROM {source}"


def identity(plan: MergePlan) -> str:
    return names([*plan.identity, *(key.name for key in plan.keys)])


def complete_streams(streams: str, rows: str) -> str:
    return (
        "SELECT node, connection\n"
        f"FROM (SELECT DISTINCT ON (node, connection, batch) * FROM {streams})\n"
        f"LEFT JOIN ({grouped(rows)}) USING (node, connection, batch)\n"
        "GROUP BY node, connection\n"
        "HAVING bool_or(final AND status = 'complete')\n"
        "    AND count(*) = max(batch) + 1\n"
        "    AND bool_and(records = coalesce(counted, 0))"
    )


def grouped(rows: str) -> str:
    return f"SELECT node, connection, batch, sum(count) AS counted FROM {rows} GROUP BY ALL"


def steps(plan: MergePlan, by: Sequence[Column]) -> dict[str, str]:
    """What is added to each row before they are merged: the SQL of each step, by name."""
    window = f"WINDOW of_group AS (PARTITION BY {names(key.name for key in by)})"
    found: dict[str, str] = {}
    before = "rows_once"

    def add(name: str, columns: Sequence[str]) -> None:
        nonlocal before
        if columns:
            listed = ",\n    ".join(columns)
            found[name] = f"SELECT *,\n    {listed}\nFROM {before} AS rows\n{window}"
            before = name

    add(
        "rows_with_powers",
        [
            f"power_of(max(CASE WHEN isfinite(rows.{quoted(one.name)}) THEN"
            f" abs(rows.{quoted(one.name)}) END) OVER of_group)"
            f" AS {quoted(f'power of {one.name}')}"
            for one in plan.means
        ],
    )
    squares = plan.squares
    add(
        "rows_with_origins",
        [column for one in squares for column in origin(one, plan)],
    )
    add(
        "rows_with_distances",
        [
            'CAST(sum(rows.count) OVER of_group AS DOUBLE) AS "all records"',
            *(distance(one) for one in squares),
        ]
        if squares
        else [],
    )
    add(
        "rows_with_means",
        [column for one in squares for column in mean_distance(one, plan)],
    )
    return found


def origin(column: Part, plan: MergePlan) -> list[str]:
    """A row's mean as an origin and what is beyond it."""
    high, *low = (f"rows.{quoted(name)}" for name in column.around)
    count = "CAST(rows.count AS DOUBLE)"
    names = [quoted(f"{what} of {column.name}") for what in ("origin", "part")]
    if plan.column(column.around[0]).merge == "mean":
        # A quarter of each, because their distance may exceed a double.
        quarter = " * 0.25" if column.unit else ""
        return [f"{high}{quarter} AS {names[0]}", f"{low[0]} / {count}{quarter} AS {names[1]}"]
    total = f"CAST({high} AS HUGEINT)" + (f" * 4294967296 + {low[0]}" if low else "")
    return [
        f"({total}) // rows.count AS {names[0]}",
        f"CAST(({total}) % rows.count AS DOUBLE) / {count} AS {names[1]}",
    ]


def distance(column: Part) -> str:
    own, part = (f"rows.{quoted(f'{what} of {column.name}')}" for what in ("origin", "part"))
    name = quoted(f"distance of {column.name}")
    return f"CAST({own} - min({own}) OVER of_group AS DOUBLE) + {part} AS {name}"


def mean_distance(column: Part, plan: MergePlan) -> list[str]:
    own = f"rows.{quoted(f'distance of {column.name}')}"
    share = '(CAST(rows.count AS DOUBLE) / rows."all records")'
    columns = [f"sum({own} * {share}) OVER of_group AS {quoted(f'mean of {column.name}')}"]
    if column.unit:
        deviation = (
            f"sqrt(rows.{quoted(column.name)} / rows.count) * rows.{quoted(column.unit)} * 0.25"
        )
        columns.append(
            f"max(greatest(abs({own}), {deviation})) OVER of_group"
            f" AS {quoted(f'furthest of {column.name}')}"
        )
    return columns


def select_result(plan: MergePlan, by: Sequence[Column], source: str) -> str:
    keys = [f"rows.{quoted(key.name)}" for key in by]
    columns = [*keys, *(f"{finished(one, plan)} AS {quoted(one.name)}" for one in plan.result)]
    order = ", ".join(sort_key(key) for key in by)
    listed = ",\n    ".join(columns)
    return (
        f"SELECT\n    {listed}\nFROM {source} AS rows\nGROUP BY {', '.join(keys)}\nORDER BY {order}"
    )


def finished(aggregate: Aggregate, plan: MergePlan) -> str:
    """The expression of one column of the result."""
    parts = [plan.column(name) for name in aggregate.of]
    if parts[0].merge == "mean":
        return finished_float(aggregate, parts[0], parts[1])
    high, *low = (merged(part, plan) for part in parts)
    # The sum of integers is a HUGEINT of 128 bits.
    value = f"({high} * 4294967296 + {low[0]})" if low else high
    match aggregate.finish:
        case "value":
            return value
        case "sum":
            return f"TRY_CAST({value} AS {TYPES[aggregate.type]})"
        case "mean":
            return f"CAST({value} AS DOUBLE) / CAST(sum(rows.count) AS DOUBLE)"
        case "variance" | "deviation" as finish:
            variance = f"({value}) / (CAST(sum(rows.count) AS DOUBLE) - 1)"
            unit = f" * any_value({unit_of(parts[0])}) * 4" if parts[0].unit else ""
            spread = f"{variance}{unit}{unit}"
            if finish == "deviation":
                spread = f"sqrt({variance}){unit}"
            return f"CASE WHEN sum(rows.count) > 1 THEN {spread} END"
        case other:
            raise PartialsError(f'"{aggregate.name}" has an unknown finish operation "{other}"')


def finished_float(aggregate: Aggregate, mean: Part, rest: Part) -> str:
    """A sum or a mean of floats, from their means and what these leave."""
    power = f"any_value(rows.{quoted(f'power of {mean.name}')})"
    special = f"NOT isfinite(rows.{quoted(mean.name)})"

    def pieces(level: int) -> str:
        """The sum of one piece of each number."""
        texts = []
        powers = f"rows.{quoted(f'power of {mean.name}')}"
        for column, times in ((mean, " * rows.count"), (rest, "")):
            text = f"times_power(rows.{quoted(column.name)}, -{powers})"
            for _ in range(level):
                text = f"after_piece({text})"
            texts.append(f"piece({text}){times}")
        return f"coalesce(sum({' + '.join(texts)}) FILTER (isfinite(rows.{quoted(mean.name)})), 0)"

    total = f"sum_of_pieces({', '.join(pieces(level) for level in range(3))})"
    match aggregate.finish:
        case "sum":
            value = f"times_power({total}, {power} - {PIECE})"
        case "mean":
            # Rounding must not lead beyond the largest mean, which may be the largest double.
            largest = f"max(abs(rows.{quoted(mean.name)}))"
            value = f"times_power({total} / CAST(sum(rows.count) AS DOUBLE), {power} - {PIECE})"
            value = f"least(greatest({value}, -{largest}), {largest})"
        case other:
            raise PartialsError(f'"{aggregate.name}" has an unknown finish operation "{other}"')
    # Infinities and NaN add as IEEE 754 says.
    return f"coalesce(sum(rows.{quoted(mean.name)}) FILTER ({special}), {value})"


def unit_of(column: Part) -> str:
    """A quarter of the unit of a group's distances: that of 1, unless squares would overflow."""
    furthest = f"rows.{quoted(f'furthest of {column.name}')}"
    usual = f"{furthest} BETWEEN 1e-140 AND 1e140 OR {furthest} = 0"
    return f"CASE WHEN {usual} THEN 0.25 ELSE {furthest} END"


def squares_in_units(column: Part) -> str:
    value, unit, own, mean = (
        f"rows.{quoted(name)}"
        for name in (
            column.name,
            column.unit,
            f"distance of {column.name}",
            f"mean of {column.name}",
        )
    )
    own_unit = f"({unit} * 0.25 / {unit_of(column)})"
    units = f"(({own} - {mean}) / {unit_of(column)})"
    return f"sum({value} * {own_unit} * {own_unit} + rows.count * {units} * {units})"


def merged(column: Part, plan: MergePlan) -> str:
    """The expression that merges a column's rows into one value."""
    value = f"rows.{quoted(column.name)}"
    match column.merge:
        case "min" | "max" as extreme if column.is_float:
            # DuckDB orders NaN above all numbers; here it counts only if there is nothing else.
            numbers = f"{extreme}({value}) FILTER (NOT isnan({value}))"
            # To DuckDB zeros are equal.
            sign, zero = ("", "-0.0") if extreme == "min" else ("NOT ", "0.0")
            other = f"bool_or({value} = 0 AND {sign}signbit({value}))"
            typed = TYPES[column.type]
            return (
                f"CASE WHEN {numbers} = 0 AND {other} THEN CAST('{zero}' AS {typed})"
                f" ELSE coalesce({numbers}, CAST('nan' AS {typed})) END"
            )
        case "sum" | "min" | "max" as function:
            return f"{function}({value})"
        case "first" | "last" as end:
            # Within a batch, rows of one group differ only in the keys that are merged away.
            order = names((*plan.order, *(key.name for key in plan.keys)), "rows.")
            function = f"arg_{'min' if end == 'first' else 'max'}"
            if column.is_float:
                # As text, because the function loses the sign of a zero.
                text = f"{function}(CAST({value} AS VARCHAR), row({order}))"
                return f"CAST({text} AS {TYPES[column.type]})"
            return f"{function}({value}, row({order}))"
        case "squares":
            # Chan, Golub, LeVeque: the sum of squared distances, plus those of the means.
            own, mean = (
                f"rows.{quoted(f'{what} of {column.name}')}" for what in ("distance", "mean")
            )
            if not column.unit:
                return f"sum({value} + rows.count * ({own} - {mean}) * ({own} - {mean}))"
            return squares_in_units(column)
        case other:
            raise PartialsError(f'"{column.name}" has an unknown merge operation "{other}"')


def sort_key(key: Column) -> str:
    name = f"rows.{quoted(key.name)}"
    if key.type != "text":
        return name
    # Text has escapes, but is sorted by its bytes. As a BLOB cast to text, every byte beyond ASCII and
    # each backslash become \xNN. What was an escape is made one again, the backslash in lower case so
    # that it is not taken for another; the cast back to BLOB then gives the bytes.
    shown = f"CAST(encode({name}) AS VARCHAR)"
    return rf"CAST(replace(replace({shown}, '\x5C\x5C', '\x5c'), '\x5Cx', '\x') AS BLOB)"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def names(all_names: Any, prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in all_names)


def indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def refuse_case(plan: MergePlan) -> None:
    """Refuses columns that differ only in case, which DuckDB ignores even in quoted names."""
    result = [one.name for one in (*plan.keys, *plan.result)]
    for columns in (plan.names, result):
        for name, uses in Counter(name.casefold() for name in columns).items():
            if uses > 1:
                raise PartialsError(
                    f'two columns differ only in case ("{name}"), which DuckDB cannot tell apart; '
                    "use `ringest merge` or Spark"
                )


def template(plan: MergePlan, by: Sequence[Column] | None, complete_only: bool) -> str:
    """The SQL with the lines around it that users adapt."""
    streams = ["SET VARIABLE streams = ['partials/*.stream.parquet'];"] if complete_only else []
    head = [
        "-- Written by `deploy/duckdb/merge.py --sql`. Reads partials, writes nothing by itself.",
        "-- Where the partials are: paths or patterns, as many as there are directories.",
        "SET VARIABLE groups = ['partials/*.groups.parquet'];",
        *streams,
        "",
    ]
    tail = [
        "",
        "FROM merged;",
        "-- Into a file instead: COPY (FROM merged) TO 'result.parquet' (FORMAT parquet);",
        "",
    ]
    return "\n".join(head) + merge_sql(plan, by, complete_only) + "\n".join(tail)


# ---- running it ----------------------------------------------------------------------------------


def main() -> int:
    """Merges what the command line asks for."""
    options = parse_arguments()
    import duckdb

    try:
        return run(duckdb.connect(), options)
    except duckdb.Error as error:
        print(f"merge.py: DuckDB: {error}", file=sys.stderr)
        return partials.EXIT_FILES_MISSING
    except PartialsError as error:
        print(f"merge.py: {error}", file=sys.stderr)
        return error.exit_code


def parse_arguments() -> argparse.Namespace:
    parser = partials.parser("DuckDB", "write the groups to this file instead of printing them")
    add = parser.add_argument
    add("--sql", action="store_true", help="print the SQL without running it")
    add("--memory", help="memory limit of DuckDB, such as 4GB; beyond that it uses the disk")
    add("--threads", type=int, help="default: all cores")
    return parser.parse_args()


def find_files(directories: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files of groups, and those about batches."""
    found: tuple[list[str], list[str]] = [], []
    for directory in map(Path, directories):
        patterns = (partials.GROUPS_FILES, partials.STREAM_FILES)
        here = [sorted(map(str, directory.glob(pattern))) for pattern in patterns]
        if not any(here):
            if not (directory / "schema.toml").exists():
                raise PartialsError(f"{directory}: name directories that `serve --partials` wrote")
            print(f"merge.py: {directory} has no partials so far", file=sys.stderr)
        for files, own in zip(found, here, strict=True):
            files += own
    return found


def read_plan(database: duckdb.DuckDBPyConnection, groups: Sequence[str]) -> MergePlan | None:
    """The merge operations, from one file of each directory; `None` without files."""
    if not groups:
        return None
    files = {Path(file).parent: file for file in reversed(groups)}.values()
    key = f"decode(key) = '{partials.MERGE_KEY}'"
    query = f"SELECT decode(value) FROM parquet_kv_metadata(?) WHERE {key}"
    found = ((database.execute(query, [file]).fetchone(), file) for file in reversed(files))
    return partials.one_plan((row and row[0], file) for row, file in found)


def run(database: duckdb.DuckDBPyConnection, options: argparse.Namespace) -> int:
    form = partials.output_format(options.output, options.output_format) if options.output else ""
    groups, streams = find_files(options.directories)
    checked = ((file, partials.damage(Path(file).read_bytes())) for file in groups + streams)
    damaged = partials.left_out([] if options.sql else checked, options.skip_damaged, sys.stderr)
    groups, streams = ([one for one in all if one not in damaged] for all in (groups, streams))
    plan = read_plan(database, groups)
    if plan is None and (options.sql or options.output):
        raise partials.DamagedPartialsError("no partials so far; nothing was written")
    plan = plan or MergePlan()
    by = plan.keys_by(options.by)
    if options.sql:
        print(template(plan, by, options.complete_only), end="")
        return partials.EXIT_OK
    for setting, value in (("memory_limit", options.memory), ("threads", options.threads)):
        if value is not None:
            database.execute(f"SET {setting} = '{value}'")
    create_tables(database, plan, groups, streams)
    if plan.keys:
        database.execute(merge_sql(plan, by, options.complete_only and bool(streams)))
        # Without stream files, no stream is known to be complete.
        none = "" if streams or not options.complete_only else " LIMIT 0"
        database.execute(f"CREATE TEMP TABLE result AS FROM merged{none}")
    else:
        database.execute("CREATE TEMP TABLE result (count UBIGINT)")
    summary = summarize(database, options.complete_only)
    missing = find_missing(database, summary["records"], options.complete_only)
    if options.output:
        write(database, options.output, form, by)
    show(database, summary, options)
    return missing.report(damaged, sys.stderr)


ROW_COLUMNS = "node VARCHAR, connection VARCHAR, batch UINTEGER, count UBIGINT"
STREAM_COLUMNS = (
    "node VARCHAR, connection VARCHAR, batch UINTEGER, final BOOLEAN, status VARCHAR,"
    " records UBIGINT, latency_v2 BLOB"
)


def create_tables(
    database: duckdb.DuckDBPyConnection, plan: MergePlan, groups: list[str], streams: list[str]
) -> None:
    """The rows of both kinds of files, and batches and streams as far as they are known."""
    columns = {"groups": ROW_COLUMNS, "streams": STREAM_COLUMNS}
    for kind, files in (("groups", groups), ("streams", streams)):
        database.execute(f"SET VARIABLE {kind} = ?", [files])
        database.execute(
            f"CREATE TEMP VIEW all_{kind} AS FROM read_parquet(getvariable('{kind}'))"
            if files
            else f"CREATE TEMP TABLE all_{kind} ({columns[kind]})"
        )
    once = rows_once(plan, "all_groups") if plan.keys else "FROM all_groups"
    for statement in (
        f"VIEW rows_once AS {once}",
        "TABLE streams_once AS SELECT DISTINCT ON (node, connection, batch) * FROM all_streams",
        "TABLE batches AS SELECT DISTINCT node, connection, batch FROM all_groups"
        " UNION SELECT node, connection, batch FROM streams_once",
        f"VIEW complete AS {complete_streams('streams_once', 'rows_once')}",
        "VIEW ended AS SELECT node, connection FROM streams_once GROUP BY ALL"
        " HAVING bool_or(final AND status = 'complete')",
    ):
        database.execute(f"CREATE TEMP {statement}")


def summarize(database: duckdb.DuckDBPyConnection, complete_only: bool) -> dict[str, Any]:
    """A summary of what was merged, with the latency of all packets."""
    kept = " SEMI JOIN complete USING (node, connection)" if complete_only else ""
    nodes, connections, batches, counted = database.execute(
        "SELECT count(DISTINCT node), count(DISTINCT row(node, connection)), count(*),"
        f" (SELECT coalesce(sum(count), 0) FROM result) FROM batches{kept}"
    ).fetchall()[0]
    rows = database.execute(f"SELECT latency_v2 FROM streams_once{kept}").fetchall()
    latency = partials.merged_latency(row[0] for row in rows)
    return partials.summary(nodes, connections, batches, counted, latency)


def find_missing(
    database: duckdb.DuckDBPyConnection, counted: int, complete_only: bool
) -> partials.MissingFiles:
    """Batches with a missing file. Rows are summed by batch only if the totals differ."""

    def rows(sql: str) -> list[Any]:
        return database.execute(f"{sql} ORDER BY ALL").fetchall()

    of = " SEMI JOIN ended USING (node, connection)" if complete_only else ""
    gaps = rows(
        "SELECT node, connection, max(batch) + 1 - count(*) AS missing, max(batch) + 1"
        f" FROM batches{of} GROUP BY node, connection HAVING missing > 0"
    )
    unsaid = rows(
        f"SELECT node, connection, batch, coalesce(batch < said, false) FROM batches{of}"
        " ANTI JOIN streams_once USING (node, connection, batch)"
        " LEFT JOIN (SELECT node, connection, max(batch) AS said FROM streams_once GROUP BY ALL)"
        " USING (node, connection)"
    )
    said = database.execute("SELECT coalesce(sum(records), 0) FROM streams_once").fetchall()[0][0]
    differing = []
    if said != counted or unsaid:
        differing = rows(
            "SELECT node, connection, batch, coalesce(counted, 0) AS grouped, records"
            f" FROM streams_once LEFT JOIN ({grouped('rows_once')})"
            f" USING (node, connection, batch){of} WHERE grouped <> records"
        )
    if not complete_only:
        return partials.MissingFiles(gaps, differing, unsaid)
    streams = "SELECT DISTINCT node, connection FROM"
    not_complete = rows(f"{streams} batches ANTI JOIN ended USING (node, connection)")
    not_whole = rows(f"{streams} ended ANTI JOIN complete USING (node, connection)")
    return partials.MissingFiles(gaps, differing, unsaid, not_complete, not_whole)


def write(
    database: duckdb.DuckDBPyConnection, output: str, form: str, by: Sequence[Column]
) -> None:
    # Bytes are written to CSV in hexadecimal, as everywhere else; DuckDB would escape them.
    shown = ", ".join(
        f"lower(hex({quoted(key.name)})) AS {quoted(key.name)}"
        for key in by
        if key.type == "bytes" and form == "csv"
    )
    columns = f"* REPLACE ({shown})" if shown else "*"
    # DuckDB renames a finished file onto the path: never onto a link, a device or a pipe.
    file = Path(output).resolve()
    if file.exists() and not (file.is_file() or file.is_char_device() or file.is_fifo()):
        raise PartialsError(f"--output {output} is not a file; name one")
    renamed = "false" if file.exists() and not file.is_file() else "true"
    name = str(file).replace("'", "''")
    database.execute(
        f"COPY (SELECT {columns} FROM result) TO '{name}' (FORMAT {form}, USE_TMP_FILE {renamed})"
    )


def show(
    database: duckdb.DuckDBPyConnection, summary: dict[str, Any], options: argparse.Namespace
) -> None:
    if options.format == "table":
        if not options.output:
            database.sql("FROM result").show(max_rows=sys.maxsize, max_width=10_000)
        print(partials.summary_line(summary))
        return
    groups = None
    if not options.output:
        result = database.execute("FROM result")
        columns = [column[0] for column in result.description]
        groups = (dict(zip(columns, row, strict=True)) for row in result.fetchall())
    partials.write_ndjson(sys.stdout, summary, groups)


if __name__ == "__main__":
    sys.exit(main())
