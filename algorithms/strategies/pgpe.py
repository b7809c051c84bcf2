"""Policy gradients with parameter-based exploration and symmetric sampling: Sehnke et al. 2010 (Neural Networks 23),
section 3.3; with ClipUp for the centre as in Toklu, Liskowski, Srivastava 2020 (arXiv:2008.02387).

For pairs μ ± σε, with u for the returns and their mean b for a baseline:

    ∇μ = 1/N Σ_i σ ε_i (u⁺_i - u⁻_i) / 2            ∇σ = 1/N Σ_i ((u⁺_i + u⁻_i) / 2 - b) σ (ε_i² - 1)

which are the paper's with its step sizes in proportion to σ². The deviation changes by at most a fifth at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...rllib.evolution.asks import Ask
from .optimizers import optimizer as named_optimizer, prefixed, unprefixed
from .ranks import Shaping, utilities
from .strategy import Weighing, check_shapes, length_of, restored, start_of, sum_of


class PGPE:
    """A search that learns its deviations by plain gradients, and takes clipped steps.

    Args:
      centre: [P] where to start.
      num_pairs: N, of a generation.
      spread: Deviation that all parameters start with.
      learning_rate: Of the optimiser. ClipUp's greatest speed is twice that; a fifteenth of the radius spread * √P is
        the authors' rule for that speed.
      optimizer: clipup, adam or momentum.
      momentum: Of the optimisers that have one.
      spread_learning_rate: Step size of the deviations; 0 leaves them.
      max_spread_change: Share by which a deviation changes at most in a generation.
      shaping: What becomes of returns, see ``ranks.utilities``.

    Raises:
      ValueError: a number is out of range, or a name unknown.
    """

    def __init__(
        self,
        centre: np.ndarray,
        *,
        num_pairs: int,
        spread: float = 0.1,
        learning_rate: float = 0.075,
        optimizer: str = "clipup",
        momentum: float = 0.9,
        spread_learning_rate: float = 0.1,
        max_spread_change: float = 0.2,
        shaping: Shaping = "centered_ranks",
    ) -> None:
        self.centre = start_of(centre, num_pairs=num_pairs, spread=spread)
        if not 0.0 <= spread_learning_rate < np.inf or not 0.0 < max_spread_change < 1.0:
            raise ValueError(
                f"spread_learning_rate {spread_learning_rate} and max_spread_change {max_spread_change}: "
                "the first must be 0 or more, the second between 0 and 1"
            )
        utilities(np.zeros((1, 2)), np.ones(1, bool), shaping)  # refuses a shaping that it does not know
        self.generation = 0
        self.num_pairs = num_pairs
        self._shaping = shaping
        self._spread_rate, self._max_change = spread_learning_rate, max_spread_change
        self._spread = np.full(len(self.centre), spread)  # [P] float64
        self._optimizer = named_optimizer(optimizer, len(self.centre), learning_rate=learning_rate, momentum=momentum)

    @property
    def spread(self) -> np.ndarray:
        """σ, [P] float32: the deviation with which candidates are made."""
        return self._spread.astype(np.float32)

    def ask(self) -> Ask:
        return Ask(self.generation, self.num_pairs, self.centre, self.spread)

    def weigh(self, returns: np.ndarray, used: np.ndarray) -> Weighing:
        check_shapes(returns, used)
        worth, count = utilities(returns, used, self._shaping), used.sum()
        baseline = worth[used].mean()
        of_both = np.where(used, worth.mean(axis=1) - baseline, 0.0)
        return Weighing({1: (worth[:, 0] - worth[:, 1]) / (2 * count), 2: of_both / count}, returns, used)

    def tell(self, sums: Mapping[int, np.ndarray], weighing: Weighing) -> dict[str, float]:
        size, spread = len(self.centre), self._spread
        ascent = spread * sum_of(sums, 1, size)
        of_spread = spread * (sum_of(sums, 2, size) - weighing.weights[2].sum())
        before = self.centre
        self.centre = before.copy()
        self._optimizer.step(self.centre, (-ascent).astype(np.float32))  # optimisers descend
        lowest, highest = (1.0 - self._max_change) * spread, (1.0 + self._max_change) * spread
        self._spread = np.clip(spread + self._spread_rate * of_spread, lowest, highest)
        self.generation += 1
        return {
            "gradient_norm": length_of(ascent),
            "spread": float(self._spread.mean()),
            "update_norm": length_of(self.centre - before),
            "weight_norm": length_of(self.centre),
        }

    def state(self) -> dict[str, np.ndarray]:
        own = {"centre": self.centre.copy(), "spread": self._spread.copy(), "generation": np.array(self.generation)}
        return own | prefixed(self._optimizer.state())

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        centre, spread = restored(state, "centre", self.centre), restored(state, "spread", self._spread)
        generation = restored(state, "generation", np.array(0))
        self._optimizer.restore(unprefixed(state))
        self.centre, self._spread, self.generation = centre, spread, int(generation)
