"""Proximal policy optimisation, Schulman et al. 2017 (arXiv:1707.06347), with the details that matter in practice
(Huang et al. 2022, "The 37 implementation details of PPO"; numbers in comments are theirs).

Reads from top to bottom: settings, loss (eq. 7 and 9), one iteration. Every detail that is a matter of choice is a
setting, whose default is the original's (OpenAI baselines) but where its docstring says why not. What deviates on
purpose: an episode cut by a time limit is bootstrapped with the value of its true last observation (see
``envs/vector.py``), and the value loss is not clipped (Andrychowicz et al. 2021: it hurts).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..rllib import streams
from ..rllib.actor_critic_learner import actor_critic_learner
from ..rllib.algorithm import Algorithm
from ..rllib.config import AlgorithmConfig, RolloutSettings, require
from ..rllib.external_settings import ExternalSettings, is_external
from ..rllib.learner_groups.learner_settings import SharingSettings, check_sharing
from ..rllib.learning.advantages import explained_variance, gae, normalized
from ..rllib.learning.learner import Columns, Learner, Metrics
from ..rllib.learning.minibatches import Sequences, minibatches, samples
from ..rllib.learning.schedules import adapted_to_divergence, scheduled
from ..rllib.policies.modules import ActorCritic
from ..rllib.policies.normalization import normalized as normalized_observations
from ..rllib.policies.policy import Policy
from ..rllib.policies.policy_spec import NetworkSettings
from ..rllib.rollouts.batch import Batch, concatenate
from ..rllib.rollouts.rollout import revalued
from .ppo_gradients import ppo_gradients

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PPOConfig(ExternalSettings, SharingSettings, NetworkSettings, RolloutSettings, AlgorithmConfig):
    """Settings of PPO."""

    rollout_steps: int = 128
    """Steps of each environment copy between two updates (T)."""

    collect: Literal["synchronous", "dynamic"] = "synchronous"
    """synchronous waits for all workers in each iteration. dynamic takes rollouts as they come until there are
    rollout_steps * num_envs rows, and workers play on while the learner learns: nobody waits for the slowest, but the
    curve is no longer the same each time."""

    max_in_flight: int = 1
    """With dynamic, how many rollouts each worker is asked for at once. 2 keeps it busy where the learner is slow, with
    weights that are older."""

    max_lag: int = 2
    """With dynamic, how many iterations older than the learner's the weights that acted may be. At the bound the
    learner waits for the laggard; 0 waits for all, like synchronous. With env external older steps are dropped, and
    nobody acts ahead of use; at 0 simulators wait while the learner learns."""

    num_epochs: int = 10
    """Passes over the samples of an iteration."""

    minibatch_size: int = 256
    """Samples of one gradient step."""

    learning_rate: float = 1e-3
    """Adam's step size, at the start if a schedule changes it. The original's 2.5e-4 for Atari and 3e-4 for robots are
    for millions of steps; small control tasks are learned sooner with this."""

    learning_rate_schedule: Literal["linear", "constant", "adaptive"] = "linear"
    """linear falls to 0 over the run; adaptive follows the KL divergence of each epoch, see desired_kl."""

    desired_kl: float = 0.008
    """For the adaptive learning rate: it falls by a third above twice this divergence, and rises by half below half."""

    adam_epsilon: float = 1e-5
    """Keeps Adam's steps finite where gradients vanish; larger than torch's 1e-8, as in the original."""

    gamma: float = 0.99
    """Discount of rewards, per step."""

    gae_lambda: float = 0.9
    """Decay of the advantage estimator's trace: 0 trusts the critic, 1 the sampled returns. The original has 0.95;
    small control tasks are learned sooner with this."""

    clip_range: float = 0.2
    """How far the new policy's probability ratio may move from 1 before its gradient is cut off."""

    clip_range_schedule: Literal["linear", "constant"] = "linear"
    """linear falls to 0 over the run, as the original's does for Atari; for robots that stays constant."""

    dual_clip: float | None = None
    """Cut off the loss at this multiple of a negative advantage, too (Ye et al. 2020); None or above 1, 3 is usual."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus; keeps exploration alive."""

    entropy_schedule: Literal["linear", "constant"] = "constant"
    """linear lets the weight of the entropy bonus fall to 0 over the run."""

    value_coef: float = 0.5
    """Weight of the critic's loss, the mean squared error; the original halves that error besides."""

    value_clip_range: float | None = None
    """How far a value may move from its estimate before its gradient is cut off. The original clips like the policy;
    off here, for it helps nobody (Engstrom et al. 2020) and hurts where returns are not normalised."""

    max_grad_norm: float | None = 0.5
    """Gradients are scaled down to this global norm; None leaves them."""

    normalize_advantages: Literal["minibatch", "batch", "off"] = "minibatch"
    """Shift and scale advantages to mean 0 and deviation 1: within each minibatch, or once over the rollout."""

    recompute_advantages: bool = False
    """Estimate advantages and returns anew before each epoch, with the critic as it is then: helps on MuJoCo
    (Tianshou)."""

    normalize_observations: bool = False
    """Shift and scale observations by the mean and deviation of all seen so far; for robots and the like."""

    normalize_rewards: bool = False
    """Divide the rewards that are learned from by the deviation of their discounted sum; where these are far from 1."""

    target_kl: float | None = None
    """Stop the passes of an iteration once an epoch's mean KL divergence from the old policy exceeds this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        is_inside = not is_external(self)
        self.check_external(self)
        self.check_rollouts(self.num_workers if is_inside else 1)
        for field in ("rollout_steps", "num_epochs", "minibatch_size"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        require(self, "max_in_flight", self.max_in_flight >= 1, "at least 1")
        require(self, "max_lag", self.max_lag >= 0, "at least 0")
        if self.collect == "synchronous" and is_inside:
            for field in ("max_in_flight", "max_lag"):
                usual = type(self).__dataclass_fields__[field].default
                require(self, field, getattr(self, field) == usual, f"{usual} where collect is synchronous")
        for field in ("learning_rate", "desired_kl", "adam_epsilon", "clip_range"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        for field in ("value_clip_range", "max_grad_norm", "target_kl"):
            value = getattr(self, field)
            require(self, field, value is None or value > 0.0, "None or greater than 0")
        require(self, "dual_clip", self.dual_clip is None or self.dual_clip > 1.0, "None or greater than 1")
        for field in ("gamma", "gae_lambda"):
            require(self, field, 0.0 <= getattr(self, field) <= 1.0, "from 0 to 1")
        for field in ("entropy_coef", "value_coef"):
            require(self, field, getattr(self, field) >= 0.0, "at least 0")
        if self.compile:
            require(self, "recurrent", self.recurrent == "none", "none with compile: its minibatches differ in shape")
            most = self.rollout_steps * self.num_envs
            require(self, "minibatch_size", self.minibatch_size <= most, f"at most {most}, a rollout, with compile")
        self.check_network()
        check_sharing(self, self, is_recurrent=self.recurrent != "none")


def ppo_loss(
    policy: ActorCritic, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The clipped surrogate with critic loss and entropy bonus, eq. 9 of the paper with its sign turned.

    Args:
      policy: What learns.
      minibatch: Rows of ``minibatches.py``: observations, actions [N, W], log_probs [N] of the policy that acted,
        advantages [N], returns [N], values [N] of the critic before the epochs.
      settings: clip_range, value_coef, entropy_coef; dual_clip and value_clip_range where these are on.

    Returns:
      The loss; and policy_loss, value_loss, entropy, approx_kl (unbiased and never negative, Schulman's k3),
      approx_kl_k1, clip_fraction, detached.
    """
    log_probs, entropies, values = policy.evaluate_actions(minibatch)
    log_ratio = log_probs - minibatch["log_probs"]
    ratio = log_ratio.exp()
    clip_range = settings["clip_range"]
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    advantages = minibatch["advantages"]
    surrogate = (ratio * advantages).minimum(clipped * advantages)
    if "dual_clip" in settings:  # Ye et al. 2020, eq. 3: where A < 0 a large ratio would pull without bound
        surrogate = surrogate.where(advantages >= 0.0, surrogate.maximum(settings["dual_clip"] * advantages))
    policy_loss = -surrogate.mean()
    squared_errors = (values - minibatch["returns"]).square()
    if "value_clip_range" in settings:  # detail 9
        limit, before = settings["value_clip_range"], minibatch["values"]
        near = before + (values - before).clamp(-limit, limit)
        squared_errors = squared_errors.maximum((near - minibatch["returns"]).square())
    value_loss = squared_errors.mean()
    entropy = entropies.mean()
    loss = policy_loss + settings["value_coef"] * value_loss - settings["entropy_coef"] * entropy
    ratio, log_ratio = ratio.detach(), log_ratio.detach()
    return loss, {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy": entropy.detach(),
        "approx_kl": (ratio - 1.0 - log_ratio).mean(),
        "approx_kl_k1": -log_ratio.mean(),
        "clip_fraction": ((ratio - 1.0).abs() > clip_range).float().mean(),
    }


class PPO(Algorithm[PPOConfig]):
    """PPO: all workers sample with the newest weights, then the learner takes its epochs. Collecting dynamically, some
    rollouts are of older weights; the ratios are to the policy that acted, whichever it was.
    """

    name: ClassVar[str] = "ppo"
    learner: Learner
    Config: ClassVar[type[AlgorithmConfig]] = PPOConfig

    def build_learner(self) -> Learner:
        config = self.config
        spec = self.policy_spec(config.network_settings())
        self._moments, self._reward_scaler = self.keep_statistics(
            spec, observations=config.normalize_observations, rewards=config.normalize_rewards, gamma=config.gamma
        )
        self.schedules["learning_rate"] = config.learning_rate
        if is_external(config):
            self.external = self.external_collection(config.rollout_steps * config.num_envs, max_lag=config.max_lag)
        elif config.collect == "dynamic":
            self.collection = self.dynamic_collection(
                config.rollout_steps, max_in_flight=config.max_in_flight, max_lag=config.max_lag
            )
        return actor_critic_learner(
            config,
            spec,
            ppo_loss,
            ppo_gradients,
            minibatch_size=config.minibatch_size,
            learning_rate=config.learning_rate,
            adam_epsilon=config.adam_epsilon,
            max_grad_norm=config.max_grad_norm,
            sharing=config,
        )

    def step(self) -> dict[str, float]:
        config = self.config
        progress = self.steps / config.total_steps
        started = time.monotonic()

        copies: np.ndarray | None = None
        if self.external is not None:
            batch = self.external.take(self.learner.spec, self.iteration)
        elif self.collection is None:
            batch = self.collect(config.rollout_steps)
        else:
            segments = self.collection.take(config.rollout_steps * config.num_envs)
            batch = concatenate([segment.batch for segment in segments], versions_may_differ=True)
            copies = self.fleet.copies_of(segments)
        collected = time.monotonic()

        settings = {
            "clip_range": scheduled(config.clip_range, config.clip_range_schedule, progress),
            "entropy_coef": scheduled(config.entropy_coef, config.entropy_schedule, progress),
            "value_coef": config.value_coef,
        }
        settings |= {name: value for name in _OPTIONAL if (value := getattr(config, name)) is not None}
        if config.learning_rate_schedule != "adaptive":
            self.schedules["learning_rate"] = scheduled(config.learning_rate, config.learning_rate_schedule, progress)
        metrics = self._learn(batch, settings, copies)
        if self._moments is not None:
            # Rows of simulators that are not valid are nobody's observations; those of environments were seen.
            seen = batch.observations
            self._moments.update(seen if self.external is None else {name: batch.rows(seen[name]) for name in seen})
        self.iteration += 1
        self.broadcast()
        learned = time.monotonic()

        return {
            **self.report(),
            **{f"learner/{name}": value for name, value in metrics.items()},
            "learner/clip_range": settings["clip_range"],
            "learner/entropy_coef": settings["entropy_coef"],
            "time/collect_s": collected - started,
            "time/learn_s": learned - collected,
        }

    def _learn(self, batch: Batch, settings: Mapping[str, float], copies: np.ndarray | None) -> dict[str, float]:
        """The epochs over one batch. Gives the mean of each metric, and how much the critic explained before them.

        Args:
          batch: Rollouts side by side.
          settings: Of the loss.
          copies: [B] which copy of the environment each column is of; None: each once, in order.
        """
        config = self.config
        observations = batch.observations
        if self._moments is not None:  # the workers acted on what these same statistics gave, or somewhat older ones
            observations = normalized_observations(observations, self._moments.normalizers())
        rewards = batch.rewards
        if self._reward_scaler is not None:
            ends = batch.terminated | batch.truncated
            rewards = self._reward_scaler(rewards, ends, batch.valid, copies, batch.starts[0])
        estimates = self._estimates(batch, rewards, batch.values, batch.next_values)
        rows = self._to_device(samples(batch, observations) | estimates)
        sequences = None if batch.states is None else Sequences.of(batch, config.sequence_length)
        shuffle = streams.minibatch_stream(config.seed, self.iteration)
        steps: list[Metrics] = []
        epochs = 0
        while epochs < config.num_epochs:
            if epochs and config.recompute_advantages:
                rows |= self._to_device(self._estimates(batch, rewards, *self._values_now(batch)))
            self.learner.set_learning_rate(self.schedules["learning_rate"])
            epoch = [
                self._update(minibatch, settings)
                for minibatch in minibatches(rows, config.minibatch_size, shuffle, sequences)
            ]
            steps += epoch
            epochs += 1
            divergence = self.learner.means(epoch)["approx_kl"] if self._watches_divergence else 0.0
            if config.learning_rate_schedule == "adaptive":
                adapted = adapted_to_divergence(self.schedules["learning_rate"], divergence, config.desired_kl)
                self.schedules["learning_rate"] = adapted
            if config.target_kl is not None and divergence > config.target_kl:
                break
        explained = explained_variance(estimates["values"], estimates["returns"])
        return {
            **self.learner.means(steps),
            **self.schedules,
            "explained_variance": explained,
            "gradient_steps": len(steps),
            "epochs": epochs,
        }

    def _estimates(
        self, batch: Batch, rewards: np.ndarray, values: np.ndarray, next_values: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Advantages and returns, and the values that they are of: the valid rows [N] of each.

        Args:
          batch: The rollout.
          rewards: [T, B], scaled if that is on.
          values, next_values: [T, B] of its observations and their true successors.
        """
        advantages, returns = gae(
            rewards,
            values,
            next_values,
            batch.terminated,
            batch.truncated,
            batch.valid,
            gamma=self.config.gamma,
            lam=self.config.gae_lambda,
        )
        return {"advantages": batch.rows(advantages), "returns": batch.rows(returns), "values": batch.rows(values)}

    def _to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """Samples with their estimates, [N] each, or the estimates alone, for the learner."""
        rows = self.learner.to_device(columns)
        if self.config.normalize_advantages == "batch":
            rows["advantages"] = normalized(rows["advantages"])
        return rows

    def _values_now(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """``values`` and ``next_values`` of the batch, [T, B] each, as the critic sees them now."""
        return revalued(batch, Policy(self.weights()))

    def _update(self, minibatch: Columns, settings: Mapping[str, float]) -> Metrics:
        """One gradient step."""
        if self.config.normalize_advantages == "minibatch":  # detail 7
            minibatch["advantages"] = normalized(minibatch["advantages"])
        return self.learner.update(minibatch, settings)

    @property
    def _watches_divergence(self) -> bool:
        """Whether an epoch's divergence decides anything: reading it makes the driver wait for a GPU."""
        return self.config.target_kl is not None or self.config.learning_rate_schedule == "adaptive"


#: Settings of the loss that are off where they are None.
_OPTIONAL = ("dual_clip", "value_clip_range")
