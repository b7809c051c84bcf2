"""What a return is worth beside the others of its generation: utilities, mostly by rank.

Ranks make an update blind to the scale of returns and to outliers (Wierstra et al. 2014, section 3.1). Candidates with
equal returns get the mean of the utilities that their ranks would have: otherwise their numbers would decide, and a
generation in which all returns are the same would still move the centre.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Shaping = Literal["centered_ranks", "standardized", "raw"]


def utilities(returns: np.ndarray, used: np.ndarray, shaping: Shaping) -> np.ndarray:
    """Utilities [N, 2] float64 of returns [N, 2]; 0 where a pair is not used [N] bool.

    Args:
      returns: of both signs.
      used: which pairs count.
      shaping: centered_ranks, from -1/2 for the worst to 1/2 for the best (Salimans et al. 2017, section 2);
        standardized, with mean 0 and deviation 1, or all 0 where returns are equal; raw, as they are.

    Raises:
      ValueError: there is no such shaping.
    """
    known = returns[used].ravel()
    if shaping == "centered_ranks":
        values = by_rank(known, np.linspace(-0.5, 0.5, len(known)))
    elif shaping == "standardized":
        deviation = known.std()
        values = (known - known.mean()) / (deviation if deviation > 0.0 else 1.0)
    elif shaping == "raw":
        values = known
    else:
        raise ValueError(f"unknown shaping {shaping!r}: choose from centered_ranks, standardized, raw")
    return scattered(values, used)


def by_rank(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``table[r]`` for the value of rank r, [M]; rank 0 is the lowest. Equal values get the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    totals = np.add.reduceat(table, ends - counts)
    means: np.ndarray = (totals / counts)[group]
    return means


def scattered(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Values [2 * number of used pairs] in their places [N, 2] among all pairs; 0 elsewhere."""
    placed = np.zeros((len(used), 2))
    placed[used] = values.reshape(-1, 2)
    return placed
