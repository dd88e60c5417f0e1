"""Checks how partials.py decodes HdrHistogram V2, with known bytes and another package."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram
from histograms import DIGITS, HIGHEST, LOWEST, encode_v2, new_histogram, summary_us
from partials import Histogram, PartialsError, latency_us, merged_latency

HEADER = "1c849313{length:08x}00000000000000030000000000000001{highest:016x}" + ("3ff0000000000000")


def encoded(counts: str, highest: int = 3_600_000_000_000) -> bytes:
    """A histogram from 1 with three digits and the counts given as hexadecimal bytes."""
    return bytes.fromhex(HEADER.format(length=len(counts) // 2, highest=highest) + counts)


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        # Zig-zag: 0x02 is one value; 0x01 is one zero left out, 0x03 two of them.
        ("02", {0: 1}),
        ("0302", {2: 1}),
        ("000402", {1: 2, 2: 1}),
        # 64 zeros left out are 127, the largest single byte; 65 are 129, 0x81 0x01.
        ("7f02", {64: 1}),
        ("810102", {65: 1}),
        # A count of 150 is 300, 0xac 0x02.
        ("ac02", {0: 150}),
        # The largest count takes nine bytes, all eight bits of the last one included.
        ("feffffffffffffffff", {0: 2**63 - 1}),
    ],
)
def test_counts_of_known_bytes(counts: str, values: dict[int, int]) -> None:
    assert dict(Histogram.decode(encoded(counts)).counts) == values


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        (b"", "0 bytes"),
        (encoded("02")[:-1], "header says 1"),
        (encoded("02") + b"\x00", "header says 1"),
        (b"\x1c\x84\x93\x14" + encoded("02")[4:], "begins with 0x1c849314"),
        (encoded("80"), "within a count"),
        (encoded("ffffffffffffffff"), "within a count"),
        (encoded("02")[:8] + b"\x00\x00\x00\x01" + encoded("02")[12:], "not a histogram written by"),
    ],
)
def test_broken_bytes_are_refused(broken: bytes, cause: str) -> None:
    with pytest.raises(PartialsError, match=cause):
        Histogram.decode(broken)


@pytest.mark.parametrize(
    ("lowest", "highest", "digits"),
    [(LOWEST, HIGHEST, DIGITS), (1, 60_000_000_000, 3), (1, 10**6, 1), (1000, 10**9, 2)],
)
@pytest.mark.parametrize("seed", range(5))
def test_quantiles_of_random_values(lowest: int, highest: int, digits: int, seed: int) -> None:
    rng = random.Random(seed)
    theirs = HdrHistogram(lowest, highest, digits)
    for _ in range(rng.randrange(1, 2000)):
        theirs.record_value(min(int(2 ** rng.uniform(0, 36)), highest), rng.choice((1, 1, 10**9)))
    ours = Histogram.decode(encode_v2(theirs))
    for quantile in (0.0001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
        assert ours.quantile(quantile) == theirs.get_value_at_percentile(quantile * 100)
    assert ours.summary_us() == summary_us(theirs)


def test_merged_ones_are_the_combined_one() -> None:
    rng = random.Random(7)
    parts = [new_histogram() for _ in range(20)]
    combined = new_histogram()
    for _ in range(5000):
        value = int(2 ** rng.uniform(0, 35))
        rng.choice(parts).record_value(value)
        combined.record_value(value)
    merged = merged_latency([None, *(encode_v2(part) for part in parts)])
    assert merged is not None
    assert merged.summary_us() == summary_us(combined)


def test_other_buckets_are_recorded_again() -> None:
    fine, coarse = HdrHistogram(1, HIGHEST, 3), new_histogram()
    fine.record_value(1_000_000, 3)
    coarse.record_value(5_000_000, 1)
    merged = merged_latency([encode_v2(coarse), encode_v2(fine)])
    assert merged is not None
    recorded = new_histogram()
    recorded.add(coarse)
    recorded.record_value(fine.get_lowest_equivalent_value(1_000_000), 3)
    assert merged.summary_us() == summary_us(recorded)


def test_nothing_is_zeros() -> None:
    empty = encode_v2(new_histogram())
    for latency in (latency_us(merged_latency([])), latency_us(merged_latency([None, empty]))):
        assert set(latency.values()) == {0}
