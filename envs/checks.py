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
        if checks.finite and value.dtype.kind == "f" and not np.isfinite(value).all():
            wrong = "that is not finite"
        elif checks.bounds and not _within_bounds(spec, value):
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
        self._arrays, self._specs, self._checks = arrays, specs, checks
        columns = [arrays.observations[name] for name, spec in specs.items() if spec.dtype.kind == "f"]
        watched = [array.reshape(-1) for array in (arrays.rewards, *columns)] if checks.finite else []
        self._watched = [(numbers, np.empty(numbers.shape, bool)) for numbers in watched]

    def is_right(self, ended: np.ndarray | None) -> bool:
        """Whether all numbers of the step can be used.

        Args:
          ended: [N] bool, the rows whose final observations count; None if none does.
        """
        for numbers, finite in self._watched:
            # A third of the time of isfinite(numbers).all().
            if np.count_nonzero(np.isfinite(numbers, finite)) < len(numbers):
                return False
        if ended is not None:
            for name, spec in self._specs.items():
                last = self._arrays.final_observations[name][ended]
                if self._checks.finite and spec.dtype.kind == "f" and not np.isfinite(last).all():
                    return False
                if self._checks.bounds and not _within_bounds(spec, last):
                    return False
        if self._checks.bounds:
            return all(_within_bounds(spec, self._arrays.observations[name]) for name, spec in self._specs.items())
        return True


def call_of(step: int) -> str:
    """A step of an episode in words; 0 is the reset that began it."""
    return f"step {step}" if step else "reset"


def place_of(worker_index: int | None, env_index: int) -> str:
    """Where a copy lives, in words."""
    return f"{'' if worker_index is None else f'worker {worker_index}, '}environment {env_index}"


def _within_bounds(spec: ColumnSpec, values: np.ndarray) -> bool:
    low, high = spec.bounds()
    return bool((values >= low).all() and (values <= high).all())


def _shown(value: np.ndarray) -> str:
    return np.array2string(value, threshold=8, separator=", ").replace("\n", "")
