#!/usr/bin/env python3
"""Merges partials with Apache Spark: plans the query and leaves all rows to the executors.

    spark-submit deploy/spark/merge.py DIR… --output s3a://bucket/result
    python3 deploy/spark/merge.py DIR… --master 'local[2]'                # without a cluster
    python3 deploy/spark/merge.py DIR… --format ndjson                    # one object on one line

A DIR is whatever Spark can list: a local path, nfs, hdfs://, s3a://, gs://. Needs pyspark 4 and
Java 17 or 21; Python 3.11 or later on the driver and on the executors. ../shared/partials.py must
lie there, or come with `--py-files`. Exit codes are those of `ringest merge`.
docs/operating/partials.md says what partials are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

# With --py-files Python finds it without this.
sys.path.append(str(Path(__file__).resolve().parent.parent / "shared"))
import partials
from partials import Aggregate, Column, DamagedPartialsError, MergePlan, Part, PartialsError

# The types with which Spark reads Parquet. It has no unsigned types and uses the next wider one.
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
SUM_LIMITS = {"u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1)}


# ---- the query -----------------------------------------------------------------------------------


def merged(rows: DataFrame, plan: MergePlan, by: Sequence[Column]) -> DataFrame:
    """The sorted result of these rows: keys, then aggregates in the schema's order."""
    keys = [quoted(key.name) for key in by]
    rows = with_distances(with_powers(rows, plan, keys), plan, keys)
    grouped = rows.groupBy(*keys).agg(
        F.expr("sum(cast(`count` as decimal(20,0)))").alias("all records"),
        *ends(plan),
        *sums_of_pieces(plan),
        *(
            F.expr(f"max({unit_of(f'furthest of {one.name}')})").alias(f"unit of all {one.name}")
            for one in plan.squares
            if one.unit
        ),
        *(F.expr(merged_column(one)).alias(f"all {one.name}") for one in plan.columns),
    )
    columns = [F.expr(finished(one, plan)).alias(one.name) for one in plan.result]
    result = grouped.select(*(F.col(key) for key in keys), *columns)
    return result.orderBy(*(F.expr(sort_key(key)) for key in by))


# Sums of floats are added as integers, which gives the same in any order: each number is divided by
# the power of two of the group's largest, and cut into three pieces of 50 bits.
PIECE_BITS = 50
PIECE = f"{1 << PIECE_BITS}BD"


def is_special(column: str) -> str:
    """Whether a number is infinite or NaN."""
    return f"(isnan({column}) or abs({column}) = double('infinity'))"


def times_power(value: str, power: str) -> str:
    """A number times a power of two, which may itself be beyond binary64."""
    half = f"floor(({power}) / 2)"
    return f"({value}) * pow(2D, {half}) * pow(2D, ({power}) - {half})"


def with_powers(rows: DataFrame, plan: MergePlan, keys: Sequence[str]) -> DataFrame:
    """Adds to each row the power of two of its group's largest mean, and the three pieces of the
    numbers that its means consist of. Step by step, so that nothing is computed twice."""
    over = f"over (partition by {', '.join(keys)})"
    powers, units = {}, {}
    for mean in plan.means:
        name = quoted(mean.name)
        largest = f"max(case when not {is_special(name)} then nullif(abs({name}), 0D) end) {over}"
        powers[f"power of {mean.name}"] = f"coalesce(cast(floor(log2({largest})) as int), 0)"
    for number, name in numbers_of(plan):
        scaled = times_power(quoted(number), f"{PIECE_BITS} - {quoted(f'power of {name}')}")
        special = is_special(quoted(name))
        units[f"units of {number}"] = f"case when {special} then 0D else {scaled} end"
    rows = with_columns(with_columns(rows, powers), units)
    for level in range(3):
        pieces, left = {}, {}
        for number, _ in numbers_of(plan):
            own, piece = quoted(f"units of {number}"), f"piece {level} of {number}"
            pieces[piece] = f"cast({own} as bigint)"
            left[f"units of {number}"] = f"({own} - {quoted(piece)}) * pow(2D, {PIECE_BITS})"
        rows = with_columns(with_columns(rows, pieces), left)
    return rows


def with_columns(rows: DataFrame, columns: dict[str, str]) -> DataFrame:
    if not columns:
        return rows
    return rows.withColumns({name: F.expr(sql) for name, sql in columns.items()})


def numbers_of(plan: MergePlan) -> list[tuple[str, str]]:
    """The columns of means and their rests, each with the mean's name."""
    rests = {one.of[0]: one.of[1] for one in plan.result if len(one.of) > 1}
    return [(name, one.name) for one in plan.means for name in (one.name, rests[one.name])]


def sums_of_pieces(plan: MergePlan) -> list[Any]:
    """For each mean, the sums of the pieces of its numbers, and what is not finite."""
    sums = []
    for mean in plan.means:
        name = quoted(mean.name)
        (_, rest) = (number for number, of in numbers_of(plan) if of == mean.name)
        for level in range(3):
            piece, more = (
                f"cast({quoted(f'piece {level} of {number}')} as decimal(19,0))"
                for number in (mean.name, rest)
            )
            total = f"sum({piece} * cast(`count` as decimal(17,0)) + {more})"
            sums.append(F.expr(total).alias(f"piece {level} of {mean.name}"))
        special = f"sum(case when {is_special(name)} then {name} end)"
        sums.append(F.expr(special).alias(f"special {mean.name}"))
        sums.append(F.expr(f"max(abs({name}))").alias(f"largest {mean.name}"))
        sums.append(F.expr(f"max({quoted(f'power of {mean.name}')})").alias(f"power {mean.name}"))
    return sums


def with_distances(rows: DataFrame, plan: MergePlan, keys: Sequence[str]) -> DataFrame:
    """Adds to each row how far its means are from those of its group.

    First from the least one, as each mean has two parts that must not be added before.
    """
    over = f"over (partition by {', '.join(keys)})"
    own, distances, means = {}, {}, {}
    for one in plan.squares:
        origin, part, distance = (
            quoted(f"{what} of {one.name}") for what in ("origin", "part", "distance")
        )
        own[f"origin of {one.name}"], own[f"part of {one.name}"] = own_mean(one, plan)
        from_least = f"cast({origin} - min({origin}) {over} as double) + {part}"
        distances[f"distance of {one.name}"] = from_least
        distances["records of all"] = f"cast(sum(`count`) {over} as double)"
        share = "(cast(`count` as double) / `records of all`)"
        means[f"mean of {one.name}"] = f"sum({distance} * {share}) {over}"
        if one.unit:
            deviation = f"sqrt({quoted(one.name)} / `count`) * {quoted(one.unit)} * 0.25D"
            furthest = f"max(greatest(abs({distance}), {deviation})) {over}"
            means[f"furthest of {one.name}"] = furthest
    for columns in (own, distances, means):
        rows = with_columns(rows, columns)
    return rows


def own_mean(column: Part, plan: MergePlan) -> tuple[str, str]:
    """A row's mean: an origin, and what is beyond it."""
    high, *low = map(quoted, column.around)
    if plan.column(column.around[0]).merge == "mean":
        # A quarter of each, because their distance may exceed a double.
        quarter = " * 0.25D" if column.unit else ""
        return f"{high}{quarter}", f"{low[0]} / `count`{quarter}"
    total = f"cast({high} as decimal(20,0))" + (f" * 4294967296BD + {low[0]}" if low else "")
    # Any integer near the mean will do, as long as the rest is exact.
    origin = f"cast(floor(({total}) / cast(`count` as decimal(17,0))) as decimal(20,0))"
    rest = f"({total}) - {origin} * cast(`count` as decimal(17,0))"
    return origin, f"cast({rest} as double) / `count`"


def ends(plan: MergePlan) -> list[Any]:
    """The first and the last row of each group, if a column needs them."""
    found = []
    for end, extreme in (("first", "min"), ("last", "max")):
        columns = [one.name for one in plan.columns if one.merge == end]
        if columns:
            # Within a batch, rows of one group differ only in the keys that are merged away.
            order = (*plan.order, *(key.name for key in plan.keys), *columns)
            row = f"struct({', '.join(map(quoted, order))})"
            found.append(F.expr(f"{extreme}({row})").alias(f"{end} row"))
    return found


def merged_column(column: Part) -> str:
    """The expression that merges a column's rows into one value."""
    value = quoted(column.name)
    match column.merge:
        case "sum" if not column.is_float:
            # Decimals of 38 digits are exact, and wide enough for any sum of 64-bit numbers.
            return f"sum(cast({value} as decimal(20,0)))"
        case "min" | "max" as extreme if column.is_float:
            # Spark orders NaN above all numbers; here it counts only if there is nothing else.
            numbers = f"{extreme}(case when not isnan({value}) then {value} end)"
            # To Spark zeros are equal.
            zero = "-0.0" if extreme == "min" else "0.0"
            other = f"bool_or(cast({value} as string) = '{zero}')"
            return (
                f"case when {numbers} = 0 and {other} then double('{zero}')"
                f" else coalesce({numbers}, double('NaN')) end"
            )
        case "sum" | "min" | "max" as function:
            return f"{function}({value})"
        case "first" | "last" | "mean" | "rest" | "unit":
            # Computed elsewhere: from whole rows, or added to each row.
            return "max(1)"
        case "squares":
            # Chan, Golub, LeVeque: the sum of squared distances, plus those of the means.
            own, mean = (quoted(f"{what} of {column.name}") for what in ("distance", "mean"))
            if not column.unit:
                return f"sum({value} + `count` * ({own} - {mean}) * ({own} - {mean}))"
            unit = unit_of(f"furthest of {column.name}")
            own_unit = f"({quoted(column.unit)} * 0.25D / {unit})"
            units = f"(({own} - {mean}) / {unit})"
            return f"sum({value} * {own_unit} * {own_unit} + `count` * {units} * {units})"
        case other:
            raise PartialsError(f'"{column.name}" has an unknown merge operation "{other}"')


def unit_of(furthest: str) -> str:
    """A quarter of the unit of a group's distances: that of 1, unless squares would overflow."""
    column = quoted(furthest)
    usual = f"{column} between 1e-140D and 1e140D or {column} = 0"
    return f"(case when {usual} then 0.25D else {column} end)"


def finished_float(aggregate: Aggregate, mean: Part) -> str:
    """A sum or a mean of floats, from the sums of the pieces of its numbers."""
    high, middle, low = (quoted(f"piece {level} of {mean.name}") for level in range(3))
    middle = f"({middle} + cast({low} div {PIECE} as decimal(20,0)))"
    low = f"{low} - cast({low} div {PIECE} as decimal(20,0)) * {PIECE}"
    carried = f"cast({middle} div {PIECE} as decimal(20,0))"
    terms = (f"{high} + {carried}", f"{middle} - {carried} * {PIECE}", low)
    one, two, three = (f"cast({term} as double)" for term in terms)
    piece = f"pow(2D, {PIECE_BITS})"
    total = f"{one} + {two} / {piece} + {three} / {piece} / {piece}"
    power = f"{quoted(f'power {mean.name}')} - {PIECE_BITS}"
    if aggregate.finish == "sum":
        value = times_power(total, power)
    else:
        # Rounding must not lead beyond the largest mean, which may be the largest double.
        largest = quoted(f"largest {mean.name}")
        value = times_power(f"({total}) / cast(`all records` as double)", power)
        value = f"least(greatest({value}, -{largest}), {largest})"
    # Infinities and NaN add as IEEE 754 says.
    return f"coalesce({quoted(f'special {mean.name}')}, {value})"


def finished(aggregate: Aggregate, plan: MergePlan) -> str:
    """A column of the result, computed from the merged columns."""
    parts = [plan.column(name) for name in aggregate.of]
    if parts[0].merge == "mean" and aggregate.finish in ("sum", "mean"):
        return finished_float(aggregate, parts[0])
    high, *low = (
        f"`{one.merge} row`.{quoted(one.name)}"
        if one.merge in ("first", "last")
        else quoted(f"all {one.name}")
        for one in parts
    )
    value, to = f"({high} * 4294967296BD + {low[0]})" if low else high, TYPES[aggregate.type]
    match aggregate.finish:
        case "sum" if not aggregate.is_float:
            least, most = SUM_LIMITS[aggregate.type]
            fits = f"{value} between {least}BD and {most}BD"
            return f"case when {fits} then cast({value} as {to}) end"
        case "sum" | "value":
            return f"cast({value} as {to})"
        case "mean":
            return f"cast({value} as double) / cast(`all records` as double)"
        case "variance" | "deviation" as finish:
            variance = f"{value} / cast(`all records` - 1 as double)"
            unit = f" * `unit of all {parts[0].name}` * 4" if parts[0].unit else ""
            spread = f"{variance}{unit}{unit}"
            if finish == "deviation":
                spread = f"sqrt({variance}){unit}"
            return f"case when `all records` > 1 then {spread} end"
        case other:
            raise PartialsError(f'"{aggregate.name}" has an unknown finish operation "{other}"')


def sort_key(key: Column) -> str:
    name = quoted(key.name)
    if key.type != "text":
        return name
    # Text has escapes, but is sorted by its bytes. Each byte becomes the character with its number,
    # and these sort like the bytes: those of UTF-8 by a change of the encoding, the escaped ones by
    # parsing the rest as a JSON string.
    byte_wise = f"decode(encode({name}, 'UTF-8'), 'ISO-8859-1')"
    as_json = (
        rf"replace(replace(replace({byte_wise}, r'\\', r'\u005c'), r'\x', r'\u00'), '\"', r'\u0022')"
    )
    unescaped = f"from_json(concat('[\"', {as_json}, '\"]'), 'array<string>')[0]"
    return rf"case when contains({name}, r'\') then {unescaped} else {byte_wise} end"


def quoted(name: str) -> str:
    return f"`{name}`"


# ---- reading -------------------------------------------------------------------------------------


def find_damaged(
    spark: SparkSession, options: argparse.Namespace
) -> tuple[dict[str, str], list[str]]:
    """Damaged files, and where to read the others: in the directories if all are intact."""
    both = "*.{groups,stream}.parquet"
    reader = spark.read.format("binaryFile").option("pathGlobFilter", both)
    try:
        files = reader.load(options.directories)
    except AnalysisException:
        # There is no such directory, which reading the partials will say.
        return {}, options.directories
    contents = files.select("path", "content").rdd
    checked = contents.map(lambda row: (row.path, partials.damage(bytes(row.content))))
    wrong = sorted(checked.filter(lambda one: one[1] is not None).collect())
    damaged = partials.left_out(wrong, options.skip_damaged, sys.stderr)
    if not damaged:
        return damaged, options.directories
    return damaged, [row.path for row in files.select("path").collect() if row.path not in damaged]


def read_files(spark: SparkSession, paths: Sequence[str], pattern: str) -> DataFrame | None:
    """All files that match, in directories or named; `None` if there are none."""
    try:
        return spark.read.option("pathGlobFilter", pattern).parquet(*paths) if paths else None
    except AnalysisException as error:
        if error.getCondition() == "UNABLE_TO_INFER_SCHEMA":
            return None
        raise DamagedPartialsError(f"cannot read the partials: {error}") from error


def read_plan(spark: SparkSession, files: DataFrame) -> MergePlan:
    """The merge operations, from the first file of each directory."""
    directories: dict[str, str] = {}
    for file in sorted(files.inputFiles()):
        directories.setdefault(file.rpartition("/")[0], file)
    return partials.one_plan((metadata(spark, one), one) for one in directories.values())


def metadata(spark: SparkSession, file: str) -> str | None:
    """The merge operations in a Parquet file's metadata, for which Spark has no function."""
    context = spark.sparkContext
    hadoop, parquet = context._jvm.org.apache.hadoop, context._jvm.org.apache.parquet.hadoop
    path = hadoop.fs.Path(context._jvm.java.net.URI(file))
    configuration = context._jsc.hadoopConfiguration()
    source = parquet.util.HadoopInputFile.fromPath(path, configuration)
    reader = parquet.ParquetFileReader.open(source)
    try:
        return reader.getFileMetaData().getKeyValueMetaData().get(partials.MERGE_KEY)
    finally:
        reader.close()


def look_for_schema(spark: SparkSession, directories: Sequence[str]) -> None:
    """Refuses directories that `serve --partials` has not written."""
    for directory in directories:
        path = f"{directory.rstrip('/')}/schema.toml"
        try:
            spark.read.text(path).head()
        except PySparkException as error:
            raise PartialsError(
                f"no {path}: name directories that `serve --partials` wrote "
                f"({error.getCondition()})"
            ) from error


def rows_once(rows: DataFrame, plan: MergePlan) -> DataFrame:
    """One copy of each row: copies agree in node, connection, batch and keys."""
    missing = [name for name in plan.names if name not in rows.columns]
    if missing:
        raise DamagedPartialsError(
            f"the partials lack {', '.join(missing)}: they were written with another schema"
        )
    keys = [key.name for key in plan.keys]
    return rows.select(*map(quoted, plan.names)).dropDuplicates([*plan.identity, *keys])


def complete(streams: DataFrame, rows: DataFrame) -> DataFrame:
    """Streams that ended complete, and whether everything of them is there."""
    counted = streams.join(grouped(rows), list(partials.IDENTITY), "left")
    ended = counted.groupBy("node", "connection").agg(
        F.expr("bool_or(final and status = 'complete')").alias("ended well"),
        F.expr(
            "count(*) = max(batch) + 1 and bool_and(records = coalesce(counted, 0))"
        ).alias("whole"),
    )
    return ended.where("`ended well`").select("node", "connection", "whole")


def grouped(rows: DataFrame) -> DataFrame:
    """The records in the groups of each batch."""
    return rows.groupBy(*partials.IDENTITY).agg(F.expr("sum(`count`)").alias("counted"))


def latency_of(streams: DataFrame) -> partials.Histogram | None:
    """The combined histogram. Each partition returns one, so the driver receives little data."""

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
    """Merges what the command line asks for."""
    options = parse_arguments()
    builder = SparkSession.builder.appName("ringest merge")
    if options.master:
        builder = builder.master(options.master)
    spark = builder.getOrCreate()
    # Field names are case-sensitive.
    spark.conf.set("spark.sql.caseSensitive", True)
    spark.sparkContext.addPyFile(partials.__file__)
    try:
        return run(spark, options)
    except PartialsError as error:
        print(f"merge.py: {error}", file=sys.stderr)
        return error.exit_code
    except (PySparkException, Py4JJavaError) as error:
        # In a Java error the first line is the cause, and the rest a stack trace.
        java = isinstance(error, Py4JJavaError)
        said = str(error.java_exception.getMessage() if java else error)
        print(f"merge.py: Spark: {said.splitlines()[0]}", file=sys.stderr)
        return partials.EXIT_FILES_MISSING
    finally:
        spark.stop()


def parse_arguments() -> argparse.Namespace:
    where = "write the groups to this directory, which must not exist yet"
    parser = partials.parser("Apache Spark", where)
    add = parser.add_argument
    add("--rows", type=int, default=1000, help="maximum rows of the table (default: 1000)")
    add("--files", type=int, help="number of output files; default: Spark's choice")
    add("--master", help="where to run; default: that of spark-submit, else this machine")
    return parser.parse_args()


# Columns of empty tables, used if there are no files of their kind.
ROW_COLUMNS = "node string, connection string, batch bigint, `count` bigint"
STREAM_COLUMNS = (
    "node string, connection string, batch bigint, final boolean, status string, records bigint, "
    "latency_v2 binary"
)


def run(spark: SparkSession, options: argparse.Namespace) -> int:
    if options.output:
        chosen = options.output_format
        options.output_format = partials.output_format(options.output, chosen, "parquet")
    damaged, paths = find_damaged(spark, options)
    files = read_files(spark, paths, partials.GROUPS_FILES)
    streams = read_files(spark, paths, partials.STREAM_FILES)
    if files is None and streams is None and not damaged:
        look_for_schema(spark, options.directories)
        print(f"merge.py: {', '.join(options.directories)}: no partials so far", file=sys.stderr)
    if files is None and options.output:
        raise DamagedPartialsError("no partials so far; nothing was written")
    plan = MergePlan() if files is None else read_plan(spark, files)
    by = plan.keys_by(options.by)
    empty = spark.createDataFrame([], ROW_COLUMNS)
    rows = empty if files is None else rows_once(files, plan)
    streams = spark.createDataFrame([], STREAM_COLUMNS) if streams is None else streams
    streams = streams.dropDuplicates(list(partials.IDENTITY)).persist()
    batches = batches_of(files or empty, streams).persist()
    ended = complete(streams, rows).persist() if options.complete_only else None
    kept = kept_by(None if ended is None else ended.where("whole"))
    rows_kept = kept(rows)
    result = empty.select("count") if files is None else merged(rows_kept, plan, by)
    # It is read twice: for its record count, and for the output.
    result.persist()
    summary, agree = summarize(result, kept(batches), kept(streams))
    missing = find_missing(rows, batches, ended, agree)
    if options.output:
        write(result, by, options)
    show(result, summary, options)
    return missing.report(damaged, sys.stderr)


def kept_by(streams: DataFrame | None) -> Callable[[DataFrame], DataFrame]:
    """Keeps the rows of these streams; all rows for `None`."""
    if streams is None:
        return lambda rows: rows
    return lambda rows: rows.join(F.broadcast(streams), ["node", "connection"], "left_semi")


def batches_of(files: DataFrame, streams: DataFrame) -> DataFrame:
    """Every batch with a file of either kind; `records` is null if it has no row."""
    identity = list(partials.IDENTITY)
    said = streams.select(*identity, "records")
    return files.select(*identity).distinct().join(said, identity, "full")


def summarize(
    result: DataFrame, batches: DataFrame, streams: DataFrame
) -> tuple[dict[str, Any], bool]:
    """A summary with the latency of all packets, and whether groups and rows agree."""
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


def find_missing(
    rows: DataFrame, batches: DataFrame, ended: DataFrame | None, agree: bool
) -> partials.MissingFiles:
    """Batches with a missing file. Rows are summed by batch only if the totals differ."""
    identity, stream = list(partials.IDENTITY), ["node", "connection"]
    known = kept_by(ended)(batches)
    by_stream = known.groupBy(*stream).agg(
        F.expr("max(batch) + 1 - count(*)").alias("missing"), F.expr("max(batch) + 1").alias("all")
    )
    gaps = by_stream.where("missing > 0").orderBy(*stream).collect()
    unsaid, differing = [], []
    if ended is not None or not agree:
        said = known.where("records is not null").groupBy(*stream).agg(F.max("batch").alias("said"))
        unsaid = known.where("records is null").join(said, stream, "left")
        lost = F.expr("coalesce(batch < said, false)")
        unsaid = unsaid.select(*identity, lost).orderBy(*identity).collect()
        both = known.join(grouped(rows), identity, "left").select(
            *identity, F.expr("coalesce(counted, 0)").alias("counted"), "records"
        )
        differing = both.where("counted <> records").orderBy(*identity).collect()
    if ended is None:
        return partials.MissingFiles(gaps, differing, unsaid)
    others = batches.select(*stream).distinct().join(ended, stream, "left_anti")
    not_whole = ended.where("not whole").select(*stream)
    left_out = (one.orderBy(*stream).collect() for one in (others, not_whole))
    return partials.MissingFiles(gaps, differing, unsaid, *left_out)


def write(result: DataFrame, by: Sequence[Column], options: argparse.Namespace) -> None:
    if options.files:
        # Joins neighbouring partitions, so the files stay sorted in the order of their names.
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
