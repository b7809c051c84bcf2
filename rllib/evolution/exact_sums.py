"""Sums of weighted noise whose bits depend on nothing but weights and noise: any grouping, any order, any process.

Floating-point addition is not associative, so a sum over a tree of processes would change with the tree. Sums of whole
numbers do not. Pairs of noise are taken in *blocks*, fixed runs of ``BLOCK_PAIRS`` of them; a block is added up in
float64 in the order of its pairs, one element at a time (no BLAS, whose order is its own affair), then rounded once, to
a whole multiple of 2**-k, kept in an int64:

    share  --block by block-->  int64 [P]  + ... +  int64 [P]  = int64 [P]  --``as_floats``-->  float64 [P]

k is chosen so that no sum can overflow: with |noise| <= NOISE_LIMIT,

    |Σ_i w_i ε_i^p|  <=  Σ_i |w_i| NOISE_LIMIT^p  <  2**e,        k = 61 - e

so the whole sum is below 2**61, and rounding adds at most a half for each of fewer than 2**31 blocks. A block is off by
2**-62 of the bound, thousands of times less than float64 loses in adding it up.

Pure numpy. The driver makes a ``Share`` of all pairs, ``split`` cuts it for a tree at the borders of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from .noise import NOISE_LIMIT, Noise

#: Pairs of a block. 16 rows are enough to pay for the rounding, and few enough to stay in a cache.
BLOCK_PAIRS = 16
#: Numbers of each row that are worked on at once: 16 rows of 4096 float64 are 512 KiB.
_COLUMNS = 4096
_BITS = 61

#: Power of the noise -> [P] int64, in multiples of 2**-k.
Sums = dict[int, np.ndarray]


@dataclass(frozen=True)
class Share:
    """Pairs to be summed up, with their weights: all of a generation, or whole blocks of it."""

    generations: np.ndarray  #: [n] int64: whose noise it is, see ``noise.py``
    pairs: np.ndarray  #: [n] int64: number of the pair in that generation
    weights: Mapping[int, np.ndarray]  #: power of the noise -> [n] float64
    exponents: Mapping[int, int]  #: power -> k

    @classmethod
    def of(cls, generations: np.ndarray, pairs: np.ndarray, weights: Mapping[int, np.ndarray]) -> Share:
        """All pairs of a sum; those without weight are left out.

        Args:
          generations, pairs: [N] whole numbers.
          weights: Power -> [N] float64.

        Raises:
          ValueError: a weight is not finite.
        """
        for power, column in weights.items():
            if not np.isfinite(column).all():
                raise ValueError(f"weights of power {power}: pair {int(np.argmin(np.isfinite(column)))} has no number")
        used = np.zeros(len(pairs), bool)
        for column in weights.values():
            used |= column != 0.0
        return cls(
            generations[used].astype(np.int64),
            pairs[used].astype(np.int64),
            {power: column[used] for power, column in weights.items()},
            {power: exponent(column, power) for power, column in weights.items()},
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def split(self, capacities: Sequence[int]) -> list[Share]:
        """Parts of whole blocks, in order, as large as these numbers in proportion; some may be empty."""
        blocks = -(-len(self) // BLOCK_PAIRS)
        total = sum(capacities)
        ends = [BLOCK_PAIRS * (blocks * until // total) for until in accumulate(capacities, initial=0)]
        return [self._part(slice(start, end)) for start, end in pairwise(ends)]

    def _part(self, which: slice) -> Share:
        weights = {power: column[which] for power, column in self.weights.items()}
        return Share(self.generations[which], self.pairs[which], weights, self.exponents)


def exponent(weights: np.ndarray, power: int) -> int:
    """k, by which the sum of these weights times noise to this power can be kept as whole multiples of 2**-k."""
    _, above = math.frexp(math.fsum(np.abs(weights).tolist()) * NOISE_LIMIT**power)
    return _BITS - above


def exact_sums(noise: Noise, share: Share) -> Sums:
    """Σ_i w_i ε_i^p over the pairs of a share: power -> [P] int64, in multiples of 2**-exponent."""
    sums = {power: np.zeros(noise.size, np.int64) for power in share.weights}
    for start in range(0, len(share), BLOCK_PAIRS):
        block = slice(start, start + BLOCK_PAIRS)
        rows = _rows(noise, share.generations[block], share.pairs[block])
        for first in range(0, noise.size, _COLUMNS):
            columns = slice(first, first + _COLUMNS)
            for power, weights in share.weights.items():
                terms = rows[:, columns].astype(np.float64)
                if power != 1:
                    terms **= power
                terms *= weights[block, None]
                # Along the first axis numpy adds row to row: each element's terms in the order of the pairs.
                total = np.ldexp(np.add.reduce(terms, axis=0), share.exponents[power])
                sums[power][columns] += np.rint(total).astype(np.int64)
    return sums


def as_floats(sums: Sums, share: Share) -> dict[int, np.ndarray]:
    """Whole numbers of a whole sum -> power -> [P] float64, rounded once."""
    return {power: np.ldexp(total.astype(np.float64), -share.exponents[power]) for power, total in sums.items()}


def added(parts: Sequence[Sums]) -> Sums:
    """Sums of shares as one: exact, in any order. At least one part; none is changed."""
    first, *others = parts
    total = {power: numbers.copy() for power, numbers in first.items()}
    for other in others:
        for power, numbers in other.items():
            total[power] += numbers
    return total


def _rows(noise: Noise, generations: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Noise [n, P] float32 of pairs, most of which are of one generation."""
    if (generations == generations[0]).all():
        return noise.rows(int(generations[0]), pairs)
    rows = np.empty((len(pairs), noise.size), np.float32)
    for generation in np.unique(generations):
        of_it = generations == generation
        rows[of_it] = noise.rows(int(generation), pairs[of_it])
    return rows
