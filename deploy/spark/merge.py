#!/usr/bin/env python3
"""Merges partials with Apache Spark; it plans the query and leaves every row to the executors.

    spark-submit deploy/spark/merge.py DIR… --output s3a://bucket/result
    python3 deploy/spark/merge.py DIR… --master 'local[2]'                # without a cluster
    python3 deploy/spark/merge.py DIR… --format ndjson                    # one object on one line

A DIR is whatever Spark can list: a local path, nfs, hdfs://, s3a://, gs://. Needs pyspark 4 and
Java 17 or 21; Python 3.11 or later on the driver and on the executors. partials.py must lie in the
directory above, or come with `--py-files`. Exit codes are those of `ringest merge`.
docs/operating/partials.md says what partials are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

# With --py-files it is found as it is.
sys.path.append(str(Path(__file__).resolve().parent.parent))
import partials
from partials import Aggregate, DamagedPartialsError, Field, PartialsError, Schema

# As Spark reads the same types from Parquet. It has no unsigned ones: each is the next wider.
TYPES = {
    "u8": "smallint",
    "u16": "int",
    "u32": "bigint",
    "u64": "decimal(20,0)",
    "i8": "tinyint",
    "i16": "smallint",
    "i32": "int",
    "i64": "bigint",
    "f32": "float",
    "f64": "double",
    "bool": "boolean",
    "text": "string",
    "bytes": "binary",
}
SUM_LIMITS = {"u64": (0, partials.U64_MAX), "i64": (partials.I64_MIN, partials.I64_MAX)}


# ---- the query -----------------------------------------------------------------------------------


def merged(rows: DataFrame, schema: Schema, by: Sequence[Field]) -> DataFrame:
    """The result of these rows, sorted: keys, then aggregates in the schema's order."""
    keys = [quoted(key.name) for key in by]
    rows = with_means(rows, schema, keys)
    grouped = rows.groupBy(*keys).agg(
        F.expr("sum(cast(`count` as decimal(20,0)))").alias("all records"),
        *moments(schema),
        *(F.expr(merged_column(one)).alias(f"all {one.name}") for one in schema.aggregates),
    )
    columns = [F.expr(result_column(one)).alias(one.name) for one in schema.aggregates]
    result = grouped.select(*(F.col(key) for key in keys), *columns)
    return result.orderBy(*(F.expr(sort_key(key)) for key in by))


def with_means(rows: DataFrame, schema: Schema, keys: Sequence[str]) -> DataFrame:
    """Beside each row the means of its group, around which squared distances are added up."""
    spreads = [one for one, part in schema.parts if part == "m2"]
    if not spreads:
        return rows
    means = [
        F.expr(f"sum(`count` * `mean_{one.name}`) / sum(cast(`count` as double))").alias(
            f"mean of {one.name}"
        )
        for one in spreads
    ]
    return rows.join(rows.groupBy(*keys).agg(*means), [key.strip("`") for key in keys])


def moments(schema: Schema) -> list[Any]:
    """The first and the last row of each group, where an aggregate asks for them."""
    found = []
    for function, extreme in (("first", "min"), ("last", "max")):
        parts = [f"{function}_{one.name}" for one, part in schema.parts if part == function]
        if parts:
            # Within a batch only keys that were merged away tell rows apart.
            order = (*partials.TIME_ORDER, *(key.name for key in schema.keys), *parts)
            row = f"struct({', '.join(map(quoted, order))})"
            found.append(F.expr(f"{extreme}({row})").alias(f"{function} row"))
    return found


def merged_column(aggregate: Aggregate) -> str:
    """What is aggregated over a group's rows for one column of the result."""
    one = aggregate.field
    if one is None or aggregate.function in ("first", "last"):
        return "max(1)"
    match aggregate.function:
        case "sum" | "mean" if one.type in partials.FLOAT_TYPES:
            return f"sum(`sum_{one.name}`)"
        case "sum" | "mean":
            return exact_sum(one)
        case "min" | "max" as function:
            return extreme_of(function, one)
        case _:
            distance = f"(`mean_{one.name}` - `mean of {one.name}`)"
            # Chan, Golub, LeVeque: squared distances add up, together with those of the means.
            return f"sum(`m2_{one.name}`) + sum(`count` * {distance} * {distance})"


def exact_sum(one: Field) -> str:
    # Decimals of 38 digits: exact, and wider than any sum of 64-bit numbers can be.
    def total(part: str) -> str:
        return f"sum(cast(`{part}_{one.name}` as decimal(20,0)))"

    return f"{total('sum')} * 4294967296BD + {total('sum_low')}" if one.is_wide else total("sum")


def extreme_of(function: str, one: Field) -> str:
    value = f"`{function}_{one.name}`"
    if one.type not in partials.FLOAT_TYPES:
        return f"{function}({value})"
    # Spark takes NaN for the greatest of all numbers; here it counts only where it is alone.
    numbers = f"{function}(case when not isnan({value}) then {value} end)"
    return f"coalesce({numbers}, double('NaN'))"


def result_column(aggregate: Aggregate) -> str:
    """A column of the result, of what was aggregated."""
    one, value, to = aggregate.field, quoted(f"all {aggregate.name}"), TYPES[aggregate.type]
    if one is None:
        return f"cast(`all records` as {to})"
    match aggregate.function:
        case "first" | "last" as function:
            return f"cast(`{function} row`.`{function}_{one.name}` as {to})"
        case "sum" if one.type not in partials.FLOAT_TYPES:
            low, high = SUM_LIMITS[aggregate.type]
            return f"case when {value} between {low}BD and {high}BD then cast({value} as {to}) end"
        case "mean":
            return f"cast({value} as double) / cast(`all records` as double)"
        case "var" | "std" as function:
            root = "sqrt" if function == "std" else ""
            variance = f"{root}({value} / cast(`all records` - 1 as double))"
            return f"case when `all records` > 1 then {variance} end"
        case _:
            return f"cast({value} as {to})"


def sort_key(key: Field) -> str:
    name = quoted(key.name)
    if key.type != "text":
        return name
    # Text stands in its shown form, and the order is that of its bytes. As a string of JSON, each
    # byte becomes the character of its number, and those are ordered as the bytes are.
    as_json = (
        rf"replace(replace(replace({name}, r'\\', r'\u005c'), r'\x', r'\u00'), '\"', r'\u0022')"
    )
    unescaped = f"from_json(concat('[\"', {as_json}, '\"]'), 'array<string>')[0]"
    return rf"case when contains({name}, r'\') then {unescaped} else {name} end"


def quoted(name: str) -> str:
    return f"`{name}`"


# ---- reading -------------------------------------------------------------------------------------


def read_files(spark: SparkSession, directories: Sequence[str], pattern: str) -> DataFrame | None:
    """All files that match; `None` where there are none."""
    try:
        return spark.read.option("pathGlobFilter", pattern).parquet(*directories)
    except AnalysisException as error:
        if error.getCondition() == "UNABLE_TO_INFER_SCHEMA":
            return None
        raise DamagedPartialsError(f"cannot read {', '.join(directories)}: {error}") from error


def read_schema(spark: SparkSession, options: argparse.Namespace) -> Schema:
    """From wherever the partials are; Spark reads it, so that every file system will do."""
    paths = (
        [options.schema]
        if options.schema
        else [f"{directory.rstrip('/')}/schema.toml" for directory in options.directories]
    )
    try:
        return partials.one_schema(
            (spark.read.text(path, wholetext=True).collect()[0][0], path) for path in paths
        )
    except PySparkException as error:
        raise PartialsError(
            f"no schema in {', '.join(paths)}: name directories that `serve --partials` wrote, or "
            f"the schema with --schema ({error.getCondition()})"
        ) from error


def rows_once(rows: DataFrame, schema: Schema) -> DataFrame:
    """One copy of each row: copies agree in node, connection, batch and keys."""
    missing = [name for name in schema.partial_names if name not in rows.columns]
    if missing:
        raise DamagedPartialsError(
            f"the partials lack {', '.join(missing)}: they were written with another schema"
        )
    keys = [key.name for key in schema.keys]
    return rows.select(*map(quoted, schema.partial_names)).dropDuplicates(
        [*partials.IDENTITY, *keys]
    )


def complete(streams: DataFrame) -> DataFrame:
    """Streams whose every batch is there, and whose last says that the stream was complete."""
    ended = streams.groupBy("node", "connection").agg(
        F.expr("bool_or(final and status = 'complete')").alias("ended well"),
        F.expr("count(distinct batch) = max(batch) + 1").alias("whole"),
    )
    return ended.where("`ended well` and `whole`").select("node", "connection")


def latency_of(streams: DataFrame) -> partials.Histogram | None:
    """The combined histogram. Each partition gives one, so that little reaches the driver."""

    def decode(rows: Iterable[Row]) -> Iterator[partials.Histogram]:
        one = partials.merged_latency(row.latency_v2 for row in rows)
        if one is not None:
            yield one

    def add(one: partials.Histogram, other: partials.Histogram) -> partials.Histogram:
        one.add(other)
        return one

    histograms = streams.select("latency_v2").rdd.mapPartitions(decode)
    return None if histograms.isEmpty() else histograms.treeReduce(add)


# ---- running it ----------------------------------------------------------------------------------


def main() -> int:
    """Merges what the command line names."""
    options = parse_arguments()
    builder = SparkSession.builder.appName("ringest merge")
    if options.master:
        builder = builder.master(options.master)
    spark = builder.getOrCreate()
    # Names of fields have case.
    spark.conf.set("spark.sql.caseSensitive", True)
    spark.sparkContext.addPyFile(partials.__file__)
    try:
        return run(spark, options)
    except PartialsError as error:
        print(f"merge.py: {error}", file=sys.stderr)
        return error.exit_code
    except (PySparkException, Py4JJavaError) as error:
        # Where Java says it, the first line is the cause, and the rest is where it happened.
        java = isinstance(error, Py4JJavaError)
        said = str(error.java_exception.getMessage() if java else error)
        print(f"merge.py: Spark: {said.splitlines()[0]}", file=sys.stderr)
        return partials.EXIT_FILES_MISSING
    finally:
        spark.stop()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Merges partials of ringest with Apache Spark.")
    add = parser.add_argument
    add(
        "directories", nargs="+", metavar="DIR", help="directories of partials, of one node or many"
    )
    add("--schema", help="default: schema.toml in each DIR")
    add("--by", help="keys to group by, with commas between; default: all of the schema's")
    add("--complete-only", action="store_true", help="leave out streams that did not end well")
    add("--format", choices=["table", "ndjson"], default="table", help="what is printed")
    add("--rows", type=int, default=1000, help="rows of the table at most (default: 1000)")
    add("--output", help="write the groups to this directory, which may not exist yet")
    add("--output-format", choices=["parquet", "csv"], default="parquet")
    add("--files", type=int, help="files of the output; default: as Spark likes")
    add("--master", help="where to run; default: what spark-submit says, else this machine")
    return parser.parse_args()


# Tables without rows, where there are no files of their kind.
ROW_COLUMNS = "node string, connection string, batch bigint, `count` bigint"
STREAM_COLUMNS = (
    "node string, connection string, batch bigint, final boolean, status string, records bigint, "
    "latency_v2 binary"
)


def run(spark: SparkSession, options: argparse.Namespace) -> int:
    schema = read_schema(spark, options)
    by = schema.keys_by(options.by.split(",") if options.by is not None else None)
    files = read_files(spark, options.directories, partials.GROUPS_FILES)
    streams = read_files(spark, options.directories, partials.STREAM_FILES)
    if files is None and streams is None:
        print(f"merge.py: {', '.join(options.directories)}: no partials so far", file=sys.stderr)
    if streams is None:
        streams = spark.createDataFrame([], STREAM_COLUMNS)
    streams = streams.dropDuplicates(list(partials.IDENTITY))
    if options.complete_only:
        ended = F.broadcast(complete(streams))
        files = files and files.join(ended, ["node", "connection"], "left_semi")
        streams = streams.join(ended, ["node", "connection"], "left_semi")
    if files is None:
        rows = files = spark.createDataFrame([], ROW_COLUMNS)
        result = empty_result(spark, schema, by)
    else:
        rows = rows_once(files, schema)
        result = merged(rows, schema, by)
    # It is looked at twice: for its records, and for itself.
    result.persist()
    batches = batches_of(files, streams.persist()).persist()
    summary, agree = summarize(result, batches, streams)
    missing = find_missing(rows, batches, agree)
    if options.output:
        write(result, by, options)
    show(result, summary, options)
    return missing.report(sys.stderr)


def empty_result(spark: SparkSession, schema: Schema, by: Sequence[Field]) -> DataFrame:
    columns = [(key.name, key.type) for key in by]
    columns += [(one.name, one.type) for one in schema.aggregates]
    return spark.createDataFrame(
        [], ", ".join(f"{quoted(name)} {TYPES[kind]}" for name, kind in columns)
    )


def batches_of(files: DataFrame, streams: DataFrame) -> DataFrame:
    """Every batch of which there is a file of either kind; `records` is null without its row."""
    identity = list(partials.IDENTITY)
    said = streams.select(*identity, "records")
    return files.select(*identity).distinct().join(said, identity, "full")


def summarize(
    result: DataFrame, batches: DataFrame, streams: DataFrame
) -> tuple[dict[str, Any], bool]:
    """What was merged with the latency of all its packets, and whether its rows tell the same."""
    nodes, connections, count, said, unsaid = batches.agg(
        F.expr("count(distinct node)"),
        F.expr("count(distinct node, connection)"),
        F.expr("count(*)"),
        F.expr("coalesce(sum(records), 0)"),
        F.expr("count_if(records is null)"),
    ).collect()[0]
    counted = result.agg(F.expr("coalesce(sum(`count`), 0)")).collect()[0][0]
    summary = partials.summary(nodes, connections, count, counted, latency_of(streams))
    return summary, said == counted and not unsaid


def find_missing(rows: DataFrame, batches: DataFrame, agree: bool) -> partials.MissingFiles:
    """Batches of which a file is missing. Rows are added up by batch only where sums differ."""
    identity = list(partials.IDENTITY)
    by_stream = batches.groupBy("node", "connection").agg(
        F.expr("max(batch) + 1 - count(*)").alias("missing"), F.expr("max(batch) + 1").alias("all")
    )
    gaps = by_stream.where("missing > 0").orderBy("node", "connection").collect()
    if agree:
        return partials.MissingFiles(gaps, [], [])
    unsaid = batches.where("records is null").select(*identity).orderBy(*identity).collect()
    grouped = rows.groupBy(*identity).agg(F.expr("sum(`count`)").alias("grouped"))
    both = batches.join(grouped, identity, "left").select(
        *identity, F.expr("coalesce(grouped, 0)").alias("counted"), "records"
    )
    differing = both.where("counted <> records").orderBy(*identity).collect()
    return partials.MissingFiles(gaps, differing, unsaid)


def write(result: DataFrame, by: Sequence[Field], options: argparse.Namespace) -> None:
    if options.files:
        # Neighbouring partitions are joined, so the files in order of their names stay sorted.
        result = result.coalesce(options.files)
    if options.output_format == "csv":
        for key in by:
            if key.type == "bytes":
                result = result.withColumn(key.name, F.expr(f"lower(hex({quoted(key.name)}))"))
    header = {"header": True} if options.output_format == "csv" else {}
    result.write.format(options.output_format).options(**header).save(options.output)


def show(result: DataFrame, summary: dict[str, Any], options: argparse.Namespace) -> None:
    if options.format == "table":
        if not options.output:
            result.show(options.rows, truncate=False)
        print(partials.summary_line(summary))
        return
    groups = None
    if not options.output:
        groups = (row.asDict() for row in result.toLocalIterator())
    partials.write_ndjson(sys.stdout, summary, groups)


if __name__ == "__main__":
    sys.exit(main())
