"""Proximal policy optimisation, Schulman et al. 2017 (arXiv:1707.06347), with the details that matter in practice
(Huang et al. 2022, "The 37 implementation details of PPO"; numbers in comments are theirs).

Reads from top to bottom: settings, loss (eq. 7 and 9), one iteration. What deviates from the original on purpose: an
episode cut by a time limit is bootstrapped with the value of its true last observation (see ``envs/vector.py``), and
the value loss is not clipped (Andrychowicz et al. 2021: it hurts). Flat observations, discrete or continuous actions,
two separate tanh nets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..rllib import learner as learning, streams
from ..rllib.advantages import gae
from ..rllib.algorithm import Algorithm
from ..rllib.batch import Batch
from ..rllib.config import AlgorithmConfig, ConfigError, require
from ..rllib.modules import ActorCritic
from ..rllib.normalization import ObservationNormalizer, RewardScaler, RunningMoments
from ..rllib.schedules import linear

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PPOConfig(AlgorithmConfig):
    """Settings of PPO."""

    rollout_steps: int = 128
    """Steps of each environment copy between two updates (T)."""

    num_epochs: int = 10
    """Passes over the samples of an iteration."""

    minibatch_size: int = 256
    """Samples of one gradient step."""

    learning_rate: float = 1e-3
    """Adam's step size, at the start if it is annealed."""

    anneal_learning_rate: bool = True
    """Let the learning rate fall linearly to 0 over the run."""

    gamma: float = 0.99
    """Discount of rewards, per step."""

    gae_lambda: float = 0.9
    """Decay of the advantage estimator's trace: 0 trusts the critic, 1 the sampled returns."""

    clip_range: float = 0.2
    """How far the new policy's probability ratio may move from 1 before its gradient is cut off."""

    anneal_clip_range: bool = True
    """Let the clip range fall linearly to 0 over the run."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus; keeps exploration alive."""

    value_coef: float = 0.5
    """Weight of the critic's loss."""

    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""

    normalize_advantages: bool = True
    """Shift and scale the advantages of each minibatch to mean 0 and deviation 1."""

    normalize_observations: bool = False
    """Shift and scale observations by the mean and deviation of all seen so far; for robots and the like."""

    normalize_rewards: bool = False
    """Divide the rewards that are learned from by the deviation of their discounted sum; where these are far from 1."""

    target_kl: float | None = None
    """Stop the passes of an iteration once an epoch's mean KL divergence from the old policy exceeds this."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of the policy's and of the critic's net."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("rollout_steps", "num_epochs", "minibatch_size"):
            require(self, field, getattr(self, field) >= 1, "at least 1")
        for field in ("learning_rate", "clip_range", "max_grad_norm"):
            require(self, field, getattr(self, field) > 0.0, "greater than 0")
        for field in ("gamma", "gae_lambda"):
            require(self, field, 0.0 <= getattr(self, field) <= 1.0, "from 0 to 1")
        for field in ("entropy_coef", "value_coef"):
            require(self, field, getattr(self, field) >= 0.0, "at least 0")
        require(self, "target_kl", self.target_kl is None or self.target_kl > 0.0, "None or greater than 0")
        widths_are_right = len(self.hidden_sizes) > 0 and min(self.hidden_sizes) >= 1
        require(self, "hidden_sizes", widths_are_right, "one or more widths of at least 1")


def ppo_loss(
    policy: ActorCritic, minibatch: Mapping[str, torch.Tensor], settings: Mapping[str, float]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The clipped surrogate with critic loss and entropy bonus, eq. 9 of the paper with its sign turned.

    Args:
      policy: What learns.
      minibatch: observations [N, D], actions [N, ...], log_probs [N] of the policy that acted, advantages [N],
        returns [N].
      settings: clip_range, value_coef, entropy_coef.

    Returns:
      The loss; and policy_loss, value_loss, entropy, approx_kl (unbiased and never negative, Schulman's k3),
      approx_kl_k1, clip_fraction, detached.
    """
    log_probs, entropies, values = policy.evaluate_actions(minibatch["observations"], minibatch["actions"])
    log_ratio = log_probs - minibatch["log_probs"]
    ratio = log_ratio.exp()
    clip_range = settings["clip_range"]
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    advantages = minibatch["advantages"]
    policy_loss = -(ratio * advantages).minimum(clipped * advantages).mean()
    value_loss = (values - minibatch["returns"]).square().mean()
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
    """Synchronous PPO: all workers sample with the newest weights, then the learner takes its epochs."""

    name: ClassVar[str] = "ppo"
    Config: ClassVar[type[AlgorithmConfig]] = PPOConfig

    def build_learner(self) -> learning.Learner:
        config = self.config
        try:
            device = learning.resolve_device(config.device)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        spec = self.policy_spec(config.hidden_sizes)
        self._moments = RunningMoments((spec.observation_size,)) if config.normalize_observations else None
        self._reward_scaler = RewardScaler(config.num_envs, config.gamma) if config.normalize_rewards else None
        if self._moments is not None:
            self.normalizers["observations"] = self._moments
        if self._reward_scaler is not None:
            self.normalizers["rewards"] = self._reward_scaler
        policy = ActorCritic(spec, streams.weight_seed(config.seed))
        learning.use_threads(policy, config.minibatch_size)
        return learning.Learner(
            policy, ppo_loss, self._make_optimizer, device=device, max_grad_norm=config.max_grad_norm
        )

    def _make_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        # eps: detail 3. fused: one kernel for all parameters, 0.15 ms of a step's 0.95 ms less.
        return torch.optim.Adam(parameters, lr=self.config.learning_rate, eps=1e-5, fused=True)

    def step(self) -> dict[str, float]:
        config = self.config
        progress = self.steps / config.total_steps
        started = time.monotonic()

        batch = self.collect(config.rollout_steps)
        collected = time.monotonic()

        rewards, ends = batch.rewards, batch.terminated | batch.truncated
        advantages, returns = gae(
            rewards if self._reward_scaler is None else self._reward_scaler(rewards, ends),
            batch.values,
            batch.next_values,
            batch.terminated,
            batch.truncated,
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        learning_rate = config.learning_rate * (linear(1.0, 0.0, progress) if config.anneal_learning_rate else 1.0)
        clip_range = config.clip_range * (linear(1.0, 0.0, progress) if config.anneal_clip_range else 1.0)
        self.learner.set_learning_rate(learning_rate)
        metrics = self._learn(batch, advantages, returns, clip_range)
        if self._moments is not None:
            self._moments.update(_rows(batch.observations))
        self.iteration += 1
        self.broadcast()
        learned = time.monotonic()

        return {
            **self.report(),
            **{f"learner/{name}": value for name, value in metrics.items()},
            "learner/learning_rate": learning_rate,
            "learner/clip_range": clip_range,
            "learner/explained_variance": explained_variance(batch.values, returns),
            "time/collect_s": collected - started,
            "time/learn_s": learned - collected,
        }

    def _learn(self, batch: Batch, advantages: np.ndarray, returns: np.ndarray, clip_range: float) -> dict[str, float]:
        """The epochs over one batch; advantages and returns are [T, B]. Gives the mean of each metric."""
        import torch

        config = self.config
        observations = _rows(batch.observations)
        if self._moments is not None:  # the workers acted on what these same statistics gave
            observations = ObservationNormalizer.of(self._moments)(observations)
        samples = self.learner.to_device(
            {
                "observations": observations,
                "actions": _rows(batch.actions),
                "log_probs": _rows(batch.log_probs),
                "advantages": _rows(advantages),
                "returns": _rows(returns),
            }
        )
        settings = {"clip_range": clip_range, "value_coef": config.value_coef, "entropy_coef": config.entropy_coef}
        shuffle = streams.minibatch_stream(config.seed, self.iteration)
        steps: list[dict[str, torch.Tensor]] = []
        for _ in range(config.num_epochs):
            # Every sample exactly once in an epoch, in a new order (detail 6).
            order = torch.from_numpy(shuffle.permutation(batch.num_steps)).to(self.learner.device)
            shuffled = {name: column[order] for name, column in samples.items()}
            epoch: list[dict[str, torch.Tensor]] = []
            for start in range(0, batch.num_steps, config.minibatch_size):
                minibatch = {name: column[start : start + config.minibatch_size] for name, column in shuffled.items()}
                if config.normalize_advantages:
                    minibatch["advantages"] = normalized(minibatch["advantages"])
                epoch.append(self.learner.update(minibatch, settings))
            steps += epoch
            if config.target_kl is not None and _mean(epoch, "approx_kl") > config.target_kl:
                break
        return {**{name: _mean(steps, name) for name in steps[0]}, "gradient_steps": len(steps)}


def normalized(advantages: torch.Tensor) -> torch.Tensor:
    """Mean 0 and deviation 1 over a minibatch (detail 7); a single sample has no deviation and is left as it is."""
    if len(advantages) < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """1 - Var[returns - values] / Var[returns]: 1 is a perfect critic, 0 a constant; NaN if returns do not vary."""
    variance = float(returns.var())
    return float("nan") if variance == 0.0 else 1.0 - float((returns - values).var()) / variance


def _mean(steps: Sequence[Mapping[str, torch.Tensor]], name: str) -> float:
    import torch

    return torch.stack([step[name] for step in steps]).mean().item()


def _rows(column: np.ndarray) -> np.ndarray:
    return column.reshape(-1, *column.shape[2:])
