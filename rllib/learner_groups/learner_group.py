"""Many learners as one: ``LearnerGroup`` is a ``Learner`` whose gradients are computed by N actors.

    minibatch --N parts--> replicas --gradient of each part--> shards of a parameter server --mean by rows--> Adam
                              ^                                                                                |
                              '------------------------------ weights of the next step ------------------------'

A step. The driver cuts the minibatch into N parts, equal to one row, and asks each replica (``replica.py``). A replica
pulls the weights of this step, differentiates its part and pushes. When all have answered, the shards have told the
squared norms of their slices, the driver finds the scale that clips the whole, and commits. So a step is that of one
learner with the whole minibatch, but for the order in which float32 sums are made: about 1e-7 of a weight.

    idle --submit N--> computing --all answered--> complete --commit--> idle, step + 1
                           '------- a gradient is not finite: commit(None) -------^   DivergedError; weights as before

Who dies, and what follows. A replica: ``WorkerSet`` makes another and asks it again; it pulls the same weights, for the
step has not been committed, and has the same gradient; if the dead one had pushed, the shards know it and take nothing
twice. A shard: comes back from its log, see ``parameter_server.py``. Neither changes a bit of the weights. The driver
holds nothing but the number of the step; with it everything ends, and the run goes on from its last checkpoint.

Recurrent policies are refused: their minibatches are sequences, which cannot be cut by rows.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..learning.learner import Columns, DivergedError, Metrics
from ..policies.policy_spec import PolicySpec
from ..worker_set import WorkerSet
from .parameter_shard import ShardSettings
from .replica import Computed, MakeLearner, mean_of_steps, parts_by_rows, replicas
from .served_policy import ServedPolicy


class LearnerGroup(ServedPolicy):
    """N learners and a parameter server with Adam, as one learner.

    Args:
      spec: The policy's shape, without recurrence.
      weights: To begin with, by the names of ``spec.array_shapes``.
      make: Makes a learner of this policy, in each replica; travels there.
      count: N, at least 1.
      num_shards: Of the parameter server.
      learning_rate: Of Adam.
      epsilon: Of Adam.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them as they are.

    Raises:
      ValueError: the policy is recurrent, or a number is out of range.
    """

    def __init__(
        self,
        spec: PolicySpec,
        weights: Mapping[str, np.ndarray],
        make: MakeLearner,
        count: int,
        *,
        learning_rate: float,
        epsilon: float,
        max_grad_norm: float | None,
        num_shards: int = 1,
    ) -> None:
        settings = ShardSettings(count, epsilon=epsilon, awaits_scale=True)
        super().__init__(spec, weights, settings, num_shards=num_shards)
        self._learning_rate = learning_rate
        self._max_grad_norm = max_grad_norm
        try:
            self._replicas = replicas(make, self.client, count)
        except BaseException:
            super().close()
            raise

    def __len__(self) -> int:
        return len(self._replicas)

    def set_learning_rate(self, learning_rate: float) -> None:
        """As in ``Learner``."""
        self._learning_rate = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """The same arrays: each replica moves its part to where it computes."""
        return dict(columns)

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        """As in ``Learner``.

        Raises:
          DivergedError: a gradient is not finite; the weights are as they were.
          WorkerLostError: a learner keeps dying.
        """
        step = self.clocks[0]
        try:
            answers: list[Computed] = self._replicas.map(
                "compute",
                [(step, part, dict(settings), self._learning_rate) for part in parts_by_rows(minibatch, len(self))],
            )
        except DivergedError:
            let_others_finish(self._replicas)
            self.give_up()
            raise
        norm = self.apply([answer.squared_norms for answer in answers], self._max_grad_norm)
        total = sum(answer.rows for answer in answers)
        means = {
            name: math.fsum(answer.metrics[name] * answer.rows for answer in answers) / total
            for name in answers[0].metrics
        }
        return {**means, "grad_norm": norm}

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        """As in ``Learner``."""
        return mean_of_steps(steps)

    def counters(self) -> dict[str, float]:
        """``replaced``: learners that died and were replaced so far; ``shards_restarted``."""
        return {"replaced": self._replicas.replacements, **super().counters()}

    def close(self) -> None:
        """Kill learners and shards. May be called twice."""
        self._replicas.close()
        super().close()


def let_others_finish(workers: WorkerSet) -> None:
    """Until nothing is in flight: a push that comes later would be of a step that is over."""
    while any(workers.in_flight(worker) for worker in range(len(workers))):
        with contextlib.suppress(DivergedError):  # one has been told of
            for _ in workers.completed():
                pass
