"""Shared by the merges of DuckDB and Spark, which differ in how they read files and run SQL.

`command` runs a merge, `files` tells damaged and foreign files apart, `sql` writes the queries, and
`report` says what is missing. Standard library only, Python 3.11 or later.
"""

from .errors import DamagedPartialsError, PartialsError
from .histogram import Histogram, latency_us, merged_latency
from .parquet import CHECKSUM_KEY, NO_CHECKSUM, damage, seal

__all__ = [
    "CHECKSUM_KEY",
    "NO_CHECKSUM",
    "DamagedPartialsError",
    "Histogram",
    "PartialsError",
    "damage",
    "latency_us",
    "merged_latency",
    "seal",
]
