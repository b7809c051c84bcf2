"""Action distributions over rows of parameters, in numpy; their torch twins are in ``modules.py``.

A policy network gives a row of ``num_parameters`` numbers for each observation; a distribution turns rows into
actions and log-probabilities. Randomness comes in from outside: ``draw`` takes one copy's numbers from that copy's
stream, and ``sample`` is a pure function of parameters and noise. So what a copy does never depends on which other
copies share its batch.

Sampled actions are what is stored and learned from; ``for_environment`` is what the environment gets of them (offset,
or clipped to the bounds). The two must not be mixed up: the log-probability belongs to the unclipped action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """One of ``num_actions``; parameters are unnormalised log-probabilities [N, A], actions int64 [N]."""

    num_actions: int
    start: int = 0  #: the environment's name for action 0

    @property
    def num_parameters(self) -> int:
        """Numbers in a row of parameters."""
        return self.num_actions

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives; the rest of a row does not depend on the observation."""
        return self.num_actions

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Noise for ``count`` actions of one copy: [count] uniform in [0, 1)."""
        return stream.random(count)

    def sample(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions [N] by inversion of the cumulative probabilities."""
        weights = np.exp(parameters - parameters.max(axis=1, keepdims=True))
        cumulative = weights.cumsum(axis=1)
        thresholds = noise * cumulative[:, -1]
        # The last column is left out: rounding may lift a threshold to the total, and there is no action after it.
        actions: np.ndarray = np.count_nonzero(cumulative[:, :-1] <= thresholds[:, None], axis=1)
        return actions

    def mode(self, parameters: np.ndarray) -> np.ndarray:
        """The likeliest action of each row, [N]."""
        actions: np.ndarray = parameters.argmax(axis=1)
        return actions

    def log_prob(self, parameters: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Log-probability of each row's action, [N] float32."""
        shifted = parameters - parameters.max(axis=1, keepdims=True)
        chosen = np.take_along_axis(shifted, actions[:, None], axis=1)[:, 0]
        log_probs: np.ndarray = chosen - np.log(np.exp(shifted).sum(axis=1))
        return log_probs

    def for_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions as vector environments take them, [N, 1] int64: counted from ``start``."""
        chosen: np.ndarray = (actions + self.start)[:, None]
        return chosen


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent normals; parameters [N, 2 A] are means, then log standard deviations; actions float32 [N, A]."""

    low: tuple[float, ...]  #: bounds of the environment's actions; may be infinite
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """A, the dimension of an action."""
        return len(self.low)

    @property
    def num_parameters(self) -> int:
        """Numbers in a row of parameters."""
        return 2 * self.size

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives: the means. The deviations are the same for all observations."""
        return self.size

    def draw(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Noise for ``count`` actions of one copy: [count, A] standard normal."""
        return stream.standard_normal((count, self.size), np.float32)

    def sample(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions [N, A], not clipped."""
        actions: np.ndarray = parameters[:, : self.size] + np.exp(parameters[:, self.size :]) * noise
        return actions

    def mode(self, parameters: np.ndarray) -> np.ndarray:
        """The means, [N, A]."""
        return parameters[:, : self.size]

    def log_prob(self, parameters: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Log-density of each row's action, summed over its dimensions, [N] float32."""
        means, log_stds = parameters[:, : self.size], parameters[:, self.size :]
        scaled = (actions - means) * np.exp(-log_stds)
        log_probs: np.ndarray = (-0.5 * scaled * scaled - log_stds - _LOG_SQRT_2PI).sum(axis=1)
        return log_probs

    def for_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions as vector environments take them, [N, A] float32: clipped to the bounds."""
        clipped: np.ndarray = np.clip(actions, np.array(self.low, np.float32), np.array(self.high, np.float32))
        return clipped


Distribution = Categorical | DiagonalGaussian
