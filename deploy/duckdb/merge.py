#!/usr/bin/env python3
"""Merges partials with DuckDB on one machine: generates the SQL and runs it.

    python3 deploy/duckdb/merge.py DIR…                                   # shows the result
    python3 deploy/duckdb/merge.py DIR… --output result.parquet           # or .csv
    python3 deploy/duckdb/merge.py DIR… --format ndjson                   # one object on one line
    python3 deploy/duckdb/merge.py --schema schema.toml --sql > merge.sql # the SQL only

`pip install duckdb`; Python 3.11 or later. The SQL is plain: merge.sql next to this file is what
`--sql` writes for the built-in schema. Exit codes are those of `ringest merge`.
docs/operating/partials.md says what partials are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import partials
from partials import Aggregate, Field, PartialsError, Schema

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
# Bool as a number, because partials may hold it as one.
CALCULATED_AS = {**TYPES, "bool": "UTINYINT"}


# ---- the SQL -------------------------------------------------------------------------------------


def merge_sql(
    schema: Schema, by: Sequence[Field] | None = None, complete_only: bool = False
) -> str:
    """A view `merged` of the files named by the variables `groups` and `streams`."""
    refuse_case(schema)
    by = list(by or schema.keys)
    sections = [
        "-- One copy of each row: copies agree in node, connection, batch and keys.",
        f"rows_once AS (\n{indented(rows_once(schema, complete_only))}\n)",
    ]
    spreads = spread_fields(schema)
    if complete_only:
        sections[:0] = [f"complete AS (\n{indented(complete_streams())}\n),"]
    if spreads:
        sections[-1] += ","
        sections += [
            "-- The mean of all, around which the squared distances are added up.",
            f"rows_with_means AS (\n{indented(rows_with_means(spreads, by))}\n)",
        ]
    source = "rows_with_means" if spreads else "rows_once"
    return (
        "CREATE OR REPLACE TEMP VIEW merged AS\nWITH\n"
        + "\n".join(sections)
        + f"\n{select_result(schema, by, source)};\n"
    )


def rows_once(schema: Schema, complete_only: bool) -> str:
    identity = names([*partials.IDENTITY, *(key.name for key in schema.keys)])
    columns = ",\n    ".join(quoted(name) for name in schema.partial_names)
    sql = (
        f"SELECT DISTINCT ON ({identity})\n    {columns}\nFROM read_parquet(getvariable('groups'))"
    )
    return sql + ("\nSEMI JOIN complete USING (node, connection)" if complete_only else "")


def complete_streams() -> str:
    # Streams of which all batches exist and the last one says that the stream was complete.
    return (
        "SELECT node, connection\n"
        "FROM read_parquet(getvariable('streams'))\n"
        "GROUP BY node, connection\n"
        "HAVING bool_or(final AND status = 'complete')\n"
        "    AND count(DISTINCT batch) = max(batch) + 1"
    )


def spread_fields(schema: Schema) -> list[Field]:
    return [one for one, part in schema.parts if part == "m2"]


def rows_with_means(spreads: Sequence[Field], by: Sequence[Field]) -> str:
    means = ",\n    ".join(
        f"sum(rows.count * {part('mean', one)}) OVER of_group / sum(rows.count) OVER of_group"
        f" AS {quoted('mean of ' + one.name)}"
        for one in spreads
    )
    keys = names(key.name for key in by)
    return (
        f"SELECT *,\n    {means}\nFROM rows_once AS rows\nWINDOW of_group AS (PARTITION BY {keys})"
    )


def select_result(schema: Schema, by: Sequence[Field], source: str) -> str:
    keys = [f"rows.{quoted(key.name)}" for key in by]
    columns = [
        *keys,
        *(f"{merged(one, schema)} AS {quoted(one.name)}" for one in schema.aggregates),
    ]
    order = ", ".join(sort_key(key) for key in by)
    listed = ",\n    ".join(columns)
    return (
        f"SELECT\n    {listed}\nFROM {source} AS rows\nGROUP BY {', '.join(keys)}\nORDER BY {order}"
    )


def merged(aggregate: Aggregate, schema: Schema) -> str:
    """The expression of one column of the result."""
    one = aggregate.field
    if one is None:
        return "CAST(sum(rows.count) AS UBIGINT)"
    match aggregate.function:
        case "sum" if one.type in partials.FLOAT_TYPES:
            return f"sum({part('sum', one)})"
        case "sum":
            return f"TRY_CAST({exact_sum(one)} AS {TYPES[one.sum_type]})"
        case "mean":
            total = f"sum({part('sum', one)})"
            total = total if one.type in partials.FLOAT_TYPES else exact_sum(one)
            return f"CAST({total} AS DOUBLE) / CAST(sum(rows.count) AS DOUBLE)"
        case "min" | "max" as function:
            return extreme(function, one)
        case "first" | "last" as function:
            return in_time(function, one, schema)
        case function:
            root = "sqrt" if function == "std" else ""
            return f"CASE WHEN sum(rows.count) > 1 THEN {root}({variance(one)}) END"


def exact_sum(one: Field) -> str:
    # The sum of integers is a HUGEINT of 128 bits.
    if not one.is_wide:
        return f"sum({part('sum', one)})"
    return f"(sum({part('sum', one)}) * 4294967296 + sum({part('sum_low', one)}))"


def extreme(function: str, one: Field) -> str:
    value = f"CAST({part(function, one)} AS {CALCULATED_AS[one.type]})"
    if one.type not in partials.FLOAT_TYPES:
        return back(f"{function}({value})", one)
    # DuckDB orders NaN above all numbers; here it counts only if there is nothing else.
    numbers = f"{function}({value}) FILTER (NOT isnan({value}))"
    return f"coalesce({numbers}, CAST('nan' AS {TYPES[one.type]}))"


def in_time(function: str, one: Field, schema: Schema) -> str:
    # Within a batch, rows of one group differ only in the keys that are merged away.
    order = names((*partials.TIME_ORDER, *(key.name for key in schema.keys)), "rows.")
    value = f"CAST({part(function, one)} AS {CALCULATED_AS[one.type]})"
    pick = "arg_min" if function == "first" else "arg_max"
    return back(f"{pick}({value}, row({order}))", one)


def variance(one: Field) -> str:
    # Chan, Golub, LeVeque: the sum of squared distances, plus those of the means.
    distance = f"{part('mean', one)} - rows.{quoted('mean of ' + one.name)}"
    squares = f"sum({part('m2', one)}) + sum(rows.count * ({distance}) * ({distance}))"
    return f"({squares}) / (CAST(sum(rows.count) AS DOUBLE) - 1)"


def back(value: str, one: Field) -> str:
    return f"CAST({value} AS BOOLEAN)" if one.type == "bool" else value


def sort_key(key: Field) -> str:
    name = f"rows.{quoted(key.name)}"
    if key.type != "text":
        return name
    # Text is escaped, but sorted by its bytes. A cast from text to BLOB restores these: it decodes
    # \xNN, and the only other escape, that of the backslash, is turned into one first.
    return rf"CAST(replace({name}, '\\', '\x5C') AS BLOB)"


def part(name: str, one: Field) -> str:
    return "rows." + quoted(f"{name}_{one.name}")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def names(all_names: Any, prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in all_names)


def indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def refuse_case(schema: Schema) -> None:
    """Refuses columns that differ only in case, which DuckDB ignores even in quoted names."""
    result = [key.name for key in schema.keys] + [one.name for one in schema.aggregates]
    for columns in (schema.partial_names, result):
        for name, uses in Counter(name.casefold() for name in columns).items():
            if uses > 1:
                raise PartialsError(
                    f'two columns differ only in case ("{name}"), which DuckDB cannot tell apart; '
                    "use `ringest merge` or Spark"
                )


def template(schema: Schema, by: Sequence[Field] | None, complete_only: bool) -> str:
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
    return "\n".join(head) + merge_sql(schema, by, complete_only) + "\n".join(tail)


# ---- running it ----------------------------------------------------------------------------------


def main() -> int:
    """Merges what the command line asks for."""
    options = parse_arguments()
    try:
        if options.sql:
            schema = read_schema(options)
            print(template(schema, by_of(options, schema), options.complete_only), end="")
            return partials.EXIT_OK
        return run(options)
    except PartialsError as error:
        print(f"merge.py: {error}", file=sys.stderr)
        return error.exit_code


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Merges partials of ringest with DuckDB.")
    add = parser.add_argument
    add(
        "directories", nargs="*", metavar="DIR", help="directories of partials, of one node or many"
    )
    add("--schema", type=Path, help="default: schema.toml in each DIR")
    add("--by", help="comma-separated keys to group by; default: all keys of the schema")
    add("--complete-only", action="store_true", help="leave out streams that are not complete")
    add("--sql", action="store_true", help="print the SQL without running it")
    add("--format", choices=["table", "ndjson"], default="table", help="format of the output")
    add("--output", help="write the groups to this file instead of printing them")
    add("--output-format", choices=["parquet", "csv"], help="default: by the file name")
    add("--memory", help="memory limit of DuckDB, such as 4GB; beyond that it uses the disk")
    add("--threads", type=int, help="default: all cores")
    options = parser.parse_args()
    if not options.directories and not (options.sql and options.schema):
        parser.error("name a directory of partials, or --sql with --schema")
    return options


def by_of(options: argparse.Namespace, schema: Schema) -> Sequence[Field]:
    return schema.keys_by(options.by.split(",") if options.by is not None else None)


def read_schema(options: argparse.Namespace) -> Schema:
    files = (
        [options.schema]
        if options.schema
        else [Path(directory) / "schema.toml" for directory in options.directories]
    )
    try:
        return partials.one_schema((file.read_text("utf-8"), str(file)) for file in files)
    except OSError as error:
        raise PartialsError(
            f"{error.filename}: {error.strerror}; name directories that `serve --partials` wrote, "
            "or the schema with --schema"
        ) from error


def run(options: argparse.Namespace) -> int:
    import duckdb

    schema = read_schema(options)
    by = by_of(options, schema)
    sql = merge_sql(schema, by, options.complete_only)
    database = duckdb.connect()
    for setting, value in (("memory_limit", options.memory), ("threads", options.threads)):
        if value is not None:
            database.execute(f"SET {setting} = '{value}'")
    try:
        some_said = read_streams(database, options)
        groups = patterns(options, partials.GROUPS_FILES)
        if groups and (some_said or not options.complete_only):
            database.execute("SET VARIABLE groups = ?", [groups])
            database.execute(sql)
            database.execute("CREATE TEMP TABLE result AS FROM merged")
            of_these = " SEMI JOIN streams_once USING (node, connection)"
            database.execute(
                "CREATE TEMP VIEW rows_of_files AS FROM read_parquet(getvariable('groups'))"
                + (of_these if options.complete_only else "")
            )
        else:
            columns = [(key.name, key.type) for key in by]
            columns += [(one.name, one.type) for one in schema.aggregates]
            database.execute(f"CREATE TEMP TABLE result ({definitions(columns)})")
            keys = definitions((key.name, key.type) for key in schema.keys)
            database.execute(f"CREATE TEMP TABLE rows_of_files ({ROW_COLUMNS}, {keys})")
        summary = summarize(database)
        missing = find_missing(database, schema, summary["records"])
        if options.output:
            write(database, options, schema)
        show(database, summary, options)
    except duckdb.Error as error:
        raise partials.DamagedPartialsError(f"DuckDB: {error}") from error
    return missing.report(sys.stderr)


ROW_COLUMNS = "node VARCHAR, connection VARCHAR, batch UINTEGER, count UBIGINT"


def definitions(columns: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{quoted(name)} {TYPES[kind]}" for name, kind in columns)


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
    directories = list(map(Path, options.directories))
    for directory in directories:
        if pattern == partials.GROUPS_FILES and not any(directory.glob("*.parquet")):
            print(f"merge.py: {directory} has no partials so far", file=sys.stderr)
    return [
        str(directory / pattern)
        for directory in directories
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
    database: duckdb.DuckDBPyConnection, schema: Schema, counted: int
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
    identity = names([*partials.IDENTITY, *(key.name for key in schema.keys)])
    differing = database.execute(
        f"WITH rows AS (SELECT DISTINCT ON ({identity}) * FROM rows_of_files), grouped AS"
        " (SELECT node, connection, batch, sum(count) AS records FROM rows GROUP BY ALL)"
        " SELECT node, connection, batch, coalesce(grouped.records, 0) AS counted,"
        " streams_once.records AS said FROM streams_once"
        " LEFT JOIN grouped USING (node, connection, batch) WHERE counted <> said ORDER BY ALL"
    ).fetchall()
    return partials.MissingFiles(gaps, differing, unsaid)


def write(database: duckdb.DuckDBPyConnection, options: argparse.Namespace, schema: Schema) -> None:
    form = options.output_format or ("csv" if options.output.endswith(".csv") else "parquet")
    # Bytes are written to CSV in hexadecimal, as everywhere else; DuckDB would escape them.
    shown = ", ".join(
        f"lower(hex({quoted(key.name)})) AS {quoted(key.name)}"
        for key in by_of(options, schema)
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
