"""The mean of the last values of a stream that is rarer than iterations: episodes.

Made and read on the driver; not thread-safe.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable


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
