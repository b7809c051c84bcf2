"""The loss of APPO without a clip, IMPALA's, with its derivatives in numpy: the twin of ``appo.policy_gradient_loss``.

With a clip it is PPO's, see ``ppo_gradients.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..rllib.learning.numpy_learner import Derivatives
from .ppo_gradients import mean


def policy_gradients(
    log_probs: np.ndarray,
    entropies: np.ndarray,
    values: np.ndarray,
    minibatch: Mapping[str, np.ndarray],
    settings: Mapping[str, float],
) -> Derivatives:
    """The policy gradient with critic loss and entropy bonus, differentiated.

    Args:
      log_probs, entropies, values: [N] each, of the policy and critic that learn.
      minibatch: As for ``policy_gradient_loss``.
      settings: As for ``policy_gradient_loss``.

    Returns:
      The loss and the metrics of ``policy_gradient_loss``, and the derivatives by the first three arguments.
    """
    count = len(values)
    advantages = minibatch["advantages"]
    log_ratio = log_probs - minibatch["log_probs"]
    errors = values - minibatch["returns"]
    policy_loss, value_loss, entropy = -mean(log_probs * advantages), mean(errors * errors), mean(entropies)
    return Derivatives(
        loss=policy_loss + settings["value_coef"] * value_loss - settings["entropy_coef"] * entropy,
        metrics={
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": mean(np.exp(log_ratio) - 1.0 - log_ratio),
            "approx_kl_k1": -mean(log_ratio),
        },
        by_log_probs=advantages * np.float32(-1.0 / count),
        by_entropies=-settings["entropy_coef"] / count,
        by_values=errors * np.float32(2.0 * settings["value_coef"] / count),
    )
