"""OpenAI-ES: Salimans, Ho, Chen, Sidor, Sutskever 2017 (arXiv:1703.03864), algorithm 2.

An estimate of the gradient of the return of a smeared policy, E[F(θ + σε)], from n = 2N tries, for a gradient method:

    ∇ ≈ 1 / (nσ) Σ F_j ε_j  =  1 / (2Nσ) Σ_i (u⁺_i - u⁻_i) ε_i

over pairs of opposite signs, with centred ranks u for returns, and decay of the weights θ. As in the authors' program,
``es_distributed``, what the optimiser sees is σ∇ - l₂θ, so that their step sizes and their l₂ mean here what they mean
there. The spread σ stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...rllib.evolution.asks import Ask
from .optimizers import optimizer as named_optimizer, prefixed, unprefixed
from .ranks import Shaping, utilities
from .strategy import Weighing, check_shapes, length_of, restored, start_of, sum_of


class OpenES:
    """A search along estimated gradients, with a fixed spread.

    Args:
      centre: [P] where to start.
      num_pairs: N, of a generation.
      spread: σ, deviation of the noise.
      learning_rate: Step size of the optimiser.
      optimizer: adam, momentum or clipup.
      momentum: Of the optimisers that have one.
      weight_decay: l₂.
      shaping: What becomes of returns, see ``ranks.utilities``.

    Raises:
      ValueError: a number is out of range, or a name unknown.
    """

    def __init__(
        self,
        centre: np.ndarray,
        *,
        num_pairs: int,
        spread: float = 0.02,
        learning_rate: float = 0.01,
        optimizer: str = "adam",
        momentum: float = 0.9,
        weight_decay: float = 0.005,
        shaping: Shaping = "centered_ranks",
    ) -> None:
        self.centre = start_of(centre, num_pairs=num_pairs, spread=spread)
        if not 0.0 <= weight_decay < np.inf:
            raise ValueError(f"weight_decay {weight_decay}: it must be 0 or more")
        utilities(np.zeros((1, 2)), np.ones(1, bool), shaping)  # refuses a shaping that it does not know
        self.generation = 0
        self.num_pairs, self.spread = num_pairs, float(spread)
        self._weight_decay, self._shaping = weight_decay, shaping
        self._optimizer = named_optimizer(optimizer, len(self.centre), learning_rate=learning_rate, momentum=momentum)

    def ask(self) -> Ask:
        return Ask(self.generation, self.num_pairs, self.centre, self.spread)

    def weigh(self, returns: np.ndarray, used: np.ndarray) -> Weighing:
        check_shapes(returns, used)
        worth = utilities(returns, used, self._shaping)
        return Weighing({1: (worth[:, 0] - worth[:, 1]) / (2 * used.sum())}, returns, used)

    def tell(self, sums: Mapping[int, np.ndarray], weighing: Weighing) -> dict[str, float]:
        ascent = sum_of(sums, 1, len(self.centre))
        before = self.centre
        self.centre = before.copy()
        # Optimisers descend.
        self._optimizer.step(self.centre, (self._weight_decay * before - ascent).astype(np.float32))
        self.generation += 1
        return {
            "gradient_norm": length_of(ascent),
            "spread": self.spread,
            "update_norm": length_of(self.centre - before),
            "weight_norm": length_of(self.centre),
        }

    def state(self) -> dict[str, np.ndarray]:
        own = {"centre": self.centre.copy(), "generation": np.array(self.generation)}
        return own | prefixed(self._optimizer.state())

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        centre, generation = restored(state, "centre", self.centre), restored(state, "generation", np.array(0))
        self._optimizer.restore(unprefixed(state))
        self.centre, self.generation = centre, int(generation)
