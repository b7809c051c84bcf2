"""What a strategy wants to be tried: pairs of candidates, which workers make from numbers.

Apart from the strategies themselves (``algorithms/strategies/``), so that a worker need not know any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .noise import Noise


@dataclass(frozen=True)
class Ask:
    """Pairs to try: number i is ``centre + spread * noise(generation, i)`` and ``centre - spread * noise``."""

    generation: int
    num_pairs: int  #: N
    centre: np.ndarray  #: [P] float32
    spread: float | np.ndarray  #: Deviation of all parameters, or [P] float32 of each

    def pairs(self, noise: Noise, indices: np.ndarray) -> np.ndarray:
        """The candidates of these pairs, [n, 2, P] float32: first with +, then with -."""
        steps = noise.rows(self.generation, indices)
        steps *= np.float32(self.spread) if isinstance(self.spread, float) else self.spread
        return np.stack([self.centre + steps, self.centre - steps], axis=1)


@dataclass(frozen=True)
class Candidates:
    """Vectors to try as they are. They come in pairs, too, so that who evaluates them need not care."""

    generation: int
    centre: np.ndarray  #: [P] float32
    vectors: np.ndarray  #: [N, 2, P] float32

    @property
    def num_pairs(self) -> int:
        """N."""
        return len(self.vectors)

    def pairs(self, noise: Noise | None, indices: np.ndarray) -> np.ndarray:
        """The candidates of these pairs, [n, 2, P] float32. No noise is needed."""
        chosen: np.ndarray = self.vectors[indices]
        return chosen
