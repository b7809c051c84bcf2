"""How old the weights are that gradients are of, where nobody waits for everybody. Tables: no actors, no clock.

The *staleness* of a gradient is how often the weights were improved between their being pulled for it and its being
applied. ``Window`` bounds it where rows are handed out to whoever is free, ``StalenessHistogram`` counts it.
"""

from __future__ import annotations

from collections import Counter

#: Bins of the histogram: [0], [1], [2], [3, 4], [5, 8], [9, ...), by the most that is in them.
_BINS = {"0": 0, "1": 1, "2": 2, "3_4": 4, "5_8": 8}
_LAST_BIN = "9_or_more"


class Window:
    """Which minibatches are with a learner, and whether the next may be handed out.

    Args:
      size: Numbers from the oldest that is not in to the last that may be out; None: no bound.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._next = 0
        self._out: set[int] = set()

    @property
    def is_open(self) -> bool:
        """Whether the next may be handed out."""
        return self._size is None or not self._out or self._next - min(self._out) < self._size

    def hand_out(self) -> int:
        """The number of the next minibatch, which is out now.

        Raises:
          RuntimeError: the window is not open.
        """
        if not self.is_open:
            raise RuntimeError(f"minibatch {self._next} must wait for minibatch {min(self._out)}")
        number, self._next = self._next, self._next + 1
        self._out.add(number)
        return number

    def take_in(self, number: int) -> None:
        """It is in, or given up."""
        self._out.remove(number)


class StalenessHistogram:
    """How many gradients there were of each staleness."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, staleness: int) -> None:
        """Another gradient."""
        self._counts[next((name for name, most in _BINS.items() if staleness <= most), _LAST_BIN)] += 1

    def counters(self) -> dict[str, float]:
        """``staleness_0``, ``staleness_1``, ... ``staleness_9_or_more`` -> how many."""
        return {f"staleness_{name}": float(self._counts[name]) for name in (*_BINS, _LAST_BIN)}
