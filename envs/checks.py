"""Numbers that no learner can use, found in whole arrays and then told with copy and step.

Looking costs 0.5 us for an array, so it is done each step; which copy gave the number is asked only when there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .arrays import Arrays
from .columns import ColumnSpec
from .vector import Checks, EnvFailure

#: Kinds of columns whose numbers become places in a one-hot row: outside their space there are none.
_CHOICES = ("discrete", "multi_discrete")
#: Nets compute in float32, so a larger number is as good as infinite.
_GREATEST = float(np.finfo(np.float32).max)


def check_outcome(
    where: str, step: int, specs: Mapping[str, ColumnSpec], row: Sequence[np.ndarray], reward: float, checks: Checks
) -> None:
    """Refuse what one copy gave in one step, if it is wrong.

    Args:
      where: worker and copy, for the message.
      step: steps of the episode that led to the observation; 0 for the first, which has no reward.
      specs: of the columns.
      row: the observation, by column.
      reward: of that step.
      checks: what to look for.

    Raises:
      EnvFailure: names the step, and what it gave.
    """
    call = call_of(step)
    if step and checks.finite and not math.isfinite(reward):
        raise EnvFailure(f"{where}: its {call} gave the reward {reward:g}")
    for (name, spec), value in zip(specs.items(), row, strict=True):
        if checks.finite and value.dtype.kind == "f" and not _are_finite(value):
            wrong = "that is not finite" + (" in float32" if np.isfinite(value).all() else "")
        elif _is_bounded(spec, checks) and not _is_within(value, *spec.bounds()):
            low, high = (_shown(bound) for bound in spec.bounds())
            wrong = f"outside its space (from {low} to {high})"
        else:
            continue
        what = "an observation" if len(row) == 1 else f"an observation {name!r}"
        raise EnvFailure(f"{where}: its {call} gave {what} {wrong}: {_shown(value)}")


class Watch:
    """Looks at all numbers of a step.

    Args:
      arrays: that hold the steps.
      specs: of the columns.
      checks: what to look for.
    """

    def __init__(self, arrays: Arrays, specs: Mapping[str, ColumnSpec], checks: Checks) -> None:
        self._arrays, self._checks = arrays, checks
        self._reals = [name for name, spec in specs.items() if checks.finite and spec.dtype.kind == "f"]
        columns = [arrays.observations[name] for name in self._reals]
        watched = [array.reshape(-1) for array in (arrays.rewards, *columns)] if checks.finite else []
        self._watched = [
            (numbers, np.empty(numbers.shape, bool), np.empty_like(numbers) if _may_be_too_large(numbers) else None)
            for numbers in watched
        ]
        self._bounded = [(name, *spec.bounds()) for name, spec in specs.items() if _is_bounded(spec, checks)]

    def is_right(self, ended: np.ndarray | None) -> bool:
        """Whether all numbers of the step can be used.

        Args:
          ended: [N] bool, the rows whose final observations count; None if none does.
        """
        for numbers, finite, sizes in self._watched:
            if sizes is None:
                np.isfinite(numbers, finite)
            else:
                np.less_equal(np.abs(numbers, sizes), _GREATEST, finite)  # NaN is not
            # A third of the time of isfinite(numbers).all().
            if np.count_nonzero(finite) < len(numbers):
                return False
        if ended is not None:
            last = self._arrays.final_observations
            if not all(_are_finite(last[name][ended]) for name in self._reals):
                return False
            if not all(_is_within(last[name][ended], low, high) for name, low, high in self._bounded):
                return False
        now = self._arrays.observations
        return not self._bounded or all(_is_within(now[name], low, high) for name, low, high in self._bounded)


def call_of(step: int) -> str:
    """A step of an episode in words; 0 is the reset that began it."""
    return f"step {step}" if step else "reset"


def place_of(worker_index: int | None, env_index: int) -> str:
    """Where a copy lives, in words."""
    return f"{'' if worker_index is None else f'worker {worker_index}, '}environment {env_index}"


def _is_bounded(spec: ColumnSpec, checks: Checks) -> bool:
    return checks.bounds or (checks.finite and spec.kind in _CHOICES)


def _may_be_too_large(values: np.ndarray) -> bool:
    return values.dtype.itemsize > np.dtype(np.float32).itemsize


def _are_finite(values: np.ndarray) -> bool:
    if _may_be_too_large(values):
        return bool((np.abs(values) <= _GREATEST).all())
    return bool(np.isfinite(values).all())


def _is_within(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    return bool((values >= low).all() and (values <= high).all())


def _shown(value: np.ndarray) -> str:
    return np.array2string(value, threshold=8, separator=", ").replace("\n", "")
