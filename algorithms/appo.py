"""Asynchronous proximal policy optimisation: the actors and the learner of IMPALA (Espeholt et al. 2018,
arXiv:1802.01561) with the clipped surrogate of PPO (Schulman et al. 2017), as in RLlib's APPO and in Sample Factory
(Petrenko et al. 2020, arXiv:2006.11751). Without a clip (``clip_range`` None) it is IMPALA.

    workers:  segment, segment, segment, ...                always busy, with the newest weights when it was asked for
    learner:           batch of segments -> V-trace -> passes of gradient steps -> weights -> batch ...

Nobody waits for anybody but the learner for a batch, and for whoever lags by more than ``max_lag``. So segments are of
policies some versions old, and V-trace corrects for it, with the log-probabilities and values that the policy gives
before the passes. Around this policy the surrogate is clipped, and not around the one that acted: a ratio is 1 at the
first gradient step, which is V-trace's policy gradient (section 4.2), whatever the lag (Hilton et al. 2021,
arXiv:2110.00641, "decoupled"). Where nothing lags this is PPO, to the last bit of an update.

What comes when depends on the clock: with workers of their own, two runs of the same seed differ.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..rllib import streams
from ..rllib.actor_critic_learner import actor_critic_learner
from ..rllib.algorithm import Algorithm
from ..rllib.config import AlgorithmConfig, RolloutSettings, require
from ..rllib.learner_groups.learner_settings import SharingSettings, check_sharing
from ..rllib.learning.advantages import explained_variance, normalized
from ..rllib.learning.learner import Columns, Learner, Metrics
from ..rllib.learning.minibatches import Sequences, minibatches, samples
from ..rllib.learning.schedules import scheduled
from ..rllib.learning.vtrace import vtrace
from ..rllib.policies.modules import ActorCritic
from ..rllib.policies.normalization import normalized as normalized_observations
from ..rllib.policies.policy import Policy
from ..rllib.policies.policy_spec import NetworkSettings
from ..rllib.rollouts.batch import Batch, concatenate
from ..rllib.rollouts.collection import Segment
from ..rllib.rollouts.rollout import Reevaluated, reevaluated
from ..rllib.training.checkpoints import Checkpoint
from .appo_gradients import policy_gradients
from .ppo import ppo_loss
from .ppo_gradients import ppo_gradients

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class APPOConfig(SharingSettings, NetworkSettings, RolloutSettings, AlgorithmConfig):
    """Settings of APPO."""

    rollout_steps: int = 64
    """Steps of each environment copy in a segment (T), which is what a worker sends. Shorter ones lag less, and are
    bootstrapped sooner."""

    train_batch_size: int = 1024
    """Rows of a batch, at least: the learner takes segments until there are so many."""

    num_epochs: int = 4
    """Passes over each batch before its segments are let go; 1 without a clip, for a plain gradient is right once."""

    replay_batches: int = 0
    """How many of the last batches are learned from again beside each new one, with V-trace for the policy as it is
    then: for environments that are slow (IMPALA, section 5.2.2). A run that is resumed begins with none."""

    minibatch_size: int = 256
    """Samples of one gradient step."""

    max_in_flight: int = 2
    """Requests in flight on each worker. With 2 a worker begins the next segment while the learner is busy; more make
    the weights older that it begins with."""

    max_lag: int | None = 8
    """Most versions of the weights between those that acted and those that learn: for what would lag more the learner
    waits. None: no bound."""

    learning_rate: float = 1e-3
    """Adam's step size, at the start if a schedule changes it."""

    learning_rate_schedule: Literal["linear", "constant"] = "linear"
    """linear falls to 0 over the run."""

    adam_epsilon: float = 1e-5
    """Keeps Adam's steps finite where gradients vanish; larger than torch's 1e-8, as in PPO."""

    gamma: float = 0.99
    """Discount of rewards, per step."""

    vtrace_lambda: float = 0.9
    """Decay of the trace: 0 trusts the critic, 1 the sampled returns as far as c_bar lets them through, as IMPALA."""

    rho_bar: float = 1.0
    """Cut of a step's importance weight: what policy the critic values, between the one that acted and, without bound,
    the one that learns."""

    c_bar: float = 1.0
    """Cut of the weights by which a step counts for those before it, at most rho_bar: less variance, slower."""

    clip_range: float | None = 0.2
    """How far a probability ratio may move from 1 in the passes over a batch before its gradient is cut off. None is
    IMPALA's plain policy gradient."""

    clip_range_schedule: Literal["linear", "constant"] = "linear"
    """linear falls to 0 over the run."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus; keeps exploration alive."""

    entropy_schedule: Literal["linear", "constant"] = "constant"
    """linear lets the weight of the entropy bonus fall to 0 over the run."""

    value_coef: float = 0.5
    """Weight of the critic's loss, the mean squared error."""

    max_grad_norm: float | None = 0.5
    """Gradients are scaled down to this global norm; None leaves them."""

    normalize_advantages: Literal["minibatch", "batch", "off"] = "minibatch"
    """Shift and scale advantages to mean 0 and deviation 1: within each minibatch, or once over the batch."""

    normalize_observations: bool = False
    """Shift and scale observations by the mean and deviation of all seen so far; for robots and the like."""

    normalize_rewards: bool = False
    """Divide the rewards that are learned from by the deviation of their discounted sum; where these are far from 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_rollouts(self.num_workers)
        for field in ("rollout_steps", "train_batch_size", "num_epochs", "minibatch_size", "max_in_flight"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        for field in ("learning_rate", "adam_epsilon", "rho_bar", "c_bar"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        for field in ("clip_range", "max_grad_norm"):
            value = getattr(self, field)
            require(self, field, value is None or value > 0.0, "None or greater than 0")
        for field in ("gamma", "vtrace_lambda"):
            require(self, field, 0.0 <= getattr(self, field) <= 1.0, "from 0 to 1")
        for field in ("entropy_coef", "value_coef"):
            require(self, field, getattr(self, field) >= 0.0, "at least 0")
        require(self, "replay_batches", self.replay_batches >= 0, "at least 0")
        require(self, "max_lag", self.max_lag is None or self.max_lag >= 0, "None or at least 0")
        require(self, "c_bar", self.c_bar <= self.rho_bar, f"at most rho_bar ({self.rho_bar})")
        is_plain = self.clip_range is None
        require(self, "num_epochs", self.num_epochs == 1 or not is_plain, "1 without a clip_range")
        if self.compile:
            require(self, "recurrent", self.recurrent == "none", "none with compile: its minibatches differ in shape")
            most = self.train_batch_size
            require(self, "minibatch_size", self.minibatch_size <= most, f"at most train_batch_size ({most})")
        self.check_network()
        check_sharing(self, self, is_recurrent=self.recurrent != "none")


def policy_gradient_loss(
    policy: ActorCritic, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The three terms of IMPALA, section 4.2, with the sign of a loss: policy gradient, critic, entropy bonus.

    Args:
      policy: What learns.
      minibatch: Rows of ``minibatches.py``: observations, actions [N, W], log_probs [N] of the policy before the pass,
        advantages [N] of ``vtrace``, with their weights; returns [N], its targets.
      settings: value_coef, entropy_coef.

    Returns:
      The loss; and policy_loss, value_loss, entropy, approx_kl, approx_kl_k1 as ``ppo_loss`` has them, detached.
    """
    log_probs, entropies, values = policy.evaluate_actions(minibatch)
    policy_loss = -(log_probs * minibatch["advantages"]).mean()
    value_loss = (values - minibatch["returns"]).square().mean()
    entropy = entropies.mean()
    loss = policy_loss + settings["value_coef"] * value_loss - settings["entropy_coef"] * entropy
    log_ratio = (log_probs - minibatch["log_probs"]).detach()
    return loss, {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy": entropy.detach(),
        "approx_kl": (log_ratio.exp() - 1.0 - log_ratio).mean(),
        "approx_kl_k1": -log_ratio.mean(),
    }


class APPO(Algorithm[APPOConfig]):
    """Workers play on while the learner takes its passes over what has come."""

    name: ClassVar[str] = "appo"
    learner: Learner
    Config: ClassVar[type[AlgorithmConfig]] = APPOConfig

    def build_learner(self) -> Learner:
        config = self.config
        spec = self.policy_spec(config.network_settings())
        self._moments, self._reward_scaler = self.keep_statistics(
            spec, observations=config.normalize_observations, rewards=config.normalize_rewards, gamma=config.gamma
        )
        self.schedules["learning_rate"] = config.learning_rate
        self._past: deque[Batch] = deque(maxlen=config.replay_batches)
        self.collection = self.dynamic_collection(
            config.rollout_steps, max_in_flight=config.max_in_flight, max_lag=config.max_lag
        )
        is_clipped = config.clip_range is not None
        return actor_critic_learner(
            config,
            spec,
            ppo_loss if is_clipped else policy_gradient_loss,
            ppo_gradients if is_clipped else policy_gradients,
            minibatch_size=config.minibatch_size,
            learning_rate=config.learning_rate,
            adam_epsilon=config.adam_epsilon,
            max_grad_norm=config.max_grad_norm,
            sharing=config,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        super().restore(checkpoint)
        self._past.clear()

    def step(self) -> dict[str, float]:
        """Take what has come, at least a batch, learn from it, and publish the weights."""
        config = self.config
        progress = self.steps / config.total_steps
        started = time.monotonic()

        assert self.collection is not None
        segments = self.collection.take(config.train_batch_size)
        batch = concatenate([segment.batch for segment in segments], versions_may_differ=True)
        collected = time.monotonic()

        settings = {
            "entropy_coef": scheduled(config.entropy_coef, config.entropy_schedule, progress),
            "value_coef": config.value_coef,
        }
        if config.clip_range is not None:
            settings["clip_range"] = scheduled(config.clip_range, config.clip_range_schedule, progress)
        self.schedules["learning_rate"] = scheduled(config.learning_rate, config.learning_rate_schedule, progress)
        batch = replace(batch, rewards=self._rewards(batch, segments))
        replayed = [batch, *self._past]
        metrics = self._learn(concatenate(replayed, versions_may_differ=True) if self._past else batch, settings)
        self._past.append(batch)
        if self._moments is not None:
            self._moments.update(batch.observations)
        self.iteration += 1
        self.broadcast()
        learned = time.monotonic()

        return {
            **self.report(),
            **{f"learner/{name}": value for name, value in metrics.items()},
            **{f"learner/{name}": value for name, value in settings.items() if name != "value_coef"},
            "time/collect_s": collected - started,
            "time/learn_s": learned - collected,
        }

    def _rewards(self, batch: Batch, segments: Sequence[Segment]) -> np.ndarray:
        """[T, B] what is learned from, scaled if that is on."""
        if self._reward_scaler is None:
            return batch.rewards
        ends, copies = batch.terminated | batch.truncated, self.fleet.copies_of(segments)
        return self._reward_scaler(batch.rewards, ends, batch.valid, copies, begins=batch.starts[0])

    def _learn(self, batch: Batch, settings: Mapping[str, float]) -> dict[str, float]:
        """The passes over one batch.

        Args:
          batch: Segments side by side, new ones and those that are replayed; rewards scaled if that is on.
          settings: Of the loss.

        Returns:
          The mean of each metric, and what ``_estimates`` tells.
        """
        config = self.config
        observations = batch.observations
        if self._moments is not None:
            observations = normalized_observations(observations, self._moments.normalizers())
        now = self._as_seen_now(batch)
        estimates, told = self._estimates(batch, now)
        rows = self.learner.to_device(samples(batch, observations, **estimates))
        if config.normalize_advantages == "batch":
            rows["advantages"] = normalized(rows["advantages"])
        sequences = None
        if batch.states is not None:
            sequences = Sequences.of(replace(batch, states=now.states), config.sequence_length)
        shuffle = streams.minibatch_stream(config.seed, self.iteration)
        self.learner.set_learning_rate(self.schedules["learning_rate"])
        steps = [
            self._update(minibatch, settings)
            for _ in range(config.num_epochs)
            for minibatch in minibatches(rows, config.minibatch_size, shuffle, sequences)
        ]
        return {**self.learner.means(steps), **self.schedules, **told, "gradient_steps": len(steps)}

    def _as_seen_now(self, batch: Batch) -> Reevaluated:
        """What the policy makes of a batch before it learns from it."""
        if batch.version == self.iteration:  # these weights acted, in all of it
            return Reevaluated(batch.log_probs, batch.values, batch.next_values, batch.states)
        return reevaluated(batch, Policy(self.weights()))

    def _estimates(self, batch: Batch, now: Reevaluated) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What to learn from a batch.

        Args:
          batch: As for ``_learn``.
          now: The batch as the policy sees it.

        Returns:
          Columns [T, B]: log_probs and values of the policy as it is, V-trace's advantages and targets. And metrics:
          rho_mean; acting_kl, the divergence from the policies that acted; explained_variance.
        """
        config = self.config
        log_ratios = now.log_probs - batch.log_probs
        traced = vtrace(
            batch.rewards,
            now.values,
            now.next_values,
            log_ratios,
            batch.terminated,
            batch.truncated,
            batch.valid,
            gamma=config.gamma,
            lam=config.vtrace_lambda,
            rho_bar=config.rho_bar,
            c_bar=config.c_bar,
        )
        columns = {
            "log_probs": now.log_probs,
            "values": now.values,
            "advantages": traced.advantages,
            "returns": traced.targets,
        }
        apart = batch.rows(log_ratios)
        return columns, {
            "rho_mean": float(batch.rows(traced.rhos).mean()),
            "acting_kl": float((np.exp(apart) - 1.0 - apart).mean()),
            "explained_variance": explained_variance(batch.rows(now.values), batch.rows(traced.targets)),
        }

    def _update(self, minibatch: Columns, settings: Mapping[str, float]) -> Metrics:
        """One gradient step."""
        if self.config.normalize_advantages == "minibatch":
            minibatch["advantages"] = normalized(minibatch["advantages"])
        return self.learner.update(minibatch, settings)
