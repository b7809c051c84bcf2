"""Gradient steps in numpy, for small dense nets on a CPU: ``NumpyLearner(spec, weights, loss, ...)``.

Torch takes most of a small net's step for getting each of its many small kernels under way. Here an algorithm hands in
its loss with the derivatives by what it is made of, ``dense_nets.py`` and ``distribution_gradients.py`` carry them to
the weights, and ``adam.py`` moves these. Results are torch's to the precision of float32, and so are checkpoints: a run
may go on with the other learner.

    inputs -> DenseNets -> parameters -> evaluate -> log_probs, entropies ┐
                        └> values ────────────────────────────────────────┴> loss -> derivatives, and all the way back

Torch is never imported. Matrix products have one thread in this process from then on: results would change with the
number of cores, and small products gain nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import ConfigError, LearnerChoice
from ..policies.modules import OBSERVATIONS
from ..policies.policy_spec import PolicySpec
from ..policies.weights import Weights, by_name, flattened
from ..threads import limit_matrix_threads
from .adam import Adam
from .dense_nets import DenseNets
from .distribution_gradients import evaluate
from .learner import Columns, Metrics, check_length, diverged
from .optimizer_memory import memory_by_name, memory_from, memory_shapes

#: Weights times rows of a minibatch up to which numpy is chosen. Up to 9 million, two 64 x 64 nets with 1,024 rows, its
#: whole step takes less than torch's calls alone: 0.13 ms against 0.72 for 64 rows of these, 0.24 against 0.90 for 256,
#: 0.86 against 1.9 for 1,024. Two 256 x 256 nets with 256 rows, 37 million, still take 2.1 ms against 3.4 on one thread
#: and 2.4 on two; but torch may have more threads there, and numpy has one.
_MOST_WORK = 16_000_000

#: Name of the column of a minibatch that holds the flat observations, [N, flat_width] float32.
INPUTS = "inputs"


@dataclass(frozen=True)
class Derivatives:
    """A loss over N rows, and its derivatives by all that the weights have a part in."""

    loss: float
    metrics: dict[str, float]  #: what to report
    by_log_probs: np.ndarray  #: [N] float32
    by_entropies: float  #: by the entropy of each row, the same for all
    by_values: np.ndarray  #: [N] float32


#: (log_probs [N], entropies [N], values [N], minibatch, settings)
Loss = Callable[[np.ndarray, np.ndarray, np.ndarray, Mapping[str, np.ndarray], Mapping[str, float]], Derivatives]


def is_chosen(
    choice: LearnerChoice,
    spec: PolicySpec,
    *,
    minibatch_size: int,
    device: str = "auto",
    precision: str = "float32",
    compiles: bool = False,
) -> bool:
    """Whether numpy computes the gradients of this policy, and not torch.

    Args:
      choice: What the config says: ``auto`` takes numpy where it is able to and faster.
      spec: The policy's shape.
      minibatch_size: Rows of a gradient step.
      device: What the config says. ``auto`` is no GPU for nets so small that numpy is faster.
      precision: What the config says.
      compiles: Whether the config asks for torch.compile.

    Raises:
      ConfigError: numpy is demanded where it is not able to. One line.
    """
    obstacles = {
        "of a convolutional net": bool(spec.observations.images),
        f"of a recurrent net ({spec.network.recurrent})": spec.is_recurrent,
        f"on the device {device}": device not in ("auto", "cpu"),
        f"in {precision}": precision != "float32",
        "with torch.compile": compiles,
    }
    obstacle = next((obstacle for obstacle, is_there in obstacles.items() if is_there), None)
    if choice == "numpy" and obstacle:
        raise ConfigError(f"learner: numpy cannot compute the gradients {obstacle}; choose auto or torch")
    num_weights = sum(math.prod(shape) for shape in spec.array_shapes().values())
    is_small = num_weights * minibatch_size <= _MOST_WORK
    return choice == "numpy" or (choice == "auto" and obstacle is None and is_small)


class NumpyLearner:
    """A policy of dense layers and the Adam that improves it.

    Args:
      spec: The policy's shape, without images and recurrence.
      weights: To begin with, by the names of ``spec.array_shapes``.
      loss: What to minimise, see ``Loss``.
      learning_rate: Of Adam.
      epsilon: Of Adam.
      max_grad_norm: Gradients are scaled down to this global norm; None leaves them as they are.
    """

    def __init__(
        self,
        spec: PolicySpec,
        weights: Mapping[str, np.ndarray],
        loss: Loss,
        *,
        learning_rate: float,
        epsilon: float,
        max_grad_norm: float | None,
    ) -> None:
        limit_matrix_threads(1)
        self._spec = spec
        self._loss = loss
        self._nets = DenseNets(spec)
        self._adam = Adam(len(self._nets.weights), learning_rate=learning_rate, epsilon=epsilon)
        self._max_grad_norm = math.inf if max_grad_norm is None else max_grad_norm
        self.load(weights, {})

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def set_learning_rate(self, learning_rate: float) -> None:
        self._adam.learning_rate = learning_rate

    def to_device(self, columns: Mapping[str, np.ndarray]) -> Columns:
        """The same arrays, observations laid side by side as the nets take them: ``INPUTS`` instead of each by name."""
        prefix = len(OBSERVATIONS)
        observations = {name[prefix:]: column for name, column in columns.items() if name.startswith(OBSERVATIONS)}
        rest = {name: column for name, column in columns.items() if not name.startswith(OBSERVATIONS)}
        return {**rest, INPUTS: self._spec.observations.flat(observations)} if observations else rest

    def update(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Metrics:
        derivatives = self._differentiate(minibatch, settings)
        norm = self._step(self._nets.gradient, float(derivatives.loss))
        return {**derivatives.metrics, "grad_norm": norm}

    def gradients(
        self,
        minibatch: Mapping[str, Any],
        settings: Mapping[str, float],
        *,
        final_from: Callable[[np.ndarray, int], None] | None = None,  # all is there at once
    ) -> tuple[np.ndarray, Metrics]:
        derivatives = self._differentiate(minibatch, settings)
        return self._nets.in_order(self._nets.gradient), derivatives.metrics

    def apply(self, gradient: np.ndarray) -> float:
        check_length("a gradient", gradient, len(self._nets.weights))
        self._nets.take_in_order(gradient, self._nets.gradient)
        return self._step(self._nets.gradient, None)

    def flat_weights(self) -> np.ndarray:
        return self._nets.in_order(self._nets.weights)

    def set_flat_weights(self, flat: np.ndarray) -> None:
        check_length("weights", flat, len(self._nets.weights))
        self._nets.take_in_order(flat, self._nets.weights)

    def means(self, steps: Sequence[Metrics]) -> dict[str, float]:
        return {name: math.fsum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def weights(self, version: int) -> Weights:
        return Weights(version, self._spec, by_name(self.flat_weights(), self._spec.array_shapes()))

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        moments = {name: self._nets.in_order(moment) for name, moment in self._adam.moments.items()}
        return memory_by_name(self._adam.steps, moments, self._spec.array_shapes())

    def optimizer_shapes(self) -> dict[str, tuple[int, ...]]:
        return memory_shapes(self._spec.array_shapes())

    def load(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]) -> None:
        shapes = self._spec.array_shapes()
        flat = flattened(weights, shapes)
        steps, moments = memory_from(optimizer, shapes)
        self._nets.take_in_order(flat, self._nets.weights)
        for name, moment in self._adam.moments.items():
            self._nets.take_in_order(moments[name], moment)
        self._adam.steps = steps

    def counters(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass  # nothing is held

    def _differentiate(self, minibatch: Mapping[str, Any], settings: Mapping[str, float]) -> Derivatives:
        """The loss of a minibatch; its gradient is in ``_nets.gradient`` then."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the norm tells
            parameters, values = self._nets.forward(minibatch[INPUTS])
            masks = minibatch.get("masks")
            evaluation = evaluate(self._spec.actions.distribution, parameters, minibatch["actions"], masks)
            derivatives = self._loss(evaluation.log_probs, evaluation.entropies, values, minibatch, settings)
            by_parameters = evaluation.gradient(derivatives.by_log_probs, derivatives.by_entropies)
            self._nets.backward(by_parameters, derivatives.by_values)
        return derivatives

    def _step(self, gradient: np.ndarray, loss: float | None) -> float:
        """Clip a gradient [P], which is used up, and move the weights; gives its norm before."""
        with np.errstate(over="ignore", invalid="ignore"):
            norm = math.sqrt(gradient @ gradient)
        if not math.isfinite(norm):
            raise diverged(norm, loss)
        scale = min(self._max_grad_norm / (norm + 1e-6), 1.0)  # as torch.nn.utils.clip_grad_norm_ has it
        self._adam.step(self._nets.weights, gradient, scale)
        return norm
