"""What a run of ``Algorithm`` must remember to go on: ``SavedRun``, to a checkpoint and back.

    parts of an algorithm -> SavedRun -> Checkpoint -> disk -> Checkpoint -> SavedRun -> parts of an algorithm

The run that goes on is the one that was not interrupted, bit for bit, with any number of workers. Where rollouts come
one by one it is not, for their order is nobody's choice; but nothing is lost or counted twice: environments go on
behind the last rollouts that were learned from, and what has come since, or is under way, is played again. Random
streams need no state, see ``streams.py``. Environments that cannot tell theirs (``NoStateError``) are no part of it:
they start new episodes, with seeds that the run has not used.

Names and groups in the checkpoint are those of ``saved_state.py``. Reading looks at all of it before any part is taken
over: what does not fit is a ``CheckpointError`` that names it, and nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...envs.replay import State
from ..policies.normalization import Statistics
from ..policies.policy_spec import PolicySpec, told_apart
from ..policies.weights import Weights
from . import saved_state
from .checkpoints import Checkpoint, CheckpointError
from .metrics import RecentEpisodes


@dataclass(frozen=True)
class SavedRun:
    """A run between two steps."""

    weights: Weights  #: the policy, with what observations are normalised by
    optimizer: Mapping[str, np.ndarray]  #: the memory of the learner's optimiser
    statistics: Mapping[str, Mapping[str, np.ndarray]]  #: of observations and rewards, by name
    recent: Mapping[str, np.ndarray]  #: of ``RecentEpisodes``
    schedules: Mapping[str, float]
    environments: State | None  #: where all copies stood; None if that is not known
    steps: int
    iteration: int
    episodes: int
    environments_since: int  #: iteration at which new episodes last began everywhere
    rollouts: int  #: asked for so far

    def checkpoint(self, algorithm: str, config: dict[str, Any]) -> Checkpoint:
        """As what is written to disk.

        Args:
          algorithm: Its name.
          config: Its settings, of ``config.to_dict``.
        """
        statistics = {saved_state.group_of(name): dict(arrays) for name, arrays in self.statistics.items()}
        environments = {} if self.environments is None else {saved_state.ENVIRONMENTS: self.environments}
        return Checkpoint(
            algorithm=algorithm,
            config=config,
            counters={name: getattr(self, name) for name in (*_COUNTERS, "rollouts")},
            tensors={
                "policy": dict(self.weights.arrays),
                "optimizer": dict(self.optimizer),
                "episodes": dict(self.recent),
                **statistics,
                **environments,
            },
            extra={"policy_spec": self.weights.spec.to_dict(), "schedules": dict(self.schedules)},
        )

    @classmethod
    def read(
        cls,
        checkpoint: Checkpoint,
        *,
        algorithm: str,
        spec: PolicySpec,
        optimizer_shapes: Callable[[], Mapping[str, tuple[int, ...]]],
        statistics: Statistics,
        schedules: Iterable[str],
    ) -> SavedRun:
        """What a checkpoint holds for a run with these parts.

        Args:
          checkpoint: Of the same algorithm, environment and network.
          algorithm: The run's, by name.
          spec: The shape of its policy.
          optimizer_shapes: Of its learner.
          statistics: What it keeps.
          schedules: Names of its schedules.

        Raises:
          CheckpointError: it is of another algorithm, or of a network of another shape, or something is missing.
        """
        if checkpoint.algorithm != algorithm:
            raise CheckpointError(f"a checkpoint of {checkpoint.algorithm!r} cannot go on as {algorithm!r}")
        weights = saved_state.weights_from(checkpoint)
        if weights.spec != spec:
            raise CheckpointError(f"the checkpoint's policy {told_apart(weights.spec, spec)}")
        saved = {name for name in ("observations", "rewards") if saved_state.group_of(name) in checkpoint.tensors}
        kept = statistics.kept
        if saved != kept.keys():
            raise CheckpointError(
                f"the checkpoint normalises {' and '.join(sorted(saved)) or 'nothing'}, "
                f"this run {' and '.join(sorted(kept)) or 'nothing'}"
            )
        arrays = {
            name: checkpoint.group(saved_state.group_of(name), saved_state.shapes_of(normalizer))
            for name, normalizer in kept.items()
        }
        counters = {name: checkpoint.counter(name) for name in _COUNTERS}
        # There was no such counter when all workers played together.
        rollouts = checkpoint.counter("rollouts") if "rollouts" in checkpoint.counters else counters["iteration"]
        return cls(
            weights=weights,
            statistics=arrays,
            optimizer=checkpoint.group("optimizer", optimizer_shapes() if counters["iteration"] else {}),
            recent=checkpoint.group("episodes", RecentEpisodes.SHAPES),
            schedules=saved_state.schedules_from(checkpoint, schedules),
            environments=saved_state.environments_from(checkpoint),
            rollouts=rollouts,
            **counters,
        )


#: Counters that every checkpoint has.
_COUNTERS = ("steps", "iteration", "episodes", "environments_since")
