"""What is to be called at which time. Pure: no clock.

Invariant: `next_at` may be read in any thread; everything else is the loop's driver's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count


class Timers:
    """A heap by time; what has the same time comes out in the order put in."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        #: When the first is due (monotonic); infinity: there is none.
        self.next_at = math.inf

    def add(self, due_at: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (due_at, next(self._numbers), function))
        self.next_at = self._heap[0][0]

    def pop(self) -> Callable[[], None]:
        """Take out the first. There must be one."""
        function = heapq.heappop(self._heap)[2]
        self.next_at = self._heap[0][0] if self._heap else math.inf
        return function
