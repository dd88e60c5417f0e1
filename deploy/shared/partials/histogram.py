"""Latencies of batches: HdrHistogram's encoding V2, uncompressed, as in the column `latency_v2`."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from .errors import DamagedPartialsError

# "HdrHistogram encoding V2": cookie, bytes of the counts, normalizing offset, digits, lowest and
# highest value, ratio; then counts as zig-zag LEB128 of at most nine bytes, of which negative ones
# give the number of zero counts left out. All numbers are big-endian.
_HEADER: Final = struct.Struct(">IIIIQQd")
_COOKIE: Final = 0x1C849313
_VARINT_BYTES_MAX: Final = 9

QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999))


@dataclass
class Histogram:
    """Counts of nanoseconds by bucket. The lowest value and the digits determine the buckets."""

    lowest: int
    highest: int
    digits: int
    counts: Counter[int] = field(default_factory=Counter)

    @classmethod
    def decode(cls, encoded: bytes) -> Histogram:
        """Reads encoding V2, uncompressed, as in the column `latency_v2`."""
        if len(encoded) < _HEADER.size:
            raise DamagedPartialsError(f"latency_v2: {len(encoded)} bytes, the header alone has 40")
        cookie, length, offset, digits, lowest, highest, _ = _HEADER.unpack_from(encoded)
        if cookie != _COOKIE:
            raise DamagedPartialsError(
                f"latency_v2: begins with {cookie:#010x}, not {_COOKIE:#010x}"
            )
        if offset != 0 or not 0 <= digits <= 5 or lowest < 1:
            raise DamagedPartialsError("latency_v2: not a histogram written by ringest")
        if len(encoded) != _HEADER.size + length:
            raise DamagedPartialsError(
                f"latency_v2: {len(encoded) - _HEADER.size} bytes of counts, the header says "
                f"{length}"
            )
        return cls(lowest, highest, digits, Counter(_counts(encoded, _HEADER.size)))

    @property
    def total(self) -> int:
        """Number of recorded values."""
        return self.counts.total()

    def add(self, other: Histogram) -> Histogram:
        """Adds the values of another. If its buckets differ, counts go by their lowest values."""
        if (self.lowest, self.digits) == (other.lowest, other.digits):
            mine = self.counts
            for index, count in other.counts.items():
                mine[index] = mine.get(index, 0) + count
        else:
            for index, count in other.counts.items():
                self.counts[self._index_of(other._bounds(index)[0])] += count
        self.highest = max(self.highest, other.highest)
        return self

    def quantile(self, quantile: float) -> int:
        """The highest value of the bucket with this quantile; 0 if nothing is recorded."""
        rank = max(math.ceil(quantile * self.total), 1)
        reached = 0
        for index in sorted(self.counts):
            reached += self.counts[index]
            if reached >= rank:
                return self._bounds(index)[1]
        return 0

    def summary_us(self) -> dict[str, float]:
        """Percentiles and maximum in microseconds, and the count, as in results."""
        quantiles: dict[str, float] = {name: self.quantile(q) / 1000 for name, q in QUANTILES}
        longest = self._bounds(max(self.counts))[1] if self.counts else 0
        return {**quantiles, "max": longest / 1000, "count": self.total}

    @property
    def _shifts(self) -> tuple[int, int]:
        """Number of bits below the finest step, and of bits for half of a bucket's steps."""
        steps_bits = (2 * 10**self.digits - 1).bit_length()
        return self.lowest.bit_length() - 1, max(steps_bits, 1) - 1

    def _bounds(self, index: int) -> tuple[int, int]:
        """The smallest and the largest value of a bucket."""
        unit, half_bits = self._shifts
        half = 1 << half_bits
        bucket = (index >> half_bits) - 1
        step = (index & (half - 1)) + (half if bucket >= 0 else 0)
        shift = unit + max(bucket, 0)
        low = step << shift
        return low, low + (1 << shift) - 1

    def _index_of(self, value: int) -> int:
        unit, half_bits = self._shifts
        bucket = max(value.bit_length() - unit - half_bits - 1, 0)
        return ((bucket + 1) << half_bits) + (value >> (bucket + unit)) - (1 << half_bits)


def _counts(encoded: bytes, at: int) -> dict[int, int]:
    """Counts by index. The loop makes no calls, as a merge may have a million histograms."""
    counts: dict[int, int] = {}
    index, end = 0, len(encoded)
    while at < end:
        number = encoded[at]
        at += 1
        if number >= 0x80:
            number, at = _long_number(encoded, at - 1)
        if number & 1:
            # Zig-zag of a negative number: the number of zero counts left out.
            index += (number >> 1) + 1
        else:
            if number:
                counts[index] = number >> 1
            index += 1
    return counts


def _long_number(encoded: bytes, start: int) -> tuple[int, int]:
    """A number of two bytes or more, before zig-zag decoding, and its end."""
    number = 0
    for place, byte in enumerate(encoded[start : start + _VARINT_BYTES_MAX]):
        if place == _VARINT_BYTES_MAX - 1:
            # All eight bits of the ninth byte count: it has no continuation bit.
            return number | byte << 56, start + _VARINT_BYTES_MAX
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, start + place + 1
    raise DamagedPartialsError("latency_v2: ends within a count")


def merged_latency(encoded: Iterable[bytes | None]) -> Histogram | None:
    """The combined histogram; `None` if there is none."""
    merged: Histogram | None = None
    for one in encoded:
        if one is None:
            continue
        histogram = Histogram.decode(bytes(one))
        if merged is None:
            merged = histogram
        else:
            merged.add(histogram)
    return merged


def latency_us(merged: Histogram | None) -> dict[str, float]:
    """The summary of a histogram as in results; zeros if there is none."""
    return (merged or Histogram(1, 2, 0)).summary_us()
