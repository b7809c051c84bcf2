"""Time as a parameter: monotonic seconds, from the system or set by a test."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Monotonic seconds. Components take one of these, so that tests can move time by hand.
Clock = Callable[[], float]

system_clock: Clock = time.monotonic


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds} s")
        self.now_s += seconds
