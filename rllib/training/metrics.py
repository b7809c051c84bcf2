"""Means over the last values of a stream that is rarer than iterations: episodes; and the rate of the last steps.

Made and read on the driver; not thread-safe.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from .checkpoints import Shape

#: Episodes over which ``return_mean`` and ``episode_length_mean`` are taken.
EPISODE_WINDOW = 100


class Window:
    """The last ``size`` values of a stream, in order; its mean is NaN before the first."""

    def __init__(self, size: int, values: Iterable[float] = ()) -> None:
        self._values: deque[float] = deque(values, maxlen=size)

    def extend(self, values: Iterable[float]) -> None:
        """Append newer values; the oldest fall out."""
        self._values.extend(values)

    @property
    def values(self) -> tuple[float, ...]:
        """What the window holds, oldest first."""
        return tuple(self._values)

    @property
    def mean(self) -> float:
        """Mean of the window."""
        return math.fsum(self._values) / len(self._values) if self._values else math.nan


class Pace:
    """Steps per second of the last iterations: of as many as took ``window_s`` together, and of one at least.

    Where somebody else makes the steps, they come in lumps: an iteration may find all of its own there already, and by
    itself be many times as fast as anybody plays.

    Args:
      window_s: Over how long the rate is a mean; 0: over the last iteration.
      steps: Done so far.
      now_s: When the next can begin.
    """

    def __init__(self, window_s: float, steps: int, now_s: float) -> None:
        self._window_s = window_s
        self._ends = deque([(now_s, steps)])  # of iterations, from the newest on that is older than the window

    def after(self, steps: int, now_s: float) -> float:
        """The rate when an iteration has ended.

        Args:
          steps: Done by then.
          now_s: When that was.
        """
        self._ends.append((now_s, steps))
        while len(self._ends) > 2 and self._ends[1][0] <= now_s - self._window_s:
            self._ends.popleft()
        began_s, before = self._ends[0]
        return (steps - before) / (now_s - began_s)


class RecentEpisodes:
    """Returns and lengths of the last training episodes that ended; saved with a run."""

    #: Of what ``arrays`` gives.
    SHAPES: ClassVar[Mapping[str, Shape]] = {"returns": (None,), "lengths": (None,)}

    def __init__(self) -> None:
        self._returns, self._lengths = Window(EPISODE_WINDOW), Window(EPISODE_WINDOW)

    def extend(self, returns: Iterable[float], lengths: Iterable[float]) -> None:
        """More episodes have ended."""
        self._returns.extend(returns)
        self._lengths.extend(lengths)

    def means(self) -> dict[str, float]:
        """Mean return and length; NaN before the first episode."""
        return {"return_mean": self._returns.mean, "episode_length_mean": self._lengths.mean}

    def arrays(self) -> dict[str, np.ndarray]:
        """Oldest first, [N] float64 each."""
        windows = {"returns": self._returns, "lengths": self._lengths}
        return {name: np.array(window.values, np.float64) for name, window in windows.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on behind what ``arrays`` gave."""
        self._returns = Window(EPISODE_WINDOW, arrays["returns"].tolist())
        self._lengths = Window(EPISODE_WINDOW, arrays["lengths"].tolist())
