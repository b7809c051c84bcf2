"""Many learners that do not wait for each other: ``AsynchronousLearners`` is a ``Learner`` of N actors over a parameter
server; each minibatch goes, as a whole, to whoever is free.

    minibatches  m, m+1, m+2, ...  --to whoever is free-->  replicas  --gradients, as they come-->  shards, Adam

A replica pulls the newest weights, differentiates, clips, and pushes; the shards apply what comes. So a gradient may be
of weights that others have improved since: its *staleness* is how often. It is bounded by a window over the numbers of
the minibatches: with ``staleness`` tau, number m is handed out when all up to m - N (tau + 1) are in. So nobody runs
away from a slow learner by more than tau rounds of N, and a gradient is at most N (tau + 2) - 2 improvements stale. At
tau = 0 all wait for the slowest in each round, like ``LearnerGroup``, which takes the steps of one learner. One that is
k times slower than the others holds nobody up from a tau of about k on. None: no bound (Dean et al. 2012). In Ho et al.
2013 (SSP) the bound is on clocks, and each learner has rows of its own; here the rows are common, and whoever is quick
takes more of them.

``update`` returns when the minibatch is handed out; ``means`` waits until all are in, so an iteration ends with weights
that nobody improves any more. The order of the pushes is nobody's choice: two runs of the same seed differ.

Who dies, and what follows. A replica: another takes its place and is asked again, for the same step of the same
learner: what the shards have of it they do not take again. A shard: comes back from its log. Nothing is lost or taken
twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..learning.learner import Columns, DivergedError, Metrics
from ..policies.policy_spec import PolicySpec
from .learner_group import let_others_finish
from .parameter_shard import ShardSettings
from .replica import Computed, MakeLearner, Part, mean_of_steps, replicas
from .served_policy import ServedPolicy
from .staleness import StalenessHistogram, Window


class AsynchronousLearners(ServedPolicy):
    """N learners and a parameter server with Adam, as one learner whose steps overlap.

    Args:
      spec: The policy's shape, without recurrence.
      weights: To begin with, by the names of ``spec.array_shapes``.
      make: Makes a learner of this policy, in each replica; travels there.
      count: N, at least 1.
      staleness: tau, at least 0; None: no bound.
      num_shards: Of the parameter server.
      learning_rate: Of Adam.
      epsilon: Of Adam.
      max_grad_norm: Gradients are scaled down to this norm, each by itself; None leaves them as they are.

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
        staleness: int | None,
        learning_rate: float,
        epsilon: float,
        max_grad_norm: float | None,
        num_shards: int = 1,
    ) -> None:
        if staleness is not None and staleness < 0:
            raise ValueError(f"staleness is at least 0, or None, not {staleness}")
        super().__init__(spec, weights, ShardSettings(count, "asynchronous", epsilon=epsilon), num_shards=num_shards)
        self._learning_rate = learning_rate
        self._window = Window(None if staleness is None else count * (staleness + 1))
        self._numbers: dict[int, int] = {}  # learner -> number of the minibatch that it has
        self._reports: dict[int, dict[str, float]] = {}  # number -> what is known of it
        self._staleness = StalenessHistogram()
        limit = math.inf if max_grad_norm is None else max_grad_norm
        try:
            self._replicas = replicas(make, self.client, count, max_grad_norm=limit)
        except BaseException:
            super().close()
            raise

    def __len__(self) -> int:
        return len(self._replicas)

    def set_learning_rate(self, learning_rate: float) -> None:
        """As in ``Learner``, for minibatches that are handed out from now on."""
        self._learning_rate = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """The same arrays: each replica moves what it has to where it computes."""
        return dict(columns)

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        """Hand a minibatch out, as soon as somebody is free and the window is open; what comes of it ``means`` tells.

        Raises:
          DivergedError: the gradient of an earlier one is not finite, and was not pushed; all others are applied.
          WorkerLostError: a learner keeps dying.
        """
        while not self._window.is_open or len(self._numbers) == len(self):
            self._take_one()
        learner = next(learner for learner in range(len(self)) if learner not in self._numbers)
        number = self._window.hand_out()
        self._numbers[learner] = number
        part = Part(minibatch, len(next(iter(minibatch.values()))))
        self._replicas.submit(learner, "compute", self.clocks[learner], part, dict(settings), self._learning_rate)
        return {_NUMBER: number}

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        """As in ``Learner``; waits until all that was handed out is in."""
        while self._numbers:
            self._take_one()
        return mean_of_steps([self._reports.pop(step[_NUMBER]) for step in steps])

    def counters(self) -> dict[str, float]:
        """``replaced``: learners that died and were replaced so far; ``shards_restarted``; and gradients by staleness:
        ``staleness_0``, ``staleness_1``, ..., ``staleness_9_or_more``.
        """
        return {"replaced": self._replicas.replacements, **super().counters(), **self._staleness.counters()}

    def close(self) -> None:
        """Kill learners and shards. May be called twice."""
        self._replicas.close()
        super().close()

    def _take_one(self) -> None:
        """Wait for the next that is in."""
        try:
            completed = next(self._replicas.completed())
        except DivergedError:
            let_others_finish(self._replicas)
            self._give_up()
            raise
        computed: Computed = completed.value
        number = self._numbers.pop(completed.worker)
        self._window.take_in(number)
        self.clocks[completed.worker] += 1
        self._reports[number] = computed.metrics
        self._staleness.add(computed.staleness)

    def _give_up(self) -> None:
        """Nobody has anything any more."""
        for number in self._numbers.values():
            self._window.take_in(number)
        self._numbers.clear()
        self._reports.clear()
        self.read_clocks()


#: The number of a minibatch, in what ``update`` returns.
_NUMBER = "number"
