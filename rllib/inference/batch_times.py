"""How long a batch takes, as a function of its rows: learned from batches that were run. Pure; no clock.

    seconds(n) = fixed_s + slope_s * n

by least squares over the batches so far, older ones counting less and less. Both numbers are kept from being negative,
so that noise promises nothing impossible; while all batches are of one size there is no slope to be seen, and all of
their time is taken for fixed.
"""

from __future__ import annotations

#: What a batch counts when another has been run: a hundred batches make up nearly all of the estimate.
_FORGETTING = 0.97
#: From so many batches on, by weight, there is something to expect the next one by.
_KNOWN_FROM = 3.5


class BatchTimes:
    """The estimate; nothing takes any time before the first ``observe``.

    Attributes:
      slope_s: Seconds for each row.
      fixed_s: Seconds that a batch takes whatever its size.
      surprise_s: Mean of by how much batches took more or less than was expected of them.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = 0.0  # the last two: means
        self._variance = self._covariance = 0.0  # sums of squares around the means
        self._surprises = 0.0  # weight of their mean
        self.slope_s = self.fixed_s = self.surprise_s = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """A batch was run.

        Args:
          rows: Its size.
          seconds: How long it took.
        """
        kept = self._weight * _FORGETTING
        if self._weight >= _KNOWN_FROM:
            self._surprises = self._surprises * _FORGETTING + 1.0
            surprise_s = abs(seconds - (self.fixed_s + self.slope_s * rows))
            self.surprise_s += (surprise_s - self.surprise_s) / self._surprises
        self._weight = kept + 1.0
        # Means and sums around them are carried on (Welford 1962 with weights): differences of large sums lose digits.
        off_rows, off_seconds = rows - self._rows, seconds - self._seconds
        share = kept / self._weight
        self._variance = self._variance * _FORGETTING + share * off_rows * off_rows
        self._covariance = self._covariance * _FORGETTING + share * off_rows * off_seconds
        self._rows += off_rows / self._weight
        self._seconds += off_seconds / self._weight
        # Here, once a batch: each request asks for them several times.
        self.slope_s = 0.0
        if self._variance > 1e-9 * self._rows * self._rows:
            self.slope_s = min(max(self._covariance / self._variance, 0.0), self._seconds / self._rows)
        self.fixed_s = self._seconds - self.slope_s * self._rows

    def seconds(self, rows: float) -> float:
        """How long a batch of this size will take."""
        return self.fixed_s + self.slope_s * rows

    def rows_within(self, seconds: float) -> float:
        """How many rows take so long; infinite where rows take no time, 0 where nothing can be done so soon."""
        left = seconds - self.fixed_s
        if left < 0.0:
            return 0.0
        return left / self.slope_s if self.slope_s else float("inf")
