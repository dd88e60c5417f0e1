"""How long to wait before each attempt to reconnect. Opens no connection."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

# Limits the exponent, so that the float cannot overflow.
DOUBLINGS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Delays that double from `delay_min_s` to `delay_max_s`, each randomly cut by up to half.

    The random part keeps clients that lost the same server from returning all at once. After
    `attempts_max` failed attempts in a row the client gives up; None means never. An attempt whose
    connection ends within `stable_s` has failed, too.
    """

    delay_min_s: float = 0.5
    delay_max_s: float = 30.0
    attempts_max: int | None = None
    stable_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 < self.delay_min_s <= self.delay_max_s < float("inf"):
            raise ValueError("delay_min_s must be greater than 0, and delay_max_s not less than it")
        if self.attempts_max is not None and self.attempts_max < 1:
            raise ValueError("attempts_max must be at least 1, or None for no limit")
        if not 0.0 <= self.stable_s < float("inf"):
            raise ValueError("stable_s must be at least 0 and finite")

    def allows(self, attempt: int) -> bool:
        """Whether to make the attempt of this number; the first is 1."""
        return self.attempts_max is None or attempt <= self.attempts_max

    def delay_s(self, attempt: int) -> float:
        """The delay before the attempt of this number, with its random part."""
        doubled_s = self.delay_min_s * 2.0 ** min(attempt - 1, DOUBLINGS_MAX)
        longest_s = min(doubled_s, self.delay_max_s)
        # Not security-relevant, so any generator will do.
        return random.uniform(longest_s / 2.0, longest_s)  # noqa: S311
