"""Augmented random search: Mania, Guy, Recht 2018 (arXiv:1803.07055), algorithms 1 and 2.

A step along the best directions, as long as the returns' deviation among them allows:

    θ <- θ + α / (b σ_R) Σ_{the b best of N pairs} (r⁺_i - r⁻_i) ε_i

A direction is as good as the better of its two returns. V1 and V2 differ in whether observations are normalised, which
is their caller's affair; b below N makes V1-t and V2-t of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...rllib.evolution.asks import Ask
from .strategy import Weighing, check_shapes, length_of, restored, start_of, sum_of


class ARS:
    """A search with raw returns, scaled by their own deviation.

    Args:
      centre: [P] where to start; the paper starts linear policies from 0.
      num_pairs: N, of a generation.
      spread: ν, deviation of the noise.
      learning_rate: α.
      top: b, directions that count; None for all.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(
        self,
        centre: np.ndarray,
        *,
        num_pairs: int,
        spread: float = 0.03,
        learning_rate: float = 0.02,
        top: int | None = None,
    ) -> None:
        self.centre = start_of(centre, num_pairs=num_pairs, spread=spread)
        if top is not None and not 1 <= top <= num_pairs:
            raise ValueError(f"top {top}: of {num_pairs} pairs, the best 1 to {num_pairs} can count")
        if not 0.0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate {learning_rate}: it must be above 0")
        self.generation = 0
        self.num_pairs, self.spread = num_pairs, float(spread)
        self._learning_rate, self._top = learning_rate, num_pairs if top is None else top

    def ask(self) -> Ask:
        return Ask(self.generation, self.num_pairs, self.centre, self.spread)

    def weigh(self, returns: np.ndarray, used: np.ndarray) -> Weighing:
        """As ``Strategy.weigh``. Where all returns that count are equal, nothing is learnt: the weights are 0."""
        check_shapes(returns, used)
        best = np.where(used, returns.max(axis=1), -np.inf)
        order = np.argsort(-best, kind="stable")  # of equal directions the first ones count
        chosen = order[: min(self._top, int(used.sum()))]
        deviation = returns[chosen].std()
        weights = np.zeros(len(returns))
        if deviation > 0.0:
            weights[chosen] = (returns[chosen, 0] - returns[chosen, 1]) / (len(chosen) * deviation)
        return Weighing({1: weights}, returns, used)

    def tell(self, sums: Mapping[int, np.ndarray], weighing: Weighing) -> dict[str, float]:
        update = self._learning_rate * sum_of(sums, 1, len(self.centre))
        self.centre = (self.centre + update).astype(np.float32)
        self.generation += 1
        return {"spread": self.spread, "update_norm": length_of(update), "weight_norm": length_of(self.centre)}

    def state(self) -> dict[str, np.ndarray]:
        return {"centre": self.centre.copy(), "generation": np.array(self.generation)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        centre, generation = restored(state, "centre", self.centre), restored(state, "generation", np.array(0))
        self.centre, self.generation = centre, int(generation)
