"""The command that both merges are: options, then the steps from files to a result."""

from __future__ import annotations

import argparse
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .batches import BATCH, STREAM, complete, differing, gaps, once, unsaid
from .errors import DamagedPartialsError, PartialsError
from .files import Directory, Survey, find_plan
from .histogram import Histogram
from .plan import MergePlan
from .report import Findings, summary, summary_line, write_ndjson
from .sql import Dialect, MergeSql, quoted


class Engine(ABC):
    """What reads the files and runs the SQL."""

    dialect: Dialect

    @abstractmethod
    def survey(self) -> tuple[list[Directory], Survey]:
        """Looks at all files."""

    @abstractmethod
    def decode(self, path: str) -> str | None:
        """Why a file cannot be decoded, if it cannot."""

    @abstractmethod
    def open(self, survey: Survey) -> None:
        """Makes the views `groups` and `streams` of all files but the damaged ones."""

    @abstractmethod
    def table(self, name: str, sql: str, *, keep: bool = True) -> None:
        """Names a query, whose rows are kept if they are needed more than once."""

    @abstractmethod
    def rows(self, sql: str) -> Sequence[Any]:
        """The rows of a query."""

    @abstractmethod
    def latency(self, sql: str) -> Histogram | None:
        """The sum of a query's histograms."""

    @abstractmethod
    def write(self, sql: str) -> None:
        """Writes the rows of a query to the output."""

    @abstractmethod
    def print_result(self) -> None:
        """Prints the table `result`."""

    @abstractmethod
    def result(self) -> Iterator[dict[str, Any]]:
        """The rows of the table `result`."""


def parser(engine: str, output: str) -> argparse.ArgumentParser:
    """The options that both merges have."""
    options = argparse.ArgumentParser(description=f"Merges partials of ringest with {engine}.")
    add = options.add_argument
    add(
        "directories", nargs="+", metavar="DIR", help="directories of partials, of one node or many"
    )
    add("--by", help="comma-separated keys to group by; default: all keys")
    add(
        "--complete-only",
        action="store_true",
        help="leave out streams that did not end complete or lack files",
    )
    add("--skip-damaged", action="store_true", help="merge without files that are damaged")
    add("--format", choices=["table", "ndjson"], default="table", help="format of the output")
    add("--output", help=output)
    add("--output-format", choices=["parquet", "csv"], help="default: by the end of the name")
    return options


def output_format(output: str, chosen: str | None, default: str | None = None) -> str:
    """The format of the output: the end of its name decides, and must not contradict the option."""
    end = Path(output).suffix.lower().removeprefix(".")
    if end not in ("parquet", "csv"):
        if chosen is None and (default is None or end in ("arrow", "ndjson")):
            raise PartialsError(
                f"--output {output} does not end in .parquet or .csv; rename it, or choose its "
                "format with --output-format"
            )
        end = chosen or default or ""
    if chosen not in (None, end):
        raise PartialsError(
            f"--output {output} ends in .{end}, but --output-format is {chosen}; rename it, or "
            "leave --output-format out"
        )
    return end


def merge(engine: Engine, options: argparse.Namespace) -> int:
    """Merges what the options name; returns the exit code."""
    directories, survey = engine.survey()
    # Nothing else tells whether files without a checksum are damaged.
    wrong = {path: engine.decode(path) for path in survey.unsealed}
    survey.damaged |= {path: cause for path, cause in wrong.items() if cause}
    survey.unsealed = [path for path, cause in wrong.items() if not cause]
    plan = find_plan(directories, survey, options.skip_damaged)
    if plan is None and options.output:
        raise DamagedPartialsError(
            "no partials so far, so nothing was written; merge again once there are some"
        )
    query = None if plan is None else MergeSql(plan, plan.keys_by(options.by), engine.dialect)
    engine.open(survey)
    findings = Findings(survey.damaged, sorted(survey.unsealed))
    kept = make_tables(engine, query, options.complete_only)
    nodes, connections, batches = engine.rows(
        f"SELECT count(DISTINCT node), count(DISTINCT ({STREAM})), count(*) FROM batches{kept}"
    )[0]
    records = int(engine.rows('SELECT coalesce(sum("count"), 0) FROM result')[0][0])
    latency = engine.latency(f"SELECT latency_v2 FROM latencies{kept}")
    found = summary(nodes, connections, batches, records, latency)
    if query:
        find_overflowed(engine, query.plan, findings)
    find_missing(engine, records, options.complete_only, findings)
    if query and options.output:
        engine.write(output_sql(query, options.output_format))
    show(engine, found, options)
    return findings.report()


def make_tables(engine: Engine, query: MergeSql | None, complete_only: bool) -> str:
    """The tables of a merge; returns what keeps only the streams that count."""
    once_each = query.rows_once("groups") if query else "SELECT * FROM groups"
    engine.table("rows_once", once_each, keep=False)
    engine.table("streams_once", f"SELECT * FROM {once('streams')}")
    latency = f"SELECT {BATCH}, any_value(latency_v2) AS latency_v2 FROM streams GROUP BY {BATCH}"
    engine.table("latencies", latency, keep=False)
    both = f"SELECT {BATCH} FROM groups UNION SELECT {BATCH} FROM streams_once"
    engine.table("batches", both)
    ended = f"SELECT {STREAM} FROM streams_once GROUP BY {STREAM} HAVING bool_or(final"
    engine.table("finished", f"{ended})")
    engine.table("ended", f"{ended} AND status = 'complete')")
    kept = f" SEMI JOIN complete USING ({STREAM})" if complete_only else ""
    if complete_only:
        engine.table("complete", complete("streams_once", "rows_once"))
        engine.table("rows_kept", f"SELECT * FROM rows_once{kept}", keep=False)
    nothing = 'SELECT "count" FROM groups LIMIT 0'
    rows = "rows_kept" if complete_only else "rows_once"
    engine.table("result", query.merged(rows) if query else nothing)
    return kept


def find_overflowed(engine: Engine, plan: MergePlan, findings: Findings) -> None:
    """Columns of sums that do not fit, and are null."""
    sums = [one.name for one in plan.result if one.finish == "sum" and not one.is_float]
    nulls = (f"count(*) - count({quoted(name)})" for name in sums)
    (row,) = engine.rows(f"SELECT {', '.join(nulls)} FROM result")
    findings.overflowed = [name for name, count in zip(sums, row, strict=True) if count]


def find_missing(engine: Engine, records: int, complete_only: bool, findings: Findings) -> None:
    """Batches with a missing file. Rows are summed by batch only if the totals differ."""

    def rows(sql: str) -> Sequence[Any]:
        # Sorted here: in Spark that would be two more jobs each.
        return sorted(engine.rows(sql))

    def known(table: str) -> str:
        ended = f"(SELECT * FROM {table} SEMI JOIN ended USING ({STREAM}))"
        return ended if complete_only else table

    findings.gaps = rows(gaps(known("batches")))
    findings.unsaid = rows(unsaid(known("batches")))
    said = engine.rows("SELECT coalesce(sum(records), 0) FROM streams_once")[0][0]
    if said != records or findings.unsaid:
        findings.differing = rows(differing(known("streams_once")))
    of = f"SELECT DISTINCT {STREAM} FROM"
    if complete_only:
        findings.not_complete = rows(f"{of} batches ANTI JOIN ended USING ({STREAM})")
        findings.not_whole = rows(f"{of} ended ANTI JOIN complete USING ({STREAM})")
    else:
        findings.unfinished = rows(f"{of} batches ANTI JOIN finished USING ({STREAM})")


def output_sql(query: MergeSql, form: str) -> str:
    """The result as it is written: bytes to CSV in hexadecimal, as everywhere else."""
    hexed = {key.name for key in query.by if key.type == "bytes" and form == "csv"}
    names = [one.name for one in (*query.by, *query.plan.result)]
    columns = (
        f"lower(hex({quoted(name)})) AS {quoted(name)}" if name in hexed else quoted(name)
        for name in names
    )
    return f"SELECT {', '.join(columns)} FROM result"


def show(engine: Engine, found: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints the result, unless it is written, and the summary."""
    if options.format == "ndjson":
        write_ndjson(sys.stdout, found, None if options.output else engine.result())
        return
    if not options.output:
        engine.print_result()
    print(summary_line(found))
