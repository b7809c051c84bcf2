"""Values that change over training.

Those of ``scheduled`` are pure functions of the progress, so resuming needs nothing of them. A learning rate that
follows the divergence has a past; the algorithm keeps it in its ``schedules``, which go into its checkpoints.
"""

from __future__ import annotations

from typing import Literal

#: Bounds of an adaptive learning rate, and its factor per correction: those of rl_games (``AdaptiveScheduler``).
LEAST_LEARNING_RATE, MOST_LEARNING_RATE, CORRECTION = 1e-6, 1e-2, 1.5


def linear(start: float, end: float, progress: float) -> float:
    """On the line from ``start`` (progress 0) to ``end`` (progress 1); progress beyond either is held there."""
    progress = min(max(progress, 0.0), 1.0)
    return start + (end - start) * progress


def scheduled(start: float, schedule: Literal["linear", "constant"], progress: float) -> float:
    """``start``, falling to 0 over the run if the schedule is linear."""
    return start if schedule == "constant" else linear(start, 0.0, progress)


def adapted_to_divergence(learning_rate: float, divergence: float, desired: float) -> float:
    """The learning rate for the next epoch: smaller if the policy moved too far in this one, larger if too little.

    Args:
      learning_rate: of the epoch that is over.
      divergence: its mean KL divergence from the policy that acted.
      desired: what it should be about.

    Returns:
      ``learning_rate`` over 1.5 above twice the desired divergence, times 1.5 below half of it, within 1e-6 and 1e-2.
      Between, unchanged.
    """
    if divergence > 2.0 * desired:
        return max(learning_rate / CORRECTION, LEAST_LEARNING_RATE)
    if divergence < 0.5 * desired:
        return min(learning_rate * CORRECTION, MOST_LEARNING_RATE)
    return learning_rate
