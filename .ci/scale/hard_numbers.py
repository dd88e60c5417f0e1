"""Records whose sums, means and variances binary64 alone gets wrong. Computes no result of them."""

from __future__ import annotations

import math
import struct

from datasets import FUNCTIONS, Layout, Stream
from histograms import new_histogram

HARD = Layout(
    {"k": "u8", "d": "f64", "s": "f32", "u": "u64", "i": "i32", "l": "i64"},
    ("k",),
    tuple((name, function) for name in "dsuil" for function in FUNCTIONS),
)
_BEGIN_NS = 1_795_204_921_000_000_000
# For each group the values of each batch.
_DOUBLES: list[list[list[float]]] = [
    [[1e16], [1.0], [-1e16]],
    [[1e16, 1e16 + 2], [1e16 + 4], []],
    [[1e308], [-1e308], []],
    [[1.7e308, 1.7e308], [1.7e308], [5.0]],
    [[1.7976931348623157e308] * 3, [1.7976931348623157e308] * 2, []],
    [[1.7e308, 1.7e308], [-1.7e308], [-1.7e308, 1e290]],
    [[1e200, 3e200], [2e200], [7.0]],
    [[1e-200, 3e-200], [2e-200], [0.0]],
    [[0.0], [-0.0], []],
    [[-0.0], [0.0], [-0.0]],
    [[0.1] * 50, [0.1] * 7, [0.1]],
    [[0.0], [1e9] * 30, [1e9, 1e9 + 1e-7]],
    [[1_795_204_921 + n * 1e-6 for n in range(at, at + 40)] for at in (0, 40, 80)],
    [[math.inf], [1.0], [1e308, 1e308]],
    [[math.inf], [2.0], [-math.inf]],
    [[math.nan], [1.0], [math.inf]],
    # The least numbers, and sums whose mean is none.
    [[5e-324], [5e-324], [5e-324]],
    [[5e-324, 0.0, 0.0], [0.0], [5e-324, -0.0]],
    [[1e-310], [-1e-310], [3e-320]],
    [[2.2250738585072014e-308], [-2.2250738585072009e-308], [0.0]],
    [[1e308], [1e280], [-1e308]],
    [[-math.inf], [-1e308], [-1e308]],
]
_UNSIGNED = [
    [[2**53], [2**53 + 1], []],
    [[2**64 - 1], [2**64 - 1, 0], [1]],
    [[_BEGIN_NS + 1000 * n for n in range(at, at + 40)] for at in (0, 40, 80)],
    [[7], [7], [7]],
]


def hard_streams() -> list[Stream]:
    """Three batches with few values of each group, on two nodes."""
    streams = [Stream(f"node-{i}", f"20261120T200201.123456Z-77-{i}", []) for i in range(2)]
    for batch in range(3):
        records = []
        for key, doubles in enumerate(_DOUBLES):
            unsigned = _UNSIGNED[key % len(_UNSIGNED)][batch]
            for n, value in enumerate(doubles[batch]):
                # Another one where binary32 has no such number.
                single = value if abs(value) < 3e38 or not math.isfinite(value) else 16_777_217e30
                integer = unsigned[n % len(unsigned)] if unsigned else 0
                records.append(
                    {
                        "k": key,
                        "d": value,
                        "s": struct.unpack(">f", struct.pack(">f", single))[0],
                        "u": integer,
                        "i": (-(2**31), 2**31 - 1, -1)[(n + batch) % 3],
                        "l": (-(2**63), 2**63 - 1, -(2**63))[(n + key) % 3],
                    }
                )
        stream = streams[batch % 2]
        stream.batches.append((1_700_000_000_000_000 + batch, records))
        stream.latencies.append(new_histogram())
    return streams
