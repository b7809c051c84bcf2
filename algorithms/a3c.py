"""Asynchronous advantage actor-critic, A3C, and its synchronous form, A2C: Mnih et al. 2016 (arXiv:1602.01783).

Workers that play learn, too: each pulls the weights from a parameter server, plays ``rollout_steps`` steps of its
environment copies, differentiates its loss and pushes the gradient; no sample leaves it (algorithm S3 of the paper).

    A2C   all start from the same weights; the mean of their gradients is one step. The same seed gives the same curve
          for as many workers, whoever dies.
    A3C   each gradient is a step as it comes, of weights that others may have improved meanwhile: nobody waits.
          ``staleness`` bounds how many rollouts a worker may be ahead of the slowest (SSP: Ho et al. 2013).

What deviates from the paper: Adam on the server instead of shared RMSProp; several environment copies in each worker,
whose rows make one gradient; GAE between the n-step returns of the paper (``gae_lambda`` 1) and one-step ones.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from ..core import api
from ..rllib import streams
from ..rllib.actor_critic_learner import single_learner
from ..rllib.algorithm import Algorithm
from ..rllib.config import AlgorithmConfig, RolloutSettings, require
from ..rllib.learner_groups.gradient_worker import Advance, Advanced, GradientWorker, Job
from ..rllib.learner_groups.learner_group import let_others_finish
from ..rllib.learner_groups.parameter_shard import Mode, ShardSettings
from ..rllib.learner_groups.replica import mean_of_steps
from ..rllib.learner_groups.served_policy import ServedPolicy
from ..rllib.learner_groups.staleness import StalenessHistogram
from ..rllib.learning.advantages import gae
from ..rllib.learning.learner import DivergedError
from ..rllib.learning.schedules import scheduled
from ..rllib.policies.initial_weights import initial_weights
from ..rllib.policies.policy_spec import NetworkSettings, PolicySpec
from ..rllib.rollouts.batch import Batch
from ..rllib.rollouts.env_runner import EnvRunner
from ..rllib.rollouts.evaluation import Evaluation
from ..rllib.training.checkpoints import Checkpoint
from ..rllib.worker_set import Completed
from .appo import policy_gradient_loss
from .appo_gradients import policy_gradients


@dataclass(frozen=True, kw_only=True)
class ActorCriticSettings:
    """What A2C and A3C can both be told."""

    rollout_steps: int = 16
    """Steps of each environment copy between two gradients (t_max in the paper)."""

    learning_rate: float = 2e-3
    """Adam's step size, at the start if a schedule changes it."""

    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    """linear falls to 0 over the run."""

    adam_epsilon: float = 1e-5
    """Keeps Adam's steps finite where gradients vanish."""

    gamma: float = 0.99
    """Discount of rewards, per step."""

    gae_lambda: float = 0.95
    """Decay of the advantage estimator's trace: 1 is the paper's n-step return."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus; keeps exploration alive. The paper has 0.01."""

    value_coef: float = 0.5
    """Weight of the critic's loss, the mean squared error."""

    max_grad_norm: float | None = 0.5
    """Gradients are scaled down to this global norm; None leaves them."""

    num_shards: int = 1
    """Parts of the weights, each in a process of its own that takes their steps; for large nets."""


@dataclass(frozen=True, kw_only=True)
class A2CConfig(ActorCriticSettings, NetworkSettings, RolloutSettings, AlgorithmConfig):
    """Settings of A2C."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)


@dataclass(frozen=True, kw_only=True)
class A3CConfig(ActorCriticSettings, NetworkSettings, RolloutSettings, AlgorithmConfig):
    """Settings of A3C."""

    learning_rate: float = 7e-4
    """Adam's step size, at the start if a schedule changes it. Smaller than A2C's: each gradient is a step, of the rows
    of one worker."""

    staleness: int | None = None
    """How many rollouts a worker may be ahead of the slowest; None: as many as may be, nobody waits."""

    iteration_steps: int = 2048
    """Environment steps of an iteration, at least: what a row of progress.csv tells of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self)
        require(self, "staleness", self.staleness is None or self.staleness >= 0, "None or at least 0")
        require(self, "iteration_steps", self.iteration_steps >= 1, "at least 1")


def _check(config: A2CConfig | A3CConfig) -> None:
    """Look at the values that both have.

    Raises:
      ConfigError: one is out of range.
    """
    config.check_rollouts(config.num_workers)
    config.check_network()
    for field in ("rollout_steps", "num_shards"):
        require(config, field, getattr(config, field) >= 1, "at least 1")
    for field in ("learning_rate", "adam_epsilon"):
        require(config, field, getattr(config, field) > 0.0, "greater than 0")
    for field in ("gamma", "gae_lambda"):
        require(config, field, 0.0 <= getattr(config, field) <= 1.0, "from 0 to 1")
    for field in ("entropy_coef", "value_coef"):
        require(config, field, getattr(config, field) >= 0.0, "at least 0")
    limit = config.max_grad_norm
    require(config, "max_grad_norm", limit is None or limit > 0.0, "None or greater than 0")
    require(config, "recurrent", config.recurrent == "none", "none: workers that learn have no memory")
    require(config, "device", config.device in ("auto", "cpu"), "auto or cpu: the workers learn, each on a CPU")
    require(config, "compile", not config.compile, "False: the workers learn, each by itself")
    require(config, "inference", config.inference == "local", "local: each worker acts with weights that it has pulled")


def estimates(batch: Batch, *, gamma: float, lam: float) -> dict[str, np.ndarray]:
    """Advantages and returns of a rollout, [T, B] each."""
    advantages, returns = gae(
        batch.rewards,
        batch.values,
        batch.next_values,
        batch.terminated,
        batch.truncated,
        batch.valid,
        gamma=gamma,
        lam=lam,
    )
    return {"advantages": advantages, "returns": returns}


class A2C(Algorithm[A2CConfig]):
    """All workers' gradients are one step."""

    name: ClassVar[str] = "a2c"
    Config: ClassVar[type[AlgorithmConfig]] = A2CConfig
    learner: ServedPolicy

    def runner_class(self) -> type[EnvRunner]:
        return GradientWorker

    def build_learner(self) -> ServedPolicy:
        config = self.config
        spec = self.policy_spec(config.network_settings())
        settings = ShardSettings(config.num_workers, epsilon=config.adam_epsilon, awaits_scale=True)
        served = _served(config, spec, settings)
        self._job = api.put(_job(config, served, max_grad_norm=None))  # the mean is clipped, not each gradient
        return served

    def step(self) -> dict[str, float]:
        """A gradient of each worker, from the same weights, and the step that is their mean.

        Raises:
          DivergedError: a gradient is not finite; the weights are as they were, and nothing was counted.
        """
        config, progress = self.config, self.steps / self.config.total_steps
        started = time.monotonic()
        orders = [
            Advance(
                self._job,
                step=clock,
                num_steps=config.rollout_steps,
                rollout=self.iteration,
                settings=_loss_settings(config),
                learning_rate=_learning_rate(config, progress),
            )
            for clock in self.learner.clocks
        ]
        try:
            found: list[Advanced] = self.workers.map("advance", [(order,) for order in orders])
        except DivergedError:
            let_others_finish(self.workers)
            self.workers.map("forgive", [()] * len(self.workers))
            self.learner.give_up()
            raise
        norm = self.learner.apply([each.squared_norms for each in found], config.max_grad_norm)
        for worker, advanced in enumerate(found):
            self.learned_where_played(worker, advanced)
        self.iteration += 1
        self.broadcast()
        return _row(self.report(), found, time.monotonic() - started) | {
            "learner/grad_norm": norm,
            "learner/learning_rate": orders[0].learning_rate,
        }


class A3C(Algorithm[A3CConfig]):
    """Each worker's gradient is a step, as it comes."""

    name: ClassVar[str] = "a3c"
    Config: ClassVar[type[AlgorithmConfig]] = A3CConfig
    learner: ServedPolicy

    def runner_class(self) -> type[EnvRunner]:
        return GradientWorker

    def build_learner(self) -> ServedPolicy:
        config = self.config
        spec = self.policy_spec(config.network_settings())
        mode: Mode = "asynchronous" if config.staleness is None else "bounded"
        bound = config.staleness or 0
        settings = ShardSettings(config.num_workers, mode, staleness=bound, epsilon=config.adam_epsilon)
        served = _served(config, spec, settings)
        self._job = api.put(_job(config, served, max_grad_norm=config.max_grad_norm))
        self._finished = list(served.clocks)  # rollouts of each worker that have been learned from
        self._staleness = StalenessHistogram()
        self.workers.max_in_flight = 2  # the next is there when a worker has finished one
        return served

    def step(self) -> dict[str, float]:
        """Let the workers go on until they have played so many steps; they go on behind it, too.

        Raises:
          DivergedError: a gradient is not finite, and was not pushed; those of all others are.
        """
        started, until = time.monotonic(), self.steps + self.config.iteration_steps
        found: list[Advanced] = []
        self._ask_all()
        try:
            for completed in self.workers.completed():
                found.append(self._take(completed))
                self._ask_all()
                if self.steps >= until:
                    break
        except DivergedError:
            self._give_up()
            raise
        self.iteration += 1
        self.broadcast()
        row = _row(self.report(), found, time.monotonic() - started)
        row |= {f"learners/{name}": count for name, count in self._staleness.counters().items()}
        return row | {"learner/learning_rate": self._learning_rate()}

    def checkpoint(self) -> Checkpoint:
        """As in ``Algorithm``; waits for the rollouts that are under way, whose gradients are in the weights."""
        self._settle()
        return super().checkpoint()

    def evaluate(self, episodes: int) -> Evaluation:
        self._settle()
        return super().evaluate(episodes)

    def restore(self, checkpoint: Checkpoint) -> None:
        self._settle()
        super().restore(checkpoint)
        self._finished = list(self.learner.clocks)

    def _ask_all(self) -> None:
        """Everybody who may play on is asked to, as far ahead of the slowest as the bound lets it."""
        config, clocks, bound = self.config, self.learner.clocks, self.config.staleness
        for worker in range(len(self.workers)):
            while self.workers.in_flight(worker) < self.workers.max_in_flight and (
                bound is None or clocks[worker] - min(self._finished) <= bound
            ):
                order = Advance(
                    self._job,
                    step=clocks[worker],
                    num_steps=config.rollout_steps,
                    rollout=self.next_rollout(),
                    settings=_loss_settings(config),
                    learning_rate=self._learning_rate(),
                )
                self.workers.submit(worker, "advance", order)
                clocks[worker] += 1

    def _take(self, completed: Completed) -> Advanced:
        """A gradient has been pushed."""
        advanced: Advanced = completed.value
        self._finished[completed.worker] += 1
        self._staleness.add(advanced.staleness)
        self.learned_where_played(completed.worker, advanced)
        return advanced

    def _settle(self) -> None:
        """Until nobody plays; then what the driver has of the policy is the newest."""
        try:
            for completed in self.workers.completed():
                self._take(completed)
        except DivergedError:
            self._give_up()
            raise
        self.broadcast()

    def _give_up(self) -> None:
        """A worker has diverged: take what the others push, and go on where each stands then."""
        while any(self.workers.in_flight(worker) for worker in range(len(self.workers))):
            with contextlib.suppress(DivergedError):  # one has been told of
                for completed in self.workers.completed():
                    self._take(completed)
        self.workers.map("forgive", [()] * len(self.workers))
        self.learner.read_clocks()
        self._finished = list(self.learner.clocks)

    def _learning_rate(self) -> float:
        return _learning_rate(self.config, min(self.steps / self.config.total_steps, 1.0))


def _served(config: A2CConfig | A3CConfig, spec: PolicySpec, settings: ShardSettings) -> ServedPolicy:
    """The policy with fresh weights, in a parameter server.

    Raises:
      ConfigError: this machine has too little memory for it.
    """
    spec.check_size()
    weights = initial_weights(spec, streams.weight_seed(config.seed))
    return ServedPolicy(spec, weights, settings, num_shards=config.num_shards)


def _job(config: A2CConfig | A3CConfig, served: ServedPolicy, *, max_grad_norm: float | None) -> Job:
    """What the workers do."""
    make = partial(
        single_learner,
        replace(config, device="cpu"),
        served.spec,
        policy_gradient_loss,
        policy_gradients,
        minibatch_size=config.rollout_steps * config.num_envs // config.num_workers,
        learning_rate=config.learning_rate,
        adam_epsilon=config.adam_epsilon,
        max_grad_norm=None,
        most_threads=1,
    )
    return Job(
        served.spec,
        make,
        partial(estimates, gamma=config.gamma, lam=config.gae_lambda),
        served.client(),
        math.inf if max_grad_norm is None else max_grad_norm,
    )


def _loss_settings(config: A2CConfig | A3CConfig) -> dict[str, float]:
    return {"value_coef": config.value_coef, "entropy_coef": config.entropy_coef}


def _learning_rate(config: A2CConfig | A3CConfig, progress: float) -> float:
    return scheduled(config.learning_rate, config.learning_rate_schedule, progress)


def _row(report: Mapping[str, float], found: Sequence[Advanced], seconds: float) -> dict[str, float]:
    """What there is to tell of an iteration: of the gradients, the means."""
    means = mean_of_steps([each.metrics for each in found])
    told = {f"learner/{name}": value for name, value in means.items() if not name.startswith("approx_kl")}
    return {**report, **told, "learner/gradients": len(found), "time/iteration_s": seconds}
