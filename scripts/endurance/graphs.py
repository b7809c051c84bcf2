"""Random graphs of short tasks whose every result is known beforehand.

    random_graph(seed) --> [Node] --+--> results(nodes)        the same arithmetic, in this process
                                    `--> submit(nodes)         as tasks: refs, to be compared by `differences`

A node adds its parents' values, weighted, modulo a prime, so that a lost, doubled or swapped result changes the sum.
Some nodes give an array instead, which goes through shared memory and outlives the worker that made it; some hand half
of their work to tasks of their own, which then have an owner that can be killed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import shoal

_PRIME = 2**31 - 1
#: int64 values of an array: 256 KiB, more than what rides in messages.
_ARRAY = 32 * 1024
Kind = Literal["number", "array", "nested"]


@dataclass(frozen=True)
class Node:
    """A task: what it computes, from which nodes before it, and how long it pretends to work."""

    kind: Kind
    factor: int
    parents: tuple[int, ...]
    work_s: float


def random_graph(seed: int, size: int = 200) -> list[Node]:
    """A graph of `size` nodes in an order in which each stands behind its parents."""
    source = random.Random(seed)
    nodes = []
    for position in range(size):
        kinds: list[Kind] = ["number", "array", "nested"]
        (kind,) = source.choices(kinds, weights=[6, 2, 1])
        parents = source.sample(range(position), min(position, source.randrange(4)))
        nodes.append(Node(kind, source.randrange(1, _PRIME), tuple(parents), source.choice([0.0, 0.002, 0.01, 0.03])))
    return nodes


def combine(factor: int, values: Sequence[object]) -> int:
    """The number that a node makes of its parents' values; the order of the parents counts."""
    total = factor
    for value in values:
        total = (total * 31 + _number(value)) % _PRIME
    return total


def value_of(kind: Kind, number: int) -> object:
    """How a node gives its number."""
    return np.full(_ARRAY, number, dtype=np.int64) if kind == "array" else number


def _number(value: object) -> int:
    """Back from `value_of`; an array must be the same all over."""
    if isinstance(value, np.ndarray):
        first = int(value[0])
        return first if bool((value == first).all()) else -1
    return int(value) if isinstance(value, int) else -1


def results(nodes: Sequence[Node]) -> list[int]:
    """The number of every node, computed here."""
    numbers: list[int] = []
    for node in nodes:
        numbers.append(combine(node.factor, [numbers[parent] for parent in node.parents]))
    return numbers


def differences(nodes: Sequence[Node], values: Sequence[object]) -> list[str]:
    """What is wrong with the values that the tasks gave, a line each."""
    wrong = []
    for position, (node, expected, value) in enumerate(zip(nodes, results(nodes), values, strict=True)):
        if _number(value) != expected or isinstance(value, np.ndarray) != (node.kind == "array"):
            wrong.append(f"node {position} ({node.kind}) gave {_told(value)}, not {expected}")
    return wrong


def _told(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {np.unique(value)[:3]}"
    return repr(value)


def _run(kind: Kind, factor: int, work_s: float, *values: object) -> object:
    time.sleep(work_s)
    if kind != "nested":
        return value_of(kind, combine(factor, values))
    # The same sum in steps, each a task of this task's own.
    total: Any = factor
    for value in values:
        total = STEP.remote(total, value)
    return shoal.get(total) if values else total


def _step(total: int, value: object) -> int:
    return combine(total, [value])


#: As tasks that may be run again as often as their workers die.
RUN: Any = shoal.remote(max_retries=-1)(_run)
STEP: Any = shoal.remote(max_retries=-1)(_step)


def submit(nodes: Sequence[Node]) -> list[shoal.ObjectRef]:
    """Every node as a task."""
    refs: list[shoal.ObjectRef] = []
    for node in nodes:
        parents = [refs[parent] for parent in node.parents]
        refs.append(RUN.remote(node.kind, node.factor, node.work_s, *parents))
    return refs
