"""PPO's loss with its derivatives, in numpy: the twin of ``ppo.ppo_loss``, which reads like the paper.

Where a minimum or maximum has two equal arguments, half of the derivative is each one's, and a clamp has slope 1 on its
bounds: torch's rules, so that both learners take the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..rllib.learning.numpy_learner import Derivatives


def ppo_gradients(
    log_probs: np.ndarray,
    entropies: np.ndarray,
    values: np.ndarray,
    minibatch: Mapping[str, np.ndarray],
    settings: Mapping[str, float],
) -> Derivatives:
    """The clipped surrogate with critic loss and entropy bonus, differentiated.

    Args:
      log_probs, entropies, values: [N] each, of the policy and critic that learn.
      minibatch: As for ``ppo_loss``.
      settings: As for ``ppo_loss``.

    Returns:
      The loss and the metrics of ``ppo_loss``, and the derivatives by the first three arguments.
    """
    count, clip_range = len(values), settings["clip_range"]
    log_ratio = log_probs - minibatch["log_probs"]
    ratio = np.exp(log_ratio)
    clipped = ratio.clip(1.0 - clip_range, 1.0 + clip_range)
    surrogate, by_ratio = _surrogate(ratio, clipped, minibatch["advantages"], settings)
    squared_errors, by_values = _squared_errors(values, minibatch, settings)
    policy_loss, value_loss, entropy = -mean(surrogate), mean(squared_errors), mean(entropies)
    by_ratio *= ratio  # d ratio / d log_prob
    by_ratio *= -1.0 / count
    by_values *= 2.0 * settings["value_coef"] / count
    return Derivatives(
        loss=policy_loss + settings["value_coef"] * value_loss - settings["entropy_coef"] * entropy,
        metrics={
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": mean(ratio - 1.0 - log_ratio),
            "approx_kl_k1": -mean(log_ratio),
            "clip_fraction": float(np.count_nonzero(ratio != clipped)) / count,
        },
        by_log_probs=by_ratio,
        by_entropies=-settings["entropy_coef"] / count,
        by_values=by_values,
    )


def _surrogate(
    ratio: np.ndarray, clipped: np.ndarray, advantages: np.ndarray, settings: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 7 of the paper, row by row, and its derivatives by the ratios."""
    unclipped_objective, clipped_objective = ratio * advantages, clipped * advantages
    surrogate = np.minimum(unclipped_objective, clipped_objective)
    # The ratio counts where it is not clipped, and where clipping it would be the better of the two. Two that are equal
    # are those of a ratio that is not clipped, or of an advantage of 0, which the derivative is, too.
    slope = (unclipped_objective <= clipped_objective) * advantages
    if "dual_clip" in settings:
        limits = settings["dual_clip"] * advantages
        is_negative = advantages < 0.0
        slope *= np.where(is_negative, _share(surrogate > limits, surrogate == limits), np.float32(1.0))
        surrogate = np.where(is_negative, np.maximum(surrogate, limits), surrogate)
    return surrogate, slope


def _squared_errors(
    values: np.ndarray, minibatch: Mapping[str, np.ndarray], settings: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The critic's squared errors, row by row, and half of their derivatives by the values."""
    returns = minibatch["returns"]
    errors = values - returns
    squared = errors * errors
    if "value_clip_range" not in settings:
        return squared, errors
    limit, before = settings["value_clip_range"], minibatch["values"]
    moved = values - before
    near = moved.clip(-limit, limit)
    near_errors = before + near - returns
    near_squared = near_errors * near_errors
    share = _share(squared > near_squared, squared == near_squared)
    slope = share * errors + (1.0 - share) * (near == moved) * near_errors
    return np.maximum(squared, near_squared), slope


def _share(is_chosen: np.ndarray, is_tied: np.ndarray) -> np.ndarray:
    """What the first argument of a minimum or maximum has of its derivative: 1, a half, or 0; float32."""
    share: np.ndarray = is_chosen.astype(np.float32)
    share += np.float32(0.5) * is_tied
    return share


def mean(rows: np.ndarray) -> float:
    """Of [N] numbers."""
    # .mean() takes four times as long for a few hundred rows.
    return float(np.add.reduce(rows)) / len(rows)
