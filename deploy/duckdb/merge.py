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
import os
import sys
from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "shared"))
import duckdb
from partials import DamagedPartialsError, Histogram, PartialsError, command, merged_latency
from partials.errors import EXIT_FAILED, EXIT_OK
from partials.files import (
    GROUPS_ENDING,
    SCHEMA_FILE,
    Directory,
    Survey,
    find_plan,
    is_partial,
    is_utf8,
    place_of,
)
from partials.report import say
from partials.sql import Dialect, MergeSql

# Text has escapes, but is sorted by its bytes. As a BLOB cast to text, every byte beyond ASCII and
# each backslash become \xNN. What was an escape is made one again, the backslash in lower case so
# that it is not taken for another; the cast back to BLOB then gives the bytes.
TEXT_BYTES: Final = (
    r"CAST(replace(replace(CAST(encode({}) AS STRING), '\x5C\x5C', '\x5c'), '\x5Cx', '\x') AS BLOB)"
)
DIALECT: Final = Dialect(
    "UBIGINT", "HUGEINT", "(({0}) // ({1}))", TEXT_BYTES.format, ignores_case=True
)
FILES: Final = "read_parquet(getvariable('{}'))"
# Columns of empty tables, used if there are no files of their kind.
EMPTY: Final = {
    "groups": "node VARCHAR, connection VARCHAR, batch UINTEGER, count UBIGINT",
    "streams": "node VARCHAR, connection VARCHAR, batch UINTEGER, final BOOLEAN, status VARCHAR,"
    " records UBIGINT, latency_v2 BLOB",
}


def main() -> int:
    """Merges what the command line asks for."""
    options = parse_arguments()
    try:
        if options.output:
            options.output_format = command.output_format(options.output, options.output_format)
            options.output = output_file(options.output)
        engine = DuckDb(options)
        return print_sql(engine, options) if options.sql else command.merge(engine, options)
    except PartialsError as error:
        say(str(error))
        return error.exit_code
    except duckdb.Error as error:
        say(f"DuckDB: {error}")
        return EXIT_FAILED


def parse_arguments() -> argparse.Namespace:
    parser = command.parser("DuckDB", "write the groups to this file instead of printing them")
    add = parser.add_argument
    add("--sql", action="store_true", help="print the SQL without running it")
    add("--memory", help="memory limit of DuckDB, such as 4GB; beyond that it uses the disk")
    add("--threads", type=int, help="default: all cores")
    return parser.parse_args()


def output_file(output: str) -> str:
    """The file that the output is written to, which can be: a merge may take long."""
    file = Path(output).resolve()
    if Path(output).is_symlink() and not file.exists():
        raise PartialsError(
            f"--output {output} is a link to a file that does not exist; name a file"
        )
    if file.exists() and not (file.is_file() or file.is_char_device() or file.is_fifo()):
        raise PartialsError(f"--output {output} is not a file; name a file")
    place = file if file.exists() else file.parent
    if not os.access(place, os.W_OK):
        raise PartialsError(
            f"cannot write to --output {output}: it must be in a directory that exists and that "
            "this user can write to"
        )
    return str(file)


class DuckDb(command.Engine):
    """Runs a merge in DuckDB."""

    dialect = DIALECT

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._database = duckdb.connect()
        self._files: dict[str, list[str]] = {"groups": [], "streams": []}
        for setting, value in (("memory_limit", options.memory), ("threads", options.threads)):
            if value is not None:
                self._database.execute(f"SET {setting} = '{value}'")

    def survey(self) -> tuple[list[Directory], Survey]:
        survey, directories = Survey(), []
        for path in dict.fromkeys(one.rstrip("/") for one in self._options.directories):
            directories.append(self._look_into(path, survey))
        return directories, survey

    def _look_into(self, path: str, survey: Survey) -> Directory:
        found = Directory(path)
        try:
            found.schema = Path(path, SCHEMA_FILE).read_text()
        except (OSError, ValueError) as error:
            found.schema_error = f"cannot read {path}/{SCHEMA_FILE}: {cause_of(error)}"
        try:
            names = sorted(os.listdir(path or "/"))
        except OSError:
            # The file of its schema cannot be read either.
            return found
        others = [name for name in names if not name.startswith(".") and name != SCHEMA_FILE]
        own = sorted((f"{path}/{name}" for name in others if is_partial(name)), key=place_of)
        others = [name for name in others if not is_partial(name)]
        found.others, found.other = len(others), others[0] if others else ""
        for file in own[-1:] if self._options.sql else own:
            self._look_at(file, survey)
        return found

    def _look_at(self, file: str, survey: Survey) -> None:
        if Path(file).is_dir():
            survey.foreign[file] = ("it is a directory",)
        elif Path(file).exists() and not Path(file).is_file():
            survey.foreign[file] = ("it is not a file",)
        elif not is_utf8(file):
            survey.foreign[file] = ("its name is not UTF-8, so DuckDB cannot open it", "rename it")
        else:
            try:
                survey.add_file(file, Path(file).read_bytes())
            except OSError as error:
                survey.damaged[file] = f"reading it: {cause_of(error)}"
            kind = "groups" if file.endswith(GROUPS_ENDING) else "streams"
            self._files[kind].append(file)

    def decode(self, path: str) -> str | None:
        try:
            self.rows(f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({literal(escape(path))})")
        except duckdb.Error as error:
            return str(error).splitlines()[0]
        return None

    def open(self, survey: Survey) -> None:
        for kind, files in self._files.items():
            # A name is taken for a pattern.
            intact = [escape(file) for file in files if file not in survey.damaged]
            self._database.execute(f"SET VARIABLE {kind} = ?", [intact])
            self._database.execute(
                f"CREATE TEMP VIEW {kind} AS FROM {FILES.format(kind)}"
                if intact
                else f"CREATE TEMP TABLE {kind} ({EMPTY[kind]})"
            )

    def table(self, name: str, sql: str, *, keep: bool = True) -> None:
        self._database.execute(f"CREATE TEMP {'TABLE' if keep else 'VIEW'} {name} AS {sql}")

    def rows(self, sql: str) -> Sequence[Any]:
        return self._database.execute(sql).fetchall()

    def latency(self, sql: str) -> Histogram | None:
        return merged_latency(row[0] for row in self.rows(sql))

    def write(self, sql: str) -> None:
        file, form = Path(self._options.output), self._options.output_format
        # DuckDB renames a finished file onto the path: never onto a link, a device or a pipe.
        renamed = "false" if file.exists() and not file.is_file() else "true"
        try:
            self._database.execute(
                f"COPY ({sql}) TO {literal(str(file))} (FORMAT {form}, USE_TMP_FILE {renamed})"
            )
        except duckdb.Error as error:
            raise DamagedPartialsError(f"cannot write --output {file}: {error}") from error

    def print_result(self) -> None:
        self._database.sql("FROM result").show(max_rows=sys.maxsize, max_width=10_000)

    def result(self) -> Iterator[dict[str, Any]]:
        result = self._database.execute("FROM result")
        columns = [column[0] for column in result.description]
        return (dict(zip(columns, row, strict=True)) for row in result.fetchall())


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def cause_of(error: Exception) -> str:
    """An error in the words of `ringest merge`."""
    if isinstance(error, OSError):
        return f"{error.strerror} (os error {error.errno})"
    return str(error)


def print_sql(engine: DuckDb, options: argparse.Namespace) -> int:
    """Prints the SQL with the lines around it that users adapt."""
    plan = find_plan(*engine.survey(), options.skip_damaged)
    if plan is None:
        raise DamagedPartialsError("no partials so far, so nothing says how to merge them")
    streams = FILES.format("streams") if options.complete_only else None
    query = MergeSql(plan, plan.keys_by(options.by), DIALECT)
    print(
        "-- Written by `deploy/duckdb/merge.py --sql`. Reads partials, writes nothing by itself.\n"
        "-- Where the partials are: paths or patterns, as many as there are directories.\n"
        "SET VARIABLE groups = ['partials/*.groups.parquet'];"
    )
    if options.complete_only:
        print("SET VARIABLE streams = ['partials/*.stream.parquet'];")
    print(
        "CREATE OR REPLACE TEMP VIEW merged AS\n"
        f"{query.merged_files(FILES.format('groups'), streams)};\n\n"
        "FROM merged;\n"
        "-- Into a file instead: COPY (FROM merged) TO 'result.parquet' (FORMAT parquet);"
    )
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
