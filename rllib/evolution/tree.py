"""The shape of a tree of aggregators over a run's workers. Pure.

    grow(8, 2)  ->  2 branches, each with 2 branches, each with 2 workers

Workers are numbered; a branch has consecutive ones. No aggregator, and not the driver, has more than ``fan_out``
children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Branch:
    """An aggregator's place."""

    workers: range  #: those below it, however far
    branches: tuple[Branch, ...] = ()  #: aggregators directly below it; none: its children are the workers themselves


def grow(num_workers: int, fan_out: int) -> tuple[Branch, ...]:
    """The branches directly below the driver, at most ``fan_out``.

    Args:
      num_workers: At least 1.
      fan_out: Most children of anybody, at least 2.

    Raises:
      ValueError: a number is too small.
    """
    if num_workers < 1 or fan_out < 2:
        raise ValueError(f"a tree over {num_workers} workers with a fan-out of {fan_out}: at least 1, and 2")
    level = [Branch(workers) for workers in _cut(range(num_workers), fan_out)]
    while len(level) > fan_out:
        groups = [level[group.start : group.stop] for group in _cut(range(len(level)), fan_out)]
        level = [
            Branch(range(group[0].workers.start, group[-1].workers.stop), _without_only(group)) for group in groups
        ]
    return tuple(level)


def _without_only(group: Sequence[Branch]) -> tuple[Branch, ...]:
    """Branches, of which a single one would only pass on what it is told: its own stand for it."""
    return group[0].branches if len(group) == 1 else tuple(group)


def _cut(numbers: range, most: int) -> list[range]:
    """Parts in order, as few as there must be for none to have more than ``most``, as equal as can be."""
    count = -(-len(numbers) // most)
    ends = [len(numbers) * part // count for part in range(count + 1)]
    return [numbers[start:end] for start, end in pairwise(ends)]
