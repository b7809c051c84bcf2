"""ClipUp, Toklu, Liskowski, Srivastava 2020 (arXiv:2008.02387), algorithm 1: steps of one length, a limit to speed.

The direction of an estimated gradient is worth more than its length, so each gradient is brought to unit length; and
since steps are as long as we say, the greatest speed can be told in units of the search itself: parameters per
generation, to be chosen beside the spread.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .strategy import length_of, restored

#: Greatest speed over the length of a step: the paper takes steps of half the greatest speed.
SPEED_PER_STEP = 2.0


class ClipUp:
    """Normalised gradients, momentum, clipped velocity.

    Args:
      size: P.
      learning_rate: Length of each step that is added to the velocity.
      max_speed: Greatest length of the velocity; if not said, twice ``learning_rate``.
      momentum: What is kept of the velocity.
    """

    def __init__(
        self, size: int, *, learning_rate: float, max_speed: float | None = None, momentum: float = 0.9
    ) -> None:
        self.max_speed = SPEED_PER_STEP * learning_rate if max_speed is None else max_speed
        self._learning_rate, self._momentum = learning_rate, momentum
        self._velocity = np.zeros(size, np.float32)

    def step(self, weights: np.ndarray, gradient: np.ndarray) -> None:
        """Move weights [P], in place, against the gradient [P]; where it is 0 the velocity only fades."""
        length = length_of(gradient)
        self._velocity *= self._momentum
        if length > 0.0:
            self._velocity += gradient * (self._learning_rate / length)
        speed = length_of(self._velocity)
        if speed > self.max_speed:
            self._velocity *= self.max_speed / speed
        weights -= self._velocity

    def state(self) -> dict[str, np.ndarray]:
        return {"velocity": self._velocity.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._velocity = restored(state, "velocity", self._velocity)
