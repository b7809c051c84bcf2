"""Standard normal vectors that have numbers: what belongs to a pair follows from (seed, generation, pair) alone.

An evolution strategy tries ``centre + spread * noise`` and ``centre - spread * noise``. Who evaluates a pair sends back
two returns and no vector: whoever needs the vector makes it again from its number, on any machine, in any order, also
after the process that made it first has died. Two ways to make them:

    TableNoise    a slice of a long table of normals: nothing to compute, a hash says where it begins (Salimans et al.
                  2017, section 2.1). The table is one read-only array, shared by all processes of a machine.
    PhiloxNoise   a counter-based generator (Salmon et al. 2011): no table, vectors independent of each other, and some
                  6 ns a number.

Invariants: ``rows(g, indices)[j]`` depends on (seed, g, indices[j]) and P only. No number is beyond ``NOISE_LIMIT``, so
that sums of weighted noise have a bound that is known before they are made. The bits are those of numpy's generators:
the same for the same numpy (NEP 19 lets a later one change them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

#: No number of noise is larger: beyond 8 deviations a normal falls once in 8e14 numbers, so cutting there changes none.
NOISE_LIMIT = 8.0

#: Numbers in a table if not said: 64 MiB. Two slices of 10,000 numbers out of it overlap once in 800 pairs.
TABLE_LENGTH = 2**24

_WORD = np.uint64
# The increment and the multipliers of SplitMix64 (Steele, Lea, Flood 2014, figure 17): a bijection of 64-bit words
# whose outputs pass BigCrush for inputs 0, 1, 2, ...
_GOLDEN, _MULTIPLIER1, _MULTIPLIER2 = _WORD(0x9E3779B97F4A7C15), _WORD(0xBF58476D1CE4E5B9), _WORD(0x94D049BB133111EB)


class Noise(Protocol):
    """Where the vectors come from."""

    @property
    def size(self) -> int:
        """P, the numbers of one vector."""
        ...

    def rows(self, generation: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The vectors of these pairs of a generation, [n, P] float32, within NOISE_LIMIT."""
        ...


def noise_table(seed: int, length: int = TABLE_LENGTH) -> np.ndarray:
    """The table that belongs to a seed: [length] float32, read-only.

    Raises:
      ValueError: a seed below 0, or no length.
    """
    if seed < 0 or length < 1:
        raise ValueError(f"a table of noise needs a seed from 0 up and a length of at least 1: got {seed} and {length}")
    table = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed]))).standard_normal(length, np.float32)
    np.clip(table, -NOISE_LIMIT, NOISE_LIMIT, out=table)
    table.flags.writeable = False
    return table


class TableNoise:
    """Slices of a table.

    Args:
      table: [T] float32 of ``noise_table``, perhaps a view of shared memory. It is not copied.
      seed: Says where in the table a pair's slice begins.
      size: P.

    Raises:
      ValueError: the table has fewer than P numbers.
    """

    def __init__(self, table: np.ndarray, *, seed: int, size: int) -> None:
        if len(table) < size:
            raise ValueError(f"a table of {len(table):,} numbers of noise is too short for vectors of {size:,}")
        self.size = size
        self._seed = seed
        self._slices = np.lib.stride_tricks.sliding_window_view(table, size)  # [T - P + 1, P], no copy

    def rows(self, generation: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """As ``Noise.rows``; a copy."""
        rows: np.ndarray = self._slices[self.offsets(generation, indices)]
        return rows

    def offsets(self, generation: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where the slices of these pairs begin, [n] int64."""
        words = hashed(self._seed, generation, indices)
        # The remainder prefers low offsets by less than one part in 2**39 for tables below 2**25.
        offsets: np.ndarray = (words % _WORD(len(self._slices))).astype(np.int64)
        return offsets


class PhiloxNoise:
    """Normals from Philox4x64-10: seed and generation are its key, the pair is the upper half of its counter.

    Args:
      seed: From 0 to 2**64 - 1.
      size: P.

    Raises:
      ValueError: a seed out of range.
    """

    def __init__(self, *, seed: int, size: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed {seed}: noise needs one from 0 to 2**64 - 1")
        self.size = size
        self._seed = seed
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._start = self._bits.state  # a fresh one, nothing drawn and nothing buffered

    def rows(self, generation: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """As ``Noise.rows``."""
        rows = np.empty((len(indices), self.size), np.float32)
        # Setting a generator's state takes 4 us, a new generator 20.
        state, key = self._start.copy(), np.array([self._seed, generation], np.uint64)
        for row, index in zip(rows, indices, strict=True):
            state["state"] = {"counter": np.array([0, 0, index, 0], np.uint64), "key": key}
            self._bits.state = state
            self._generator.standard_normal(dtype=np.float32, out=row)
        np.clip(rows, -NOISE_LIMIT, NOISE_LIMIT, out=rows)
        return rows


def hashed(seed: int, generation: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """A 64-bit word for each (seed, generation, index), [n] uint64, with which anything can be drawn."""
    with np.errstate(over="ignore"):  # words wrap, which is meant
        words = _mixed(_mixed(_WORD(seed) + _GOLDEN) ^ _WORD(generation))
        return _mixed(words ^ np.asarray(indices).astype(np.uint64))


def _mixed(words: np.ndarray | np.uint64) -> np.ndarray:
    words = np.asarray(words + _GOLDEN)
    words = (words ^ (words >> _WORD(30))) * _MULTIPLIER1
    words = (words ^ (words >> _WORD(27))) * _MULTIPLIER2
    return np.asarray(words ^ (words >> _WORD(31)))
