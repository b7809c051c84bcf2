"""CMA-ES, Hansen 2016 (arXiv:1604.00772), by its author's library ``cma`` (extra: ``pip install 'shoal[es]'``).

It learns a whole covariance [P, P] and needs its candidates themselves: ``ask`` gives ``Candidates``, and no sums are
needed. A generation costs P² numbers of memory, and P³ operations now and then: so P is limited.

The library's object is not saved. It is a function of its seed and of the returns that it was told, so the returns of
all generations are the state, [G, N, 2], and restoring tells them again: as exact as the library is deterministic, and
no pickle is read. That takes about 1 ms a generation for 100 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...rllib.evolution.asks import Candidates
from .strategy import Weighing, check_shapes, restored, start_of

#: More parameters are refused: the covariance of 2,000 takes 32 MB and its eigenvectors seconds.
MOST_PARAMETERS = 2000


class CMAES:
    """A search that learns which parameters go together; for small nets.

    Args:
      centre: [P] where to start, P from 2 to 2,000.
      num_pairs: N; 2N is the population.
      spread: Deviation to start with.
      seed: Of the candidates.

    Raises:
      ValueError: a number is out of range.
      ModuleNotFoundError: the library is not installed.
    """

    def __init__(self, centre: np.ndarray, *, num_pairs: int, spread: float = 0.5, seed: int = 0) -> None:
        self._start = start_of(centre, num_pairs=num_pairs, spread=spread)
        if not 2 <= len(self._start) <= MOST_PARAMETERS:
            raise ValueError(
                f"CMA-ES is for 2 to {MOST_PARAMETERS:,} parameters; this search has {len(self._start):,}: "
                "take a smaller net, or SNES"
            )
        self.num_pairs = num_pairs
        self._spread, self._seed = float(spread), seed
        self._told: list[np.ndarray] = []  # [N, 2] of each generation
        self._begin()

    @property
    def centre(self) -> np.ndarray:
        """[P] float32: the mean."""
        mean: np.ndarray = np.asarray(self._search.mean, np.float32)
        return mean

    @property
    def generation(self) -> int:
        """Updates so far."""
        return len(self._told)

    def ask(self) -> Candidates:
        return Candidates(self.generation, self.centre, self._vectors.astype(np.float32))

    def weigh(self, returns: np.ndarray, used: np.ndarray) -> Weighing:
        check_shapes(returns, used)
        if len(used) != self.num_pairs or not used.all():
            raise ValueError(
                f"{used.sum()} of {self.num_pairs} pairs are used: CMA-ES ranks its whole population, so wait for all"
            )
        return Weighing({}, returns, used)

    def tell(self, sums: Mapping[int, np.ndarray], weighing: Weighing) -> dict[str, float]:
        before = self.centre
        self._told.append(np.array(weighing.returns, np.float64))
        self._advance(self._told[-1])
        return {
            "spread": float(self._search.sigma * np.sqrt(self._search.dC).mean()),
            "update_norm": math.dist(before, self.centre),
            "weight_norm": math.hypot(*self.centre),
        }

    def state(self) -> dict[str, np.ndarray]:
        return {"returns": np.reshape(self._told, (-1, self.num_pairs, 2)).astype(np.float64)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """As ``Strategy.restore``: by telling all returns again."""
        count = len(state["returns"]) if "returns" in state else 0
        told = restored(state, "returns", np.zeros((count, self.num_pairs, 2)))
        self._told = list(told)
        self._begin()
        for returns in self._told:
            self._advance(returns)

    def _begin(self) -> None:
        import cma

        rng = np.random.default_rng(self._seed)
        options = {
            "popsize": 2 * self.num_pairs,
            # Its own numbers: the library would seed numpy's global generator otherwise.
            "seed": math.nan,
            "randn": lambda *shape: rng.standard_normal(shape),
            "verbose": -10,  # no files, nothing printed, no file of signals read
        }
        self._search: Any = cma.CMAEvolutionStrategy(self._start.astype(np.float64), self._spread, options)
        self._draw()

    def _draw(self) -> None:
        drawn = np.asarray(self._search.ask())
        self._vectors = drawn.reshape(self.num_pairs, 2, -1)  # [N, 2, P] float64

    def _advance(self, returns: np.ndarray) -> None:
        self._search.tell(list(self._vectors.reshape(2 * self.num_pairs, -1)), list(-returns.ravel()))  # it minimises
        self._draw()
