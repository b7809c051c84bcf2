"""Separable natural evolution strategies: Schaul, Glasmachers, Schmidhuber 2011, "High dimensions and heavy tails for
natural evolution strategies", algorithm 2; Wierstra et al. 2014 (JMLR 15), section 3.5.

The natural gradient of the expected utility, for a centre μ and a deviation σ of each parameter:

    μ <- μ + η_μ σ Σ_k u_k s_k            σ <- σ exp(η_σ / 2 Σ_k u_k (s_k² - 1))

over the λ = 2N tries s_k, of which every other is the mirror of the one before: as the square of a mirrored vector is
the same, Σ over pairs of (u⁺ - u⁻) ε and of (u⁺ + u⁻) ε² is all that is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...rllib.evolution.asks import Ask
from .ranks import by_rank, scattered
from .strategy import Weighing, check_shapes, length_of, restored, start_of, sum_of


class SNES:
    """A search that learns how far to look, parameter by parameter.

    Args:
      centre: [P] where to start.
      num_pairs: N, of a generation; ``default_pairs`` says what the paper takes.
      spread: Deviation that all parameters start with.
      learning_rate: η_μ.
      spread_learning_rate: η_σ; None for the paper's (3 + ln P) / (5 √P).

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(
        self,
        centre: np.ndarray,
        *,
        num_pairs: int,
        spread: float = 0.1,
        learning_rate: float = 1.0,
        spread_learning_rate: float | None = None,
    ) -> None:
        self.centre = start_of(centre, num_pairs=num_pairs, spread=spread)
        size = len(self.centre)
        own = (3 + math.log(size)) / (5 * math.sqrt(size))
        self._spread_rate = own if spread_learning_rate is None else spread_learning_rate
        if not 0.0 < learning_rate < np.inf or not 0.0 <= self._spread_rate < np.inf:
            raise ValueError(
                f"learning_rate {learning_rate} and spread_learning_rate {spread_learning_rate}: "
                "the first must be above 0, the second 0 or more"
            )
        self.generation = 0
        self.num_pairs = num_pairs
        self._learning_rate = learning_rate
        self._spread = np.full(size, spread)  # [P] float64

    @property
    def spread(self) -> np.ndarray:
        """σ, [P] float32: the deviation with which candidates are made."""
        return self._spread.astype(np.float32)

    def ask(self) -> Ask:
        return Ask(self.generation, self.num_pairs, self.centre, self.spread)

    def weigh(self, returns: np.ndarray, used: np.ndarray) -> Weighing:
        check_shapes(returns, used)
        worth = scattered(by_rank(returns[used].ravel(), rank_utilities(2 * int(used.sum()))), used)
        return Weighing({1: worth[:, 0] - worth[:, 1], 2: worth[:, 0] + worth[:, 1]}, returns, used)

    def tell(self, sums: Mapping[int, np.ndarray], weighing: Weighing) -> dict[str, float]:
        size = len(self.centre)
        update = self._learning_rate * self._spread * sum_of(sums, 1, size)
        gradient = sum_of(sums, 2, size) - weighing.weights[2].sum()
        spread = self._spread * np.exp(0.5 * self._spread_rate * gradient)
        self.centre, self._spread = (self.centre + update).astype(np.float32), spread
        self.generation += 1
        return {
            "spread": float(spread.mean()),
            "update_norm": length_of(update),
            "weight_norm": length_of(self.centre),
        }

    def state(self) -> dict[str, np.ndarray]:
        return {
            "centre": self.centre.copy(),
            "spread": self._spread.copy(),
            "generation": np.array(self.generation),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        centre, spread = restored(state, "centre", self.centre), restored(state, "spread", self._spread)
        generation = restored(state, "generation", np.array(0))
        self.centre, self._spread, self.generation = centre, spread, int(generation)


def rank_utilities(population: int) -> np.ndarray:
    """Utilities [λ] of the ranks, the lowest return first; their sum is 0 (Wierstra et al. 2014, section 3.1):

    u_k = max(0, ln(λ/2 + 1) - ln k) / Σ_j max(0, ln(λ/2 + 1) - ln j) - 1/λ, k = 1 for the best.
    """
    ranks = np.arange(population, 0, -1)
    raw = np.maximum(0.0, math.log(population / 2 + 1) - np.log(ranks))
    utilities: np.ndarray = raw / raw.sum() - 1.0 / population
    return utilities


def default_pairs(size: int) -> int:
    """Pairs of a generation for P parameters: half of the paper's 4 + ⌊3 ln P⌋, rounded up."""
    return (4 + math.floor(3 * math.log(size)) + 1) // 2
