"""What every evolution strategy is: a centre, and three calls a generation.

    ask()                     -> what to try: pairs  centre +- spread * noise(generation, pair)
    weigh(returns, used)      -> which sums of noise are needed, with which weights
    tell(sums, weighing)      -> the next centre and spread

    sums[k] = Σ_i weights[k][i] * noise(generation, i) ** k        k = 1 and, where the spread is learnt, 2

Between ``weigh`` and ``tell`` somebody makes the sums: ``summed`` below in one process, a tree of actors on many. All
factors are in the weights, so an update needs nothing but sums. A strategy has no randomness and never sees noise.
CMA-ES learns whole covariances, which no such sums tell: it asks for ``Candidates``, vectors that it drew itself, needs
no sums, and fits small problems only.

The order is ask, weigh, tell; ``ask`` and ``weigh`` change nothing and may be repeated. Returns are maximised.
Everything is a function of what came before, to the bit; ``state`` and ``restore`` carry it over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...rllib.evolution.asks import Ask, Candidates
from ...rllib.evolution.noise import Noise


class ObjectiveError(ValueError):
    """An objective gave no finite number, or raised. Says for which candidate, so that it can be tried again.

    Attributes:
      x: [P] the candidate, where whoever raised this had it: ``f(error.x)`` does it again.
    """

    def __init__(self, message: str, x: np.ndarray | None = None) -> None:
        super().__init__(message)
        self.x = x


@dataclass(frozen=True)
class Weighing:
    """What is to be summed over the pairs of a generation."""

    weights: Mapping[int, np.ndarray]  #: Power k -> [N] float64, 0 where a pair is not used
    returns: np.ndarray  #: [N, 2] float64 that were weighed
    used: np.ndarray  #: [N] bool


class Strategy(Protocol):
    """One method of search. Each file of this folder has one; all are made of a centre and a number of pairs."""

    @property
    def centre(self) -> np.ndarray:
        """[P] float32: the parameters that are evaluated without noise, and saved."""
        ...

    @property
    def generation(self) -> int:
        """How many updates there were: the number of the generation that is asked for."""
        ...

    def ask(self) -> Ask | Candidates:
        """What to try next. Asked twice, it says the same."""
        ...

    def weigh(self, returns: np.ndarray, used: np.ndarray) -> Weighing:
        """Turn returns [N, 2] float64 (+, -) of a generation into weights. Pairs that are not used [N] bool may hold
        any numbers. N need not be the number asked for: pairs may be late, or left over from before.

        Raises:
          ValueError: wrong shapes, or too few pairs are used.
        """
        ...

    def tell(self, sums: Mapping[int, np.ndarray], weighing: Weighing) -> dict[str, float]:
        """Move by sums, power -> [P] float64, made with the weights of ``weighing``. Gives figures for the log.

        Raises:
          ValueError: a sum is missing, has another size or is not finite.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that the next generation depends on, besides what the strategy was made of: float32, float64, int64."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what ``state`` gave, bit for bit.

        Raises:
          ValueError: an array is missing or has another shape; says which.
        """
        ...


def pairs_of(population: int) -> int:
    """How many pairs make up a population.

    Raises:
      ValueError: it is odd, or nobody.
    """
    is_whole = isinstance(population, int | np.integer)
    if not is_whole or population < 2 or population % 2:
        raise ValueError(
            f"population {population}: every direction is tried with both signs, so it must be even, and at least 2"
        )
    return population // 2


def start_of(centre: np.ndarray, *, num_pairs: int, spread: float) -> np.ndarray:
    """A float32 copy [P] of the centre that a search starts from, and a look at what all methods are given.

    Raises:
      ValueError: the centre is no vector of finite numbers, there are no pairs, or the spread is not above 0.
    """
    start = np.array(centre, np.float32)
    if start.ndim != 1 or not len(start) or not np.isfinite(start).all():
        raise ValueError(f"centre of shape {start.shape}: a search starts from a vector of one or more finite numbers")
    if num_pairs < 1:
        raise ValueError(f"num_pairs {num_pairs}: a generation needs at least one pair")
    if not 0.0 < spread < np.inf:
        raise ValueError(f"spread {spread}: the deviation of the noise must be above 0, and finite")
    return start


def candidate_name(generation: int, pair: int, sign: int, seed: int) -> str:
    """How a candidate is told in messages; sign 0 is +, 1 is -."""
    return f"pair {pair}, sign {'+-'[sign]}, of generation {generation}, seed {seed}"


def check_returns(returns: np.ndarray, used: np.ndarray, *, generation: int, seed: int) -> None:
    """Make sure that the returns [N, 2] of all used [N] pairs are numbers.

    Raises:
      ObjectiveError: one is not; names generation, pair, sign and seed, by which its candidate is made again.
    """
    wrong = np.argwhere(~np.isfinite(returns) & used[:, None])
    if len(wrong):
        pair, sign = (int(number) for number in wrong[0])
        raise ObjectiveError(
            f"the objective returned {returns[pair, sign]} for {candidate_name(generation, pair, sign, seed)}"
            + (f", and {len(wrong) - 1} more such returns" if len(wrong) > 1 else "")
            + ": give finite numbers, very bad ones for what must not be"
        )


def check_shapes(returns: np.ndarray, used: np.ndarray) -> None:
    """What ``weigh`` is given.

    Raises:
      ValueError: shapes are not [N, 2] and [N], or no pair is used.
    """
    if returns.ndim != 2 or returns.shape[1:] != (2,) or used.shape != returns.shape[:1]:
        raise ValueError(f"returns {returns.shape} and used {used.shape}: they must be [N, 2] and [N]")
    if not used.any():
        raise ValueError(f"none of {len(used)} pairs is used: nothing can be learnt from them")


def sum_of(sums: Mapping[int, np.ndarray], power: int, size: int) -> np.ndarray:
    """One of the sums that ``tell`` is given, [P] float64.

    Raises:
      ValueError: it is missing, has another size or is not finite.
    """
    if power not in sums or np.shape(sums[power]) != (size,):
        shape = np.shape(sums[power]) if power in sums else None
        raise ValueError(f"the sum of power {power} has shape {shape}: it must be ({size},)")
    if not np.isfinite(sums[power]).all():
        raise ValueError(f"the sum of power {power} is not finite: were the returns checked?")
    return sums[power]


def restored(state: Mapping[str, np.ndarray], name: str, like: np.ndarray) -> np.ndarray:
    """A copy of an array of a saved state, of the shape and type of ``like``.

    Raises:
      ValueError: it is missing or has another shape or type.
    """
    array = state.get(name)
    if array is None or array.shape != like.shape or array.dtype != like.dtype:
        found = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise ValueError(f"the saved state has {found} for {name!r}: it must be {like.dtype} {like.shape}")
    copy: np.ndarray = array.copy()
    return copy


def length_of(vector: np.ndarray) -> float:
    """Euclidean length, in float64. Without BLAS, whose sums of long vectors depend on the number of its threads."""
    return math.sqrt(float(np.square(vector, dtype=np.float64).sum()))


def summed(noise: Noise, generation: int, weighing: Weighing, *, block: int = 64) -> dict[int, np.ndarray]:
    """The sums, in one process: power -> [P] float64. Noise is made ``block`` pairs at a time."""
    sums = {power: np.zeros(noise.size) for power in weighing.weights}
    indices = np.flatnonzero(weighing.used)
    for start in range(0, len(indices), block):
        chosen = indices[start : start + block]
        rows = noise.rows(generation, chosen).astype(np.float64) if sums else None
        for power, weights in weighing.weights.items():
            assert rows is not None
            sums[power] += np.einsum("i,ip->p", weights[chosen], rows**power)  # no BLAS: threads change no bits
    return sums
