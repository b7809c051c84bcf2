"""What turns a gradient into a step, over one flat vector: Adam, or momentum. ClipUp has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ...rllib.learning.adam import Adam
from .clipup import ClipUp
from .strategy import restored

#: Names that ``optimizer`` knows.
OPTIMIZERS = ("adam", "momentum", "clipup")


class Optimizer(Protocol):
    """Something with a memory of gradients."""

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        """Move weights [P] float32 against the gradient [P] float32, in place; the gradient is used up."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """The memory."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what ``state`` gave."""
        ...


class AdamOptimizer:
    """``rllib/learning/adam.py`` with a memory that can be carried over."""

    def __init__(self, size: int, *, learning_rate: float, epsilon: float = 1e-8) -> None:
        self._adam = Adam(size, learning_rate=learning_rate, epsilon=epsilon)

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        self._adam.step(weights, gradient)

    def state(self) -> dict[str, np.ndarray]:
        adam = self._adam
        return {"exp_avg": adam.exp_avg.copy(), "exp_avg_sq": adam.exp_avg_sq.copy(), "steps": np.array(adam.steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        adam = self._adam
        adam.exp_avg = restored(state, "exp_avg", adam.exp_avg)
        adam.exp_avg_sq = restored(state, "exp_avg_sq", adam.exp_avg_sq)
        adam.steps = int(restored(state, "steps", np.array(0)))


class Momentum:
    """Gradient descent with a heavy ball: v <- m v + g, weights <- weights - learning_rate * v, as in torch's SGD."""

    def __init__(self, size: int, *, learning_rate: float, momentum: float = 0.9) -> None:
        self._learning_rate, self._momentum = learning_rate, momentum
        self._velocity = np.zeros(size, np.float32)

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        self._velocity *= self._momentum
        self._velocity += gradient
        weights -= self._learning_rate * self._velocity

    def state(self) -> dict[str, np.ndarray]:
        return {"velocity": self._velocity.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._velocity = restored(state, "velocity", self._velocity)


def optimizer(name: str, size: int, *, learning_rate: float, momentum: float) -> Optimizer:
    """An optimiser by name.

    Args:
      name: one of OPTIMIZERS.
      size: P.
      learning_rate: size of a step; ClipUp's, whose steps all have this length, too.
      momentum: of momentum and ClipUp.

    Raises:
      ValueError: there is none of this name, or a number is out of range.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: choose from {', '.join(OPTIMIZERS)}")
    if not 0.0 < learning_rate < np.inf or not 0.0 <= momentum < 1.0:
        raise ValueError(
            f"learning_rate {learning_rate} and momentum {momentum}: the first must be above 0, the second in [0, 1)"
        )
    if name == "adam":
        return AdamOptimizer(size, learning_rate=learning_rate)
    if name == "momentum":
        return Momentum(size, learning_rate=learning_rate, momentum=momentum)
    return ClipUp(size, learning_rate=learning_rate, momentum=momentum)


def prefixed(state: Mapping[str, np.ndarray], prefix: str = "optimizer.") -> dict[str, np.ndarray]:
    """An optimiser's state under names that can stand among a strategy's."""
    return {prefix + name: array for name, array in state.items()}


def unprefixed(state: Mapping[str, np.ndarray], prefix: str = "optimizer.") -> dict[str, np.ndarray]:
    """The inverse of ``prefixed``; other names are passed over."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
