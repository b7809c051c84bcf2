"""Moments of the observations of whole episodes, which are played side by side in lanes. Pure numpy.

Whoever normalises observations needs their mean and variance over all workers, and whoever wants the same bits from
any number of workers must add in a fixed order. So lanes count apart, an episode's numbers are taken when it ends, and
a block's are added up in the order of its episodes:

    begin(lane)  add(columns) add(columns) ...  taken(lane)  ->  [M]  --``as_moments``--> moments of a block

Sums are of distances from a shift that is near the mean, as known before the block, so that nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..policies.normalization import LIMIT, ObservationNormalizer, RunningMoments


class ObservationTally:
    """Sums over the episodes under way.

    Args:
      shapes: Name -> shape of a row of each column that is counted.
      lanes: L.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], lanes: int) -> None:
        self._shapes = shapes
        self._sums = {name: np.zeros((lanes, *shape)) for name, shape in shapes.items()}
        self._squares = {name: np.zeros((lanes, *shape)) for name, shape in shapes.items()}
        self._shifts = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._scales = {name: np.ones(shape) for name, shape in shapes.items()}
        self._apart = {name: np.zeros((lanes, *shape)) for name, shape in shapes.items()}
        self._work = {name: np.zeros((lanes, *shape)) for name, shape in shapes.items()}

    def shift(self, normalizers: Mapping[str, ObservationNormalizer]) -> None:
        """Count distances from these means from now on, in all lanes, and scale by these: between two blocks."""
        self._shifts = {name: normalizers[name].mean.astype(np.float64) for name in self._shapes}
        self._scales = {name: normalizers[name].scale.astype(np.float64) for name in self._shapes}

    def begin(self, lane: int) -> None:
        """A new episode in a lane."""
        for name in self._shapes:
            self._sums[name][lane] = 0.0
            self._squares[name][lane] = 0.0

    def add(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Count one observation of every lane. Lanes without an episode count what nobody takes.

        Args:
          columns: [L, *shape], also such as are not counted here.

        Returns:
          The columns, those that are counted normalised as by ``ObservationNormalizer``, in float64; overwritten by the
          next call. Here the distance from the mean is there already, and numpy's clip takes three times as long.
        """
        normalized = dict(columns)
        for name in self._shapes:
            apart, work = self._apart[name], self._work[name]
            np.subtract(columns[name], self._shifts[name], out=apart)
            self._sums[name] += apart
            np.multiply(apart, apart, out=work)
            self._squares[name] += work
            apart *= self._scales[name]
            np.maximum(apart, -LIMIT, out=apart)
            normalized[name] = np.minimum(apart, LIMIT, out=apart)
        return normalized

    def taken(self, lane: int) -> np.ndarray:
        """The sums of a lane's episode: of each column the distances, then their squares; a copy."""
        parts = [table[name][lane].ravel() for name in self._shapes for table in (self._sums, self._squares)]
        return np.concatenate(parts)

    def moments(self, count: int, sums: np.ndarray) -> np.ndarray:
        """A block's moments as they are told: [1 + 2D] float64, of ``count`` observations whose ``taken`` add up to
        ``sums``: the count, then of each column the mean and the sum of squared distances from it.
        """
        parts: list[np.ndarray] = [np.array([float(count)])]
        at = 0
        for name, shape in self._shapes.items():
            width = math.prod(shape)
            distances, squares = sums[at : at + width], sums[at + width : at + 2 * width]
            at += 2 * width
            parts += [self._shifts[name].ravel() + distances / count, squares - distances * distances / count]
        return np.concatenate(parts)


def as_moments(told: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, RunningMoments]:
    """A block's moments by column, of what ``ObservationTally.moments`` gave for the same shapes."""
    moments: dict[str, RunningMoments] = {}
    at = 1
    for name, shape in shapes.items():
        width = math.prod(shape)
        mean, squares = told[at : at + width], told[at + width : at + 2 * width]
        at += 2 * width
        moments[name] = RunningMoments.of(int(told[0]), mean.reshape(shape).copy(), squares.reshape(shape).copy())
    return moments
