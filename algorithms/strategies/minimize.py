"""Any of the strategies on a plain function, in this process: ``minimize(f, x0)``.

    result = minimize(lambda x: ((x - 1) ** 2).sum(), np.zeros(10))

Strategies maximise, so they are told -f. Parameters are float32, as a policy's are: a minimum at 1 is met to 1e-7.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...rllib.evolution.noise import PhiloxNoise
from .ars import ARS
from .cma_es import CMAES
from .open_es import OpenES
from .pgpe import PGPE
from .snes import SNES, default_pairs
from .strategy import ObjectiveError, Strategy, candidate_name, check_returns, pairs_of, summed

METHODS: dict[str, Callable[..., Strategy]] = {
    "ars": ARS,
    "cmaes": CMAES,
    "es": OpenES,
    "pgpe": PGPE,
    "snes": SNES,
}


@dataclass(frozen=True)
class Result:
    """How a search ended."""

    x: np.ndarray  #: [P] float64: the best of all that was tried, the last centre among it
    value: float  #: f(x)
    evaluations: int  #: Of f
    generations: int
    reason: Literal["target", "evaluations", "spread"]  #: Which limit was met


def minimize(
    f: Callable[[np.ndarray], float],
    x0: np.ndarray,
    *,
    method: str = "snes",
    population: int | None = None,
    max_evaluations: int = 10_000,
    target: float = -np.inf,
    least_spread: float = 1e-7,
    seed: int = 0,
    **settings: float | str | None,
) -> Result:
    """Look for a minimum.

    Args:
      f: Takes [P] float64, gives a number.
      x0: [P] where to start.
      method: ars, cmaes, es, pgpe or snes.
      population: Tries of a generation, even; None for 4 + 3 ln P, and at least 20 for those that follow gradients
        (ars, es, pgpe).
      max_evaluations: A generation that would exceed them is not begun.
      target: Enough is a value as low as this.
      least_spread: Enough is a mean deviation below this.
      seed: Of the noise.
      **settings: Of the method, see its class: spread, learning_rate, ...

    Raises:
      ObjectiveError: f raised, or gave no finite number; names the generation, the pair and the seed, and has the
        candidate: ``f(error.x)`` does it again, and so does the same call.
      ValueError: an unknown method or setting, an odd population, a number out of range.
    """
    start = np.asarray(x0, np.float64)
    if start.ndim != 1 or not len(start):
        raise ValueError(f"x0 of shape {start.shape}: it must be a vector of one or more numbers")
    noise = PhiloxNoise(seed=seed, size=len(start))
    strategy = _strategy(start, method, population, seed, settings)
    best, lowest, evaluations = start, np.inf, 0
    reason: Literal["target", "evaluations", "spread"] = "evaluations"
    while evaluations + 2 * strategy.ask().num_pairs < max_evaluations:
        asked = strategy.ask()
        vectors = asked.pairs(noise, np.arange(asked.num_pairs)).astype(np.float64)
        values = _values(f, vectors, asked.generation, seed)
        evaluations += values.size
        first = np.unravel_index(values.argmin(), values.shape)
        if values[first] < lowest:
            best, lowest = vectors[first], float(values[first])
        weighing = strategy.weigh(-values, np.ones(len(values), bool))
        figures = strategy.tell(summed(noise, asked.generation, weighing), weighing)
        if lowest <= target or figures["spread"] < least_spread:
            reason = "target" if lowest <= target else "spread"
            break
    centre = strategy.centre.astype(np.float64)
    name = f"the centre after {strategy.generation} generations, seed {seed}"
    value = _value(f, centre, name)
    if not np.isfinite(value):
        raise ObjectiveError(f"the objective returned {value} for {name}: give finite numbers", centre)
    if value < lowest:
        best, lowest = centre, value
    return Result(best, lowest, evaluations + 1, strategy.generation, reason)


def _strategy(
    start: np.ndarray,
    method: str,
    population: int | None,
    seed: int,
    settings: dict[str, float | str | None],
) -> Strategy:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(METHODS)}")
    known = [
        name for name in inspect.signature(METHODS[method]).parameters if name not in ("centre", "num_pairs", "seed")
    ]
    for name in settings:
        if name not in known:
            raise ValueError(f"unknown setting {name!r} of {method}: choose from {', '.join(known)}")
    if method == "cmaes":  # draws for itself
        settings = settings | {"seed": seed}
    few = default_pairs(len(start))
    pairs = pairs_of(population) if population is not None else few if method in ("snes", "cmaes") else max(few, 10)
    return METHODS[method](start, num_pairs=pairs, **settings)


def _values(f: Callable[[np.ndarray], float], vectors: np.ndarray, generation: int, seed: int) -> np.ndarray:
    """The values [N, 2] float64 at vectors [N, 2, P]."""
    values = np.empty(vectors.shape[:2])
    for pair, sign in np.ndindex(*values.shape):
        values[pair, sign] = _value(f, vectors[pair, sign], candidate_name(generation, pair, sign, seed))
    try:
        check_returns(values, np.ones(len(values), bool), generation=generation, seed=seed)
    except ObjectiveError as error:
        error.x = vectors[~np.isfinite(values)][0]
        raise
    return values


def _value(f: Callable[[np.ndarray], float], x: np.ndarray, name: str) -> float:
    """f(x), of which f gets a copy.

    Raises:
      ObjectiveError: f raised, or gave something that is no number.
    """
    try:
        given = f(x.copy())
    except Exception as error:
        raise ObjectiveError(f"the objective raised {type(error).__name__} for {name}: {error}", x) from error
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError) as error:
        told = " ".join(repr(given).split())
        raise ObjectiveError(f"the objective gave {told:.80} for {name}: that is no number", x) from error
