"""Adam, Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1, over one flat vector: numpy's twin of torch.optim.Adam.

One vector for all weights makes a step ten numpy calls, however many layers there are. The moments have torch's names.
"""

from __future__ import annotations

import math

import numpy as np

_BETA1, _BETA2 = 0.9, 0.999


class Adam:
    """Moments of a gradient [P], and the steps that follow from them.

    Args:
      size: P.
      learning_rate: May be changed between steps.
      epsilon: Keeps steps finite where gradients vanish.
    """

    def __init__(self, size: int, *, learning_rate: float, epsilon: float) -> None:
        self.learning_rate = learning_rate
        self.epsilon = epsilon
        self.steps = 0  #: taken so far
        self.exp_avg = np.zeros(size, np.float32)  #: [P] m in the paper
        self.exp_avg_sq = np.zeros(size, np.float32)  #: [P] v in the paper
        self._work = np.empty(size, np.float32)

    @property
    def moments(self) -> dict[str, np.ndarray]:
        """Both, by name; not copies."""
        return {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def step(self, weights: np.ndarray, gradient: np.ndarray, scale: float = 1.0) -> None:
        """Move weights [P], in place.

        Args:
          weights: [P].
          gradient: [P], used up.
          scale: What it is multiplied by before anything else; a walk over the vector less than to do so.
        """
        self.steps += 1
        m, v, work = self.exp_avg, self.exp_avg_sq, self._work
        m *= _BETA1
        np.multiply(gradient, (1.0 - _BETA1) * scale, out=work)
        m += work
        v *= _BETA2
        np.multiply(gradient, gradient, out=gradient)
        gradient *= (1.0 - _BETA2) * scale * scale
        v += gradient
        # Kingma and Ba's more efficient order (end of section 2), with their epsilon: the corrections are two numbers.
        correction = math.sqrt(1.0 - _BETA2**self.steps)
        np.sqrt(v, out=work)
        work += self.epsilon * correction
        np.divide(m, work, out=work)
        work *= self.learning_rate * correction / (1.0 - _BETA1**self.steps)
        weights -= work
