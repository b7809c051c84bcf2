"""Rollouts of simulators outside the cluster: what comes from them, and as a batch like any other.

A simulator acts through the server of policies, which keeps what happened: runs of steps of one episode, each step with
the log-probability and the value of the weights that acted, whose version may change within a run. A *segment* is such
a run, as long as it happens to be. It ends where its episode does, or is cut: then it has what followed, and what the
critic expects from there.

    episode 1   a a a a a . . .        a batch    a a a a a   column 0
    episode 2   b b T                             b b T c T   column 1: c began an episode, so it may stand anywhere
    episode 3   c T                               d d d - -   column 2: d goes on with an episode; - is no row
    episode 4   . . d d d

Every last row is terminated or truncated, so no estimate crosses from one segment into the next. A recurrent policy
goes on from the state that it had before a segment, and a batch has states at each L-th row, L the sequence length: so
a segment within an episode then begins at one of those. Of H rows in the longest of n segments with N rows together a
batch has no more than 2 N + 3 n (L - 1) + H: all columns but one are half full, but for rows before such beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...envs.columns import Columns
from ...envs.vector import Episode
from ..policies.distributions import Categorical
from ..policies.policy_spec import PolicySpec
from .batch import Batch, FinishedEpisode


@dataclass(frozen=True)
class ExternalSegment:
    """L steps of one episode, one after the other."""

    first_step: int  #: number of its first step in the episode
    observations: Columns  #: [L, *shape]
    actions: np.ndarray  #: [L, W] as drawn, before clipping or offset
    masks: np.ndarray | None  #: [L, choices] bool; None: all was allowed
    log_probs: np.ndarray  #: [L] float32
    rewards: np.ndarray  #: [L] float32
    values: np.ndarray  #: [L] float32
    states: np.ndarray  #: [L, S] float32: recurrent states before each step
    versions: np.ndarray  #: [L] int64, of the weights that acted
    last_observation: Columns | None  #: [*shape] what followed the last step; None: nothing, the episode terminated
    last_value: float  #: what the critic expects there; 0 where it terminated

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Taken:
    """What a learner gets at once, and what happened since it got the last."""

    segments: tuple[ExternalSegment, ...]  #: oldest weights first
    finished: tuple[tuple[float, int], ...]  #: return and length of each episode that ended, in the order of ends
    counts: dict[str, int]  #: what else happened, by name: see ``serving.episodes``
    open_episodes: int  #: under way now
    waiting_steps: int  #: that were not taken yet


class EpisodeSource(Protocol):
    """Where steps of simulators come from."""

    def publish(self, weights_ref: Any, version: int) -> None:
        """Act with these weights from now on.

        Args:
          weights_ref: ``Weights`` in the object store.
          version: Theirs; that of the last ones is nothing new.
        """
        ...

    def take(self, num_steps: int, version: int) -> Taken:
        """Wait for ``num_steps`` steps that may be learned from, and take them.

        Args:
          num_steps: How many, exactly.
          version: Of the weights that learn from them.

        Raises:
          StoppedWaiting: nobody wants them any more.
        """
        ...


class StoppedWaiting(Exception):  # noqa: N818 - reads as what it says
    """The run is to end, and steps that would make a batch full have not come."""


def packed(segments: Sequence[ExternalSegment], spec: PolicySpec, finished: Sequence[tuple[float, int]] = ()) -> Batch:
    """Segments as one batch, [T, B]: T of the longest, as few columns as it takes when each is put where there is room.

    Rows that no segment fills are not valid. A segment that was cut is truncated, with its own ``cut_observations``.

    Args:
      segments: At least one.
      spec: Of the policy that acted.
      finished: Return and length of episodes that ended; they are counted with the last row.
    """
    places, num_columns = _places(segments, spec.network.sequence_length if spec.is_recurrent else 1)
    num_steps, distribution = max(map(len, segments)), spec.actions.distribution
    shape = (num_steps, num_columns)
    observations = spec.observations.empty(*shape)
    dtype = np.int64 if isinstance(distribution, Categorical) else np.float32
    actions = np.zeros((*shape, distribution.action_size), dtype)
    masks = None
    if any(segment.masks is not None for segment in segments):
        masks = np.ones((*shape, distribution.num_choices), bool)
    floats = {name: np.zeros(shape, np.float32) for name in ("log_probs", "rewards", "values", "next_values")}
    terminated, truncated, valid, starts = (np.zeros(shape, bool) for _ in range(4))
    states = np.zeros((*shape, spec.state_size), np.float32)
    for segment, (row, copy) in zip(segments, places, strict=True):
        rows, last = (slice(row, row + len(segment)), copy), (row + len(segment) - 1, copy)
        for name, column in observations.items():
            column[rows] = segment.observations[name]
        actions[rows], states[rows], valid[rows] = segment.actions, segment.states, True
        for name in ("log_probs", "rewards", "values"):
            floats[name][rows] = getattr(segment, name)
        if masks is not None and segment.masks is not None:
            masks[rows] = segment.masks
        floats["next_values"][row : row + len(segment) - 1, copy] = segment.values[1:]
        floats["next_values"][last] = segment.last_value
        terminated[last], truncated[last] = segment.last_observation is None, segment.last_observation is not None
    starts[1:] = terminated[:-1] | truncated[:-1] | ~valid[:-1]
    for segment, place in zip(segments, places, strict=True):
        if spec.is_recurrent or place[0] == 0:
            starts[place] = segment.first_step == 0
    return Batch(
        observations=observations,
        actions=actions,
        masks=masks,
        **floats,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        starts=starts,
        states=states[:: spec.network.sequence_length].copy() if spec.is_recurrent else None,
        last_observations={name: column[-1] for name, column in observations.items()},  # seen by nobody: all is cut
        cut_observations=_cut_observations(segments, places, spec),
        episodes=tuple(FinishedEpisode(num_steps - 1, Episode(0, *each)) for each in finished),
        version=min(int(segment.versions.min()) for segment in segments),
    )


def _places(segments: Sequence[ExternalSegment], aligned_to: int) -> tuple[list[tuple[int, int]], int]:
    """Row and column where each segment begins, and how many columns there are: longest first, each in the first column
    that has room for it.

    Args:
      segments: To be placed.
      aligned_to: Segments within an episode begin at a multiple of it.
    """
    height = max(map(len, segments))
    places: list[tuple[int, int]] = [(0, 0)] * len(segments)
    filled: list[int] = []
    for number in sorted(range(len(segments)), key=lambda number: -len(segments[number])):
        length = len(segments[number])
        step = aligned_to if segments[number].first_step > 0 else 1
        rows = (-(-fill // step) * step for fill in filled)
        row, column = next(
            ((row, column) for column, row in enumerate(rows) if row + length <= height), (0, len(filled))
        )
        if column == len(filled):
            filled.append(0)
        places[number] = (row, column)
        filled[column] = row + length
    return places, len(filled)


def _cut_observations(
    segments: Sequence[ExternalSegment], places: Sequence[tuple[int, int]], spec: PolicySpec
) -> Columns:
    """[C, *shape]: what followed the segments that were cut, by row, then by column, of their last rows."""
    cuts = [
        (row + len(segment) - 1, column, segment.last_observation)
        for segment, (row, column) in zip(segments, places, strict=True)
        if segment.last_observation is not None
    ]
    cuts.sort(key=lambda cut: cut[:2])
    columns = spec.observations.empty(len(cuts))
    for place, (_, _, observation) in enumerate(cuts):
        for name, column in columns.items():
            column[place] = observation[name]
    return columns
