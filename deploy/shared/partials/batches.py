"""The SQL about batches and streams: which are complete, and what is missing of them."""

from __future__ import annotations

from typing import Final

from .plan import IDENTITY

BATCH: Final = ", ".join(IDENTITY)
STREAM: Final = "node, connection"


def once(streams: str) -> str:
    """One copy of what is said of each batch."""
    columns = (f"any_value({name}) AS {name}" for name in ("final", "status", "records"))
    return f"(SELECT {BATCH}, {', '.join(columns)} FROM {streams} GROUP BY {BATCH})"


def complete(streams: str, rows: str) -> str:
    """Streams that ended complete and of which everything is there."""
    return (
        f"SELECT {STREAM}\nFROM {streams}\nLEFT JOIN {counted(rows)} USING ({BATCH})\n"
        f"GROUP BY {STREAM}\n"
        "HAVING bool_or(final AND status = 'complete')\n"
        "    AND count(*) = max(batch) + 1\n"
        "    AND bool_and(records = coalesce(counted, 0))"
    )


def counted(rows: str) -> str:
    """The records in the groups of each batch."""
    return f'(SELECT {BATCH}, sum("count") AS counted FROM {rows} GROUP BY {BATCH})'


def gaps(batches: str) -> str:
    """Streams of which batches before the last are not there: how many, of how many, the first."""
    place = f"row_number() OVER (PARTITION BY {STREAM} ORDER BY batch) - 1 AS place"
    return (
        f"SELECT {STREAM}, max(batch) + 1 - count(*), max(batch) + 1,"
        " min(CASE WHEN batch <> place THEN place END)"
        f" FROM (SELECT *, {place} FROM {batches})"
        f" GROUP BY {STREAM} HAVING max(batch) + 1 > count(*)"
    )


def unsaid(batches: str) -> str:
    """Batches of groups of which nothing is said, and whether something is said of a later one."""
    last = f"(SELECT {STREAM}, max(batch) AS said FROM streams_once GROUP BY {STREAM})"
    return (
        f"SELECT {BATCH}, coalesce(batch < said, false)"
        f" FROM (SELECT * FROM {batches} ANTI JOIN streams_once USING ({BATCH}))"
        f" LEFT JOIN {last} USING ({STREAM})"
    )


def differing(streams: str) -> str:
    """Batches with other numbers of records in their groups than they had."""
    return (
        f"SELECT {BATCH}, coalesce(counted, 0), records"
        f" FROM {streams} LEFT JOIN {counted('rows_once')} USING ({BATCH})"
        " WHERE coalesce(counted, 0) <> records"
    )
