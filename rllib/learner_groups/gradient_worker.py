"""A rollout worker that learns, too: ``GradientWorker`` pulls weights, plays, and pushes the gradient of its rollout.

    advance:  weights from the shards -> rollout -> estimates -> gradient -> shards;   to the driver only what happened

Rows never travel. A worker that dies can be followed by another that is asked the same: the environments go on behind
the last rollout that the driver knows of, and a push that the shards have of it they do not take again. What it is
asked for behind a step that has diverged it refuses as its predecessor would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core import api
from ...envs.replay import State
from ..learning.learner import DivergedError, GradientLearner, diverged
from ..learning.minibatches import samples
from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights, by_name
from ..rollouts.batch import Batch, FinishedEpisode
from ..rollouts.env_runner import EnvRunner
from .parameter_server import ParameterClient
from .replica import MakeLearner


@dataclass(frozen=True)
class Job:
    """What all requests of a run have in common."""

    spec: PolicySpec
    make: MakeLearner  #: its weights are of no account, and its optimiser has nothing to do
    estimates: Callable[[Batch], Mapping[str, np.ndarray]]  #: columns [T, B] of a rollout for the loss
    client: ParameterClient
    max_grad_norm: float  #: gradients are scaled down to it before they are pushed; infinite: the driver sees to it


@dataclass(frozen=True)
class Advance:
    """A request: play and push once."""

    job: Any  #: reference to the ``Job``
    step: int  #: how often this worker has pushed before
    num_steps: int  #: T
    rollout: int  #: picks the random streams of the actions
    settings: Mapping[str, float]  #: of the loss
    learning_rate: float


@dataclass(frozen=True)
class Advanced:
    """What happened, when the shards have the gradient."""

    steps: int  #: valid rows that were played
    episodes: tuple[FinishedEpisode, ...]  #: that ended
    state: State | None  #: as in ``Collected``, and so are the next two
    replaced: int
    incidents: tuple[str, ...]
    metrics: dict[str, float]  #: what the loss reports, and ``grad_norm``
    squared_norms: list[float | None]  #: by shard, of the whole step of bulk; where this worker was the last to push
    staleness: int  #: how often others improved the weights while it played


class GradientWorker(EnvRunner):
    """Some of a run's environment copies, and a learner for them."""

    _job_ref: Any = None
    _job: Job
    _learner: GradientLearner
    _has_diverged = False

    def advance(self, order: Advance) -> Advanced:
        """Pull, play, push.

        Raises:
          DivergedError: the gradient is not finite; it was not pushed. What was asked for behind it is refused
            likewise, for the shards take steps in their order, until ``forgive``.
          EnvFailure: an environment raised.
        """
        if self._job_ref != order.job:  # else it would travel with each request
            self._job = api.get(order.job)
            self._job_ref, self._learner = order.job, self._job.make()
            # The successor of one that died is asked again for all that was not answered. If the shards have not what
            # came before, that was answered: it had diverged.
            self._has_diverged = order.step > self._job.client.clock(self._worker_index)
        if self._has_diverged:
            raise DivergedError(f"step {order.step} comes behind one that has diverged")
        job, client = self._job, self._job.client
        client.pull(order.step)
        flat, pulled = client.weights.copy(), client.versions[0]
        collected = self.collect(
            Weights(pulled, job.spec, by_name(flat, job.spec.array_shapes())), order.num_steps, order.rollout
        )
        batch = collected.batch
        rows = samples(batch, batch.observations, **job.estimates(batch))
        self._learner.set_flat_weights(flat)
        gradient, metrics = self._learner.gradients(self._learner.to_device(rows), order.settings)
        norm = math.sqrt(np.square(gradient, dtype=np.float64).sum())
        if not math.isfinite(norm):
            self._has_diverged = True
            raise diverged(norm, None)
        if (scale := job.max_grad_norm / (norm + 1e-6)) < 1.0:  # as torch.nn.utils.clip_grad_norm_ has it
            gradient *= np.float32(scale)
        acks = client.push(
            self._worker_index, order.step, gradient, rows=batch.num_steps, learning_rate=order.learning_rate
        )
        return Advanced(
            steps=batch.num_steps,
            episodes=batch.episodes,
            state=collected.state,
            replaced=collected.replaced,
            incidents=collected.incidents,
            metrics={**self._learner.means([metrics]), "grad_norm": norm},
            squared_norms=[ack.squared_norm for ack in acks],
            staleness=max(acks[0].version - 1 - pulled, 0),
        )

    def forgive(self) -> None:
        """All requests that were behind one that diverged are refused: take requests again."""
        self._has_diverged = False
