#!/usr/bin/env python3
"""Merges partials with Apache Spark: plans the query and leaves all rows to the executors.

    spark-submit deploy/spark/merge.py DIR… --output s3a://bucket/result
    python3 deploy/spark/merge.py DIR… --master 'local[2]'                # without a cluster
    python3 deploy/spark/merge.py DIR… --format ndjson                    # one object on one line

A DIR is whatever Spark can list: a local path, nfs, hdfs://, s3a://, gs://, or a pattern. Needs
pyspark 4 and Java 17 or 21; Python 3.11 or later on the driver and on the executors. The package
../shared/partials must lie there, or come as a zip with `--py-files`. Exit codes are those of
`ringest merge`. docs/operating/partials.md says what partials are.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, Row, SparkSession

# With --py-files Python finds it without this.
sys.path.append(str(Path(__file__).resolve().parent.parent / "shared"))
import partials
from partials import DamagedPartialsError, Histogram, PartialsError, command, merged_latency
from partials.errors import EXIT_FAILED
from partials.files import (
    GROUPS_ENDING,
    SCHEMA_FILE,
    STREAM_ENDING,
    Directory,
    Survey,
    is_partial,
    is_utf8,
)
from partials.report import say
from partials.sql import Dialect

# Text has escapes, but is sorted by its bytes. Each byte becomes the character with its number, and
# these sort like the bytes: those of UTF-8 by a change of the encoding, the escaped ones by parsing
# the rest as a JSON string.
_BYTE_WISE: Final = "decode(encode({0}, 'UTF-8'), 'ISO-8859-1')"
_AS_JSON: Final = (
    rf"replace(replace(replace({_BYTE_WISE}, r'\\', r'\u005c'), r'\x', r'\u00'), '\"', r'\u0022')"
)
TEXT_BYTES: Final = (
    rf"CASE WHEN contains({{0}}, r'\')"
    rf" THEN from_json(concat('[\"', {_AS_JSON}, '\"]'), 'array<string>')[0] ELSE {_BYTE_WISE} END"
)
# Spark has no unsigned types. Decimals of 38 digits hold any sum of 64-bit numbers.
WIDE: Final = "DECIMAL(20,0)"
DIALECT: Final = Dialect(WIDE, WIDE, f"CAST(floor(({{0}}) / ({{1}})) AS {WIDE})", TEXT_BYTES.format)
# Columns of empty tables, used if there are no files of their kind.
EMPTY: Final = {
    "groups": "node string, connection string, batch bigint, `count` bigint",
    "streams": "node string, connection string, batch bigint, final boolean, status string,"
    " records bigint, latency_v2 binary",
}
EITHER: Final = "*.{groups,stream}.parquet"
# What Spark would pass over.
NOT_READ: Final = {
    f"{EITHER}/*": ("it is a directory",),
    f"_{EITHER}": ("its name begins with _, so Spark ignores it", "rename it"),
}
NOT_UTF8: Final = ("its name is not UTF-8, so Spark cannot open it", "rename it")
SETTINGS: Final = {
    # Field names are case-sensitive, and quoted as in the standard.
    "spark.sql.caseSensitive": True,
    "spark.sql.ansi.enabled": True,
    "spark.sql.ansi.doubleQuotedIdentifiers": True,
}


def main() -> int:
    """Merges what the command line asks for."""
    options = parse_arguments()
    builder = SparkSession.builder.appName("ringest merge")
    if options.master:
        builder = builder.master(options.master)
    spark = builder.getOrCreate()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return run(spark, options, Path(scratch))
    except PartialsError as error:
        say(str(error))
        return error.exit_code
    except (PySparkException, Py4JJavaError) as error:
        say(f"Spark: {cause_of(error)}")
        return EXIT_FAILED
    finally:
        spark.stop()


def run(spark: SparkSession, options: argparse.Namespace, scratch: Path) -> int:
    for name, value in SETTINGS.items():
        spark.conf.set(name, value)
    package = Path(partials.__file__).parent
    if package.is_dir():
        # Executors get it as a zip, as from --py-files.
        zipped = shutil.make_archive(str(scratch / "partials"), "zip", package.parent, package.name)
        spark.sparkContext.addPyFile(zipped)
    if options.output:
        chosen = options.output_format
        options.output_format = command.output_format(options.output, chosen, "parquet")
    return command.merge(Spark(spark, options), options)


def parse_arguments() -> argparse.Namespace:
    where = "write the groups to this directory, which must not exist yet"
    parser = command.parser("Apache Spark", where)
    add = parser.add_argument
    add("--rows", type=int, default=1000, help="maximum rows of the table (default: 1000)")
    add("--files", type=int, help="number of output files; default: Spark's choice")
    add("--master", help="where to run; default: that of spark-submit, else this machine")
    return parser.parse_args()


def cause_of(error: PySparkException | Py4JJavaError) -> str:
    """What it is about: in a Java error the first line of the last cause, not the stack trace."""
    if isinstance(error, PySparkException):
        return str(error).splitlines()[0]
    java = error.java_exception
    while java.getCause() is not None:
        java = java.getCause()
    return str(java.getMessage() or java.toString()).splitlines()[0]


class Spark(command.Engine):
    """Runs a merge in Spark."""

    dialect = DIALECT

    def __init__(self, spark: SparkSession, options: argparse.Namespace) -> None:
        self._spark, self._options = spark, options
        self._paths: list[str] = []
        if options.output and self._matching(options.output):
            raise PartialsError(f"--output {options.output} already exists; name a new directory")

    # ---- files -----------------------------------------------------------------------------------

    def survey(self) -> tuple[list[Directory], Survey]:
        survey = Survey()
        directories: dict[str, Directory] = {}
        try:
            for name in self._options.directories:
                why = f"cannot read {name}/{SCHEMA_FILE}: No such directory"
                found = self._matching(escaped(name)) or self._matching(name)
                directories |= {path: self._look_into(path, survey) for path in found}
                directories |= {} if found else {name: Directory(name, None, why)}
                self._paths += [escaped(path) for path in found]
            if self._paths:
                self._look_at_files(directories, survey)
        except (AnalysisException, Py4JJavaError) as error:
            raise PartialsError(
                f"cannot list the directories: {cause_of(error)}; name directories that "
                "`serve --partials` wrote and that this user can read"
            ) from error
        return list(directories.values()), survey

    def _look_into(self, path: str, survey: Survey) -> Directory:
        for pattern, why in NOT_READ.items():
            for other in self._matching(f"{escaped(path)}/{pattern}"):
                inside = other.removeprefix(f"{path}/").partition("/")[0]
                survey.foreign[f"{path}/{inside}"] = why
        # Java does not list names that it cannot decode.
        local = Path(path.removeprefix("file:"))
        names = os.listdir(local) if path.startswith("file:") and os.access(local, os.R_OK) else []
        for name in names:
            if is_partial(name) and not is_utf8(name):
                survey.foreign[f"{path}/{name}"] = NOT_UTF8
        found = Directory(path)
        try:
            found.schema = self._read(f"{path}/{SCHEMA_FILE}")
        except Py4JJavaError as error:
            found.schema_error = f"cannot read {path}/{SCHEMA_FILE}: {cause_of(error)}"
        return found

    def _look_at_files(self, directories: dict[str, Directory], survey: Survey) -> None:
        # Without those that cannot be read or are empty.
        ignoring = {"ignoreCorruptFiles": True, "ignoreMissingFiles": True}
        contents = self._files(**ignoring, pathGlobFilter=EITHER).select("path", "content")
        for one in contents.rdd.mapPartitions(look_at).collect():
            survey.add(one)
        listed = self._listed()
        ours = [path for path in listed if is_partial(path.rpartition("/")[2])]
        if len(ours) > survey.files:
            read = set(contents.rdd.map(lambda row: row.path).collect())
            for path in sorted(set(ours) - read):
                self._look_at_unread(path, survey)
        for path in sorted(set(listed) - set(ours)):
            parent, _, name = path.rpartition("/")
            if name != SCHEMA_FILE and (found := directories.get(parent)):
                found.others, found.other = found.others + 1, found.other or name

    def _look_at_unread(self, path: str, survey: Survey) -> None:
        try:
            if self._read(path) == "":
                survey.add_file(path, b"")
            else:
                survey.damaged[path] = "reading it: an executor cannot, and its log says why"
        except Py4JJavaError as error:
            survey.damaged[path] = f"reading it: {cause_of(error)}"

    def _files(self, **options: Any) -> DataFrame:
        return self._spark.read.format("binaryFile").options(**options).load(self._paths)

    def _listed(self) -> list[str]:
        """All files that are not hidden, whatever they are."""
        # Of local files Spark has two spellings.
        urls = (url.replace("file:///", "file:/", 1) for url in self._files().inputFiles())
        return [unquote(url) for url in urls]

    def _matching(self, pattern: str) -> list[str]:
        """What matches a path in a file system that Spark knows."""
        context = self._spark.sparkContext
        path = context._jvm.org.apache.hadoop.fs.Path(pattern)
        system = path.getFileSystem(context._jsc.hadoopConfiguration())
        return [one.getPath().toString() for one in system.globStatus(path) or ()]

    def _read(self, file: str) -> str:
        """Reads a file on the driver."""
        jvm = self._spark.sparkContext._jvm
        path = jvm.org.apache.hadoop.fs.Path(file)
        stream = path.getFileSystem(self._spark.sparkContext._jsc.hadoopConfiguration()).open(path)
        try:
            return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    # ---- queries ---------------------------------------------------------------------------------

    def decode(self, path: str) -> str | None:
        try:
            rows = self._spark.read.parquet(escaped(path))
            rows.write.format("noop").mode("overwrite").save()
        except (PySparkException, Py4JJavaError) as error:
            return cause_of(error)
        return None

    def open(self, survey: Survey) -> None:
        paths = self._paths
        if survey.damaged:
            paths = [escaped(path) for path in self._listed() if path not in survey.damaged]
        for kind, ending in (("groups", GROUPS_ENDING), ("streams", STREAM_ENDING)):
            if any(is_groups == (kind == "groups") for _, is_groups, _ in survey.first):
                found = self._spark.read.option("pathGlobFilter", f"*{ending}").parquet(*paths)
            else:
                found = self._spark.createDataFrame([], EMPTY[kind])
            found.createOrReplaceTempView(kind)

    def table(self, name: str, sql: str, *, keep: bool = True) -> None:
        rows = self._spark.sql(sql)
        (rows.persist() if keep else rows).createOrReplaceTempView(name)

    def rows(self, sql: str) -> Sequence[Any]:
        return self._spark.sql(sql).collect()

    def latency(self, sql: str) -> Histogram | None:
        # One from each partition, so that the driver receives little.
        found = self._spark.sql(sql).rdd.mapPartitions(
            lambda rows: [merged_latency(row.latency_v2 for row in rows)]
        )
        histograms = [one for one in found.collect() if one is not None]
        return reduce(Histogram.add, histograms) if histograms else None

    def write(self, sql: str) -> None:
        result, form = self._spark.sql(sql), self._options.output_format
        if self._options.files:
            # Joins neighbouring partitions, so the files stay sorted in the order of their names.
            result = result.coalesce(self._options.files)
        header = {"header": True} if form == "csv" else {}
        try:
            result.write.format(form).options(**header).save(self._options.output)
        except (PySparkException, Py4JJavaError) as error:
            raise DamagedPartialsError(
                f"cannot write --output {self._options.output}: {cause_of(error)}"
            ) from error

    def print_result(self) -> None:
        self._spark.table("result").show(self._options.rows, truncate=False)

    def result(self) -> Iterator[dict[str, Any]]:
        return (row.asDict() for row in self._spark.table("result").toLocalIterator())


def look_at(files: Iterable[Row]) -> Iterator[Survey]:
    """Looks at the files of a partition, on an executor."""
    survey = Survey()
    for row in files:
        survey.add_file(row.path, bytes(row.content))
    yield survey


def escaped(path: str) -> str:
    """A path as a pattern that only it matches."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)


if __name__ == "__main__":
    sys.exit(main())
