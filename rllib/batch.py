"""The samples of one rollout: what travels from rollout workers to the learner.

Arrays are time-major, [T, B]: T steps of B environment copies. Each row is one real transition and carries all that
is needed to learn from it, whatever its neighbours are: the value of its true successor, how its episode stood after
it, and the log-probability under the weights that acted. A batch that came through the object store is read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..envs.vector import Episode


@dataclass(frozen=True)
class FinishedEpisode:
    """An episode that ended in a rollout, and in which of its steps."""

    step: int  #: row of the batch in which it ended, 0 .. T - 1
    episode: Episode


@dataclass(frozen=True)
class Batch:
    """A rollout of T steps of B copies."""

    observations: np.ndarray  #: [T, B, D] float32 s_t
    actions: np.ndarray  #: [T, B] int64 or [T, B, A] float32; as sampled, before clipping
    log_probs: np.ndarray  #: [T, B] float32, of the actions under the weights that acted
    rewards: np.ndarray  #: [T, B] float32
    values: np.ndarray  #: [T, B] float32 V(s_t) under the weights that acted
    next_values: np.ndarray  #: [T, B] float32 V of the true successor; 0 where terminated
    terminated: np.ndarray  #: [T, B] bool
    truncated: np.ndarray  #: [T, B] bool
    episodes: tuple[FinishedEpisode, ...]  #: by step, then by copy
    version: int  #: of the weights that acted

    @property
    def num_steps(self) -> int:
        """Environment steps in the batch, T * B."""
        return self.rewards.size


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Side by side along B, in the order given. The arrays are copies, and writable.

    Raises:
      ValueError: the batches were made with different weights.
    """
    versions = {batch.version for batch in batches}
    if len(versions) != 1:
        raise ValueError(f"cannot join batches of different weights, versions {sorted(versions)}")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in batches], axis=1)

    episodes = sorted(
        (finished for batch in batches for finished in batch.episodes),
        key=lambda finished: (finished.step, finished.episode.env_index),
    )
    return Batch(
        observations=joined("observations"),
        actions=joined("actions"),
        log_probs=joined("log_probs"),
        rewards=joined("rewards"),
        values=joined("values"),
        next_values=joined("next_values"),
        terminated=joined("terminated"),
        truncated=joined("truncated"),
        episodes=tuple(episodes),
        version=versions.pop(),
    )
