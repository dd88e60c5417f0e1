"""Histograms of the package `hdrhistogram`, with ringest's bounds: an independent implementation to
compare deploy/'s own with."""

from __future__ import annotations

import base64
import math
import struct
import zlib

from hdrh.histogram import HdrHistogram

LOWEST, HIGHEST, DIGITS = 64, 60_000_000_000, 3
# Cookie and length precede the compressed part.
_COMPRESSED_HEADER_BYTES = 8
_COMPRESSED_COOKIE = 0x1C849314


def new_histogram() -> HdrHistogram:
    """An empty histogram."""
    return HdrHistogram(LOWEST, HIGHEST, DIGITS)


def encode_v2(histogram: HdrHistogram) -> bytes:
    """Encoding V2, uncompressed."""
    return zlib.decompress(base64.b64decode(histogram.encode())[_COMPRESSED_HEADER_BYTES:])


def decode_v2(encoded: bytes) -> HdrHistogram:
    """Decodes V2; the package reads only the compressed form."""
    body = zlib.compress(encoded)
    header = struct.pack(">II", _COMPRESSED_COOKIE, len(body))
    return HdrHistogram.decode(base64.b64encode(header + body))


def summary_us(histogram: HdrHistogram) -> dict[str, float]:
    """The summary as in results, in microseconds."""
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
    summary = {name: value_at(histogram, q) / 1000 for name, q in quantiles.items()}
    return {**summary, "max": histogram.get_max_value() / 1000, "count": histogram.total_count}


def value_at(histogram: HdrHistogram, quantile: float) -> int:
    """The smallest value whose rank reaches the quantile, as in results. The package rounds to the
    nearest rank, which may be one too low with few values."""
    total = histogram.total_count
    rank = max(math.ceil(quantile * total), 1)
    return histogram.get_value_at_percentile(100 * rank / total) if total else 0
