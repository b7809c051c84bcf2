"""Bringing observations and rewards to a common size, by statistics of all that the run has seen. Pure numpy.

The statistics live on the driver and are updated once for each batch, in the order of the copies; rollout workers get
a frozen ``ObservationNormalizer`` with the weights. So acting and learning see the same numbers, evaluation is frozen
by construction, and the number of workers changes nothing.

Observations are shifted and scaled; rewards only scaled, by the deviation of the discounted return that they add up
to (Engstrom et al. 2020: matters as much as the clipped loss does). Both are cut at 10 deviations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Deviations at which normalised observations and rewards are cut: OpenAI baselines' number, kept by everyone since.
LIMIT = 10.0
_EPSILON = 1e-8


class RunningMoments:
    """Mean and variance of a stream of rows, in float64.

    Args:
      shape: Of one row.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.mean = np.zeros(shape, np.float64)
        self._squares = np.zeros(shape, np.float64)  # sum of squared distances from the mean

    @classmethod
    def of(cls, count: int, mean: np.ndarray, squares: np.ndarray) -> RunningMoments:
        """What some rows amount to.

        Args:
          count: Rows.
          mean: Theirs, float64.
          squares: Sum of squared distances from it, float64.
        """
        moments = cls(mean.shape)
        moments.count, moments.mean, moments._squares = count, mean, squares
        return moments

    @property
    def variance(self) -> np.ndarray:
        """Population variance; 1 before the first row, so that nothing is scaled then."""
        return self._squares / self.count if self.count else np.ones_like(self._squares)

    def update(self, rows: np.ndarray) -> None:
        """Count rows [N, *shape]."""
        if not len(rows):
            return
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        self.merge(RunningMoments.of(len(rows), mean, np.square(rows - mean).sum(axis=0)))

    def merge(self, other: RunningMoments) -> None:
        """Count what another one has counted, on another worker for instance, by the pairwise formula of Chan, Golub
        and LeVeque 1979, eq. 2.1. Exact but for rounding, whatever is merged with what first.
        """
        total = self.count + other.count
        if not total:
            return
        apart = other.mean - self.mean
        self._squares += other._squares + np.square(apart) * (self.count * other.count / total)
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    def arrays(self) -> dict[str, np.ndarray]:
        """The state, for a checkpoint."""
        return {"count": np.array(self.count), "mean": self.mean.copy(), "squares": self._squares.copy()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what ``arrays`` gave, bit for bit."""
        self.count = int(arrays["count"])
        self.mean, self._squares = arrays["mean"].copy(), arrays["squares"].copy()


@dataclass(frozen=True)
class ObservationNormalizer:
    """A frozen shift and scale of observations."""

    mean: np.ndarray  #: [D] float32
    scale: np.ndarray  #: [D] float32, 1 / deviation

    @classmethod
    def of(cls, moments: RunningMoments) -> ObservationNormalizer:
        """As the statistics stand now."""
        scale = 1.0 / np.sqrt(moments.variance + _EPSILON)
        return cls(moments.mean.astype(np.float32), scale.astype(np.float32))

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Observations [..., D] with mean 0 and deviation 1, float32, cut at +-LIMIT."""
        normalized: np.ndarray = ((observations - self.mean) * self.scale).clip(-LIMIT, LIMIT)
        return normalized


class ObservationMoments:
    """Moments of several columns of observations, each by itself.

    Args:
      shapes: Name -> shape of one row.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._moments = {name: RunningMoments(shape) for name, shape in shapes.items()}

    def update(self, observations: Mapping[str, np.ndarray]) -> None:
        """Count observations [T, B, *shape]; columns that are not kept here are passed over."""
        for name, moments in self._moments.items():
            moments.update(observations[name].reshape(-1, *moments.mean.shape))

    def merge(self, others: Mapping[str, RunningMoments]) -> None:
        """Count what was counted elsewhere, of each column."""
        for name, moments in self._moments.items():
            moments.merge(others[name])

    def normalizers(self) -> dict[str, ObservationNormalizer]:
        """By column, as the statistics stand now."""
        return {name: ObservationNormalizer.of(moments) for name, moments in self._moments.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The state, for a checkpoint, by ``column/quantity``."""
        return {
            f"{name}/{quantity}": array
            for name, moments in self._moments.items()
            for quantity, array in moments.arrays().items()
        }

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what ``arrays`` gave, bit for bit."""
        for name, moments in self._moments.items():
            moments.load({quantity: arrays[f"{name}/{quantity}"] for quantity in moments.arrays()})


def normalized(
    observations: Mapping[str, np.ndarray], normalizers: Mapping[str, ObservationNormalizer]
) -> dict[str, np.ndarray]:
    """Columns, those that have a normaliser shifted and scaled."""
    return {name: normalizers[name](column) if name in normalizers else column for name, column in observations.items()}


class RewardScaler:
    """Divides rewards by the deviation of the discounted return so far.

    Args:
      num_envs: B.
      gamma: Discount.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self._gamma = gamma
        self._returns = np.zeros(num_envs, np.float64)
        self._moments = RunningMoments(())

    def __call__(
        self,
        rewards: np.ndarray,
        ends: np.ndarray,
        valid: np.ndarray,
        copies: np.ndarray | None = None,
        begins: np.ndarray | None = None,
    ) -> np.ndarray:
        """Count a rollout's rewards and scale them.

        Args:
          rewards: [T, B].
          ends: [T, B] bool, where an episode ended: the next row's return starts from nothing.
          valid: [T, B] bool; other rows are not counted, and the next one's return starts from nothing, too.
          copies: [B] which copy each column is of. Where one is there several times, a later column goes on where the
            one before it stopped. None: each once, in order.
          begins: [B] bool, with copies: whose first row is the first of an episode. Its return starts from nothing.

        Returns:
          [T, B] float32, cut at +-LIMIT.
        """
        if copies is None:
            returns = self._discounted(rewards, ends | ~valid, slice(None))
        else:
            returns = np.empty(rewards.shape, np.float64)
            for columns in _rounds(copies):
                stops = ends[:, columns] | ~valid[:, columns]
                if begins is not None:
                    self.restart(copies[columns[begins[columns]]].tolist())
                returns[:, columns] = self._discounted(rewards[:, columns], stops, copies[columns])
        self._moments.update(returns[valid])
        scaled = rewards / np.sqrt(self._moments.variance + _EPSILON)
        return scaled.clip(-LIMIT, LIMIT).astype(np.float32)

    def _discounted(self, rewards: np.ndarray, stops: np.ndarray, copies: slice | np.ndarray) -> np.ndarray:
        """[T, B] float64: discounted sums of rewards up to each row, of different copies."""
        returns = np.empty(rewards.shape, np.float64)
        so_far = self._returns[copies]
        for t in range(len(rewards)):
            returns[t] = so_far = so_far * self._gamma + rewards[t]
            so_far = np.where(stops[t], 0.0, so_far)
        self._returns[copies] = so_far
        return returns

    def arrays(self) -> dict[str, np.ndarray]:
        """Statistics and the returns so far, for a checkpoint."""
        return {**self._moments.arrays(), "returns": self._returns.copy()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what ``arrays`` gave, bit for bit; of another number of environments the statistics alone."""
        self._moments.load(arrays)
        self.restart()
        if arrays["returns"].shape == self._returns.shape:
            self._returns = arrays["returns"].copy()

    def restart(self, copies: Sequence[int] | None = None) -> None:
        """The episodes of these copies begin anew, by default all: their returns start from nothing."""
        self._returns[slice(None) if copies is None else list(copies)] = 0.0


@dataclass(frozen=True)
class Statistics:
    """What a run keeps of both, as far as it normalises them."""

    observations: ObservationMoments | None = None
    rewards: RewardScaler | None = None

    @property
    def kept(self) -> dict[str, ObservationMoments | RewardScaler]:
        """Those that there are, by name."""
        both = {"observations": self.observations, "rewards": self.rewards}
        return {name: statistics for name, statistics in both.items() if statistics is not None}

    def normalizers(self) -> dict[str, ObservationNormalizer]:
        """Of observations, by column, as the statistics stand now."""
        return {} if self.observations is None else self.observations.normalizers()

    def restart_rewards(self, copies: Sequence[int] | None = None) -> None:
        """As in ``RewardScaler.restart``."""
        if self.rewards is not None:
            self.rewards.restart(copies)

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """The state, for a checkpoint, by name."""
        return {name: statistics.arrays() for name, statistics in self.kept.items()}

    def load(self, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Take over what ``arrays`` gave, bit for bit."""
        for name, statistics in self.kept.items():
            statistics.load(arrays[name])


def _rounds(copies: np.ndarray) -> list[np.ndarray]:
    """Columns [B] in groups: the first of each copy, the second of each, ..."""
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for column, copy in enumerate(copies.tolist()):
        number = seen[copy] = seen.get(copy, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(column)
    return [np.array(columns) for columns in rounds]
