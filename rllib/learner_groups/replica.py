"""A learner in an actor, one of many over a parameter server: ``Replica``; and the parts of a minibatch for many.

It pulls weights, differentiates the loss of some rows, and pushes the gradient. Which rows, and when, is its group's
affair. What it holds can be had again: its successor pulls the same weights, and a push that is sent twice counts once.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core import api
from ..learning.learner import GradientLearner, Metrics, diverged
from ..threads import limit_matrix_threads
from ..worker_set import WorkerSet
from .parameter_server import ParameterClient

#: Makes a learner, in the process that it is to be in. Its weights are the same each time.
MakeLearner = Callable[[], GradientLearner]


@dataclass(frozen=True)
class Part:
    """Some rows of a minibatch."""

    columns: Mapping[str, np.ndarray]  #: [n, ...] each, at least one row
    rows: int  #: how many of them count: n; 0 where there are more learners than rows, and this row is another's


@dataclass(frozen=True)
class Computed:
    """What a replica says when the shards have its gradient."""

    rows: int  #: that count
    metrics: dict[str, float]  #: what the loss reports of these, and the gradient's norm as ``grad_norm``
    squared_norms: list[float | None]  #: by shard, of the whole step; where it was the last to push
    staleness: int  #: how often the weights were improved since they were pulled for this, before this


class Replica:
    """A learner in an actor; a plain class, of which ``replicas`` makes actors.

    Args:
      make: Makes the learner; its weights are of no account, and its optimiser has nothing to do.
      client: Of the parameter server.
      number: Which learner it is.
      max_grad_norm: Gradients are scaled down to this norm before they are pushed; infinite: whoever applies them does.
      driver_pid: The process that started it.
    """

    def __init__(
        self, make: MakeLearner, client: ParameterClient, number: int, max_grad_norm: float, *, driver_pid: int
    ) -> None:
        if os.getpid() != driver_pid:  # inline, the actor lives in the driver
            limit_matrix_threads(1)
        self._learner = make()
        self._client = client
        self._number = number
        self._max_grad_norm = max_grad_norm

    def compute(self, step: int, part: Part, settings: Mapping[str, float], learning_rate: float) -> Computed:
        """Push the gradient of some rows; returns when the shards have it for good.

        Args:
          step: Its number among this learner's.
          part: As ``samples`` gives them.
          settings: Of the loss.
          learning_rate: For the server's Adam.

        Raises:
          DivergedError: the gradient is not finite; it was not pushed.
        """
        if self._client.pull(step):
            self._learner.set_flat_weights(self._client.weights)
        pulled = self._client.versions[0]
        gradient, metrics = self._learner.gradients(self._learner.to_device(writable(part.columns)), settings)
        norm = math.sqrt(np.square(gradient, dtype=np.float64).sum())
        if not math.isfinite(norm):
            raise diverged(norm, None)
        if (scale := self._max_grad_norm / (norm + 1e-6)) < 1.0:  # as torch.nn.utils.clip_grad_norm_ has it
            gradient *= np.float32(scale)
        acks = self._client.push(self._number, step, gradient, rows=part.rows, learning_rate=learning_rate)
        told = {**self._learner.means([metrics]), "grad_norm": norm}
        return Computed(part.rows, told, [ack.squared_norm for ack in acks], max(acks[0].version - 1 - pulled, 0))


def replicas(
    make: MakeLearner, client: Callable[[], ParameterClient], count: int, *, max_grad_norm: float = math.inf
) -> WorkerSet:
    """Start replicas; whoever dies is replaced by one that is made like it.

    Args:
      make, max_grad_norm: See ``Replica``.
      client: Gives each a client of its own.
      count: How many.
    """
    driver_pid = os.getpid()

    def start(worker: int, replacement: int) -> Any:  # noqa: ARG001  a successor is made as the first was
        made = api.remote(Replica).options(num_cpus=0)
        return made.remote(make, client(), worker, max_grad_norm, driver_pid=driver_pid)

    return WorkerSet(start, count, kind="learner", is_quick=False)


def writable(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same columns; copies of those that are read-only, as what comes from the object store, for torch."""
    return {name: np.require(column, requirements="W") for name, column in columns.items()}


def parts_by_rows(minibatch: Mapping[str, Any], count: int) -> list[Part]:
    """The rows of a minibatch in so many parts, which differ by one row at most. If there are fewer rows, the learners
    that are left without get one that does not count: so all have something to differentiate, and know what is told.
    """
    rows = len(next(iter(minibatch.values())))
    bounds = [index * rows // count for index in range(count + 1)]
    return [
        Part({name: column[begin : max(end, begin + 1)] for name, column in minibatch.items()}, end - begin)
        for begin, end in itertools.pairwise(bounds)
    ]


def mean_of_steps(steps: Sequence[Metrics]) -> dict[str, float]:
    """The mean of each number over these, at least one."""
    return {name: math.fsum(step[name] for step in steps) / len(steps) for name in steps[0]}
