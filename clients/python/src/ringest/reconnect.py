"""How long to wait before a lost connection is opened again. It opens none itself."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

# Doubling stops here, long before a float would overflow.
DOUBLINGS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Waits that double from `delay_min_s` to `delay_max_s`; chance shortens each by up to half.

    The chance keeps clients that lost the same server from coming back all at once. After
    `attempts_max` failed attempts in a row the client gives up; None means that it never does.
    """

    delay_min_s: float = 0.5
    delay_max_s: float = 30.0
    attempts_max: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.delay_min_s <= self.delay_max_s < float("inf"):
            raise ValueError("delay_min_s must be above 0 and delay_max_s not below it")
        if self.attempts_max is not None and self.attempts_max < 1:
            raise ValueError("attempts_max must be 1 or more, or None for no limit")

    def allows(self, attempt: int) -> bool:
        """Whether there is an attempt of this number; the first is 1."""
        return self.attempts_max is None or attempt <= self.attempts_max

    def delay_s(self, attempt: int) -> float:
        """How long to wait before the attempt of this number, a random part included."""
        doubled_s = self.delay_min_s * 2.0 ** min(attempt - 1, DOUBLINGS_MAX)
        longest_s = min(doubled_s, self.delay_max_s)
        # Not a secret, so that any generator will do.
        return random.uniform(longest_s / 2.0, longest_s)  # noqa: S311
