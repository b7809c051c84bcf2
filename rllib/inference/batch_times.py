"""How long a batch takes, as a function of its rows: learned from batches that were run. Pure; no clock.

    seconds(n) = fixed_s + slope_s * n

by least squares over the batches so far, older ones counting less and less. Both numbers are kept from being negative,
so that noise promises nothing impossible; while all batches are of one size there is no slope to be seen, and all of
their time is taken for fixed.
"""

from __future__ import annotations

#: What a batch counts when another has been run: a hundred batches make up nearly all of the estimate.
_FORGETTING = 0.97


class BatchTimes:
    """The estimate; nothing takes any time before the first ``observe``."""

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = 0.0  # the last two: means
        self._variance = self._covariance = 0.0  # sums of squares around the means

    def observe(self, rows: int, seconds: float) -> None:
        """A batch was run.

        Args:
          rows: Its size.
          seconds: How long it took.
        """
        kept = self._weight * _FORGETTING
        self._weight = kept + 1.0
        # Means and sums around them are carried on (Welford 1962 with weights): differences of large sums lose digits.
        off_rows, off_seconds = rows - self._rows, seconds - self._seconds
        share = kept / self._weight
        self._variance = self._variance * _FORGETTING + share * off_rows * off_rows
        self._covariance = self._covariance * _FORGETTING + share * off_rows * off_seconds
        self._rows += off_rows / self._weight
        self._seconds += off_seconds / self._weight

    @property
    def slope_s(self) -> float:
        """Seconds for each row."""
        if self._variance <= 1e-9 * self._rows * self._rows:
            return 0.0
        return min(max(self._covariance / self._variance, 0.0), self._seconds / self._rows)

    @property
    def fixed_s(self) -> float:
        """Seconds that a batch takes whatever its size."""
        return self._seconds - self.slope_s * self._rows

    def seconds(self, rows: float) -> float:
        """How long a batch of this size will take."""
        return self.fixed_s + self.slope_s * rows

    def rows_within(self, seconds: float) -> float:
        """How many rows take so long; infinite where rows take no time, 0 where nothing can be done so soon."""
        left = seconds - self.fixed_s
        if left < 0.0:
            return 0.0
        return left / self.slope_s if self.slope_s else float("inf")
