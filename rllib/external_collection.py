"""Batches of what simulators outside have played, and counts of it: the learner's side of an ``EpisodeSource``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .config import ConfigError
from .policies.policy_spec import PolicySpec
from .rollouts.batch import Batch, FinishedEpisode
from .rollouts.external import EpisodeSource, Taken, packed


@runtime_checkable
class LearnsFromOutside(Protocol):
    """An algorithm that can learn from simulators, and does where it has an ``external`` collection."""

    external: ExternalCollection | None

    def learn_from(self, source: EpisodeSource) -> None:
        """Take the steps that are learned from from there."""
        ...


class ExternalCollection:
    """Takes steps of simulators. Made and used on the driver.

    Args:
      num_steps: Of a batch: its valid rows, exactly.
      max_lag: Versions published since a step was acted after which nobody learns from it.
      taken: Told of each batch: its steps, and the episodes that have ended since the one before.
    """

    def __init__(
        self, num_steps: int, *, max_lag: int, taken: Callable[[int, Sequence[FinishedEpisode]], None]
    ) -> None:
        self.num_steps, self.max_lag, self._taken = num_steps, max_lag, taken
        self._source: EpisodeSource | None = None
        self._counts: Counter[str] = Counter()
        self._last: Taken | None = None
        self._lags = np.zeros(0, np.int64)

    def connect(self, source: EpisodeSource) -> None:
        """This is where steps come from. It has the newest weights already."""
        self._source = source

    def publish(self, weights_ref: Any, version: int) -> None:
        """There are newer weights to act with."""
        if self._source is not None:
            self._source.publish(weights_ref, version)

    def take(self, spec: PolicySpec, version: int) -> Batch:
        """Wait for a batch.

        Args:
          spec: Of the policy that acts.
          version: Of the weights that learn.

        Raises:
          ConfigError: nobody has said where steps come from.
          StoppedWaiting: they are not waited for any more.
        """
        if self._source is None:
            raise ConfigError(
                "env: nobody has said where external simulators act: `shoal train --serve` does, or learn_from()"
            )
        self._last = taken = self._source.take(self.num_steps, version)
        self._counts.update(taken.counts)
        self._lags = version - np.concatenate([segment.versions for segment in taken.segments])
        batch = packed(taken.segments, spec, taken.finished)
        self._taken(self.num_steps, batch.episodes)
        return batch

    def metrics(self) -> dict[str, float]:
        """Counts since the run was started or resumed; lags in versions, and what was under way, of the last batch."""
        last = self._last
        return {
            **{name: float(count) for name, count in sorted(self._counts.items())},
            "open_episodes": float("nan") if last is None else last.open_episodes,
            "waiting_steps": float("nan") if last is None else last.waiting_steps,
            "lag_mean": float(self._lags.mean()) if len(self._lags) else float("nan"),
            "lag_max": float(self._lags.max()) if len(self._lags) else float("nan"),
        }
