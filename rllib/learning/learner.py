"""What an algorithm asks of whatever takes its gradient steps: one policy, its optimiser, and the place they are in.

The algorithm cuts minibatches, sets the learning rate and decides when to stop; a learner knows nothing of rollouts or
schedules. What it computes with is its own affair, and so is what columns of rows are made of on the way through it:

    arrays --to_device--> columns --minibatches.py--> minibatch --update--> metrics --means--> numbers for people

A step has two halves, which many learners take apart (``GradientLearner``): ``gradients`` of a part of the
minibatch each, as one flat vector, and ``apply`` of what was made of all of these. ``update`` is the two at once, with
the same bits. Flat vectors hold the arrays of ``spec.array_shapes`` in that order, whatever computes, so learners of
both kinds can share one.

``torch_learner.py`` takes any policy and any device; ``numpy_learner.py`` takes small dense nets on a CPU, where it is
several times as fast. Checkpoints are the same. Lives in the driver process, or N of them in actors of their own as one
(``learner_group.py``, ``all_reduce.py``). Both classes here are protocols: what has these methods is one. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights

#: Columns of equally many rows where a learner computes: arrays or tensors.
Columns = dict[str, Any]
#: What one gradient step reports: scalars, which may still be on their way from a GPU.
Metrics = Mapping[str, Any]


class DivergedError(RuntimeError):
    """The gradient is not finite: the loss has diverged, or the batch holds NaN. A smaller learning rate may help."""


def diverged(norm: float, loss: float | None) -> DivergedError:
    """What to raise for a gradient of this norm; the loss where it is known."""
    at = "" if loss is None else f" at a loss of {loss:g}"
    return DivergedError(
        f"training has diverged: the gradient's norm is {norm:g}{at}; a smaller learning_rate may "
        f"help, or smaller rewards (normalize_rewards, or +clip_reward behind the environment's name)"
    )


class LearnedPolicy(Protocol):
    """A policy and the memory of the optimiser that improves it, wherever these are."""

    @property
    def spec(self) -> PolicySpec:
        """The policy's shape."""

    def weights(self, version: int) -> Weights:
        """A copy of the policy's numbers."""

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """The optimiser's memory, by ``parameter/quantity``; empty before the first step."""

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what ``optimizer_arrays`` holds from the first step on, if the loss reaches all weights."""

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        """Take over the arrays of ``weights`` and of ``optimizer_arrays``, bit for bit.

        Raises:
          RuntimeError: names or shapes are not this policy's.
        """

    def counters(self) -> dict[str, float]:
        """What befell it so far, for the run's log; {} where it is in the driver alone."""

    def close(self) -> None:
        """Kill what it has started. May be called twice."""


class Learner(LearnedPolicy, Protocol):
    """A policy and the optimiser that improves it, by minibatches that the driver cuts."""

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this from the next step on."""

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """Columns [N, ...] as ``update`` takes them, where it computes; may share the memory of the arrays."""

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        """One gradient step.

        Args:
          minibatch: Rows of what ``to_device`` gave, N in each column, for the loss.
          settings: Numbers for the loss that change over training.

        Returns:
          What the loss reports, and ``grad_norm`` before clipping; for ``means``, for it may not be known yet.

        Raises:
          DivergedError: the gradient is not finite; the weights are as they were. A learner on a GPU, or of many
            processes, leaves them so for the rest of the steps, too, and raises in ``means``.
        """

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        """The mean of each metric over these steps, at least one; to be called after the last step of an iteration.

        Raises:
          DivergedError: a gradient was not finite, see ``update``.
        """


class GradientLearner(Learner, Protocol):
    """A learner whose step can be taken in two halves: gradients as a flat vector, and what it makes of one."""

    def gradients(
        self,
        minibatch: Mapping[str, Any],
        settings: Mapping[str, float],
        *,
        final_from: Callable[[np.ndarray, int], None] | None = None,
    ) -> tuple[np.ndarray, Metrics]:
        """The gradient of the loss, [P] float32, not clipped, and what the loss reports. Moves no weight.

        Weights that the loss does not reach have zeros. The caller may keep the vector. It need not be finite; reading
        it waits for a GPU.

        Args:
          minibatch, settings: As for ``update``.
          final_from: Called, by learners that find a gradient part by part, while the rest is being computed, with
            the vector and the index from which on it is final, each time lower; it may change what is behind there.
        """

    def apply(self, gradient: np.ndarray) -> float:
        """The other half of ``update``: clip this gradient [P] float32, and let the optimiser take its step.

        Returns:
          The norm before clipping.

        Raises:
          DivergedError: it is not finite; the weights are as they were.
          ValueError: it is of another length.
        """

    def flat_weights(self) -> np.ndarray:
        """A copy of the weights, [P] float32."""

    def set_flat_weights(self, flat: np.ndarray) -> None:
        """Go on with these weights [P] float32, bit for bit; the optimiser's memory stays.

        Raises:
          ValueError: there are more or fewer.
        """


def check_length(what: str, flat: np.ndarray, length: int) -> None:
    """Refuse a flat vector that is not this policy's.

    Raises:
      ValueError: its shape is not [length].
    """
    if flat.shape != (length,):
        raise ValueError(f"{what} must be of shape {(length,)}, one number for each of this policy's, not {flat.shape}")
