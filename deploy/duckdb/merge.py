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


def merge_sql(
    plan: MergePlan, by: Sequence[Column] | None = None, complete_only: bool = False
) -> str:
    """A view `merged` of the files named by the variables `groups` and `streams`."""
    refuse_case(plan)
    by = list(by or plan.keys)
    sections = [
        "-- One copy of each row: copies agree in node, connection, batch and keys.",
        f"rows_once AS (\n{indented(rows_once(plan, complete_only))}\n)",
    ]
    if complete_only:
        sections[:0] = [f"complete AS (\n{indented(complete_streams())}\n),"]
    if plan.squares:
        sections[-1] += ","
        sections += [
            "-- The mean of all, around which the squared distances are added up.",
            f"rows_with_means AS (\n{indented(rows_with_means(plan, by))}\n)",
        ]
    source = "rows_with_means" if plan.squares else "rows_once"
    return (
        "CREATE OR REPLACE TEMP VIEW merged AS\nWITH\n"
        + "\n".join(sections)
        + f"\n{select_result(plan, by, source)};\n"
    )


def rows_once(plan: MergePlan, complete_only: bool) -> str:
    columns = ",\n    ".join(quoted(name) for name in plan.names)
    sql = (
        f"SELECT DISTINCT ON ({identity(plan)})\n    {columns}\n"
        "FROM read_parquet(getvariable('groups'))"
    )
    return sql + ("\nSEMI JOIN complete USING (node, connection)" if complete_only else "")


def identity(plan: MergePlan) -> str:
    return names([*plan.identity, *(key.name for key in plan.keys)])


def complete_streams() -> str:
    # Streams of which all batches exist and the last one says that the stream was complete.
    return (
        "SELECT node, connection\n"
        "FROM read_parquet(getvariable('streams'))\n"
        "GROUP BY node, connection\n"
        "HAVING bool_or(final AND status = 'complete')\n"
        "    AND count(DISTINCT batch) = max(batch) + 1"
    )


def rows_with_means(plan: MergePlan, by: Sequence[Column]) -> str:
    means = ",\n    ".join(
        f"sum(rows.count * rows.{quoted(one.around)}) OVER of_group / sum(rows.count) OVER of_group"
        f" AS {quoted(f'mean of {one.name}')}"
        for one in plan.squares
    )
    keys = names(key.name for key in by)
    return (
        f"SELECT *,\n    {means}\nFROM rows_once AS rows\nWINDOW of_group AS (PARTITION BY {keys})"
    )


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
    high, *low = (merged(plan.column(name), plan) for name in aggregate.of)
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
            root = "sqrt" if finish == "deviation" else ""
            variance = f"({value}) / (CAST(sum(rows.count) AS DOUBLE) - 1)"
            return f"CASE WHEN sum(rows.count) > 1 THEN {root}({variance}) END"
        case other:
            raise PartialsError(f'"{aggregate.name}" has an unknown finish operation "{other}"')


def merged(column: Part, plan: MergePlan) -> str:
    """The expression that merges a column's rows into one value."""
    value = f"rows.{quoted(column.name)}"
    match column.merge:
        case "min" | "max" as extreme if column.is_float:
            # DuckDB orders NaN above all numbers; here it counts only if there is nothing else.
            numbers = f"{extreme}({value}) FILTER (NOT isnan({value}))"
            return f"coalesce({numbers}, CAST('nan' AS {TYPES[column.type]}))"
        case "sum" | "min" | "max" as function:
            return f"{function}({value})"
        case "first" | "last" as end:
            # Within a batch, rows of one group differ only in the keys that are merged away.
            order = names((*plan.order, *(key.name for key in plan.keys)), "rows.")
            return f"arg_{'min' if end == 'first' else 'max'}({value}, row({order}))"
        case "squares":
            # Chan, Golub, LeVeque: the sum of squared distances, plus those of the means.
            mean = f"rows.{quoted(f'mean of {column.name}')}"
            distance = f"(rows.{quoted(column.around)} - {mean})"
            return f"sum({value}) + sum(rows.count * {distance} * {distance})"
        case other:
            raise PartialsError(f'"{column.name}" has an unknown merge operation "{other}"')


def sort_key(key: Column) -> str:
    name = f"rows.{quoted(key.name)}"
    if key.type != "text":
        return name
    # Text is escaped, but sorted by its bytes. A cast from text to BLOB restores these: it decodes
    # \xNN, and the only other escape, that of the backslash, is turned into one first.
    return rf"CAST(replace({name}, '\\', '\x5C') AS BLOB)"


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
    parser = argparse.ArgumentParser(description="Merges partials of ringest with DuckDB.")
    add = parser.add_argument
    add(
        "directories", nargs="+", metavar="DIR", help="directories of partials, of one node or many"
    )
    add("--by", help="comma-separated keys to group by; default: all keys")
    add("--complete-only", action="store_true", help="leave out streams that are not complete")
    add("--sql", action="store_true", help="print the SQL without running it")
    add("--format", choices=["table", "ndjson"], default="table", help="format of the output")
    add("--output", help="write the groups to this file instead of printing them")
    add("--output-format", choices=["parquet", "csv"], help="default: by the file name")
    add("--memory", help="memory limit of DuckDB, such as 4GB; beyond that it uses the disk")
    add("--threads", type=int, help="default: all cores")
    return parser.parse_args()


def read_plan(database: duckdb.DuckDBPyConnection, options: argparse.Namespace) -> MergePlan | None:
    """The merge operations, from one file of each directory; `None` without files."""
    files = []
    for directory in map(Path, options.directories):
        if not any(directory.glob("*.parquet")):
            if not (directory / "schema.toml").exists():
                raise PartialsError(f"{directory}: name directories that `serve --partials` wrote")
            print(f"merge.py: {directory} has no partials so far", file=sys.stderr)
        files += sorted(directory.glob(partials.GROUPS_FILES))[:1]
    if not files:
        return None
    key = f"decode(key) = '{partials.MERGE_KEY}'"
    query = f"SELECT decode(value) FROM parquet_kv_metadata(?) WHERE {key}"
    found = ((database.execute(query, [str(file)]).fetchone(), str(file)) for file in files)
    return partials.one_plan((row and row[0], file) for row, file in found)


def run(database: duckdb.DuckDBPyConnection, options: argparse.Namespace) -> int:
    plan = read_plan(database, options)
    if plan is None and (options.sql or options.output):
        raise partials.DamagedPartialsError("no partials so far; nothing was written")
    plan = plan or MergePlan()
    # Without partials, any key is accepted.
    by = plan.keys_by(options.by.split(",") if options.by is not None and plan.keys else None)
    if options.sql:
        print(template(plan, by, options.complete_only), end="")
        return partials.EXIT_OK
    for setting, value in (("memory_limit", options.memory), ("threads", options.threads)):
        if value is not None:
            database.execute(f"SET {setting} = '{value}'")
    some_said = read_streams(database, options)
    if plan.keys:
        merge(database, options, plan, by, options.complete_only and some_said)
    else:
        database.execute("CREATE TEMP TABLE result (count UBIGINT)")
        database.execute(f"CREATE TEMP TABLE rows_of_files ({ROW_COLUMNS})")
    summary = summarize(database)
    missing = find_missing(database, plan, summary["records"])
    if options.output:
        write(database, options, by)
    show(database, summary, options)
    return missing.report(sys.stderr)


ROW_COLUMNS = "node VARCHAR, connection VARCHAR, batch UINTEGER, count UBIGINT"


def merge(
    database: duckdb.DuckDBPyConnection,
    options: argparse.Namespace,
    plan: MergePlan,
    by: Sequence[Column],
    complete_only: bool,
) -> None:
    """Creates the result as a table, and a view of the rows it comes from."""
    database.execute("SET VARIABLE groups = ?", [patterns(options, partials.GROUPS_FILES)])
    database.execute(merge_sql(plan, by, complete_only))
    # Without stream files, no stream is known to be complete.
    none = " LIMIT 0" if options.complete_only and not complete_only else ""
    database.execute(f"CREATE TEMP TABLE result AS FROM merged{none}")
    of_these = " SEMI JOIN streams_once USING (node, connection)"
    database.execute(
        "CREATE TEMP VIEW rows_of_files AS FROM read_parquet(getvariable('groups'))"
        + (of_these if options.complete_only else "")
    )


def read_streams(database: duckdb.DuckDBPyConnection, options: argparse.Namespace) -> bool:
    """The rows about batches, one copy of each, as a table; whether there is a file of them."""
    streams = patterns(options, partials.STREAM_FILES)
    if not streams:
        database.execute(
            "CREATE TEMP TABLE streams_once (node VARCHAR, connection VARCHAR, batch UINTEGER,"
            " records UBIGINT, latency_v2 BLOB)"
        )
        return False
    database.execute("SET VARIABLE streams = ?", [streams])
    complete = f" SEMI JOIN ({complete_streams()}) USING (node, connection)"
    database.execute(
        "CREATE TEMP TABLE streams_once AS SELECT DISTINCT ON (node, connection, batch) *"
        " FROM read_parquet(getvariable('streams'))" + (complete if options.complete_only else "")
    )
    return True


def patterns(options: argparse.Namespace, pattern: str) -> list[str]:
    """A pattern for each directory with such files; DuckDB rejects patterns without a match."""
    return [
        str(directory / pattern)
        for directory in map(Path, options.directories)
        if next(directory.glob(pattern), None) is not None
    ]


def summarize(database: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """A summary of what was merged, with the latency of all packets."""
    database.execute(
        "CREATE TEMP TABLE batches AS SELECT DISTINCT node, connection, batch FROM rows_of_files"
        " UNION SELECT node, connection, batch FROM streams_once"
    )
    nodes, connections, batches, counted = database.execute(
        "SELECT count(DISTINCT node), count(DISTINCT row(node, connection)), count(*),"
        " (SELECT coalesce(sum(count), 0) FROM result) FROM batches"
    ).fetchall()[0]
    rows = database.execute("SELECT latency_v2 FROM streams_once").fetchall()
    latency = partials.merged_latency(row[0] for row in rows)
    return partials.summary(nodes, connections, batches, counted, latency)


def find_missing(
    database: duckdb.DuckDBPyConnection, plan: MergePlan, counted: int
) -> partials.MissingFiles:
    """Batches with a missing file. Rows are summed by batch only if the totals differ."""
    gaps = database.execute(
        "SELECT node, connection, max(batch) + 1 - count(*) AS missing, max(batch) + 1"
        " FROM batches GROUP BY node, connection HAVING missing > 0 ORDER BY ALL"
    ).fetchall()
    unsaid = database.execute(
        "SELECT node, connection, batch FROM batches"
        " ANTI JOIN streams_once USING (node, connection, batch) ORDER BY ALL"
    ).fetchall()
    said = database.execute("SELECT coalesce(sum(records), 0) FROM streams_once").fetchall()[0][0]
    if said == counted and not unsaid:
        return partials.MissingFiles(gaps, [], unsaid)
    differing = database.execute(
        f"WITH rows AS (SELECT DISTINCT ON ({identity(plan)}) * FROM rows_of_files), grouped AS"
        " (SELECT node, connection, batch, sum(count) AS records FROM rows GROUP BY ALL)"
        " SELECT node, connection, batch, coalesce(grouped.records, 0) AS counted,"
        " streams_once.records AS said FROM streams_once"
        " LEFT JOIN grouped USING (node, connection, batch) WHERE counted <> said ORDER BY ALL"
    ).fetchall()
    return partials.MissingFiles(gaps, differing, unsaid)


def write(
    database: duckdb.DuckDBPyConnection, options: argparse.Namespace, by: Sequence[Column]
) -> None:
    form = options.output_format or ("csv" if options.output.endswith(".csv") else "parquet")
    # Bytes are written to CSV in hexadecimal, as everywhere else; DuckDB would escape them.
    shown = ", ".join(
        f"lower(hex({quoted(key.name)})) AS {quoted(key.name)}"
        for key in by
        if key.type == "bytes" and form == "csv"
    )
    columns = f"* REPLACE ({shown})" if shown else "*"
    file = options.output.replace("'", "''")
    database.execute(f"COPY (SELECT {columns} FROM result) TO '{file}' (FORMAT {form})")


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
