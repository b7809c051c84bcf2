"""The samples of one rollout: what travels from rollout workers to the learner.

Arrays are time-major, [T, B]: T steps of B environment copies. Each row that is ``valid`` is one real transition and
carries all that is needed to learn from it, whatever its neighbours are: the value of its true successor, how its
episode stood after it, and the log-probability under the weights that acted. A row that is not valid counts nowhere;
after it, as after an end, a new episode starts; or, where simulators played, another goes on (``external.py``). A batch
that came through the object store is read-only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...envs.columns import Columns
from ...envs.vector import Episode


class FinishedEpisode(NamedTuple):
    """An episode that ended in a rollout, and in which of its steps."""

    step: int  #: row of the batch in which it ended, 0 .. T - 1
    episode: Episode


@dataclass(frozen=True)
class Batch:
    """A rollout of T steps of B copies."""

    observations: Columns  #: [T, B, *shape] s_t, as the environment gave them, real numbers in float32
    actions: np.ndarray  #: [T, B, W] int64, or float32 if any number is real; as sampled, before clipping or offset
    masks: np.ndarray | None  #: [T, B, num_choices] bool, what was allowed; None if all always is
    log_probs: np.ndarray  #: [T, B] float32, of the actions under the weights that acted
    rewards: np.ndarray  #: [T, B] float32
    values: np.ndarray  #: [T, B] float32 V(s_t) under the weights that acted
    next_values: np.ndarray  #: [T, B] float32 V of the true successor; 0 where terminated
    terminated: np.ndarray  #: [T, B] bool
    truncated: np.ndarray  #: [T, B] bool
    valid: np.ndarray  #: [T, B] bool; False: nothing must be learned from the row
    starts: np.ndarray  #: [T, B] bool: s_t is the first of its episode; recurrent states were zero before it
    states: np.ndarray | None  #: [ceil(T / L), B, S] float32: recurrent states before each L-th row, L the sequence
    #: length; None without recurrence
    last_observations: Columns  #: [B, *shape]: what follows the last row
    cut_observations: Columns  #: [C, *shape]: the true successors of the C truncated rows, by step, then by copy
    episodes: tuple[FinishedEpisode, ...]  #: by step, then by copy
    version: int  #: of the weights that acted; of the oldest, where batches of several versions were joined

    def __getstate__(self) -> dict[str, Any]:
        # Episodes travel as plain tuples, 0.2 us each; as what they are 3 us, and thousands may end in a rollout.
        return {**self.__dict__, "episodes": [(step, *episode) for step, episode in self.episodes]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        episodes = tuple(FinishedEpisode(step, Episode(*episode)) for step, *episode in state["episodes"])
        self.__dict__.update(state, episodes=episodes)

    @property
    def num_steps(self) -> int:
        """Environment steps in the batch: its valid rows."""
        return int(self.valid.sum())

    @property
    def goes_on_elsewhere(self) -> np.ndarray:
        """[T, B] bool: the row goes on with another episode than the row before it, from the recurrent state that
        ``states`` has there; so of a recurrent policy that is an L-th row.
        """
        found = np.zeros_like(self.valid)
        found[1:] = (self.terminated | self.truncated | ~self.valid)[:-1] & self.valid[1:] & ~self.starts[1:]
        return found

    def rows(self, column: np.ndarray) -> np.ndarray:
        """The valid rows of a column [T, B, ...], one below the other, [N, ...]: by step, then by copy."""
        flat: np.ndarray = column.reshape(-1, *column.shape[2:])
        return flat if self.valid.all() else flat[self.valid.reshape(-1)]


def concatenate(batches: Sequence[Batch], *, versions_may_differ: bool = False) -> Batch:
    """Side by side along B, in the order given. The arrays are copies, and writable.

    Args:
      batches: Of equally many steps.
      versions_may_differ: Whether several versions of the weights may have acted. Each row has the log-probability and
        the values of those that did.

    Raises:
      ValueError: the batches were made with different weights and must not be, or only some of them with masks.
    """
    versions = {batch.version for batch in batches}
    if len(versions) != 1 and not versions_may_differ:
        raise ValueError(f"cannot join batches of different weights, versions {sorted(versions)}")
    if len({batch.masks is None for batch in batches}) != 1:
        raise ValueError("cannot join batches with and without action masks: only some environments give them")

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in batches], axis=1)

    episodes = sorted(
        (finished for batch in batches for finished in batch.episodes),
        key=lambda finished: (finished.step, finished.episode.env_index),
    )
    first = batches[0]
    return Batch(
        observations=_joined_columns([batch.observations for batch in batches], axis=1),
        actions=joined("actions"),
        masks=None if first.masks is None else joined("masks"),
        log_probs=joined("log_probs"),
        rewards=joined("rewards"),
        values=joined("values"),
        next_values=joined("next_values"),
        terminated=joined("terminated"),
        truncated=joined("truncated"),
        valid=joined("valid"),
        starts=joined("starts"),
        states=None if first.states is None else joined("states"),
        last_observations=_joined_columns([batch.last_observations for batch in batches], axis=0),
        cut_observations=_joined_cuts(batches),
        episodes=tuple(episodes),
        version=min(versions),
    )


def _joined_columns(parts: Sequence[Mapping[str, np.ndarray]], *, axis: int) -> Columns:
    return {name: np.concatenate([part[name] for part in parts], axis=axis) for name in parts[0]}


def _joined_cuts(batches: Sequence[Batch]) -> Columns:
    # Each batch has its own in the order of steps; all together must be again.
    order = np.argsort(np.concatenate([np.nonzero(batch.truncated)[0] for batch in batches]), kind="stable")
    joined = _joined_columns([batch.cut_observations for batch in batches], axis=0)
    return {name: column[order] for name, column in joined.items()}
