"""Histograms of the package `hdrhistogram`, with the bounds of ringest: another implementation than
deploy/'s own to compare with."""

from __future__ import annotations

import base64
import math
import struct
import zlib

from hdrh.histogram import HdrHistogram

LOWEST, HIGHEST, DIGITS = 64, 60_000_000_000, 3
# Cookie and length stand before what is compressed.
_COMPRESSED_HEADER_BYTES = 8
_COMPRESSED_COOKIE = 0x1C849314


def new_histogram() -> HdrHistogram:
    """One without values."""
    return HdrHistogram(LOWEST, HIGHEST, DIGITS)


def encode_v2(histogram: HdrHistogram) -> bytes:
    """Encoding V2, uncompressed."""
    return zlib.decompress(base64.b64decode(histogram.encode())[_COMPRESSED_HEADER_BYTES:])


def decode_v2(encoded: bytes) -> HdrHistogram:
    """The package reads the compressed form only."""
    body = zlib.compress(encoded)
    header = struct.pack(">II", _COMPRESSED_COOKIE, len(body))
    return HdrHistogram.decode(base64.b64encode(header + body))


def summary_us(histogram: HdrHistogram) -> dict[str, float]:
    """As results have it, in microseconds."""
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
    summary = {name: value_at(histogram, q) / 1000 for name, q in quantiles.items()}
    return {**summary, "max": histogram.get_max_value() / 1000, "count": histogram.total_count}


def value_at(histogram: HdrHistogram, quantile: float) -> int:
    """Of the least value that so many reach, as results say it: the package rounds to the nearest
    rank, which with few values may be the one before."""
    total = histogram.total_count
    rank = max(math.ceil(quantile * total), 1)
    return histogram.get_value_at_percentile(100 * rank / total) if total else 0
